"""Plans by the true rules: legal, exact about ends, and evaluated by the network."""

from __future__ import annotations

import random
from typing import Any

import chess
import numpy as np
import pytest
from pettingzoo.classic import connect_four_v3

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import ChessEnv, action_of, legal_actions, move_of
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState, _checks
from muzero_agent.adapters.envs.games import ConnectFour, TicTacToe, winning_actions
from muzero_agent.adapters.envs.go_rules import GoRules
from muzero_agent.rules_planner import EvaluationCache, RulesModel, RulesPlanner
from muzero_agent.types import RootOutput, Rules

MATES = [  # in one
    ("6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1", "a1a8"),
    ("r5k1/8/8/8/8/8/5PPP/6K1 b - - 0 1", "a8a1"),
    ("7k/R7/5N2/8/8/8/8/K7 w - - 0 1", "a7h7"),
    ("6k1/4Pppp/8/8/8/8/8/6K1 w - - 0 1", "e7e8q"),
]


@pytest.fixture(scope="module")
def four() -> MuZero:
    return MuZero("CnnPolicy", connect_four_v3.env, policy_kwargs={"net_arch": {"channels": 4}})


@pytest.fixture(scope="module")
def chess_model() -> MuZero:
    arch = {"channels": 4, "head_width": 8}
    return MuZero("CnnPolicy", ChessEnv, policy_kwargs={"net_arch": arch}, buffer_size=1000)


def played(actions: list[int]) -> Any:
    rules = ConnectFour()
    state = rules.initial()
    for action in actions:
        state = rules.play(state, action)
    return state


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_a_win_is_taken_and_a_loss_prevented(four: MuZero, search: str) -> None:
    four.search, four.num_simulations = search, 100
    planner = RulesPlanner(ConnectFour())
    win, threat = played([0, 1, 0, 1, 0, 1]), played([0, 1, 0, 1, 0])
    plan = four.plan([win, threat], planner=planner)
    assert plan.action.tolist() == [0, 0]
    assert plan.q_values[0, 0] == 1.0
    assert plan.principal_variation[0] == [0]
    assert plan.improved_value[0] > 0.5


def test_full_columns_are_never_looked_at(four: MuZero) -> None:
    four.search, four.num_simulations = "gumbel", 40
    state = played([3] * 6)
    plan = four.plan(state, planner=RulesPlanner(ConnectFour()))
    assert plan.prior[0, 3] == plan.visit_counts[0, 3] == plan.policy[0, 3] == 0


def test_without_depth_both_planners_see_the_network_alone(four: MuZero) -> None:
    env = four.get_env()
    assert env is not None
    rules = ConnectFour()
    state = played([3, 2, 4])
    obs = {
        "observation": rules.observe(state),
        "action_mask": np.ones(7, np.int8),
    }
    by_rules = four.plan(state, planner=RulesPlanner(rules))
    latent = four.plan(obs)
    np.testing.assert_allclose(by_rules.prior, latent.prior, rtol=1e-5)


@pytest.mark.parametrize(("fen", "move"), MATES)
def test_mates_in_one_are_found(chess_model: MuZero, fen: str, move: str) -> None:
    chess_model.num_simulations = 100
    board = chess.Board(fen)
    plan = chess_model.plan(ChessState(board), planner=RulesPlanner(ChessRules()))
    found = move_of(int(plan.action[0]), board)
    board.push(found)
    assert board.is_checkmate(), (found, move)


@pytest.mark.parametrize(
    ("rules", "games", "least"),
    [
        (TicTacToe(), 200, 200),
        (ConnectFour(), 200, 300),
        (GoRules(5), 4, 1),
        (ChessRules(), 30, 200),
    ],
    ids=["tictactoe", "connect_four", "go", "chess"],
)
def test_wins_are_the_actions_that_win(rules: Rules[Any], games: int, least: int) -> None:
    """In random games, where what wins is found by trying."""
    rng, found = random.Random(0), 0
    for _ in range(games):
        state = rules.initial()
        while rules.outcome(state) is None:
            legal = rules.legal(state)
            wins = rules.wins(state, legal)
            assert wins == winning_actions(rules, state, legal)
            found += len(wins)
            passes = isinstance(rules, GoRules) and rng.random() < 0.3
            state = rules.play(state, legal[-1] if passes else rng.choice(legal))
    assert found >= least


