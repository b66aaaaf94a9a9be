"""Crash and resume: whole checkpoints or none, and runs that go on identically."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

from muzero_agent import MuZero
from muzero_agent.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

EVERY = 50
TRAIN = [sys.executable, "-m", "muzero_agent.cli", "train", "CartPole-v1", "--no-progress"]
SMALL = ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]
SMALL += ["--set", "policy_kwargs={net_arch: [16]}", "--steps", "1000000"]


def make() -> MuZero:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    settings: dict[str, Any] = {"num_simulations": 2, "batch_size": 8, "learning_starts": 20}
    return MuZero("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, seed=0, **settings)


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*TRAIN, "--out", str(out), "--checkpoint-every", str(EVERY), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def newest(out: Path) -> int:
    """Steps of the newest checkpoint, -1 without one; leaves alone what a living run writes."""
    return max((int(p.name) for p in (out / "checkpoints").glob("[0-9]*")), default=-1)


def kill_and_check(out: Path, kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reached = -1
    for turn in range(kills):
        with start(out, *(["--resume"] if turn else SMALL)) as process:
            deadline = time.monotonic() + 60
            while newest(out) <= reached and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.02)
            time.sleep(float(rng.uniform(0, 0.5)))
            seen = newest(out)
            process.send_signal(signal.SIGKILL)
        assert seen > reached
        checkpoint = latest_checkpoint(out / "checkpoints")
        assert checkpoint is not None
        reached = int(checkpoint.name)
        assert reached >= seen  # nothing before the last checkpoint is lost
        model = load_checkpoint(checkpoint, make_vec_env("CartPole-v1", 1))
        assert model.num_timesteps == reached
        model.replay_buffer.check_valid()
        assert not list((out / "checkpoints").glob(".unfinished-*"))


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "run", kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_often_goes_on(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "run", kills=40, seed=1)


@pytest.mark.parametrize("replay", [True, False])
def test_two_resumes_are_identical(tmp_path: Path, replay: bool) -> None:
    path = save_checkpoint(make().learn(80), tmp_path, replay=replay)

    def resume(noise: int) -> MuZero:
        torch.manual_seed(noise)
        model = load_checkpoint(path, make_vec_env("CartPole-v1", 2, seed=noise))
        assert model.replay_buffer.can_sample() is replay
        return model.learn(120, reset_num_timesteps=False)

    first, second = resume(1), resume(2)
    assert first.num_timesteps == second.num_timesteps >= 200
    np.testing.assert_array_equal(first.replay_buffer.obs, second.replay_buffer.obs)
    for name, x in first.policy.state_dict().items():
        assert torch.equal(x, second.policy.state_dict()[name]), name


def test_a_checkpoint_holds_all_that_learning_needs(tmp_path: Path) -> None:
    model = make().learn(80)
    path = save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(path, make_vec_env("CartPole-v1", 2))
    assert loaded._n_updates == model._n_updates
    assert loaded.replay_buffer.size() == model.replay_buffer.size()
    assert loaded._rng.bit_generator.state == model._rng.bit_generator.state
    assert loaded._sweep.position == model._sweep.position
    ours, theirs = (m.policy.optimizer.state_dict()["state"] for m in (loaded, model))
    for index, moments in theirs.items():
        assert torch.equal(ours[index]["exp_avg_sq"], moments["exp_avg_sq"])


def test_only_the_newest_stay(tmp_path: Path) -> None:
    model = make()
    saved = []
    for turn in range(3):
        model.learn(40, reset_num_timesteps=turn == 0)
        saved.append(save_checkpoint(model, tmp_path, keep=2))
    assert sorted(tmp_path.iterdir()) == saved[1:]
    save_checkpoint(model, tmp_path, keep=2)  # once more at the same step
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make().learn(40)
    old = save_checkpoint(model, tmp_path / "checkpoints")
    kept = tmp_path / "kept"
    shutil.copytree(old, kept)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    model.learn(40, reset_num_timesteps=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(model, tmp_path / "checkpoints")
    assert latest_checkpoint(tmp_path / "checkpoints") == old
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [old.name]
    for file in old.iterdir():
        assert file.read_bytes() == (kept / file.name).read_bytes()


def test_a_checkpoint_of_another_release_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(make().learn(40), tmp_path)
    state = path / "state.json"
    state.write_text(state.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ValueError, match="format version 9"):
        load_checkpoint(path, make_vec_env("CartPole-v1", 2))
