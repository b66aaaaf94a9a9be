"""Training that survives a crash: whole checkpoints or none, and runs that go on from them.

A checkpoint is a directory, named by its number of steps, that appears under its name only when all
of it is on the disk:

    model.zip           what `MuZero.save` writes: networks, optimizer, counters, settings
    state.json          the generators, and where reanalysis stood
    replay.pkl          what `save_replay_buffer` writes (optional)
    vecnormalize.pkl    what `VecNormalize.save` writes, where the environment has one

These are files of one's own runs: like Stable-Baselines3's they hold pickles. To pass a model on,
there is `zoo.save`.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from muzero_agent.archive import read_settings, sync
from muzero_agent.muzero import MuZero

MODEL, STATE, REPLAY = "model.zip", "state.json", "replay.pkl"
STATISTICS = "vecnormalize.pkl"
FORMAT_VERSION = 2

_UNFINISHED, _REPLACED = ".unfinished-", ".replaced-"


def save_checkpoint(
    model: MuZero, directory: str | Path, *, replay: bool = True, keep: int = 2
) -> Path:
    """Write a checkpoint, and remove all but the newest.

    :param directory: of all checkpoints of a run
    :param replay: whether to keep the replay, too; without it a run goes on with an empty one
    :param keep: checkpoints that stay, >= 1
    :return: the checkpoint
    :raises OSError: if it cannot be written; older ones are left as they are
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _put_back(directory)
    path = directory / f"{model.num_timesteps:012d}"
    fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=directory))
    normalize = model.get_vec_normalize_env()
    try:
        model.save(fresh / MODEL)
        if replay:
            model.save_replay_buffer(fresh / REPLAY)
        if normalize is not None:
            normalize.save(str(fresh / STATISTICS))
        (fresh / STATE).write_text(json.dumps(_state(model)), encoding="utf-8")
        for file in fresh.iterdir():
            sync(file)
        sync(fresh)
        if path.exists():  # of the same step
            path.rename(directory / f"{_REPLACED}{path.name}")
        fresh.rename(path)
        sync(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        _put_back(directory)
    for old in _finished(directory)[:-keep]:
        gone = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=directory))
        old.rename(gone / old.name)  # first, so that what has a checkpoint's name is whole
        shutil.rmtree(gone, ignore_errors=True)
    return path


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint of a run, or None. What a crash left behind is removed."""
    directory = Path(directory)
    if not directory.is_dir():
        return None
    _put_back(directory)
    for unfinished in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    finished = _finished(directory)
    return finished[-1] if finished else None


def load_checkpoint(
    path: str | Path, env: VecEnv, device: torch.device | str = "auto", **overrides: Any
) -> MuZero:
    """The model as it was, to go on with `learn(..., reset_num_timesteps=False)`.

    Environments cannot be saved: they start from a reset, whose seed follows from the checkpoint,
    so that two runs from one checkpoint are identical. Episodes that were open end where they were.

    :param env: as many environments as before if the replay was kept. Where a VecNormalize was
        saved, one in `env` takes over its statistics; if there is none, the saved one is put around
    :param overrides: see `MuZero.load`
    :raises ValueError: if the checkpoint is of another release
    """
    path = Path(path)
    with _named_if_damaged(path):
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        read_settings(path / MODEL)
    if state["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {state['format_version']}, and this release reads "
            f"{FORMAT_VERSION}: go on with the release that wrote it"
        )
    if (path / STATISTICS).exists():
        env = _with_statistics(env, path / STATISTICS)
    model = MuZero.load(path / MODEL, env=env, device=device, **overrides)
    if (path / REPLAY).exists():
        with _named_if_damaged(path):
            model.load_replay_buffer(path / REPLAY)
        model._sweep.restore(state["sweep"])
    seed = (int(model.seed or 0) + model.num_timesteps) % 2**31
    set_random_seed(seed)  # what environments and wrappers may draw from
    env.seed(seed)
    for name, generator in _generators(model).items():
        generator.bit_generator.state = state["generators"][name]
    torch.set_rng_state(_tensor(state["torch"]))
    if model.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_tensor(state["cuda"]), model.device)
    return model


class SaveCheckpoints(BaseCallback):
    """Writes a checkpoint every so many steps, between an update and the next step.

    One that cannot be written is no reason to lose what was learned: there is a warning, and the
    next is tried when it is due.

    :param directory: of all checkpoints of a run
    :param every: steps, over all environments
    :param replay: see `save_checkpoint`
    """

    def __init__(self, directory: str | Path, every: int, *, replay: bool = True) -> None:
        super().__init__()
        self.directory, self.every, self.replay = Path(directory), every, replay
        self._saved_at = 0

    def _on_training_start(self) -> None:
        self._saved_at = self.num_timesteps

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if steps // self.every > self._saved_at // self.every:
            assert isinstance(self.model, MuZero)
            self._saved_at = steps
            try:
                save_checkpoint(self.model, self.directory, replay=self.replay)
            except OSError as error:
                warnings.warn(
                    f"no checkpoint at step {steps:,}: {error}. Older ones are kept and learning "
                    f"goes on; make room in {self.directory} before the next, in {self.every:,} "
                    "steps",
                    stacklevel=2,
                )

    def _on_step(self) -> bool:
        return True


@contextmanager
def _named_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{error}. If it is damaged, remove {path}: then a run goes on from the one before"
        ) from error


def _generators(model: MuZero) -> dict[str, np.random.Generator]:
    return {"act": model._rng, "play": model.policy.rng, "replay": model.replay_buffer.rng}


def _state(model: MuZero) -> dict[str, Any]:
    state = {
        "format_version": FORMAT_VERSION,
        "generators": {
            name: generator.bit_generator.state for name, generator in _generators(model).items()
        },
        "torch": _text(torch.get_rng_state()),
        "sweep": model._sweep.state,
    }
    if model.device.type == "cuda":
        state["cuda"] = _text(torch.cuda.get_rng_state(model.device))
    return state


def _with_statistics(env: VecEnv, path: Path) -> VecEnv:
    """The environment with the VecNormalize that was saved, or with its statistics."""
    given = unwrap_vec_normalize(env)
    saved: VecNormalize = load_from_pkl(path)
    if given is None:
        alike = env.observation_space.shape == saved.observation_space.shape
        saved.set_venv(env if alike else MuZero._wrap_env(env))  # which turns images
        return saved
    for name in {"obs_rms", "ret_rms"} & vars(saved).keys():
        setattr(given, name, getattr(saved, name))
    return env


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(bytes(state.numpy())).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), np.uint8).copy())


def _finished(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.isdecimal())


def _put_back(directory: Path) -> None:
    """Two renames replace a checkpoint by another of the same step: whatever came between them, the
    old one gets its name back, unless the new one has it."""
    for replaced in directory.glob(f"{_REPLACED}*"):
        path = directory / replaced.name.removeprefix(_REPLACED)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(path)
