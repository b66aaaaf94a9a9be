"""Searches small enough to compute by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muzero_agent.search import (
    RecurrentFn,
    RecurrentOutput,
    RootOutput,
    Tree,
    gumbel_muzero_policy,
    muzero_policy,
)
from muzero_agent.search.sequential_halving import considered_visits


def bandit(rewards: list[float], discount: float = 0.0, value: float = 0.0) -> RecurrentFn:
    """One root; an arm pays its reward, and the state behind has this value."""
    num_arms = len(rewards)

    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        return RecurrentOutput(
            reward=np.array(rewards, np.float32)[action],
            discount=np.full(1, discount, np.float32),
            prior_logits=np.zeros((1, num_arms), np.float32),
            value=np.full(1, value, np.float32),
        )

    return recurrent_fn


def root(num_actions: int, value: float = 0.0) -> RootOutput:
    return RootOutput(np.zeros((1, num_actions), np.float32), np.full(1, value, np.float32))


def puct(*arguments: Any, **keywords: Any) -> Any:
    return muzero_policy(*arguments, dirichlet_fraction=0, temperature=0, **keywords)


def gumbel(*arguments: Any, **keywords: Any) -> Any:
    return gumbel_muzero_policy(*arguments, gumbel_scale=0, **keywords)


def test_puct_on_two_arms() -> None:
    # 1: equal scores, so arm 0: Q = 0. 2: 0 + P/2 against P, so arm 1: Q = 1.
    # 3: 0 + P/2 against 1 + P/2, so arm 1. Root: (0 + 0 + 1 + 1) / 4.
    out = puct(root(2), bandit([0.0, 1.0]), 3)
    assert out.visit_counts.tolist() == [[1, 2]]
    assert out.q_values.tolist() == [[0.0, 1.0]]
    assert out.action_weights[0] == pytest.approx([1 / 3, 2 / 3])
    assert out.value[0] == pytest.approx(0.5)
    assert out.improved_value[0] == pytest.approx(2 / 3)
    assert out.action.tolist() == [1]


def test_gumbel_visits_all_arms_once_and_takes_the_best() -> None:
    out = gumbel(root(4), bandit([0.0, 0.5, 1.0, 0.25]), 4)
    assert out.visit_counts.tolist() == [[1, 1, 1, 1]]
    assert out.action.tolist() == [2]
    improved = np.exp([5.1 * q for q in (0.0, 0.5, 1.0, 0.25)])  # (50 + 1) * 0.1 * Q
    improved /= improved.sum()
    assert out.action_weights[0] == pytest.approx(improved, abs=1e-6)
    assert out.improved_value[0] == pytest.approx(improved @ [0.0, 0.5, 1.0, 0.25])
    assert out.value[0] == pytest.approx(1.75 / 5)


def test_gumbel_completes_with_the_mixed_value() -> None:
    # Two of four arms are considered. Mixed value: (0.2 + 2 * mean(1, 0)) / 3 = 0.4.
    out = gumbel(root(4, value=0.2), bandit([1.0, 0.0, 9.0, 9.0]), 2, max_num_considered_actions=2)
    assert out.visit_counts.tolist() == [[1, 1, 0, 0]]
    assert out.q_values.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    improved = np.exp([5.1 * q for q in (1.0, 0.0, 0.4, 0.4)])
    improved /= improved.sum()
    assert out.action_weights[0] == pytest.approx(improved, abs=1e-6)
    assert out.improved_value[0] == pytest.approx(improved @ [1.0, 0.0, 0.4, 0.4])
    raw = gumbel(
        root(4, value=0.2),
        bandit([1.0, 0.0, 9.0, 9.0]),
        2,
        max_num_considered_actions=2,
        use_mixed_value=False,
    )
    improved = np.exp([5.1 * q for q in (1.0, 0.0, 0.2, 0.2)])
    assert raw.action_weights[0] == pytest.approx(improved / improved.sum(), abs=1e-6)


def test_gumbel_scales_by_its_parameters() -> None:
    out = gumbel(
        root(2), bandit([0.5, 0.0]), 2, value_scale=2.0, maxvisit_init=3.0, rescale_values=False
    )
    assert out.action_weights[0, 0] == pytest.approx(1 / (1 + math.exp(-(3 + 1) * 2 * 0.5)))


def test_gumbel_does_not_magnify_differences_below_the_least_range() -> None:
    """Q 0.5 and 0: rescaled they would be 5.1 logits apart, in a range of at least 2 a quarter."""
    out = gumbel(root(2), bandit([0.5, 0.0]), 2, min_q_range=2.0)
    assert out.action_weights[0, 0] == pytest.approx(1 / (1 + math.exp(-5.1 / 4)))
    with pytest.raises(ValueError, match="min_q_range is 0"):
        gumbel(root(2), bandit([0.5, 0.0]), 2, min_q_range=0.0)


def test_puct_does_not_stay_with_what_is_better_by_less_than_the_least_range() -> None:
    """Both arms pay 0.01 and 0; scaled, the first has Q 1 and the second, unvisited, 0."""
    arms = [0.01, 0.0]
    assert puct(root(2), bandit(arms), 4).visit_counts.tolist() == [[4, 0]]
    assert puct(root(2), bandit(arms), 4, min_q_range=2.0).visit_counts.tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="min_q_range is 0"):
        puct(root(2), bandit(arms), 4, min_q_range=0.0)


def test_values_add_up_along_a_line() -> None:
    # One action only: values 0.5 at the root, then 1 each, reward 1, discount 0.5.
    # Backed up: 0.5; 1 + 0.5 * 1 = 1.5; 1 + 0.5 * 1.5 = 1.75.
    for policy in (puct, gumbel):
        out = policy(root(1, value=0.5), bandit([1.0], discount=0.5, value=1.0), 2)
        assert out.value[0] == pytest.approx((0.5 + 1.5 + 1.75) / 3)
        assert out.tree.nodes["value"][0].tolist() == pytest.approx([3.75 / 3, 1.25, 1.0])
        assert out.tree.principal_variation() == [0, 0]


def test_the_opponent_moves_next() -> None:
    # What is worth 0.6 to the opponent is worth -0.6 here.
    for policy in (puct, gumbel):
        out = policy(root(2), bandit([0.0, 0.0], discount=-1.0, value=0.6), 2)
        assert out.q_values[0] == pytest.approx([-0.6, -0.6])
        assert out.value[0] == pytest.approx(-0.4)


def test_max_depth_adds_visits_to_leaves() -> None:
    for policy in (puct, gumbel):
        out = policy(root(2), bandit([1.0, 0.0], discount=1.0, value=0.5), 12, max_depth=1)
        assert out.q_values.tolist() == [[1.5, 0.5]]
        assert set(out.tree.trace_parent[:12, 0].tolist()) == {0}
        nodes = out.tree.nodes[0]
        assert nodes["visits"][nodes["depth"] == 1].sum() == 12


def test_a_terminal_node_backs_up_the_same_value_again() -> None:
    calls: list[tuple[int, int]] = []

    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        calls.append((int(parent[0]), int(action[0])))
        first = calls.count(calls[-1]) == 1
        return RecurrentOutput(  # rows of visits to what is there already are not read
            reward=np.full(1, 1.0 if first else np.nan, np.float32),
            discount=np.full(1, -1.0 if first else np.nan, np.float32),
            prior_logits=np.full((1, 2), np.nan, np.float32),
            value=np.full(1, 0.25 if first else np.nan, np.float32),
            terminal=np.ones(1, np.bool_),
        )

    for policy in (puct, gumbel):
        calls.clear()
        out = policy(root(2), recurrent_fn, 7)
        assert len(calls) == 7
        assert {parent for parent, _ in calls} == {0}
        assert out.q_values.tolist() == [[0.75, 0.75]]
        assert out.value[0] == pytest.approx(7 * 0.75 / 8)
        assert out.tree.principal_variation(0, action=1) == [1]


def test_a_node_without_actions_ends_the_line() -> None:
    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        one = np.ones(1, np.float32)
        return RecurrentOutput(one, one, np.full((1, 3), -np.inf, np.float32), one)

    for policy in (puct, gumbel):
        out = policy(root(3), recurrent_fn, 9)
        assert not out.tree.trace_parent[:9].any()
        assert set(out.q_values[0].tolist()) <= {0.0, 2.0}
        assert out.value[0] == pytest.approx(9 * 2 / 10)


def test_principal_variation_of_an_unvisited_action() -> None:
    tree = Tree(1, 3, 2)
    puct(root(3), bandit([0.0, 0.0, 0.0]), 2, tree=tree)
    assert tree.principal_variation(0, action=2) == [2]


@pytest.mark.parametrize(
    ("num_considered", "num_simulations", "expected"),
    [
        (1, 4, [0, 1, 2, 3]),
        (2, 5, [0, 0, 1, 1, 2]),
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        (4, 16, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (3, 2, [0, 0]),
        (5, 10, [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]),
    ],
)
def test_sequential_halving(num_considered: int, num_simulations: int, expected: list[int]) -> None:
    assert considered_visits(num_considered, num_simulations) == expected


def test_the_noise_at_the_root_stays_out_of_the_policy() -> None:
    # The noise picks two actions; the mixed value and the policy know the prior alone.
    size, logits = 60, np.array([1.0, -0.5, 0.0, 0.3])
    rewards = np.array([0.1, 0.9, 0.4, 0.6])

    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        zeros = np.zeros(size, np.float32)
        tables = rewards[action].astype(np.float32), np.zeros((size, 4), np.float32)
        return RecurrentOutput(tables[0], zeros, tables[1], zeros)

    out = gumbel_muzero_policy(
        RootOutput(np.tile(logits, (size, 1)), np.full(size, 0.2)),
        recurrent_fn,
        2,
        max_num_considered_actions=2,
        gumbel_scale=3.0,
        rng=np.random.default_rng(0),
    )
    assert len(np.unique(out.visit_counts, axis=0)) > 3
    for row in range(size):
        visited = out.visit_counts[row] > 0
        weights = np.exp(logits) * visited
        mixed = (0.2 + 2 * (weights @ rewards) / weights.sum()) / 3
        completed = np.where(visited, rewards, mixed)
        scaled = (completed - completed.min()) / np.ptp(completed)
        improved = np.exp(logits + (50 + 1) * 0.1 * scaled)
        improved /= improved.sum()
        assert out.action_weights[row] == pytest.approx(improved, abs=1e-5)
        assert out.improved_value[row] == pytest.approx(improved @ completed, abs=1e-5)
