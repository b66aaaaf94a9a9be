"""`overlap=True` learns in another process while this one plays: the same updates, in a fixed
order, and nothing is left running or unsaid when something goes wrong."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor, nn

from muzero_agent import MuZero
from muzero_agent.learner import Learned, Learner, Task
from muzero_agent.updates import Updates

SMALL: dict[str, Any] = {
    "num_simulations": 2, "batch_size": 8, "learning_starts": 16, "gradient_steps": 3,
    "reanalyse_ratio": 3, "unroll_steps": 3, "compared_steps": 2, "seed": 0, "device": "cpu",
    "policy_kwargs": {"net_arch": [16]},
}  # fmt: skip


class Normed(BaseFeaturesExtractor):
    """With statistics that updates change, and play does not."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=8)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))

    def forward(self, observations: Tensor) -> Tensor:
        result: Tensor = self.layers(observations)
        return result


def new(**kwargs: Any) -> MuZero:
    return MuZero("MlpPolicy", "CartPole-v1", **(SMALL | {"overlap": True} | kwargs))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def learned() -> MuZero:
    return new().learn(48)


def assert_equal(a: MuZero, b: MuZero) -> None:
    assert a._n_updates == b._n_updates > 0
    assert a.policy.value_error == b.policy.value_error > 0
    states = a.policy.state_dict(), b.policy.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
    moments = (model.policy.optimizer.state_dict()["state"] for model in (a, b))
    for mine, yours in zip(*(state.values() for state in moments), strict=True):
        for key in mine:
            assert torch.equal(mine[key], yours[key]), key


def task_of(model: MuZero, updates: int = 3) -> Task:
    return Task(
        [model.replay_buffer.sample(model.batch_size) for _ in range(updates)],
        model._objective(),
        learning_rate=3e-3,
        max_grad_norm=model.max_grad_norm,
        target_decay=model.target_decay,
        num=model._n_updates,
        seed=7,
    )


@pytest.mark.parametrize("extractor", [None, Normed])
def test_the_updates_are_those_of_this_process(extractor: type[Normed] | None) -> None:
    kwargs = {"net_arch": [16], "features_extractor_class": extractor}
    model = new(overlap=False, policy_kwargs=kwargs).learn(48)
    here = copy.deepcopy(model.policy)
    here.optimizer.load_state_dict(model.policy.optimizer.state_dict())
    before = copy.deepcopy(model.policy.state_dict())
    rng = np.random.default_rng(7)
    updates = Updates(here, max_grad_norm=model.max_grad_norm, target_decay=model.target_decay)
    here.set_training_mode(True)
    here.optimizer.param_groups[0]["lr"] = 3e-3
    with Learner(model.policy) as learner:
        assert learner.take_over() is None
        for _ in range(2):  # the second is told with what the first one left there
            task = task_of(model)
            learner.submit(task)
            learned = learner.take_over()
            assert isinstance(learned, Learned)
            values, rng = [], np.random.default_rng(7)
            for batch in task.batches:
                losses = task.objective.loss(here, batch, rng)
                updates.apply(losses.total)
                values.append(losses.root_value)
            updates.finish()
            assert learned.batches is task.batches
            assert all(map(torch.equal, learned.root_values, values))
            for name, tensor in here.state_dict().items():
                assert torch.equal(tensor, model.policy.state_dict()[name]), name
    changed = {n for n, tensor in before.items() if not torch.equal(tensor, here.state_dict()[n])}
    assert changed >= {name for name, _ in here.named_parameters()}
    assert any("running_mean" in name for name in changed) == (extractor is not None)


def test_runs_of_a_seed_are_identical_however_fast_the_two_are() -> None:
    class Late(BaseCallback):
        def _on_step(self) -> bool:
            time.sleep(0.02)
            return True

    assert_equal(new().learn(80), new().learn(80, callback=Late()))


