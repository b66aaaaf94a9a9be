"""Targets from searches by the rules, of recorded games: field by field, and learning from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chess
import numpy as np
import pytest
import torch

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import NUM_ACTIONS, ChessEnv, action_of
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState
from muzero_agent.batch import Batch
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
MATE = action_of(chess.Move.from_uci("e1e8"), chess.WHITE)
STEPS = 2


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("games") / "games.pgn"
    path.write_text(PGN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def games(path: Path) -> ChessGames:
    return ChessGames.open(path, path.parent / "cache")


def indifferent(obs: Observation) -> RootOutput:
    return RootOutput(np.zeros((len(obs), NUM_ACTIONS), np.float32), np.zeros(len(obs), np.float32))


def plan(states: Sequence[ChessState]) -> Plan:
    return RulesPlanner(ChessRules()).plan(
        states, indifferent, num_simulations=8, search="gumbel", rng=np.random.default_rng(0),
        noise=0.0, temperature=1.0, max_num_considered_actions=16, min_q_range=1e-8,
        dirichlet_fraction=0.0, dirichlet_alpha=0.3, variations=False,
    )  # fmt: skip


def batch_of(games: ChessGames, values: dict[str, float]) -> Batch:
    batches = ChessBatches(games, unroll_steps=STEPS, policy="candidates", values=values, seed=0)
    return batches.sample(16)


def renewed(
    games: ChessGames, policies: dict[str, float], values: dict[str, float], windows: int = 16
) -> tuple[Batch, Batch]:
    """A batch with its labels, and the same one with searches."""
    after = GameSearches(games, plan, policies, values, windows).renew(batch_of(games, values))
    return batch_of(games, values), after


def at(batch: Batch, position: int) -> tuple[list[int], list[int]]:
    """Where in the windows a position of the game is."""
    row = batch.rows.row[:, None] + np.arange(STEPS + 1)
    window, step = np.nonzero(row == position)
    assert len(window) > 3  # enough of them to tell
    return window.tolist(), step.tolist()


def test_searches_find_the_mate_that_the_labels_miss(games: ChessGames) -> None:
    _, batch = renewed(games, {"search": 1.0}, {"search": 1.0})
    where = at(batch, 2)
    assert (batch.policies[where][:, MATE] > 0.9).all()
    assert (batch.values[where] > 0.9).all()
    assert batch.policy_mask[where].all()
    assert batch.value_mask[where].all()


def test_the_last_position_has_nothing_to_search(games: ChessGames) -> None:
    """Its values and masks stay those of the labels."""
    before, after = renewed(games, {"search": 1.0}, {"search": 1.0})
    where = at(after, 4)
    assert torch.equal(after.values[where], before.values[where])
    assert not after.policy_mask[where].any()
    for name in ("observations", "actions", "rewards", "reward_mask", "consistency_mask"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def test_targets_are_mixed_by_their_weights(games: ChessGames) -> None:
    """Three parts of a label and one of a search, which share the weight where one is missing."""
    weights = {"evaluation": 3.0, "search": 1.0}
    before, after = renewed(games, {"candidates": 3.0, "search": 1.0}, weights)
    for position in range(4):
        where = at(after, position)
        found = plan([state_of(games, position)])
        label = before.policies[where]
        expected = (3 * label + torch.as_tensor(found.policy[0])) / 4
        torch.testing.assert_close(after.policies[where], expected)
        value = torch.full((len(where[0]),), float(found.improved_value[0]))
        told = before.value_mask[where] > 0
        mixed = torch.where(told, (3 * before.values[where] + value) / 4, value)
        torch.testing.assert_close(after.values[where], mixed)
    assert before.values[at(before, 1)][0] == pytest.approx(-value_of(50))
    assert not before.value_mask[at(before, 0)].any()  # of which nothing is told


def state_of(games: ChessGames, position: int) -> ChessState:
    (state,) = states(games, games.rows(np.array([position])))
    return state


def test_windows_that_are_not_searched_keep_their_labels(games: ChessGames) -> None:
    before, after = renewed(games, {"candidates": 1.0, "search": 1.0}, {"evaluation": 1.0}, 5)
    assert not torch.equal(after.policies[:5], before.policies[:5])
    assert torch.equal(after.policies[5:], before.policies[5:])
    assert torch.equal(after.policy_mask[5:], before.policy_mask[5:])
    assert torch.equal(after.values, before.values)  # of which no search was asked
    _, alone = renewed(games, {"search": 1.0}, {"evaluation": 1.0}, 5)
    assert alone.policy_mask[:5, 0].all()
    assert not alone.policy_mask[5:].any()


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


def test_searches_of_games_say_what_they_need(games: ChessGames) -> None:
    with pytest.raises(ValueError, match="targets from searches need at least 3"):
        learner().learn_offline(games, 1, policy_targets="search", reanalyse_ratio=2)
    with pytest.raises(ValueError, match="of 'candidates' and 'actions' give one"):
        learner().learn_offline(games, 1, policy_targets={"candidates": 1, "actions": 1})
    with pytest.raises(ValueError, match="choose among"):
        learner().learn_offline(games, 1, policy_targets="good_actions")
