"""Models by name: list them, read their cards, check, load, copy and share them."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv

from muzero_agent.adapters.envs.given import as_env
from muzero_agent.muzero import MuZero
from muzero_agent.zoo.bundled import MODELS, bundled
from muzero_agent.zoo.cards import FORMAT_VERSION, Card, Evaluation
from muzero_agent.zoo.directory import (
    MOST_SIMULATIONS,
    check_card,
    convert,
    load_files,
    read_config,
    write,
)
from muzero_agent.zoo.errors import DamagedModelError
from muzero_agent.zoo.files import (
    CARD,
    CONFIG,
    MANIFEST,
    README,
    WEIGHTS,
    ModelFiles,
    describe,
    to_json,
)
from muzero_agent.zoo.sources import open_model, path_of

MOST_UNZIPPED = 4 << 30  # bytes


class Entry(NamedTuple):
    """A model of the package.

    :param name: for `load`
    :param env: id of its environment
    :param evaluations: how good it is
    :param num_bytes: of its files
    """

    name: str
    env: str
    evaluations: list[Evaluation]
    num_bytes: int
    licence: str


class Checked(NamedTuple):
    """A file of a model that was found to be as it should.

    :param num_bytes: of it
    """

    name: str
    num_bytes: int
    sha256: str


def available() -> list[Entry]:
    """The models that come with the package."""
    entries = []
    for name in bundled():
        files = ModelFiles(MODELS / name)
        found = files.parse(Card, CARD)
        size = sum(files.path(file).stat().st_size for file in files.names())
        entries.append(Entry(name, found.env, found.evaluations, size, found.licence))
    return entries


def load(
    name: str | Path,
    env: GymEnv | str | None = None,
    device: torch.device | str = "auto",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust: bool = False,
    **overrides: Any,
) -> MuZero:
    """A model, ready to play or to learn on; no code in it is run, whoever wrote it.

    :param name: of a model in the package, a directory, or "org/repo" on the Hugging Face Hub;
        the first of these that exists is meant, and where it was found is logged
    :param env: to learn on in; to play, none is needed
    :param revision: of a repository on the hub: the hash of a commit
    :param cache_dir: of what the hub gave; None: `huggingface_hub`'s
    :param local_files_only: ask no hub
    :param trust: load a .zip of `MuZero.save` too, which can run its author's code
    :param overrides: arguments of `MuZero` that take the place of those saved, for instance
        `num_simulations=200`
    :raises ModelNotFoundError: if there is no such model, or a file is missing
    :raises ModelError: if a file is damaged, of another format or another version, or if it is a
        zip and `trust` is not given
    :raises HubError: if the hub cannot be reached, or answers amiss
    """
    path = path_of(name)
    own = isinstance(name, str) and name in bundled()
    if trust and revision is None and path.is_file() and not own:
        _check_zip(path)
        env = None if env is None else maybe_make_env(as_env(env), verbose=0)
        return MuZero.load(path, env=env, device=device, **overrides)
    files = open_model(
        name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return load_files(files, env, device, **overrides)


def card(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Card:
    """What a model says of itself; see `load` for the parameters.

    :raises ModelNotFoundError: if there is no such model, or if it has no card
    :raises ModelError: if the card is damaged
    """
    files = open_model(
        name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        names=[CARD],
    )
    return files.parse(Card, CARD)


def verify(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> list[Checked]:
    """Read every file of a model and build it; see `load` for the parameters.

    :return: the files, all of them as the manifest says
    :raises ModelNotFoundError: if a file is missing
    :raises ModelError: if one is not as it should be
    """
    files = open_model(
        name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return _verify(files)[0]


def export(
    name: str | Path,
    directory: str | Path,
    *,
    card: Card | None = None,
    dtype: str | None = None,
    num_simulations: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Copy a model into a directory of its own, in the newest format; see `load` for the others.

    :param directory: new, empty, or a model directory, which is replaced
    :param card: in place of the model's
    :param dtype: of the weights, "float32" or "float16"; None: as they are
    :param num_simulations: that it searches with if nothing else is said; None: as it is
    :return: the directory
    :raises FileExistsError: if something else stands there
    """
    check_card(card)
    files = open_model(
        name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    _, model = _verify(files)
    config = read_config(files)
    update: dict[str, Any] = {"format_version": FORMAT_VERSION, "sha256": None}
    weights = files.read(WEIGHTS)
    if dtype is not None and dtype != config.dtype:
        weights, update["dtype"] = convert(weights, model, dtype), dtype
    if num_simulations is not None:
        if type(num_simulations) is not int or not 1 <= num_simulations <= MOST_SIMULATIONS:
            raise ValueError(
                f"num_simulations={num_simulations!r}: give a whole number from 1 to "
                f"{MOST_SIMULATIONS:,}"
            )
        update["arguments"] = config.arguments | {"num_simulations": num_simulations}
    if card is None and files.has(CARD):
        card = files.parse(Card, CARD)
    directory = Path(directory).resolve()
    config = config.model_copy(update=update)
    write({WEIGHTS: weights, CONFIG: to_json(config)}, directory, card)
    return directory


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a model of muzero-agent",
) -> str:
    """Share a model on the Hugging Face Hub; `huggingface_hub` finds the login, if any.

    :param name: of a model in the package, or a directory
    :param repo: "org/name"; it is made if it does not exist
    :param private: whether others see it, if it is made
    :param token: None: that of `hf auth login`, or the environment's HF_TOKEN
    :return: hash of the commit, the `revision` by which it is loaded
    :raises HubError: if the hub refuses, or cannot be reached
    :raises ModelError: if the model is damaged; nothing is uploaded then
    """
    from muzero_agent.zoo import hub  # takes long to import

    with tempfile.TemporaryDirectory() as directory:
        copy = export(name, Path(directory) / "model")
        return hub.push(copy, repo, private=private, token=token, message=message)


def _verify(files: ModelFiles) -> tuple[list[Checked], MuZero]:
    named = set(files.names())
    if files.manifest is not None:  # a README is for people, and not fetched from a hub
        named |= files.manifest.files.keys() - {README}
    checked = []
    for name in sorted(named - {MANIFEST}):
        entry = describe(files.read(name))
        checked.append(Checked(name, entry.size, entry.sha256))
    if files.has(CARD):
        files.parse(Card, CARD)
    return checked, load_files(files, device="cpu")


def _check_zip(path: Path) -> None:
    """Trusted or not, an archive that unpacks to more than any model is a mistake."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile as error:
        raise DamagedModelError(f"{path} is no zip archive, or incomplete: {error}") from error
    if size > MOST_UNZIPPED:
        raise DamagedModelError(
            f"{path} unpacks to {size:,} bytes, and {MOST_UNZIPPED:,} are the most"
        )
