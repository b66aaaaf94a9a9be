"""Training that survives a crash: whole checkpoints or none, and runs that go on from them.

A checkpoint is a directory, named by its number of steps, that appears under its name only when all
of it is on the disk:

    model.zip     what `MuZero.save` writes: networks, optimizer, counters, settings
    state.json    the generators, and where reanalysis stood
    replay.pkl    what `save_replay_buffer` writes (optional)

These are files of one's own runs: like Stable-Baselines3's they hold pickles. To pass a model on,
there is `zoo.save`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent.muzero import MuZero

MODEL, STATE, REPLAY = "model.zip", "state.json", "replay.pkl"
FORMAT_VERSION = 1


def save_checkpoint(model: MuZero, directory: Path, *, replay: bool = True, keep: int = 2) -> Path:
    """Write a checkpoint, and remove all but the newest.

    :param directory: of all checkpoints of a run
    :param replay: whether to keep the replay, too; without it a run goes on with an empty one
    :param keep: checkpoints that stay, >= 1
    :return: the checkpoint
    :raises OSError: if it cannot be written; older ones are left as they are
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{model.num_timesteps:012d}"
    fresh = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory))
    try:
        model.save(fresh / MODEL)
        if replay:
            model.save_replay_buffer(fresh / REPLAY)
        (fresh / STATE).write_text(json.dumps(_state(model)), encoding="utf-8")
        for file in fresh.iterdir():
            _sync(file)
        _sync(fresh)
        if path.exists():  # of the same step: what was saved again is as good
            shutil.rmtree(path)
        fresh.rename(path)
        _sync(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    for old in _finished(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run, or None. What a crash left behind is removed."""
    if not directory.is_dir():
        return None
    for unfinished in directory.glob(".unfinished-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    finished = _finished(directory)
    return finished[-1] if finished else None


def load_checkpoint(
    path: Path, env: VecEnv, device: torch.device | str = "auto", **overrides: Any
) -> MuZero:
    """The model as it was, to go on with `learn(..., reset_num_timesteps=False)`.

    Environments cannot be saved: they start from a reset, whose seed follows from the checkpoint,
    so that two runs from one checkpoint are identical. Episodes that were open end where they were.

    :raises ValueError: if the checkpoint is of another release
    """
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    if state["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {state['format_version']}, and this release reads "
            f"{FORMAT_VERSION}: go on with the release that wrote it"
        )
    model = MuZero.load(path / MODEL, env=env, device=device, **overrides)
    if (path / REPLAY).exists():
        model.load_replay_buffer(path / REPLAY)
    seed = (int(model.seed or 0) + model.num_timesteps) % 2**31
    set_random_seed(seed)  # what environments and wrappers may draw from
    env.seed(seed)
    for name, generator in _generators(model).items():
        generator.bit_generator.state = state["generators"][name]
    torch.set_rng_state(_tensor(state["torch"]))
    model._sweep.position = state["sweep"]
    return model


class SaveCheckpoints(BaseCallback):
    """Writes a checkpoint every so many steps, between an update and the next step.

    :param directory: of all checkpoints of a run
    :param every: steps, over all environments
    :param replay: see `save_checkpoint`
    """

    def __init__(self, directory: Path, every: int, *, replay: bool = True) -> None:
        super().__init__()
        self.directory, self.every, self.replay = directory, every, replay
        self._saved_at = 0

    def _on_training_start(self) -> None:
        self._saved_at = self.num_timesteps

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if steps // self.every > self._saved_at // self.every:
            assert isinstance(self.model, MuZero)
            save_checkpoint(self.model, self.directory, replay=self.replay)
            self._saved_at = steps

    def _on_step(self) -> bool:
        return True


def _generators(model: MuZero) -> dict[str, np.random.Generator]:
    return {"act": model._rng, "play": model.policy.rng, "replay": model.replay_buffer.rng}


def _state(model: MuZero) -> dict[str, Any]:
    torch_state = bytes(torch.get_rng_state().numpy())
    return {
        "format_version": FORMAT_VERSION,
        "generators": {
            name: generator.bit_generator.state for name, generator in _generators(model).items()
        },
        "torch": base64.b64encode(torch_state).decode(),
        "sweep": model._sweep.position,
    }


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), np.uint8).copy())


def _finished(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.isdecimal())


def _sync(path: Path) -> None:
    """Have a file, or the names in a directory, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
