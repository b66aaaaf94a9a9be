"""Recorded episodes as a replay that nothing is added to, but newer searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize

from muzero_agent.actions import from_space, legal_actions
from muzero_agent.batch import Rows
from muzero_agent.datasets.episodes import Episode
from muzero_agent.observations import row_of
from muzero_agent.replay import TrajectoryReplayBuffer
from muzero_agent.types import MASK_KEY, Observation

MOST_BYTES = 8 << 30
"""That policies of all states may take: each holds A numbers."""


class RecordedReplay(TrajectoryReplayBuffer):
    """The replay of a dataset, see `fill`. None of its actions counts as today's policy for being
    new.

    :param policy_weights: of "search", "actions" and "good_actions" in policy targets; until a
        state is searched, and where its action is not to be imitated, the others count alone
    :param value_weights: of "search", "result" and "evaluation" in value targets; where one was not
        recorded, the others count alone
    """

    newest = 0.0
    policy_weights: Mapping[str, float]
    value_weights: Mapping[str, float]
    recorded: NDArray[np.float32]  # [1, capacity], evaluations; NaN where there is none
    imitated: NDArray[np.bool_]  # [1, capacity], whether the action is a policy target
    good: NDArray[np.bool_]  # [1, capacity], whether the newest search finds no fault with it

    def _policies(
        self, env: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        search = self.policy_weights.get("search", 0.0) * self.searched[env, slot]
        good = self.policy_weights.get("good_actions", 0.0) * self.good[env, slot]
        actions = self.policy_weights.get("actions", 0.0) + good
        actions = actions * self.imitated[env, slot]
        total = search + actions
        share = np.divide(actions, total, out=np.zeros_like(total), where=total > 0)
        policies = self.policy[env, slot] * (1 - share)[..., None].astype(np.float32)
        flat = policies.reshape(-1, self.num_actions)
        flat[np.arange(len(flat)), self.action[env, slot].ravel()] += share.ravel().astype(
            np.float32
        )
        return policies, total > 0

    def update_search(
        self,
        rows: Rows,
        policy: NDArray[np.float32],
        value: NDArray[np.float32],
        regret: NDArray[np.float32],
    ) -> None:
        """An action is good that is worth what the search's policy is worth, or more."""
        super().update_search(rows, policy, value, regret)
        slot = rows.row % self.capacity
        taken = regret[np.arange(len(slot)), self.action[rows.env, slot]]
        self.good[rows.env, slot] = taken <= (policy * regret).sum(-1)

    def value_targets(
        self,
        rows: Rows,
        num_targets: int,
        env: VecNormalize | None = None,
        *,
        monte_carlo: bool = False,
    ) -> NDArray[np.float32]:
        """The mixture; NaN where none of it is told of a state."""
        weights = self.value_weights
        total = np.zeros((len(rows.row), num_targets), np.float32)
        weight = np.zeros_like(total)
        for name, returns in (("search", False), ("result", True)):
            if weights.get(name, 0.0) > 0:
                targets = super().value_targets(rows, num_targets, env, monte_carlo=returns)
                known = ~np.isnan(targets)
                total[known] += np.float32(weights[name]) * targets[known]
                weight[known] += np.float32(weights[name])
        if weights.get("evaluation", 0.0) > 0:
            ends = self._ends(rows)[:, None]
            row = np.minimum(rows.row[:, None] + np.arange(num_targets), ends)
            told = self.recorded[0, row % self.capacity]
            # Behind a termination nothing is worth anything, whatever was recorded.
            told = np.where((row == ends) & self.terminated[0, ends % self.capacity], 0, told)
            exists = ~np.isnan(told)
            total[exists] += np.float32(weights["evaluation"]) * told[exists]
            weight[exists] += np.float32(weights["evaluation"])
        targets = np.full_like(total, np.nan)
        return np.divide(total, weight, out=targets, where=weight > 0)

    def truncated_ends(self) -> NDArray[np.int64]:
        """Rows of last states from which an episode would have gone on."""
        rows = np.arange(self.head[0])
        ends: NDArray[np.int64] = rows[(self.last_row[0, rows] == rows) & ~self.terminated[0, rows]]
        return ends


