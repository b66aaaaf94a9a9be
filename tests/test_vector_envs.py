"""Gymnasium's vector environments are to MuZero what Stable-Baselines3's are, to the last digit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from muzero_agent import MuZero
from muzero_agent.adapters.envs.gymnasium import GymnasiumVecEnv, as_vec_env

SAME = AutoresetMode.SAME_STEP
TINY: dict[str, Any] = {
    "learning_starts": 20,
    "batch_size": 8,
    "num_simulations": 3,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 0,
}


class Story(gym.Env[Any, np.int64]):
    """Tells the episode and the step in observations and infos; ends by itself after `length`."""

    def __init__(self, length: int, kind: str = "box") -> None:
        box = spaces.Box(-1, 1e6, (2,))
        mask = spaces.MultiBinary(3)
        pair = spaces.Dict({"observation": box, "action_mask": mask})
        self.observation_space = box if kind == "box" else pair
        self.action_space = spaces.Discrete(3)
        self.length, self.kind = length, kind
        self.render_mode = None
        self.episode, self.t = -1, 0
        self.mood = "calm"
        self.actions: list[int] = []
        self.given: Any = None

    def observe(self) -> Any:
        box = np.array([self.episode, self.t], np.float32)
        pair = {"observation": box, "action_mask": self.action_masks().astype(np.int8)}
        return box if self.kind == "box" else pair

    def action_masks(self) -> Any:
        return np.arange(3) != self.t % 3

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.given = options
        self.episode, self.t = self.episode + 1, 0
        return self.observe(), {"chapter": self.episode}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(int(action))
        self.t += 1
        info = {"step": self.t, "odd": "yes"} if self.t % 2 else {"step": self.t}
        return self.observe(), 0.5 * self.t, self.t >= self.length, False, info


def story(length: int, kind: str = "box") -> gym.Env[Any, np.int64]:
    return TimeLimit(Story(length, kind), 5)  # which cuts off the long ones


MAKERS: list[Callable[[], gym.Env[Any, Any]]] = [partial(story, length) for length in (3, 4, 9)]
DICTS: list[Callable[[], gym.Env[Any, Any]]] = [partial(story, n, "dict") for n in (3, 4, 9)]


def make(kind: str, makers: list[Callable[[], gym.Env[Any, Any]]]) -> VectorEnv[Any, Any, Any]:
    if kind == "sync":
        return SyncVectorEnv(makers, copy=False, autoreset_mode=SAME)
    return AsyncVectorEnv(makers, copy=False, autoreset_mode=SAME)


@pytest.mark.parametrize("makers", [MAKERS, DICTS], ids=["box", "dict"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_steps_are_those_of_dummyvecenv(
    kind: str, makers: list[Callable[[], gym.Env[Any, Any]]]
) -> None:
    ours, theirs = GymnasiumVecEnv(make(kind, makers)), DummyVecEnv(makers)
    kept = [(ours.reset(), theirs.reset())]
    assert ours.reset_infos == theirs.reset_infos == [{"chapter": 0}] * 3
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(12):
        actions = rng.integers(3, size=3)
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = (
            env.step(actions) for env in (ours, theirs)
        )
        kept.append((obs, obs2))
        np.testing.assert_array_equal(rewards, rewards2)
        assert rewards.dtype == np.float32
        assert dones.tolist() == dones2.tolist()
        np.testing.assert_equal(infos, infos2)  # terminal observations and truncation are in it
        assert ours.reset_infos == theirs.reset_infos
        ended += dones.sum()
    assert ended > 6
    for obs, obs2 in kept:  # now, since the vector environment wrote all into the same memory
        np.testing.assert_equal(obs, obs2)
    ours.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_single_environments_can_be_asked(kind: str) -> None:
    env = GymnasiumVecEnv(make(kind, MAKERS))
    env.reset()
    env.step(np.array([1, 0, 2]))
    assert env.has_attr("mood")
    assert not env.has_attr("temper")
    assert env.get_attr("length") == [3, 4, 9]
    assert env.get_attr("length", [2, 0]) == [9, 3]
    assert [a for (a,) in env.get_attr("actions")] == [1, 0, 2]
    np.testing.assert_array_equal(env.env_method("action_masks"), [[True, False, True]] * 3)
    env.set_attr("mood", "wild")
    assert env.get_attr("mood", 1) == ["wild"]
    for ask in (env.get_attr, env.env_method):
        with pytest.raises(AttributeError, match="temper"):
            ask("temper")
    with pytest.raises(NotImplementedError, match="leave out `indices`"):
        env.env_method("action_masks", indices=[0])
    with pytest.raises(NotImplementedError, match="leave out `indices`"):
        env.set_attr("mood", "calm", indices=0)
    assert env.env_is_wrapped(TimeLimit) == [kind == "sync"] * 3
    assert env.env_is_wrapped(Monitor) == [False] * 3
    assert env.get_attr("mood") == ["wild"] * 3  # still there after all that was refused
    env.close()


def test_options_and_seeds_reach_the_environments() -> None:
    env = GymnasiumVecEnv(make("sync", MAKERS))
    env.set_options({"start": 3})
    env.seed(2**32 - 2)
    env.reset()
    seeds = env.get_attr("np_random_seed")
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]
    assert env.get_attr("given") == [{"start": 3}] * 3
    env.reset()
    assert env.get_attr("given") == [None] * 3
    assert env.get_attr("np_random_seed") == seeds  # not seeded anew
    env.set_options([{"start": 1}, {}, {}])
    with pytest.raises(ValueError, match="one dict"):
        env.reset()


def test_frames_are_rendered() -> None:
    env = GymnasiumVecEnv(
        gym.make_vec(
            "CartPole-v1",
            2,
            vectorization_mode="sync",
            render_mode="rgb_array",
            vector_kwargs={"autoreset_mode": SAME},
        )
    )
    env.reset()
    frame = env.render()
    assert frame is not None
    assert frame.shape == (800, 600, 3)  # one above the other
    assert frame.std() > 0
    env.close()


# -- in MuZero -------------------------------------------------------------------------------------


def cartpole(n: int = 2) -> VectorEnv[Any, Any, Any]:
    return gym.make_vec(
        "CartPole-v1", n, vectorization_mode="sync", vector_kwargs={"autoreset_mode": SAME}
    )


def test_learns_what_it_learns_with_dummyvecenv() -> None:
    ours = MuZero("MlpPolicy", cartpole(), **TINY).learn(120)
    theirs = MuZero("MlpPolicy", make_vec_env("CartPole-v1", 2), **TINY).learn(120)
    assert ours._n_updates > 0
    for name, weight in theirs.policy.state_dict().items():
        assert torch.equal(ours.policy.state_dict()[name], weight), name
    lengths = [[e["l"] for e in m.ep_info_buffer or ()] for m in (ours, theirs)]
    assert lengths[0] == lengths[1] != []


def test_set_env_load_and_evaluate(tmp_path: Any) -> None:
    model = MuZero("MlpPolicy", cartpole(), **TINY)
    model.set_env(cartpole())  # type: ignore[arg-type]
    assert isinstance(model.get_env(), VecMonitor)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = MuZero.load(tmp_path / "model", env=cartpole(3))
    loaded.learn(60)
    assert loaded.n_envs == 3
    env = loaded.get_env()
    assert env is not None
    returns, lengths = evaluate_policy(loaded, env, 3, return_episode_rewards=True)
    assert returns == lengths
    assert len(lengths) == 3  # type: ignore[arg-type]


def test_masks_of_the_environments_hold() -> None:
    model = MuZero("MlpPolicy", make("sync", MAKERS), **TINY).learn(60)
    env = model.get_env()
    assert env is not None
    for actions, length in zip(env.get_attr("actions"), (3, 4, 5), strict=True):
        assert len(actions) >= 20
        assert all(action != t % length % 3 for t, action in enumerate(actions))


def test_what_single_environments_recorded_stays() -> None:
    env = as_vec_env(SyncVectorEnv([lambda: Monitor(Story(3))], autoreset_mode=SAME))
    assert isinstance(env, GymnasiumVecEnv)
    env.reset()
    infos = [env.step(np.array([0]))[3][0] for _ in range(3)]
    assert infos[-1]["episode"]["r"] == 0.5 + 1.0 + 1.5
    other = Story(3)
    assert as_vec_env(other) is other


# -- what cannot work ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_modes_are_refused(mode: AutoresetMode) -> None:
    vector = SyncVectorEnv(MAKERS, autoreset_mode=mode)
    with pytest.raises(ValueError, match=rf"mode {mode.value}.*autoreset_mode=\"SameStep\""):
        MuZero("MlpPolicy", vector, **TINY)
    model = MuZero("MlpPolicy", make("sync", MAKERS), **TINY)
    with pytest.raises(ValueError, match="SameStep"):
        model.set_env(vector)  # type: ignore[arg-type]


class Silent(SyncVectorEnv):
    """Forgets to say how episodes ended."""

    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        return *rest, {key: part for key, part in infos.items() if "final" not in key}


def test_a_missing_final_observation_is_an_error() -> None:
    env = GymnasiumVecEnv(Silent(MAKERS, autoreset_mode=SAME))
    env.reset()
    for _ in range(2):
        env.step(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"environment 0 ended, and .* gave no `final_obs`"):
        env.step(np.zeros(3, np.int64))


def test_ids_of_this_packages_own_are_known_wherever_an_environment_is_given(
    tmp_path: Path,
) -> None:
    """In a process that has not named them yet."""
    code = """
from muzero_agent import MuZero, zoo
small = dict(num_simulations=2, batch_size=4, learning_starts=4, gradient_steps=1)
print(zoo.load("tictactoe", env="tictactoe", **small).env.num_envs)
model = MuZero("CnnPolicy", "MinAtar/Breakout-v1", **small).learn(12)
model.save("model.zip")
print(MuZero.load("model.zip", env="MinAtar/Breakout-v1").env.observation_space.shape)
print(MuZero("CnnPolicy", "ALE/Pong-v5", **small).env.observation_space.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["1", "(10, 10, 4)", "(3, 210, 160)"]
