"""Games of this package as AEC environments of PettingZoo."""

from __future__ import annotations

import numpy as np
import pytest
from pettingzoo.classic import chess_v6, tictactoe_v3
from pettingzoo.test import api_test, seed_test

from muzero_agent.adapters.envs.aec import as_aec
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # the test's own, about agents' names
def test_pettingzoo_finds_nothing_wrong() -> None:
    api_test(as_aec(ChessEnv()), num_cycles=500)
    api_test(as_aec(TurnBasedEnv(tictactoe_v3.env())), num_cycles=100)
    seed_test(lambda: as_aec(ChessEnv()), num_cycles=200)


def test_there_and_back_is_the_game_itself() -> None:
    """Chess through the wrapper beside chess_v6, with its two oddities."""
    rng = np.random.default_rng(0)
    theirs, ours = chess_v6.env(), as_aec(ChessEnv(empty_start=True, claim_early=True))
    for seed in range(2):
        theirs.reset(seed=seed)
        ours.reset(seed=seed)
        for _ in range(120):
            there, reward, *ends, _ = theirs.last()
            here, our_reward, *our_ends, _ = ours.last()
            assert (our_reward, our_ends) == (reward, ends)
            assert theirs.agents.index(theirs.agent_selection) == ours.agents.index(
                ours.agent_selection
            )
            if any(ends):
                break
            assert all(np.array_equal(there[key], here[key]) for key in there)
            action = int(rng.choice(np.flatnonzero(here["action_mask"])))
            theirs.step(action)
            ours.step(action)
        assert list(ours.rewards.values()) == list(theirs.rewards.values())


def test_an_illegal_move_loses_and_ends_the_game() -> None:
    env = as_aec(TurnBasedEnv(tictactoe_v3.env()))
    env.reset(seed=0)
    env.step(4)
    env.step(4)
    assert env.rewards == {"player_0": 0.0, "player_1": -1.0}
    assert all(env.terminations.values())


def test_who_is_not_to_move_has_no_legal_action() -> None:
    env = as_aec(ChessEnv())
    env.reset(seed=0)
    assert env.observe("player_0")["action_mask"].sum() == 20
    assert env.observe("player_1")["action_mask"].sum() == 0
