"""What learning does besides playing its best: random actions, temperature, what is kept of it."""

from __future__ import annotations

from collections import Counter
from functools import cache
from io import BytesIO
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent import MuZero
from muzero_agent.exploration import Exploration

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


@cache
def saved(search: str) -> bytes:
    """An agent that knows what pays."""
    model = MuZero(
        "MlpPolicy", Recorder(), search=search, learning_starts=64, batch_size=64,
        num_simulations=8, learning_rate=3e-3, reanalyse_ratio=8, target_decay=0.9,
        policy_kwargs={"net_arch": [32]}, seed=0,
    ).learn(400)  # fmt: skip
    model.save(file := BytesIO())
    return file.getvalue()


def learned(search: str = "gumbel", **settings: Any) -> tuple[Recorder, MuZero]:
    """It, before it is asked to explore; its replay is empty."""
    env = Recorder()
    return env, MuZero.load(BytesIO(saved(search)), env, **settings)


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_without_repetition_the_rate_is_the_share_of_random_actions(search: str) -> None:
    env, model = learned(search=search, exploration_rate=0.0, exploration_length=1, temperature=0.0)
    model.learn(200, reset_num_timesteps=False)
    assert Counter(env.taken) == {2: 200}
    env.taken.clear()
    model.exploration_rate, model.gradient_steps = 1.0, 1
    model.learn(400, reset_num_timesteps=False)
    counts = np.bincount(env.taken, minlength=ACTIONS)
    assert ((counts - 100) ** 2 / 100).sum() < 16.3  # chi-squared with 3 degrees: p = 0.001


def test_a_schedule_follows_the_progress() -> None:
    env, model = learned(
        exploration_rate=LinearSchedule(1.0, 0.0, 0.5), exploration_length=1, temperature=0.0
    )
    model.num_timesteps = 0
    model.learn(400)
    random = model.learning_starts
    assert np.mean(np.array(env.taken[random:200]) != 2) > 0.2
    assert set(env.taken[200:]) == {2}


def test_the_temperature_follows_the_progress() -> None:
    """From noise that is all that counts to none, half-way."""
    env, model = learned(exploration_rate=0.0, temperature=LinearSchedule(100.0, 0.0, 0.5))
    model.num_timesteps = 0
    model.learn(400)
    assert min(Counter(env.taken[model.learning_starts : 200])[a] for a in range(ACTIONS)) > 10
    assert set(env.taken[200:]) == {2}


def test_temperature_draws_among_actions() -> None:
    """Gumbel's noise times 100 is all that counts; none of it is left at 0."""
    env, model = learned(exploration_rate=0.0, temperature=100.0)
    model.learn(200, reset_num_timesteps=False)
    assert min(Counter(env.taken)[a] for a in range(ACTIONS)) > 20


def test_the_replay_keeps_the_policy_and_the_regret_of_what_was_taken() -> None:
    """A random action is a mistake in front of which value targets stop; it is no policy target."""
    _, model = learned(exploration_rate=0.0, exploration_length=1, temperature=0.0)
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


def runs_of(played: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], played, [False]]).astype(int)))
    return edges[1::2] - edges[::2]


def test_durations_follow_the_zeta_distribution() -> None:
    """With a rate so low that one never follows another at once, and the search's action marked."""
    rng = np.random.default_rng(0)
    envs, steps, longest = 500, 4_000, 8
    exploration = Exploration(envs)
    search, legal = np.full(envs, ACTIONS, np.int32), np.ones((envs, ACTIONS + 1), np.bool_)
    legal[:, ACTIONS] = False  # so that no random action looks like the search's
    played = np.stack(
        [exploration.replace(search, legal, 0.002, longest, rng) for _ in range(steps)]
    )
    lengths = np.concatenate([runs_of(column != ACTIONS) for column in played.T])
    alone = 1 / np.arange(1, 1000) ** 2.0 / (np.pi**2 / 6)
    expected = np.append(alone[: longest - 1], 1 - alone[: longest - 1].sum()) * len(lengths)
    counts = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[1:]
    # Runs that meet by chance, 1 in 300, are the rest.
    assert len(lengths) > 3_000
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected) + len(lengths) / 300).all()
    random = played[played != ACTIONS]
    assert (np.abs(np.bincount(random) / len(random) - 1 / ACTIONS) < 0.05).all()
    both = (played[1:] != ACTIONS) & (played[:-1] != ACTIONS)
    assert (played[1:] == played[:-1])[both].mean() > 0.98  # within a run the action stays


