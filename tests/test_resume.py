"""Crash and resume: whole checkpoints or none, and runs that go on identically."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecNormalize,
    VecTransposeImage,
)

from muzero_agent import MuZero
from muzero_agent.callbacks import ResumedProgressBar
from muzero_agent.checkpoints import (
    SaveCheckpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

EVERY = 50
TRAIN = [sys.executable, "-m", "muzero_agent.cli", "train", "CartPole-v1", "--no-progress"]
SMALL = ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]
SMALL += ["--set", "policy_kwargs={net_arch: [16]}", "--steps", "1000000"]


def make(env: VecEnv | None = None, **kwargs: Any) -> MuZero:
    env = make_vec_env("CartPole-v1", 2, seed=0) if env is None else env
    settings: dict[str, Any] = {"num_simulations": 2, "batch_size": 8, "learning_starts": 20}
    settings |= {"policy_kwargs": {"net_arch": [16]}, "seed": 0} | kwargs
    return MuZero("MlpPolicy", env, **settings)


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


@pytest.mark.parametrize(("replay", "overlap"), [(True, False), (False, False), (True, True)])
def test_two_resumes_are_identical(tmp_path: Path, replay: bool, overlap: bool) -> None:
    path = save_checkpoint(make(overlap=overlap).learn(80), tmp_path, replay=replay)

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
    assert loaded._sweep.state == model._sweep.state
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


class Watching(BaseCallback):
    """Notes, between an update and the next step, what a resumed run has to go on with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Any]] = {}

    def _on_rollout_start(self) -> None:
        assert isinstance(self.model, MuZero)
        policy = self.model.policy
        self.seen[self.model.num_timesteps] = [
            self.model._current_progress_remaining,
            policy.optimizer.param_groups[0]["lr"],
            self.model.replay_buffer.typical_error,
            float(policy.value_error),
            self.model._sweep.state,
            self.model._episode_num,
        ]

    def _on_step(self) -> bool:
        return True


