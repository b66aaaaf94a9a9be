"""Models on the Hugging Face Hub, by `huggingface_hub`: its cache, locks, progress bar and login.

What is asked for is a commit, so that a model is the same tomorrow. Only the files of a model
directory are fetched, none before its size is known; the weights may come from wherever the hub
keeps large files, since their hash is known by then, and the rest from the hub itself. A file that
turns out to be another one is removed from the cache.

HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_TOKEN mean what they mean to `huggingface_hub`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from muzero_agent.zoo.errors import (
    DamagedModelError,
    HubError,
    ModelError,
    ModelNotFoundError,
    printable,
)
from muzero_agent.zoo.files import (
    CARD,
    CONFIG,
    MANIFEST,
    MOST_BYTES,
    WEIGHTS,
    ModelFiles,
    blobs_of,
)

try:
    import huggingface_hub as hf
    import huggingface_hub.utils._http as http
    from huggingface_hub import constants
    from huggingface_hub import errors as hf_errors
    from huggingface_hub.utils.tqdm import tqdm  # which knows when bars are not wanted
except ImportError as error:
    raise ImportError(
        "models on the hub need more than is installed: pip install 'muzero-agent[hub]'"
    ) from error

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
# What may go wrong on the way; its bases are the errors of the HTTP library, and OSError.
_FAILURES: tuple[type[Exception], ...] = (
    hf_errors.HfHubHTTPError,
    *(base for base in hf_errors.HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
_MISSING = (
    hf_errors.RepositoryNotFoundError,
    hf_errors.RevisionNotFoundError,
    hf_errors.EntryNotFoundError,
)


def fetch(
    repo: str,
    revision: str | None,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    names: Sequence[str] = (CONFIG, WEIGHTS, CARD),
) -> ModelFiles:
    """The files of a model, from the cache if they are there.

    :param repo: "org/name"
    :param revision: hash of a commit, 40 hexadecimal digits
    :param cache_dir: None: `huggingface_hub`'s
    :param local_files_only: ask nobody; what is not in the cache is missing
    :param names: which files, besides the manifest
    :raises ModelNotFoundError: if there is no such repository, commit or file
    :raises HubError: if the hub cannot be reached, or answers amiss
    :raises DamagedModelError: if a file is not what the manifest says, or larger than it may be
    :raises ValueError: if the revision is no commit; what "main" is now is told
    """
    _check_name(repo)
    offline = local_files_only or constants.is_offline_mode()
    if revision is None or not COMMIT.fullmatch(revision):
        raise ValueError(_advice(repo, revision, offline))
    folder = _fetch_file(repo, revision, MANIFEST, cache_dir, offline, None)
    files = _open(folder, offline)
    assert files.manifest is not None
    for name in names:
        entry = files.manifest.files.get(name)  # type: ignore[call-overload]
        if entry is None:
            continue
        try:
            _fetch_file(repo, revision, name, cache_dir, offline, entry.size)
            files.read(name)
        except DamagedModelError:
            if not offline:  # either of the two is the false one
                _forget(files.path(name))
                _forget(files.path(MANIFEST))
            raise
    return files


def push(
    directory: Path, repo: str, *, private: bool = False, token: str | None = None, message: str
) -> str:
    """Upload a model directory, which has been verified.

    :param repo: "org/name"; it is made if it does not exist
    :param token: None: that of `hf auth login`, or HF_TOKEN
    :return: the commit's hash, for `load(repo, revision=...)`
    :raises HubError: if the hub refuses
    """
    try:
        _check_name(repo)
    except ModelNotFoundError as error:
        raise ValueError(str(error)) from None
    api = hf.HfApi(endpoint=_endpoint(), token=token)
    with _hub_errors(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=directory,
            allow_patterns=list(MOST_BYTES),
            commit_message=message,
        )
    return str(done.oid)


def _fetch_file(
    repo: str,
    commit: str,
    name: str,
    cache_dir: str | Path | None,
    offline: bool,
    size: int | None,
) -> Path:
    """Fetch one file, if it is not there; what came with it tells the folder."""
    where = hf.try_to_load_from_cache(repo, name, cache_dir, revision=commit)
    if isinstance(where, str):
        log.debug("%s@%s: %s is in the cache", repo, commit, name)
        return Path(where).parent
    with _hub_errors(f"{repo}@{commit}: {name}"), _watched(name):
        if not offline:
            _check_before(repo, commit, name, size)
        path = hf.hf_hub_download(
            repo,
            name,
            revision=commit,
            cache_dir=cache_dir,
            local_files_only=offline,
            endpoint=_endpoint(),
            library_name="muzero-agent",
            tqdm_class=_bar_to(MOST_BYTES[name] if size is None else size, name),
        )
    return Path(path).parent


def _bar_to(most: int, name: str) -> type[tqdm]:
    """A progress bar that ends the download of a file that turns out to be larger than was told."""

    class Bar(tqdm):
        received = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            if self.received > most:
                raise HubError(
                    f"{name}: the hub sends more than the {most:,} bytes that it told of"
                )
            return super().update(n)

    return Bar


def _check_before(repo: str, commit: str, name: str, size: int | None) -> None:
    """What the hub says of a file before it is fetched."""
    endpoint = _endpoint() or constants.ENDPOINT
    url = hf.hf_hub_url(repo, name, revision=commit, endpoint=endpoint)
    told = hf.get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=endpoint)
    if told.commit_hash != commit:
        raise HubError(f"{url}: the hub answers with commit {told.commit_hash}, not {commit}")
    most = MOST_BYTES[name] if size is None else size
    if told.size is None or told.size > most or (size is not None and told.size != size):
        raise DamagedModelError(
            f"{url} is said to have {told.size} bytes, where "
            f"{f'{most:,} are the most' if size is None else f'its manifest says {size:,}'}: it "
            "was not fetched"
        )


_watching = threading.local()
"""`name`: of the file that this thread is fetching, if any."""
_ETAG = re.compile(r'(W/)?"?[0-9A-Va-z_-][0-9A-Za-z_-]{0,200}"?')  # a leading W would be lost


@contextmanager
def _watched(name: str) -> Iterator[None]:
    """Look at every answer while a file is fetched: `huggingface_hub` asks more than once, follows
    where it is sent, and takes the ETag for the name of a file in its cache."""
    _look_at_all_clients()
    _watching.name = name
    try:
        yield
    finally:
        _watching.name = None


def _look_at_all_clients() -> None:
    """`huggingface_hub` makes another client after a failure to connect, by this factory."""
    made_by = http._GLOBAL_CLIENT_FACTORY
    if not isinstance(made_by, _LookedAt):
        hf.set_client_factory(_LookedAt(made_by))


class _LookedAt:
    """Makes clients whose answers are looked at.

    :param factory: that of `huggingface_hub`, or the user's
    """

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory

    def __call__(self) -> Any:
        client = self.factory()
        client.event_hooks["response"].append(_look_at)
        return client


def _look_at(response: Any) -> None:
    name = getattr(_watching, "name", None)
    if name is None:
        return
    url = str(response.request.url)
    if response.request.method == "HEAD" and response.status_code < 400:
        for header in ("ETag", "X-Linked-Etag"):
            if header in response.headers and not _ETAG.fullmatch(response.headers[header]):
                raise HubError(f"{url}: the hub answers with an {header} that is none")
        if name != WEIGHTS:  # another way to be sent elsewhere; without it the file itself is asked
            response.headers.pop("X-Xet-Hash", None)
    if name != WEIGHTS and "Location" in response.headers:
        here, there = urlsplit(url), urlsplit(urljoin(url, response.headers["Location"]))
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise HubError(f"{url} is redirected to {there.netloc}, which is not followed")


def _open(folder: Path, offline: bool) -> ModelFiles:
    try:
        return ModelFiles(folder)
    except ModelError:
        if not offline:
            _forget(folder / MANIFEST)
        raise


def _forget(pointer: Path) -> None:
    """Take a file out of the cache, so that it is fetched anew the next time; what a link leads to
    is removed only where the cache keeps what its links lead to."""
    stores = blobs_of(pointer.parent.resolve())
    chain = [pointer]
    while chain[-1].is_symlink() and len(chain) <= len(stores):
        chain.append((chain[-1].parent / chain[-1].readlink()).absolute())
    try:
        for link in chain:
            where = link.parent.resolve()
            if link is pointer or any(where.is_relative_to(store) for store in stores):
                link.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is damaged, and cannot be removed: %s", pointer, error)


def _check_name(repo: str) -> None:
    """Raise ModelNotFoundError if no repository can have this name."""
    try:
        hf.utils.validate_repo_id(repo)  # type: ignore[attr-defined]
        if repo.count("/") == 1:
            return
        reason = "give org/name"
    except hf_errors.HFValidationError as error:
        reason = str(error)
    raise ModelNotFoundError(f"{repo!r} names no repository on the hub: {reason}")


def _advice(repo: str, revision: str | None, offline: bool) -> str:
    text = (
        f"{repo}: give revision=..., or {repo}@..., the hash of a commit (40 hexadecimal digits), "
        f"since branches and tags{f', such as {revision},' if revision else ''} move"
    )
    if offline:
        return text
    try:
        info = hf.HfApi(endpoint=_endpoint()).model_info(repo, revision=revision)
    except _FAILURES:
        return text
    except (TypeError, ValueError, AttributeError):  # an answer that is none of the hub's
        return text
    return f"{text}; {revision or 'main'} is {printable(str(info.sha))} now"


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Errors of the hub under names of the zoo's."""
    try:
        yield
    except HubError:
        raise
    except hf_errors.LocalEntryNotFoundError as error:
        raise ModelNotFoundError(
            f"{what} is not in the cache, and the hub was not asked or did not answer: "
            f"{printable(str(error), 500)}"
        ) from error
    except _MISSING as error:
        reason = printable(str(error), 500)
        raise ModelNotFoundError(f"{what}: the hub has no such thing: {reason}") from error
    except _FAILURES as error:
        reason = printable(str(error), 500) or type(error).__name__
        raise HubError(f"{what}: the hub refused, or could not be reached: {reason}") from error


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")