@pytest.mark.parametrize(
    ("fen", "move"),
    [
        *MATES,
        ("8/5K2/8/1Q1pP2k/R4Q1r/3R4/8/8 w - d6 0 1", "e5d6"),  # en passant
        ("2n5/q3n3/8/1K2R3/1Pp5/2qq4/3k3q/8 b - b3 0 1", "c4b3"),
        ("3k4/1Q6/8/6p1/4R3/5Q2/8/R3K3 w Q - 0 1", "e1c1"),  # by castling
        ("8/7b/6p1/8/6pP/1n6/kbK5/3N4 b - h3 0 1", "g6g5"),  # by discovery
        ("N6K/1P1Q1R2/8/5R2/6k1/2R5/B7/N6Q w - - 0 1", "f5e5"),
        ("R7/K3kP1R/8/2NQ3N/N6b/8/8/5N2 w - - 0 1", "f7f8n"),  # by promotions
        ("R7/K3kP1R/8/2NQ3N/N6b/8/8/5N2 w - - 0 1", "f7f8q"),
        ("7k/8/5q2/4qb2/7q/N4K2/4p1p1/8 b - - 0 1", "e2e1n"),
    ],
)
def test_mates_of_every_kind_are_seen(fen: str, move: str) -> None:
    rules, state = ChessRules(), ChessState(chess.Board(fen))
    legal = rules.legal(state)
    wins = rules.wins(state, legal)
    assert wins == winning_actions(rules, state, legal)
    assert action_of(chess.Move.from_uci(move), state.board.turn) in wins


def test_every_check_is_tried_for_mate() -> None:
    """In random games of Chess960, castling included."""
    rng, checks = random.Random(0), 0
    for start in rng.sample(range(960), 20):
        board = chess.Board.from_chess960_pos(start)
        while not board.is_game_over() and board.ply() < 120:
            actions = legal_actions(board)
            giving = {action for action, move in actions.items() if board.gives_check(move)}
            assert giving <= set(_checks(board, list(actions)))
            checks += len(giving)
            board.push(rng.choice(list(actions.values())))
    assert checks > 1000


def test_where_a_game_is_drawn_but_not_stopped_a_legal_move_is_found(chess_model: MuZero) -> None:
    """A host may go on after the third repetition, fifty moves, and with bare kings."""
    chess_model.num_simulations = 8
    rules = ChessRules()
    state = ChessState(chess.Board("8/8/4k3/8/8/4K3/8/8 w - - 120 90"))
    assert rules.outcome(state) == 0
    plan = chess_model.plan(state, planner=RulesPlanner(rules))
    assert plan.action[0] in rules.legal(state)
    assert plan.value[0] == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("value", [0.5, -0.5])
def test_who_expects_more_than_a_draw_does_not_repeat(value: float) -> None:
    """With knights that went forth and back, the third time draws, which the policy likes best."""
    rules = ChessRules()
    state = rules.initial()
    for move in ["g1f3", "g8f6", "f3g1", "f6g8", "g1f3", "g8f6", "f3g1"]:
        state = rules.play_move(state, chess.Move.from_uci(move))
    draw = action_of(chess.Move.from_uci("f6g8"), chess.BLACK)
    assert rules.outcome(rules.play(state, draw)) == 0
    logits = np.zeros((1, rules.num_actions), np.float32)
    logits[0, draw] = 3.0
    said = RootOutput(logits, np.array([value], np.float32))
    model = RulesModel(rules, lambda _: said, EvaluationCache(10))
    for _ in range(2):  # the second time from the cache
        found = model.plant([state]).prior_logits[0]
        legal = rules.legal(state)
        others = [action for action in legal if action != draw]
        assert (found[others] == 0).all()
        if value > 0:
            assert found[draw] < -10
        else:
            assert found[draw] == 3


@pytest.mark.parametrize("planner", ["rules", ConnectFour(), RulesPlanner])
def test_what_is_no_planner_is_refused(four: MuZero, planner: Any) -> None:
    with pytest.raises(TypeError, match=r"give RulesPlanner\(rules\)"):
        four.plan(played([]), planner=planner)


def test_states_of_another_game_are_refused(four: MuZero) -> None:
    with pytest.raises(TypeError, match="no state of ConnectFour"):
        four.plan(TicTacToe().initial(), planner=RulesPlanner(ConnectFour()))


@pytest.mark.parametrize("rules", ["rules", ConnectFour, object()])
def test_what_are_no_rules_is_refused(rules: Any) -> None:
    with pytest.raises(TypeError, match=r"are no rules: give an object such as ConnectFour\(\)"):
        RulesPlanner(rules)


def test_a_finished_game_is_refused(four: MuZero) -> None:
    full = TicTacToe()
    model = RulesModel(full, lambda obs: RootOutput(np.zeros((1, 9)), np.zeros(1)))  # type: ignore[arg-type]
    state = full.initial()
    for action in (0, 1, 2, 4, 3, 5, 7, 6, 8):
        state = full.play(state, action)
    with pytest.raises(ValueError, match="no legal move"):
        model.plant([state])