@pytest.mark.parametrize(("rate", "share"), [(0.02, 0.052), (0.05, 0.122)])
def test_the_share_of_random_actions(rate: float, share: float) -> None:
    """rate E[n] / (1 + rate (E[n] - 1)), with E[n] = 2.64 for lengths of at most 16."""
    rng = np.random.default_rng(1)
    exploration = Exploration(200)
    search, legal = np.full(200, ACTIONS, np.int32), np.ones((200, ACTIONS + 1), np.bool_)
    legal[:, ACTIONS] = False
    played = [exploration.replace(search, legal, rate, 16, rng) for _ in range(2_000)]
    assert abs(np.mean(np.stack(played) != ACTIONS) - share) < 0.005


def test_new_settings_end_what_is_being_repeated() -> None:
    rng = np.random.default_rng(0)
    legal, search = np.ones((1, 2), np.bool_), np.ones(1, np.int32)
    exploration = Exploration(1)
    exploration.left[:] = 100
    assert exploration.replace(search, legal, 1e-9, 3, rng) == [0]
    assert exploration.left[0] == 1
    assert exploration.replace(search, legal, 0.0, 3, rng) == [1]


def test_nothing_is_repeated_beyond_a_reset() -> None:
    _, model = learned(exploration_rate=1e-9)
    model._exploration.left[:] = 10
    env = Recorder()
    model.set_env(env)
    model.learn(20, reset_num_timesteps=False)
    assert Counter(env.taken)[2] > 15  # and not ten times 0


def test_what_is_being_repeated_goes_on_in_the_next_learn() -> None:
    env, model = learned(exploration_rate=1e-9, temperature=0.0)
    model.learn(10, reset_num_timesteps=False)
    env.taken.clear()
    model._exploration.left[:], model._exploration.action[:] = 3, 1
    model.learn(8, reset_num_timesteps=False)
    assert env.taken == [1, 1, 1, 2, 2, 2, 2, 2]


def test_what_is_no_longer_legal_is_not_repeated() -> None:
    rng = np.random.default_rng(0)
    exploration = Exploration(1)
    legal = np.array([[True, False]])
    while not exploration.left[0]:
        assert exploration.replace(np.zeros(1, np.int32), legal, 1.0, 1_000, rng) == [0]
    assert exploration.replace(np.ones(1, np.int32), ~legal, 0.0, 1_000, rng) == [1]
    assert not exploration.left[0]


def test_nothing_is_repeated_beyond_the_end_of_an_episode() -> None:
    exploration = Exploration(3)
    exploration.left[:] = 5
    exploration.begin_episodes(np.array([False, True, False]), 0, np.random.default_rng(0))
    actions = np.full(3, 1, np.int32)
    legal = np.ones((3, 2), np.bool_)
    played = exploration.replace(actions, legal, 1e-9, 16, np.random.default_rng(0))
    assert played.tolist() == [0, 1, 0]
    assert actions.tolist() == [1, 1, 1]


def test_learning_repeats_actions_within_episodes() -> None:
    """Episodes last ten steps: a long repetition ends with each."""
    env, model = learned(exploration_rate=0.0, temperature=0.0)
    model.exploration_rate, model.exploration_length = 1.0, 1_000
    model.num_simulations, model.gradient_steps = 1, 1  # they do not matter here
    model.learn(2_000, reset_num_timesteps=False)
    taken = np.array(env.taken).reshape(-1, 10)
    within, across = taken[:, 1:] == taken[:, :-1], taken[1:, 0] == taken[:-1, -1]
    assert within.mean() > 0.5  # 0.25 if each was drawn alone
    assert abs(across.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(across))


def test_episodes_begin_with_up_to_so_many_random_actions() -> None:
    """As many as 0 to 3 with the same chance, and what follows is the best that is known."""
    env, model = learned(exploration_rate=0.0, exploration_length=1, temperature=0.0)
    model.opening_actions = 3
    model.learning_starts, model.gradient_steps = 0, 1
    model.learn(1000, reset_num_timesteps=False)
    episodes = np.array(env.taken).reshape(-1, 10)
    assert (episodes[:, 3:] == 2).all()
    played = 1 - (episodes[:, :3] == 2).mean(0)  # three of four random actions are seen as such
    chance = np.array([3, 2, 1]) / 4 * 3 / 4
    assert (np.abs(played - chance) < 4 * np.sqrt(chance * (1 - chance) / len(episodes))).all()


def test_openings_are_legal_and_end_with_the_episode() -> None:
    rng = np.random.default_rng(0)
    exploration = Exploration(3)
    legal = np.zeros((3, ACTIONS), np.bool_)
    legal[:, 1] = True
    everywhere = np.ones(3, np.bool_)
    exploration.begin_episodes(everywhere, 5, rng)
    exploration.opening[:] = [0, 1, 5]
    best = np.zeros(3, np.int32)
    taken = [exploration.replace(best, legal, 0.0, 1, rng).tolist() for _ in range(3)]
    assert taken == [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    exploration.begin_episodes(np.array([False, False, True]), 0, rng)
    assert exploration.replace(best, legal, 0.0, 1, rng).tolist() == [0, 0, 0]
