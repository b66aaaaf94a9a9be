"""Symmetries: those declared are the game's, and training sees whole windows under one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pettingzoo.classic import chess_v6, connect_four_v3, go_v5, tictactoe_v3

from muzero_agent import MuZero
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.augmentation import turn_actions, turn_observations, turn_policies
from muzero_agent.types import Symmetries

from .aec_games import CountingGame

GAMES: dict[str, tuple[Callable[[], Any], int]] = {
    "tictactoe": (tictactoe_v3.env, 8),
    "connect_four": (connect_four_v3.env, 2),
    "go": (lambda: go_v5.env(board_size=5), 8),
}
TINY: dict[str, Any] = {
    "learning_starts": 20,
    "batch_size": 64,
    "train_freq": 8,
    "gradient_steps": 1,
    "num_simulations": 4,
    "reanalyse_ratio": 0,
    "seed": 0,
}


@pytest.mark.parametrize("name", GAMES)
def test_turned_games_are_games(name: str) -> None:
    """A game and its image, played side by side by the rules."""
    make, number = GAMES[name]
    rng = np.random.default_rng(0)
    symmetries = TurnBasedEnv(make()).symmetries
    assert symmetries is not None
    assert len({tuple(row) for row in symmetries.observation.tolist()}) == number
    assert symmetries.action[0].tolist() == list(range(symmetries.action.shape[1]))
    for symmetry in range(number):
        which = np.array([symmetry])
        env, image = TurnBasedEnv(make()), TurnBasedEnv(make())
        obs, _ = env.reset()
        seen, _ = image.reset()
        for _ in range(30):
            batch = {key: part[None, None] for key, part in obs.items()}
            turned = turn_observations(symmetries, which, batch)
            assert all(np.array_equal(turned[key][0, 0], seen[key]) for key in seen)
            action = rng.choice(np.flatnonzero(env.action_masks()))
            twin = turn_actions(symmetries, which, np.array([[action]]))[0, 0]
            obs, reward, over, _, _ = env.step(action)
            seen, its_reward, its_over, _, _ = image.step(twin)
            assert (reward, over) == (its_reward, its_over)
            if over:
                break


def test_policies_go_where_their_actions_go() -> None:
    symmetries = TurnBasedEnv(go_v5.env(board_size=3)).symmetries
    assert symmetries is not None
    which = np.arange(8)
    actions = np.tile(np.arange(10), (8, 1))
    policies = np.random.default_rng(0).random((8, 2, 10))
    turned = turn_policies(symmetries, which, policies)
    twins = turn_actions(symmetries, which, actions)
    for b in range(8):
        for t in range(2):
            assert np.array_equal(turned[b, t, twins[b]], policies[b, t])
    assert (twins[:, 9] == 9).all()  # a pass


@pytest.mark.parametrize("augment", [True, False])
def test_windows_are_turned_as_a_whole(augment: bool) -> None:
    """In each, the square that an action names is taken in the next position and was free."""
    model = MuZero("MlpPolicy", [tictactoe_v3.env] * 2, augment=augment, **TINY).learn(400)
    replay = model.replay_buffer
    replay.policy[...] = np.eye(9)[replay.action]  # the target names the action taken
    batch = replay.sample(512)
    assert isinstance(batch.observations, dict)
    boards = batch.observations["observation"].numpy()
    actions, moves = batch.actions.numpy(), batch.consistency_mask.numpy() > 0
    policies = batch.policies.numpy()
    firsts = set()
    for b, k in np.argwhere(moves):
        row, column = divmod(int(actions[b, k]), 3)
        assert not boards[b, k, row, column].any()
        assert boards[b, k + 1, row, column].tolist() == [0, 1]  # seen by the other player
        if policies[b, k].any():
            assert policies[b, k].argmax() == actions[b, k]
        if k == 0 and not boards[b, 0].any():
            firsts.add((int(batch.rows.row[b]), int(batch.rows.env[b]), int(actions[b, 0])))
    openings = {(row, env) for row, env, _ in firsts}
    assert (len(firsts) > len(openings)) == augment  # one opening, seen from several sides


def test_what_a_game_declares_is_used() -> None:
    flip = Symmetries(np.array([[0, 1, 2], [0, 1, 2]]), np.array([[0, 1, 2], [1, 0, 2]]))

    class Declared(CountingGame):
        symmetries = flip

    model = MuZero("MlpPolicy", Declared(), **TINY).learn(40)
    assert model.replay_buffer.symmetries is flip
    assert MuZero("MlpPolicy", CountingGame(), **TINY).learn(40).replay_buffer.symmetries is None


def test_chess_has_none() -> None:
    assert TurnBasedEnv(chess_v6.env()).symmetries is None


@pytest.mark.parametrize(
    "wrong",
    [
        Symmetries(np.array([[0, 1]]), np.array([[0, 1, 2]])),
        Symmetries(np.array([[0, 1, 2]]), np.array([[0, 1, 1]])),
        Symmetries(np.array([[0, 1, 2], [2, 1, 0]]), np.array([[0, 1, 2]])),
    ],
)
def test_what_is_no_symmetry_is_refused(wrong: Symmetries) -> None:
    class Declared(CountingGame):
        symmetries = wrong

    with pytest.raises(ValueError, match=r"symmetries\.(observation|action)"):
        MuZero("MlpPolicy", Declared(), **TINY).learn(10)
    MuZero("MlpPolicy", Declared(), augment=False, **TINY).learn(10)