def fill(
    episodes: Iterable[Episode],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    num_players: int,
    max_drop: float,
    gamma: float,
    policy_weights: Mapping[str, float],
    value_weights: Mapping[str, float],
    **settings: Any,
) -> RecordedReplay:
    """A replay of episodes.

    :param max_drop: see `MuZero.learn_offline`
    :param settings: of `TrajectoryReplayBuffer`
    :raises ValueError: for episodes that do not fit the spaces, and if there are none
    """
    given = [
        _checked(number, episode, observation_space, action_space)
        for number, episode in enumerate(episodes)
        if len(episode.actions)
    ]
    if not given:
        raise ValueError("the dataset holds no transition")
    size = sum(len(episode.actions) + 1 for episode in given)
    replay = RecordedReplay(
        max(size, settings["unroll_steps"] + 2),
        observation_space,
        action_space,
        gamma=gamma,
        **settings,
    )
    if size * replay.num_actions * 4 > MOST_BYTES:
        raise ValueError(
            f"policies of {size:,} states with {replay.num_actions} actions do not fit into "
            f"{MOST_BYTES >> 30} GiB: give a part of the dataset, or, of chess, a PGN file with "
            'policy_targets="candidates" or "actions"'
        )
    replay.policy_weights, replay.value_weights = policy_weights, value_weights
    replay.recorded = np.full((1, replay.capacity), np.nan, np.float32)
    replay.imitated = np.zeros((1, replay.capacity), np.bool_)
    replay.good = np.ones((1, replay.capacity), np.bool_)  # until a search knows better
    if value_weights.get("evaluation", 0.0) > 0 and value_weights.keys() == {"evaluation"}:
        lacking = [number for number, episode in enumerate(given) if episode.values is None]
        if lacking:
            raise ValueError(
                f'value_targets="evaluation": episode {lacking[0]} has no values; give them, or '
                '"result" or "search"'
            )
    row = 0
    for episode in given:
        num, players = len(episode.actions), _players(episode, num_players)
        _add(replay, episode, players)
        replay.imitated[0, row : row + num] = ~_blunders(episode, players, max_drop, gamma)
        if episode.values is not None:
            replay.recorded[0, row : row + num + 1] = episode.values
        row += num + 1
    return replay


def _players(episode: Episode, num_players: int) -> NDArray[np.int8]:
    if episode.players is not None:
        return episode.players
    return (np.arange(len(episode.actions) + 1) % num_players).astype(np.int8)


def _blunders(
    episode: Episode, players: NDArray[np.int8], max_drop: float, gamma: float
) -> NDArray[np.bool_]:
    """Which actions [T] cost more of the recorded value than allowed."""
    values = episode.values
    if values is None or max_drop == math.inf:
        return np.zeros(len(episode.actions), np.bool_)
    sign = np.where(players[1:] == players[:-1], gamma, -gamma)
    drop = values[:-1] - (episode.rewards + sign * values[1:])
    too_much: NDArray[np.bool_] = drop > max_drop  # NaN is not
    return too_much


def _add(replay: RecordedReplay, episode: Episode, players: NDArray[np.int8]) -> None:
    num = len(episode.actions)
    legal = _legal(episode, replay)
    no_policy = np.zeros(replay.num_actions, np.float32)
    for step in range(num):
        replay.add_step(
            0,
            row_of(episode.observations, step),
            int(episode.actions[step]),
            float(episode.rewards[step]),
            no_policy,
            math.nan,
            0.0,
            None if legal is None else legal[step],
            searched=False,
            player=int(players[step]),
        )
    replay.end_episode(
        0,
        row_of(episode.observations, num),
        math.nan if episode.values is None else float(episode.values[num]),
        terminated=episode.terminated,
        player=int(players[num]),
        legal=None if legal is None else legal[num],
    )


def _legal(episode: Episode, replay: RecordedReplay) -> NDArray[np.bool_] | None:
    if episode.legal is not None:
        return legal_actions(replay.action_space, episode.legal)
    if isinstance(episode.observations, dict) and MASK_KEY in episode.observations:
        return legal_actions(replay.action_space, episode.observations[MASK_KEY])
    return None


def _checked(
    number: int,
    episode: Episode,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> Episode:
    """The episode with its actions as numbers.

    :raises ValueError: if it does not fit
    """
    what, num = f"episode {number} of the dataset", len(episode.actions)
    parts: dict[str, tuple[Any, spaces.Space[Any]]] = {
        "": (episode.observations, observation_space)
    }
    if isinstance(observation_space, spaces.Dict):
        observations = episode.observations
        if not isinstance(observations, dict) or observations.keys() != observation_space.keys():
            raise ValueError(f"{what}: its observations are none of {observation_space}")
        parts = {key: (observations[key], observation_space[key]) for key in observations}
    for key, (seen, space) in parts.items():
        name = f"observations {key}".rstrip()
        shape = np.shape(seen)
        if shape[1:] != (space.shape or ()):
            raise ValueError(
                f"{what}: {name} have the shape {shape[1:]}, and those of the "
                f"environment {space.shape}"
            )
        if shape[0] != num + 1:
            raise ValueError(f"{what}: {num} actions need {num + 1} observations, not {shape[0]}")
        if not np.isfinite(np.asarray(seen, np.float64)).all():
            raise ValueError(f"{what}: {name} hold NaN or infinity")
    rewards = np.asarray(episode.rewards, np.float32).reshape(-1)
    if len(rewards) != num or not np.isfinite(rewards).all():
        raise ValueError(f"{what}: {num} actions need as many finite rewards")
    for name in ("legal", "players", "values"):
        given = getattr(episode, name)
        if given is not None and len(given) != num + 1:
            raise ValueError(f"{what}: {num} actions need {num + 1} {name}, not {len(given)}")
    try:
        actions = from_space(action_space, episode.actions)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return episode._replace(actions=actions, rewards=rewards)


def observations_of(replay: RecordedReplay, at_once: int = 4096) -> Iterable[Observation]:
    """All observations, some at a time."""
    held = replay.size()
    for first in range(0, held, at_once):
        rows = np.arange(first, min(first + at_once, held))
        yield replay.observations_at(Rows(np.zeros_like(rows), rows))
