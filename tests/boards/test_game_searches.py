"""Targets from searches by the rules, of recorded games: field by field, and learning from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import chess
import numpy as np
import pytest
import torch

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import NUM_ACTIONS, ChessEnv, action_of
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState
from muzero_agent.batch import Batch, Rows
from muzero_agent.datasets import ChessGames
from muzero_agent.datasets.chess_games import ChessBatches, states, value_of
from muzero_agent.datasets.game_searches import GameSearches
from muzero_agent.planner import Plan
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.types import Observation, RootOutput

# White misses a mate in one, and the labels do not tell.
PGN = """[Event "Missed"]
[FEN "6k1/p4ppp/8/8/8/8/1q6/K3R2R w - - 0 1"]
[SetUp "1"]
[Result "*"]

1. Kxb2 { [%eval 0.5] [%mpv g8f8:50,h7h6:20] } a6 { [%eval 0.7] } 2. Kb3 { [%eval 0.6] } Kf8 *

"""
MATED = """[Event "Fool's mate"]
[Result "0-1"]

1. f3 { [%eval -0.2] } e5 { [%eval -0.1] } 2. g4 { [%eval #-1] } Qh4# 0-1

"""
MATE = action_of(chess.Move.from_uci("e1e8"), chess.WHITE)
STEPS, SIZE = 2, 64


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> ChessGames:
    """Of two files, with a game each."""
    directory = tmp_path_factory.mktemp("games")
    for name, text in (("missed.pgn", PGN), ("mated.pgn", MATED)):
        (directory / name).write_text(text, encoding="utf-8")
    return ChessGames.open([directory / "missed.pgn", directory / "mated.pgn"], directory / "cache")


def indifferent(obs: Observation) -> RootOutput:
    return RootOutput(np.zeros((len(obs), NUM_ACTIONS), np.float32), np.zeros(len(obs), np.float32))


def plan(states: Sequence[ChessState]) -> Plan:
    return RulesPlanner(ChessRules()).plan(
        states, indifferent, num_simulations=8, search="gumbel", rng=np.random.default_rng(0),
        noise=0.0, temperature=1.0, max_num_considered_actions=16, min_q_range=1e-8,
        dirichlet_fraction=0.0, dirichlet_alpha=0.3, variations=False,
    )  # fmt: skip


def batch_of(games: ChessGames, values: dict[str, float], max_drop: float = math.inf) -> Batch:
    batches = ChessBatches(
        games, unroll_steps=STEPS, policy="candidates", values=values, max_drop=max_drop, seed=0
    )
    return batches.sample(SIZE)


def renewed(
    games: ChessGames,
    policies: dict[str, float],
    values: dict[str, float],
    windows: int = SIZE,
    **settings: float,
) -> tuple[Batch, Batch]:
    """A batch with its labels, and the same one with searches."""
    after = batch_of(games, values, **settings)
    GameSearches(games, plan, policies, values, windows).renew(after, np.full(SIZE, STEPS))
    return batch_of(games, values, **settings), after


def at(batch: Batch, position: int, file: int = 0) -> tuple[list[int], list[int]]:
    """Where in the windows a position of the game in a file is."""
    row = batch.rows.row[:, None] + np.arange(STEPS + 1)
    window, step = np.nonzero((row == position) & (batch.rows.env[:, None] == file))
    assert len(window) > 3  # enough of them to tell
    return window.tolist(), step.tolist()


def state_of(games: ChessGames, position: int, file: int = 0) -> ChessState:
    (state,) = states(games, Rows(np.array([file]), np.array([position])))
    return state


def test_searches_find_the_mate_that_the_labels_miss(games: ChessGames) -> None:
    _, batch = renewed(games, {"search": 1.0}, {"search": 1.0})
    where = at(batch, 2)
    assert (batch.policies[where][:, MATE] > 0.9).all()
    assert (batch.values[where] > 0.9).all()
    assert batch.policy_mask[where].all()
    assert batch.value_mask[where].all()


def test_the_last_position_has_nothing_to_search(games: ChessGames) -> None:
    """Nobody knows how the one game went on; the other one ended, and is worth nothing more."""
    before, after = renewed(games, {"search": 1.0}, {"search": 1.0})
    for file, told in ((0, 0.0), (1, 1.0)):
        where = at(after, 4, file)
        assert (after.values[where] == 0).all()
        assert (after.value_mask[where] == told).all()
        assert not after.policy_mask[where].any()
        where = at(after, 3, file)
        assert after.value_mask[where].all()
        assert after.policy_mask[where].all()
    for name in ("observations", "actions", "rewards", "reward_mask", "consistency_mask"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def test_targets_are_mixed_by_their_weights(games: ChessGames) -> None:
    """Three parts of a label and one of a search, which share the weight where one is missing."""
    weights = {"evaluation": 3.0, "search": 1.0}
    before, after = renewed(games, {"candidates": 3.0, "search": 1.0}, weights, max_drop=0.3)
    for file, position in np.ndindex(2, 4):
        where = at(after, position, file)
        found = plan([state_of(games, position, file)])
        search = torch.as_tensor(found.policy[0])
        label = before.policies[where]
        told = before.policy_mask[where][:, None] > 0
        expected = torch.where(told, (3 * label + search) / 4, search)
        torch.testing.assert_close(after.policies[where], expected)
        assert after.policy_mask[where].all()
        value = torch.full((len(where[0]),), float(found.improved_value[0]))
        told = before.value_mask[where] > 0
        mixed = torch.where(told, (3 * before.values[where] + value) / 4, value)
        torch.testing.assert_close(after.values[where], mixed)
        assert after.value_mask[where].all()
    assert before.values[at(before, 1)][0] == pytest.approx(-value_of(50))
    assert not before.value_mask[at(before, 0)].any()  # of which nothing is told
    assert not before.policy_mask[at(before, 2, 1)].any()  # a blunder
    assert before.policy_mask[at(before, 1, 1)].all()


def test_what_left_its_game_is_not_searched(games: ChessGames) -> None:
    values = {"evaluation": 1.0, "search": 1.0}
    before = batch_of(games, values)
    last = np.random.default_rng(0).integers(STEPS + 1, size=SIZE)
    searched: list[ChessState] = []

    def noted(given: Sequence[ChessState]) -> Plan:
        searched.extend(given)
        return plan(given)

    after = batch_of(games, values)
    GameSearches(games, noted, {"candidates": 1, "search": 1}, values, SIZE).renew(after, last)
    behind = np.arange(STEPS + 1) > last[:, None]
    for name in ("policies", "policy_mask", "values", "value_mask"):
        now, then = getattr(after, name)[behind], getattr(before, name)[behind]
        assert torch.equal(now, then)
    ends = games.last_rows(after.rows)[:, None]
    row = after.rows.row[:, None] + np.arange(STEPS + 1)
    assert len(searched) == (~behind & (row < ends)).sum()


def test_windows_that_are_not_searched_keep_their_labels(games: ChessGames) -> None:
    before, after = renewed(games, {"candidates": 1.0, "search": 1.0}, {"evaluation": 1.0}, 5)
    assert not torch.equal(after.policies[:5], before.policies[:5])
    assert torch.equal(after.policies[5:], before.policies[5:])
    assert torch.equal(after.policy_mask[5:], before.policy_mask[5:])
    assert torch.equal(after.values, before.values)  # of which no search was asked


def learner(**settings: Any) -> MuZero:
    return MuZero(
        "CnnPolicy", ChessEnv, seed=0, batch_size=8, num_simulations=4, unroll_steps=2,
        policy_kwargs={"net_arch": {"channels": 8, "num_blocks": 1, "actions": "chess"}},
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("unroll_steps", [0, 2])
def test_learning_from_searches_finds_the_mate(games: ChessGames, unroll_steps: int) -> None:
    """By no label; and twice the same."""
    found = []
    for _ in range(2):
        model = learner(learning_rate=0.01)
        model.learn_offline(
            games, 40, policy_targets="search", value_targets="search", unroll_steps=unroll_steps
        )
        found.append(model.policy.network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    model.policy.target_network.load_state_dict(model.policy.network.state_dict())
    state = state_of(games, 2)
    said = model.policy.evaluate(ChessRules().observe(state)[None])
    legal = ChessRules().legal(state)
    assert max(legal, key=lambda action: said.prior_logits[0, action]) == MATE
    assert said.value[0] > 0.5


def test_values_are_judged_by_what_is_told(games: ChessGames) -> None:
    """Searches begin with the network's own values, and are never far from them."""
    model = learner(learning_rate=0.0)
    model.learn_offline(games, 1, policy_targets="search", value_targets="search")
    error = float(model.policy.value_error)
    other = learner(learning_rate=0.0)
    other.learn_offline(games, 1)
    assert error == pytest.approx(float(other.policy.value_error))
    assert error > 0.1


def test_searches_of_games_say_what_they_need(games: ChessGames) -> None:
    model = learner()
    both = {"candidates": 1.0, "search": 1.0}
    with pytest.raises(ValueError, match=r"all windows of a batch, of 3 .* at least 24, or None"):
        model.learn_offline(games, 1, policy_targets="search", reanalyse_ratio=23)
    with pytest.raises(ValueError, match=r"all windows of a batch, of 1 .* at least 8, or None"):
        model.learn_offline(games, 1, value_targets="search", reanalyse_ratio=7, unroll_steps=0)
    with pytest.raises(ValueError, match=r"some windows of a batch, .* at least 3, or None"):
        model.learn_offline(games, 1, policy_targets=both, reanalyse_ratio=2)
    model.learn_offline(games, 1, policy_targets=both, reanalyse_ratio=3, excursions=0.5)
    with pytest.raises(ValueError, match="of 'candidates' and 'actions' give one"):
        model.learn_offline(games, 1, policy_targets={"candidates": 1, "actions": 1})
    with pytest.raises(ValueError, match="choose among"):
        model.learn_offline(games, 1, policy_targets="good_actions")