def test_play_sees_what_was_learned_a_period_before() -> None:
    """Until the first updates are taken over, it plays as a model that makes none."""

    class Watch(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.first = 0  # step in which the weights differ from those of the beginning
            self.updates: list[int] = []

        def _on_training_start(self) -> None:
            assert isinstance(self.model, MuZero)
            self.initial = copy.deepcopy(self.model.policy.target_network.state_dict())

        def _on_step(self) -> bool:
            assert isinstance(self.model, MuZero)
            self.updates.append(self.model._n_updates)
            now = dict(self.model.policy.target_network.named_parameters())
            same = all(torch.equal(now[name], self.initial[name]) for name in now)
            if not (same or self.first):
                self.first = self.num_timesteps
            return True

    watch = Watch()
    model = new().learn(48, callback=watch)
    # A first task is handed over after 24 steps, taken over after 32, and so on, to the very end.
    assert watch.first == 33
    assert watch.updates == [0] * 32 + [3] * 8 + [6] * 8
    assert model._n_updates == 12


def test_statistics_of_observations_go_on(learned: MuZero) -> None:
    norm = dict(learned.policy.network.named_buffers())
    target = dict(learned.policy.target_network.named_buffers())
    assert norm["running_norm.count"] == target["running_norm.count"] == 48
    assert torch.equal(norm["running_norm.mean"], target["running_norm.mean"])


def test_checkpoints_hold_weights_and_optimizer_of_one_moment(tmp_path: Path) -> None:
    model = new().learn(64, callback=CheckpointCallback(20, str(tmp_path)))
    for steps, updates in ((20, 0), (40, 3), (60, 12)):
        saved = MuZero.load(tmp_path / f"rl_model_{steps}_steps.zip")
        assert saved._n_updates == updates
        moments = saved.policy.optimizer.state_dict()["state"]
        assert {int(moment["step"]) for moment in moments.values()} == (
            {updates} if updates else set()
        )
        assert saved.overlap
    assert model._n_updates == 18


def test_learning_goes_on_after_loading(learned: MuZero, tmp_path: Path) -> None:
    learned.save(tmp_path / "model")
    loaded = MuZero.load(tmp_path / "model", env="CartPole-v1")
    loaded.learn(48, reset_num_timesteps=False)
    assert loaded.num_timesteps == 96
    assert loaded._n_updates > learned._n_updates == 12
    moments = loaded.policy.optimizer.state_dict()["state"]
    assert {int(moment["step"]) for moment in moments.values()} == {loaded._n_updates}


def test_normalised_environments() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]), norm_reward=False)
    model = MuZero("MlpPolicy", env, **SMALL, overlap=True).learn(48)
    assert model._n_updates == 12


def test_a_model_can_be_copied_while_it_learns() -> None:
    class Copy(BaseCallback):
        copied: Any = None

        def _on_step(self) -> bool:
            if self.num_timesteps == 40:
                self.copied = copy.deepcopy(self.model)
            return True

    callback = Copy()
    model = new().learn(48, callback=callback)
    assert callback.copied.num_timesteps == 40
    before = callback.copied._n_updates
    assert 0 < before < model._n_updates
    callback.copied.learn(16, reset_num_timesteps=False)
    assert callback.copied._n_updates > before


def test_a_gradient_that_is_not_finite_is_told_and_changes_nothing() -> None:
    model = new(overlap=False).learn(48)
    before = copy.deepcopy(model.policy.state_dict())
    task = task_of(model)
    task.batches[1].weights.fill_(torch.nan)
    with Learner(model.policy) as learner:
        learner.submit(task)
        with pytest.raises(FloatingPointError, match="gradient of update 13 is not finite"):
            learner.take_over()
        for name, tensor in model.policy.state_dict().items():
            assert torch.equal(tensor, before[name]), name


def test_a_process_that_is_killed_is_told_and_learning_can_go_on() -> None:
    class Kill(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.model, MuZero)
            if self.num_timesteps == 40:
                assert self.model._learner is not None
                self.model._learner._process.kill()
            return True

    model = new()
    with pytest.raises(RuntimeError, match=r"the process that learns ended .* overlap=False"):
        model.learn(80, callback=Kill())
    assert model._learner is None
    model.learn(80, reset_num_timesteps=False)
    assert model._n_updates > 12


def test_only_one_task_at_a_time() -> None:
    model = new(overlap=False).learn(48)
    with Learner(model.policy) as learner:
        learner.submit(task_of(model))
        with pytest.raises(RuntimeError, match="take over what was learned"):
            learner.submit(task_of(model))


def test_it_ends_with_learn_whatever_stops_it() -> None:
    processes: list[subprocess.Popen[bytes]] = []

    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.model, MuZero)
            assert self.model._learner is not None
            processes.append(self.model._learner._process)
            if self.num_timesteps == 50:
                raise KeyboardInterrupt
            return True

    model = new()
    with pytest.raises(KeyboardInterrupt):
        model.learn(80, callback=Stop())
    assert processes[-1].returncode is not None
    assert model._learner is None


@pytest.mark.skipif(sys.platform == "win32", reason="asks /proc and signals")
def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """And scripts need no guard around what they do, nor modules for their classes."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import torch
            from stable_baselines3.common.callbacks import BaseCallback
            from muzero_agent import MuZero
            from muzero_agent.policies import MlpPolicy

            class Own(MlpPolicy):
                pass

            class Tell(BaseCallback):
                def _on_step(self):
                    if self.model._n_updates:
                        print(self.model._learner._process.pid, flush=True)
                    return True

            MuZero(Own, "CartPole-v1", learning_starts=16, num_simulations=2, batch_size=8,
                   overlap=True).learn(10**6, callback=Tell())
        """)
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    learner = int(run.stdout.readline())
    run.kill()
    run.wait()
    run.stdout.close()
    for _ in range(200):
        if not alive(learner):
            break
        time.sleep(0.05)
    else:
        os.kill(learner, signal.SIGKILL)
        pytest.fail("the process that learns went on")


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
