"""What learning does besides playing its best: random actions, temperature, what is kept of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent import MuZero

ACTIONS = 4


class Recorder(gym.Env[NDArray[np.float32], np.int64]):
    """Notes the actions that it gets; action 2 pays."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space: spaces.Discrete = spaces.Discrete(ACTIONS)

    def __init__(self) -> None:
        self.taken: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.taken.append(int(action))
        return np.ones(1, np.float32), float(action == 2), len(self.taken) % 10 == 0, False, {}


def learned(**settings: Any) -> tuple[Recorder, MuZero]:
    """An agent that knows what pays, before it is asked to explore."""
    env = Recorder()
    arguments: dict[str, Any] = {
        "learning_starts": 64, "batch_size": 64, "num_simulations": 8, "learning_rate": 3e-3,
        "reanalyse_ratio": 8, "target_decay": 0.9, "policy_kwargs": {"net_arch": [32]}, "seed": 0,
    }  # fmt: skip
    model = MuZero("MlpPolicy", env, **arguments | settings).learn(400)
    env.taken.clear()
    return env, model


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_the_rate_is_the_share_of_random_actions(search: str) -> None:
    env, model = learned(search=search, exploration_rate=0.0, temperature=0.0)
    model.learn(200, reset_num_timesteps=False)
    assert Counter(env.taken) == {2: 200}
    env.taken.clear()
    model.exploration_rate = 1.0
    model.learn(400, reset_num_timesteps=False)
    counts = np.bincount(env.taken, minlength=ACTIONS)
    assert ((counts - 100) ** 2 / 100).sum() < 16.3  # chi-squared with 3 degrees: p = 0.001


def test_a_schedule_follows_the_progress() -> None:
    env, model = learned(exploration_rate=LinearSchedule(1.0, 0.0, 0.5), temperature=0.0)
    model.num_timesteps = 0
    model.learn(400)
    random = model.learning_starts
    assert np.mean(np.array(env.taken[random:200]) != 2) > 0.2
    assert set(env.taken[200:]) == {2}


def test_temperature_draws_among_actions() -> None:
    """Gumbel's noise times 100 is all that counts; none of it is left at 0."""
    env, model = learned(exploration_rate=0.0, temperature=100.0)
    model.learn(200, reset_num_timesteps=False)
    assert min(Counter(env.taken)[a] for a in range(ACTIONS)) > 20


def test_the_replay_keeps_the_policy_and_the_regret_of_what_was_taken() -> None:
    """A random action is a mistake in front of which value targets stop; it is no policy target."""
    _, model = learned(exploration_rate=0.0, temperature=0.0)
    model.exploration_rate, model.reanalyse_ratio = 1.0, 0
    first = int(model.replay_buffer.head[0])
    model.learn(100, reset_num_timesteps=False)
    replay, rows = model.replay_buffer, slice(first, first + 100)
    played = replay.searched[0, rows]
    best = replay.action[0, rows][played] == 2
    assert 10 < best.sum() < 50
    assert (replay.policy[0, rows][played].argmax(-1) == 2).all()
    assert (replay.regret[0, rows][played][best] < 0.05).all()
    assert (replay.regret[0, rows][played][~best] > 0.5).all()
