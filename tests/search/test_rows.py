"""Each row is a search of its own: masks, temperatures, noise, and no word from its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muzero_agent.search import (
    RecurrentFn,
    RecurrentOutput,
    RootOutput,
    SearchOutput,
    gumbel_muzero_policy,
    muzero_policy,
)
from muzero_agent.search.tree import ROOT

from .tabular import Spec, Tabular

policies = pytest.mark.parametrize("policy", [muzero_policy, gumbel_muzero_policy])


def quiet(policy: Any) -> dict[str, Any]:
    if policy is muzero_policy:
        return {"dirichlet_fraction": 0, "temperature": 0}
    return {"gumbel_scale": 0}


def constant(size: int, num_actions: int) -> RecurrentFn:
    zeros = np.zeros(size, np.float32)
    output = RecurrentOutput(zeros, zeros, np.zeros((size, num_actions), np.float32), zeros)
    return lambda *_: output


def root_prior(out: SearchOutput) -> NDArray[np.float64]:
    """The prior that the root was searched with, noise included: [B, A]."""
    prior = np.zeros(out.action_weights.shape)
    for row, root in enumerate(out.tree.nodes[: len(prior), ROOT]):
        slots = out.tree.slots[row, : root["num_slots"]]
        prior[row, slots["action"]] = slots["prior"]
    return prior


def rows_of(model: Tabular, rows: list[int]) -> Tabular:
    part = Tabular(model.spec._replace(batch_size=len(rows)))
    part.__dict__.update({k: v for k, v in vars(model).items() if k not in ("spec", "node_state")})
    part.root_state, part.invalid = model.root_state[rows], model.invalid[rows]
    return part


@policies
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_neighbours_do_not_matter(policy: Any, seed: int, rows: list[int]) -> None:
    model = Tabular(Spec(seed, 7, 50, 25, masked=True, discount="mixed"))
    part = rows_of(model, rows)
    outs = [policy(m.root(), m.recurrent_fn, 25, m.invalid, **quiet(policy)) for m in (model, part)]
    for whole, picked in zip(*(out[:-1] for out in outs), strict=True):
        np.testing.assert_array_equal(whole[rows], picked)


@policies
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_illegal_actions_are_never_chosen(policy: Any, seed: int) -> None:
    model = Tabular(Spec(seed, 16, 6, 20, masked=True))
    rng = np.random.default_rng(seed)
    out = policy(model.root(), model.recurrent_fn, 20, model.invalid, rng=rng)
    assert not out.visit_counts[model.invalid].any()
    assert not out.action_weights[model.invalid].any()
    assert not model.invalid[np.arange(16), out.action].any()


def test_temperature() -> None:
    size = 40_000
    root = RootOutput(
        np.tile(np.array([1.0, 0.5, 0.0], np.float32), (size, 1)), np.zeros(size, np.float32)
    )
    temperature = np.repeat([0.0, 0.5, 1.0, 1e-6], size // 4)
    out = muzero_policy(
        root,
        constant(size, 3),
        11,
        dirichlet_fraction=0,
        temperature=temperature,
        max_depth=1,
        rng=np.random.default_rng(1),
    )
    visits = out.visit_counts[0] / 11
    assert len(set(visits.tolist())) == 3
    assert not out.action[temperature < 0.1].any()
    for hot in (0.5, 1.0):
        expected = visits ** (1 / hot) / (visits ** (1 / hot)).sum()
        drawn = np.bincount(out.action[temperature == hot]) / (size // 4)
        assert drawn == pytest.approx(expected, abs=5 * 0.5 / np.sqrt(size // 4))


def test_dirichlet_noise_covers_legal_actions_only() -> None:
    size, alpha = 20_000, 0.3
    root = RootOutput(np.zeros((size, 8), np.float32), np.zeros(size, np.float32))
    invalid = np.zeros((size, 8), np.bool_)
    invalid[:, 4:] = True
    out = muzero_policy(
        root,
        constant(size, 8),
        4,
        invalid,
        dirichlet_fraction=1,
        dirichlet_alpha=alpha,
        rng=np.random.default_rng(2),
    )
    noise = root_prior(out)
    assert not noise[:, 4:].any()
    mean, variance = 1 / 4, 1 / 4 * 3 / 4 / (4 * alpha + 1)
    assert noise[:, :4].mean(0) == pytest.approx(mean, abs=5 * np.sqrt(variance / size))
    assert noise[:, :4].var(0) == pytest.approx(variance, rel=0.05)
    mixed = muzero_policy(
        root, constant(size, 8), 4, invalid, dirichlet_alpha=alpha, rng=np.random.default_rng(2)
    )
    assert root_prior(mixed)[:, :4] == pytest.approx(0.75 / 4 + 0.25 * noise[:, :4], abs=1e-5)


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 100.0])
def test_dirichlet_noise_of_any_concentration(alpha: float) -> None:
    root = RootOutput(np.zeros((500, 3), np.float32), np.zeros(500, np.float32))
    out = muzero_policy(
        root, constant(500, 3), 3, dirichlet_fraction=1, dirichlet_alpha=alpha, max_depth=1
    )
    assert root_prior(out).sum(-1) == pytest.approx(1, abs=1e-5)


def test_gumbel_noise_samples_from_the_prior() -> None:
    # The first considered action is a sample of softmax(logits): the Gumbel-max trick.
    size = 40_000
    logits = np.tile(np.array([1.0, 0.0, -1.0, 3.0], np.float32), (size, 1))
    invalid = np.zeros((size, 4), np.bool_)
    invalid[:, 3] = True
    out = gumbel_muzero_policy(
        RootOutput(logits, np.zeros(size, np.float32)),
        constant(size, 4),
        1,
        invalid,
        rng=np.random.default_rng(3),
    )
    expected = np.exp([1.0, 0.0, -1.0]) / np.exp([1.0, 0.0, -1.0]).sum()
    drawn = np.bincount(out.action, minlength=4) / size
    assert drawn[:3] == pytest.approx(expected, abs=5 * 0.5 / np.sqrt(size))
    assert drawn[3] == 0


@policies
def test_noise_is_fresh_for_each_search_and_root(policy: Any) -> None:
    root = RootOutput(np.zeros((50, 30), np.float32), np.zeros(50, np.float32))

    def search(rng: np.random.Generator | None) -> NDArray[np.int32]:
        return np.asarray(policy(root, constant(50, 30), 1, rng=rng).tree.trace_action[0])

    rng = np.random.default_rng(4)
    first, second = search(rng), search(rng)
    assert len(np.unique(first)) > 10
    assert (first != second).sum() > 25
    assert (search(None) != search(None)).sum() > 25
    np.testing.assert_array_equal(search(np.random.default_rng(4)), first)


@policies
def test_noise_by_row(policy: Any) -> None:
    name = "dirichlet_fraction" if policy is muzero_policy else "gumbel_scale"
    model = Tabular(Spec(5, 8, 20, 16))
    keywords: dict[str, Any] = {"temperature": 0} if policy is muzero_policy else {}
    still = policy(model.root(), model.recurrent_fn, 16, **{name: 0}, **keywords)
    some = policy(model.root(), model.recurrent_fn, 16, **{name: [0, 1] * 4}, **keywords)
    for a, b in zip(still[:-1], some[:-1], strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    assert (still.visit_counts[1::2] != some.visit_counts[1::2]).any()
