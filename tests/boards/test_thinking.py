"""Thinking slice by slice, by the rules and in the learned model."""

from __future__ import annotations

from typing import Any

import chess
import numpy as np
import pytest
from pettingzoo.classic import connect_four_v3

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import NUM_ACTIONS, ChessEnv, action_of, move_of
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState
from muzero_agent.adapters.envs.games import ConnectFour
from muzero_agent.planner import LatentModel
from muzero_agent.rules_planner import RulesModel, RulesPlanner
from muzero_agent.search.anytime import AnytimeSearch
from muzero_agent.thinking import Thinker

MATE_IN_TWO = [
    ("r1bq2r1/b4pk1/p1pp1p2/1p2pP2/1P2P1PB/3P4/1PPQ2P1/R3K2R w KQ - 0 1", "d2h6"),
    ("kbK5/pp6/1P6/8/8/8/8/R7 w - - 0 1", "a1a6"),
    ("7k/8/5K2/8/8/8/8/R7 w - - 0 1", None),
    ("r7/8/8/8/8/5k2/8/7K b - - 0 1", None),
]


@pytest.fixture(scope="module")
def four() -> MuZero:
    arch = {"channels": 8, "head_width": 16}
    return MuZero("CnnPolicy", connect_four_v3.env, seed=0, policy_kwargs={"net_arch": arch})


@pytest.fixture(scope="module")
def chess_model() -> MuZero:
    arch = {"channels": 4, "head_width": 8}
    return MuZero("CnnPolicy", ChessEnv, seed=0, policy_kwargs={"net_arch": arch}, buffer_size=1000)


def think(thinker: Thinker[Any], visits: int) -> None:
    while thinker.search.visits < visits and thinker.grow(visits - thinker.search.visits):
        pass


def four_thinker(model: MuZero, leaves: int, max_nodes: int = 5000) -> Thinker[Any]:
    search = AnytimeSearch(7, max_nodes, slots_per_node=7, prove=True, min_q_range=0.5)
    return Thinker(RulesModel(ConnectFour(), model.policy.evaluate), search, leaves)


def test_one_leaf_at_a_time_thinks_as_the_batch_planner_does(four: MuZero) -> None:
    rules = ConnectFour()
    state = rules.play(rules.play(rules.initial(), 3), 3)
    four.search, four.num_simulations = "puct", 60
    four.policy.value_error.fill_(0.25)
    plan = four.plan(state, planner=RulesPlanner(rules))
    thinker = four_thinker(four, 1)
    thinker.begin(state)
    think(thinker, 60)
    visits = {child.action: child.visits for child in thinker.search.children()}
    assert [visits[action] for action in range(7)] == plan.visit_counts[0].tolist()


def test_the_learned_model_thinks_as_the_latent_planner_does(four: MuZero) -> None:
    rules = ConnectFour()
    state = rules.play(rules.initial(), 3)
    legal = np.ones(7, np.bool_)
    obs = {"observation": rules.observe(state), "action_mask": legal.astype(np.int8)}
    four.search, four.num_simulations = "puct", 60
    four.policy.value_error.fill_(0.25)
    plan = four.plan(obs)
    policy = four._configured_policy()
    model = LatentModel(
        policy.target_network, 100, discount=-1.0, terminal_rewards=policy.terminal_rewards
    )
    thinker: Thinker[Any] = Thinker(model, AnytimeSearch(7, 100, min_q_range=0.5), leaves=1)
    thinker.begin((policy.network_input(rules.observe(state)[None]), legal))
    think(thinker, 60)
    visits = {child.action: child.visits for child in thinker.search.children()}
    assert [visits[action] for action in range(7)] == plan.visit_counts[0].tolist()
    assert not thinker.follow(3)


def test_what_was_thought_is_kept_along_the_moves(four: MuZero) -> None:
    rules = ConnectFour()
    thinker = four_thinker(four, 16)
    thinker.begin(rules.initial())
    think(thinker, 400)
    first, second = thinker.search.variation(thinker.search.children()[0].action)[:2]
    known = thinker.search.children()[0].visits
    assert thinker.follow(first)
    assert thinker.search.visits == known - 1
    assert thinker.follow(second)
    state = rules.play(rules.play(rules.initial(), first), second)
    assert isinstance(thinker.model, RulesModel)
    assert thinker.model.states[0] == state
    assert len(thinker.model.states) == thinker.search.num_nodes
    before = thinker.search.visits
    think(thinker, before + 100)
    assert thinker.search.visits == before + 100


def test_only_allowed_actions_are_chosen(four: MuZero) -> None:
    thinker = four_thinker(four, 8)
    thinker.begin(ConnectFour().initial(), allowed=[0, 6])
    think(thinker, 50)
    assert {child.action for child in thinker.search.children()} == {0, 6}


@pytest.mark.parametrize(("fen", "first"), MATE_IN_TWO)
@pytest.mark.parametrize("leaves", [1, 16])
def test_mates_in_two_are_found(
    chess_model: MuZero, fen: str, first: str | None, leaves: int
) -> None:
    board = chess.Board(fen)
    search = AnytimeSearch(NUM_ACTIONS, 20_000, prove=True, min_q_range=1.0)
    model = RulesModel(ChessRules(), chess_model.policy.evaluate)
    thinker: Thinker[Any] = Thinker(model, search, leaves)
    thinker.begin(ChessState(board))
    while not search.children()[0].mate and thinker.grow():
        pass
    best = search.children()[0]
    assert best.mate in (1, 3)
    if first is not None:
        assert best.action == action_of(chess.Move.from_uci(first), board.turn)
    for action in search.variation(best.action):
        board.push(move_of(action, board))
    assert board.is_checkmate()


def test_a_full_tree_is_told(four: MuZero) -> None:
    thinker = four_thinker(four, 16, max_nodes=100)
    thinker.begin(ConnectFour().initial())
    while thinker.grow():
        pass
    assert thinker.search.fullness == 1
    with pytest.raises(ValueError, match="leaves=0"):
        four_thinker(four, 0)
