"""Against a dense search in float64: whatever is chosen scores best, and the results agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muzero_agent.search import SearchOutput, Tree, gumbel_muzero_policy, muzero_policy

from .oracle import GumbelOracle, Oracle, PuctOracle
from .tabular import DISCOUNTS, NUM_STATES, Spec, Tabular

specs = st.builds(
    Spec,
    seed=st.integers(0, 2**32),
    batch_size=st.integers(1, 3),
    num_actions=st.one_of(st.integers(1, 40), st.sampled_from([129, 300])),
    num_simulations=st.integers(1, 40),
    max_depth=st.sampled_from([0, 0, 1, 2, 3]),
    masked=st.booleans(),
    discount=st.sampled_from(sorted(DISCOUNTS)),
    logit_scale=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0]),
)


@st.composite
def models(draw: st.DrawFn) -> Tabular:
    """Models with states that end the game, or lack some actions, or all."""
    model = Tabular(draw(specs))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        model.terminal = rng.random(NUM_STATES) < 0.3
    if draw(st.booleans()):
        missing = rng.random(model.logits.shape) < rng.random((NUM_STATES, 1))
        missing[rng.random(NUM_STATES) < 0.1] = True
        missing[model.root_state] = False
        model.logits[missing] = -np.inf
    return model


def compare(model: Tabular, out: SearchOutput, kind: type[Oracle], **options: Any) -> None:
    spec = model.spec
    out.tree.check_valid()
    assert (out.visit_counts.sum(-1) == spec.num_simulations).all()
    for row in range(spec.batch_size):
        logits = np.where(model.invalid, -np.inf, model.logits[model.root_state])[row]
        value = model.value[model.root_state[row]]
        oracle = kind(logits, value, spec.num_simulations, spec.max_depth)
        vars(oracle).update(options)
        for simulation in range(spec.num_simulations):
            node = int(out.tree.trace_parent[simulation, row])
            action = int(out.tree.trace_action[simulation, row])
            oracle.check(node, action)
            state = model.node_state[node, row]
            following = model.next_state[state, action]
            oracle.grow(
                node,
                action,
                model.reward[state, action],
                model.discount[state, action],
                model.logits[following],
                model.value[following],
                terminal=model.terminal is not None and bool(model.terminal[following]),
            )
        root = oracle.nodes[0]
        scale = 1 + np.abs(root.q).max()
        np.testing.assert_array_equal(out.visit_counts[row], root.child_visits)
        np.testing.assert_allclose(out.q_values[row], root.q, atol=1e-5 * scale)
        np.testing.assert_allclose(out.value[row], root.value, atol=1e-5 * scale)
        slack = oracle.tolerance(0)
        np.testing.assert_allclose(out.action_weights[row], oracle.weights(), atol=slack)
        # Weights are rounded each by itself: where Q values weigh much, their sum is as inexact.
        np.testing.assert_allclose(out.action_weights[row].sum(), 1, rtol=1e-5 + slack)
        improved = oracle.improved_value()
        np.testing.assert_allclose(out.improved_value[row], improved, atol=slack * scale)
        finals = oracle.action_scores()
        assert finals[out.action[row]] >= finals.max() - slack


@settings(max_examples=60, deadline=None)
@given(model=models(), min_q_range=st.sampled_from([1e-8, 0.01, 1.0, 10.0]))
def test_puct(model: Tabular, min_q_range: float) -> None:
    spec = model.spec
    out = muzero_policy(
        model.root(),
        model.recurrent_fn,
        spec.num_simulations,
        model.invalid,
        dirichlet_fraction=0,
        temperature=0,
        min_q_range=min_q_range,
        max_depth=spec.max_depth or None,
    )
    compare(model, out, PuctOracle, min_q_range=min_q_range)


@settings(max_examples=60, deadline=None)
@given(
    model=models(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "max_num_considered_actions": st.integers(1, 20),
            "value_scale": st.sampled_from([0.1, 1.0]),
            "maxvisit_init": st.sampled_from([0.0, 50.0]),
            "rescale_values": st.booleans(),
            "use_mixed_value": st.booleans(),
            "min_q_range": st.sampled_from([0.01, 1.0, 10.0]),
        },
    ),
)
def test_gumbel(model: Tabular, options: dict[str, Any]) -> None:
    spec = model.spec
    out = gumbel_muzero_policy(
        model.root(),
        model.recurrent_fn,
        spec.num_simulations,
        model.invalid,
        gumbel_scale=0,
        max_depth=spec.max_depth or None,
        **options,
    )
    compare(model, out, GumbelOracle, **options)


@pytest.mark.parametrize("policy", [muzero_policy, gumbel_muzero_policy])
def test_a_larger_tree_changes_nothing(policy: Any) -> None:
    quiet = {"dirichlet_fraction": 0, "temperature": 0}
    if policy is gumbel_muzero_policy:
        quiet = {"gumbel_scale": 0}
    tree = Tree(9, 400, 90)
    for seed, (size, num_actions, n) in enumerate([(9, 400, 90), (2, 7, 30), (5, 400, 20)]):
        spec = Spec(seed, size, num_actions, n, masked=True, discount="mixed")
        results = []
        for room in (None, tree, tree):
            model = Tabular(spec)
            results.append(
                policy(model.root(), model.recurrent_fn, n, model.invalid, tree=room, **quiet)
            )
        for other in results[1:]:
            for ours, theirs in zip(results[0][:-1], other[:-1], strict=True):
                np.testing.assert_array_equal(ours, theirs)
        assert results[1].tree is tree
    tree.check_valid()