def test_a_resumed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Its schedule runs over the whole run; errors of values and the sweep stand where they did."""
    rate = LinearSchedule(1e-2, 0.0, 1.0)
    whole, first, second = Watching(), Watching(), Watching()
    make(learning_rate=rate).learn(160, callback=whole)

    class Crash(SaveCheckpoints):
        def _on_rollout_start(self) -> None:
            super()._on_rollout_start()
            if self.num_timesteps == 96:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(learning_rate=rate).learn(160, callback=[first, Crash(tmp_path, 40)])
    path = latest_checkpoint(tmp_path)
    assert path is not None
    assert int(path.name) == 80
    model = load_checkpoint(path, make_vec_env("CartPole-v1", 2))
    model.learn(160 - 80, callback=second, reset_num_timesteps=False)
    assert first.seen[80] == second.seen[80] == whole.seen[80]
    assert first.seen[80][2] > 0
    assert len(first.seen[80][4]["queue"]) > 0
    assert [x[:2] for x in second.seen.values()] == [
        x[:2] for steps, x in whole.seen.items() if steps >= 80
    ]
    assert second.seen[144][1] == pytest.approx(1e-2 * 16 / 160)


def test_without_its_replay_a_run_still_knows_the_error_of_its_values(tmp_path: Path) -> None:
    model = make().learn(80)
    typical = model.replay_buffer.typical_error
    path = save_checkpoint(model, tmp_path, replay=False)
    watch = Watching()
    loaded = load_checkpoint(path, make_vec_env("CartPole-v1", 2))
    loaded.learn(16, callback=watch, reset_num_timesteps=False)
    assert typical is not None
    assert watch.seen[80][2:4] == pytest.approx([typical, typical])
    assert make().replay_buffer.typical_error is None


@pytest.mark.parametrize("wrapped", [True, False])
def test_statistics_of_vecnormalize_are_kept(tmp_path: Path, wrapped: bool) -> None:
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), norm_reward=False)
    path = save_checkpoint(make(env).learn(48), tmp_path)
    bare = make_vec_env("CartPole-v1", 2)
    model = load_checkpoint(path, VecNormalize(bare, norm_reward=False) if wrapped else bare)
    found = model.get_vec_normalize_env()
    assert found is not None
    assert found.venv is bare
    assert not found.norm_reward
    kept: Any = found.obs_rms
    before: Any = env.obs_rms
    np.testing.assert_array_equal(kept.mean, before.mean)
    assert kept.count == before.count > 48
    model.learn(16, reset_num_timesteps=False)
    assert kept.count > before.count


class Image(gym.Env[Any, np.int64]):
    """Channels last."""

    observation_space = gym.spaces.Box(0, 255, (8, 10, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros((8, 10, 3), np.uint8), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.full((8, 10, 3), 9, np.uint8), 1.0, bool(action), False, {}


@pytest.mark.parametrize("norm_obs", [True, False])
def test_statistics_of_vecnormalize_around_images_are_kept(tmp_path: Path, norm_obs: bool) -> None:
    """Which lie around the wrapper that turns them; a bare environment has none."""
    turned = VecTransposeImage(DummyVecEnv([Image]))
    small = {"net_arch": {"channels": 4, "num_blocks": 1, "head_width": 4}}
    env = VecNormalize(turned, norm_obs=norm_obs, norm_reward=False)
    model = MuZero("CnnPolicy", env, num_simulations=2, learning_starts=8, policy_kwargs=small)
    directory = str(tmp_path / "checkpoints")
    path = save_checkpoint(model.learn(16), directory)
    assert latest_checkpoint(directory) == path
    loaded = load_checkpoint(str(path), DummyVecEnv([Image]))
    found = loaded.get_vec_normalize_env()
    assert found is not None
    assert found.norm_obs is norm_obs
    loaded.learn(16, callback=SaveCheckpoints(directory, 8), reset_num_timesteps=False)
    assert latest_checkpoint(directory) != path


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_generator_of_a_gpu_goes_on(tmp_path: Path) -> None:
    model = make(device="cuda").learn(48)
    path = save_checkpoint(model, tmp_path)
    drawn = torch.rand(4, device="cuda")
    load_checkpoint(path, make_vec_env("CartPole-v1", 2), "cuda")
    assert torch.equal(torch.rand(4, device="cuda"), drawn)


# -- what cannot be written ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 100_000, 200_000], ids=str)
def test_a_write_that_fails_loses_nothing(
    tmp_path: Path, size: int, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    """At the settings, amid the weights, and in the replay."""
    model = make().learn(40)
    old = save_checkpoint(model, tmp_path)
    content = {file.name: file.read_bytes() for file in old.iterdir()}
    model.learn(40, reset_num_timesteps=False)
    with files_of_at_most(size), pytest.raises(OSError, match="too large"):
        save_checkpoint(model, tmp_path)
    assert latest_checkpoint(tmp_path) == old
    assert {file.name: file.read_bytes() for file in old.iterdir()} == content
    assert list(tmp_path.iterdir()) == [old]
    model.learn(8, reset_num_timesteps=False)
    assert save_checkpoint(model, tmp_path) == latest_checkpoint(tmp_path) != old


def test_training_outlives_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    """Here where a path leads through a file; and the next attempt succeeds."""
    (tmp_path / "run").write_text("a file, no directory")
    with pytest.raises(NotADirectoryError):
        save_checkpoint(make(), tmp_path / "run" / "checkpoints")
    callback = SaveCheckpoints(tmp_path / "run", 48)

    def mend(local: dict[str, Any], _: dict[str, Any]) -> bool:
        if local["self"].num_timesteps == 70:
            (tmp_path / "run").unlink()
        return True

    model = make()
    with pytest.warns(UserWarning, match=r"no checkpoint at step 48.*File exists.*in 48 steps"):
        model.learn(112, callback=CallbackList([callback, ConvertCallback(mend)]))
    assert model.num_timesteps == 112
    assert latest_checkpoint(tmp_path / "run") == tmp_path / "run" / "000000000096"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_amid_replacing_a_checkpoint_leaves_a_whole_one(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same step: after the last rename it is the new one, before that the old one."""
    model = make().learn(40)
    path = save_checkpoint(model, tmp_path)
    updates, model._n_updates = model._n_updates, 1000
    rename, done = Path.rename, 0

    def killed(source: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return rename(source, target)

    def replace() -> None:
        monkeypatch.setattr(Path, "rename", killed)
        save_checkpoint(model, tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=replace)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert latest_checkpoint(tmp_path) == path
    loaded = load_checkpoint(path, make_vec_env("CartPole-v1", 2))
    assert loaded._n_updates == (1000 if renames == 2 else updates)
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_release_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(make().learn(40), tmp_path)
    state = path / "state.json"
    state.write_text(state.read_text().replace('"format_version": 2', '"format_version": 9'))
    with pytest.raises(ValueError, match="format version 9"):
        load_checkpoint(path, make_vec_env("CartPole-v1", 2))


def test_the_progress_bar_goes_on_where_the_run_does() -> None:
    model, bar = make(), ResumedProgressBar()
    model.learn(32, callback=bar)
    assert (bar.pbar.initial, bar.pbar.n, bar.pbar.total) == (0, 32, 32)
    model.learn(16, callback=bar, reset_num_timesteps=False)
    assert (bar.pbar.initial, bar.pbar.n, bar.pbar.total) == (32, 48, 48)
    drawn: Any = vars(bar.pbar)["_prog"].tasks[0]  # what rich shows, whatever tqdm says
    assert (drawn.completed, drawn.total) == (48, 48)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    old, new = (save_checkpoint(make().learn(steps), tmp_path) for steps in (32, 48))
    for name in ("model.zip", "replay.pkl", "state.json"):
        whole = (new / name).read_bytes()
        (new / name).write_bytes(whole[:100])
        with pytest.raises(ValueError, match=f"remove {re.escape(str(new))}"):
            load_checkpoint(new, make_vec_env("CartPole-v1", 2))
        (new / name).write_bytes(whole)
    shutil.rmtree(new)
    assert latest_checkpoint(tmp_path) == old
    assert load_checkpoint(old, make_vec_env("CartPole-v1", 2)).num_timesteps == 32
