"""Which model a name means: the first of these that there is, and no other in its place.

1. A model of the package, by its name. A directory of that name is meant by "./name".
2. A directory, or a zip of `MuZero.save` whose author is trusted.
3. "org/repo" on the Hugging Face Hub, at a commit. Where a commit is given, this alone is meant.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from muzero_agent.zoo.bundled import MODELS, bundled
from muzero_agent.zoo.errors import ModelNotFoundError, UntrustedModelError
from muzero_agent.zoo.files import CARD, CONFIG, WEIGHTS, ModelFiles

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?", re.ASCII)


def open_model(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    names: Sequence[str] = (CONFIG, WEIGHTS, CARD),
) -> ModelFiles:
    """The files of the model that is meant; where they were found is logged.

    :param name: of a model in the package, a directory, or "org/repo", also "org/repo@revision"
    :param revision: of a repository on the hub: the hash of a commit
    :param cache_dir: of what the hub gave; None: `huggingface_hub`'s
    :param local_files_only: ask no hub
    :param names: which files are fetched from a hub, besides the manifest
    :raises ModelNotFoundError: if there is none
    :raises UntrustedModelError: if it is a file that can hold code
    """
    on_the_hub = _ON_THE_HUB.fullmatch(name) if isinstance(name, str) else None
    told = on_the_hub[2] if on_the_hub else None
    if told and not _COMMIT.fullmatch(told) and revision is None and path_of(name).exists():
        on_the_hub = told = None  # a directory may be called like that
    if told and revision is not None and told != revision:
        raise ValueError(f"{name} with revision={revision!r}: give one of the two")
    commit = told or revision
    if commit is None:
        if isinstance(name, str) and name in bundled():
            log.info("%s: a model of the package, %s", name, MODELS / name)
            return ModelFiles(MODELS / name)
        path = path_of(name)
        if path.is_dir():
            log.info("%s: a directory, %s", name, path.resolve())
            return ModelFiles(path)
        if path.exists():
            raise UntrustedModelError(
                f"{path} is no model directory. If it is a .zip of `MuZero.save`: it holds "
                "pickles, which can run its author's code; if you trust them, `zoo.load(path, "
                "trust=True)` loads it, as `muzero-agent eval --trust` does, and `zoo.save` makes "
                "a directory of it"
            )
    elif on_the_hub is None:
        raise ValueError(
            f"revision={revision!r} is of a repository on the hub, and {str(name)!r} names none: "
            "give org/repo, or no revision"
        )
    if on_the_hub is not None and not str(name).startswith("."):
        from muzero_agent.zoo import hub  # takes long to import

        repo = on_the_hub[1]
        files = hub.fetch(
            repo, commit, cache_dir=cache_dir, local_files_only=local_files_only, names=names
        )
        log.info("%s: %s on the hub at commit %s, %s", name, repo, commit, files.directory)
        return files
    close = difflib.get_close_matches(str(name), bundled(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if path_of(f"{name}.zip").is_file():
        hint = f"; {name}.zip does: `zoo.load({f'{name}.zip'!r}, trust=True)` if it is yours"
    raise ModelNotFoundError(
        f"{str(name)!r} does not exist{hint}: give a model of the package "
        f"({', '.join(bundled())}), a directory, or org/repo on the hub"
    )


def path_of(name: object) -> Path:
    """As a path.

    :raises ModelNotFoundError: if there can be none such
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise ModelNotFoundError(
            f"{name!r} is no name of a model: give one of the package ({', '.join(bundled())}), a "
            "directory, or org/repo on the hub"
        )
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(f"{str(name)[:200]!r} does not exist: {error}") from None
    return path
