"""Sampling in proportion to weights, against the analytic distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from muzero_agent.sum_tree import SumTree


@pytest.mark.parametrize("size", [1, 2, 5, 64, 100])
def test_draws_follow_the_weights(size: int) -> None:
    rng = np.random.default_rng(size)
    weights = rng.exponential(size=size)
    weights[rng.random(size) < 0.3] = 0.0
    weights[0] = 1.0
    tree = SumTree(size)
    tree.set(np.arange(size), weights)
    draws = np.concatenate([tree.sample(32, rng)[0] for _ in range(400)])
    counts = np.bincount(draws, minlength=size)
    assert counts[weights == 0].sum() == 0
    positive = weights > 0
    if positive.sum() > 1:
        expected = weights[positive] / weights.sum() * len(draws)
        assert chisquare(counts[positive], expected).pvalue > 1e-3


def test_probabilities_are_reported() -> None:
    tree = SumTree(4)
    tree.set(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]))
    leaf, probability = tree.sample(50, np.random.default_rng(0))
    np.testing.assert_allclose(probability, (leaf + 1) / 10)


@given(
    updates=st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.floats(0, 10)), min_size=1, max_size=8),
        max_size=8,
    )
)
@settings(deadline=None)
def test_sums_stay_right_under_updates(updates: list[list[tuple[int, float]]]) -> None:
    tree, weights = SumTree(13), np.zeros(13)
    for update in updates:
        leaves = np.array([leaf for leaf, _ in update])
        values = np.array([value for _, value in update])
        tree.set(leaves, values)
        weights[leaves] = values
        np.testing.assert_allclose(tree.get(np.arange(13)), weights)
        assert tree.nodes[1] == pytest.approx(weights.sum())


def test_empty_leaves_are_never_drawn_at_the_edge() -> None:
    tree = SumTree(8)
    tree.set(np.array([2]), np.array([1e-300]))
    leaf, _ = tree.sample(1000, np.random.default_rng(0))
    assert set(leaf.tolist()) == {2}
