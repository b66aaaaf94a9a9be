"""Exactly mctx: the trees of 330 random models, recorded by benchmarks/golden_trees.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muzero_agent.search import SearchOutput, Tree, gumbel_muzero_policy, muzero_policy

from .oracle import GumbelOracle, Oracle, PuctOracle
from .tabular import Spec, Tabular

FILE = Path(__file__).parents[1] / "golden" / "trees.npz"


@dataclass
class Recorded:
    """What mctx did with one model."""

    spec: Spec
    parent: NDArray[Any]  # [B, N], node from which each simulation stepped
    action: NDArray[Any]  # [B, N]
    visits: NDArray[Any]  # [B, A]
    value: NDArray[Any]  # [B]
    q_values: NDArray[Any]  # [B, A], 0 where unvisited
    weights: NDArray[Any]  # [B, A]
    chosen: NDArray[Any] | None  # [B], for Gumbel


def load(policy: str) -> list[Recorded]:
    with np.load(FILE) as file:
        arrays = dict(file)
    position = dict.fromkeys(arrays, 0)

    def take(name: str, *shape: int) -> NDArray[Any]:
        start = position[f"{policy}_{name}"]
        position[f"{policy}_{name}"] += int(np.prod(shape))
        taken: NDArray[Any] = arrays[f"{policy}_{name}"][start : position[f"{policy}_{name}"]]
        return taken.reshape(shape)

    models = []
    columns = [arrays[f"spec_{name}"].tolist() for name in Spec._fields]
    for spec in map(Spec._make, zip(*columns, strict=True)):
        size, num_actions, n = spec.batch_size, spec.num_actions, spec.num_simulations
        parent, action = take("parent", size, n), take("action", size, n)
        visits = root_visits(parent, action, num_actions)
        q_values = np.zeros((size, num_actions), np.float32)
        q_values[visits > 0] = take("q_values", int(np.count_nonzero(visits)))
        gumbel = policy == "gumbel"
        models.append(
            Recorded(
                spec,
                parent,
                action,
                visits,
                take("value", size),
                q_values,
                take("weights", size, num_actions) if gumbel else visits / np.float32(n),
                take("chosen", size) if gumbel else None,
            )
        )
    assert len(models) >= 300
    return models


def root_visits(parent: NDArray[Any], action: NDArray[Any], num_actions: int) -> NDArray[Any]:
    """Count the root's action above every evaluated edge: [B, A]."""
    visits = np.zeros((len(parent), num_actions), np.int32)
    for row, steps in enumerate(np.stack([parent, action], -1).tolist()):
        above: dict[int, int] = {}  # root's action by node
        for simulation, (node, a) in enumerate(steps):
            above[simulation + 1] = a if node == 0 else above[node]
            visits[row, above[simulation + 1]] += 1
    return visits


def search(policy: str, model: Tabular, tree: Tree) -> SearchOutput:
    spec = model.spec
    keywords: dict[str, Any] = {"max_depth": spec.max_depth or None, "tree": tree}
    arguments = (model.root(), model.recurrent_fn, spec.num_simulations, model.invalid)
    if policy == "puct":
        return muzero_policy(*arguments, dirichlet_fraction=0, **keywords)
    return gumbel_muzero_policy(*arguments, gumbel_scale=0, **keywords)


def assert_tie(policy: str, model: Tabular, golden: Recorded, tree: Tree, row: int) -> None:
    """Where the two first part, both choices score the same."""
    spec = model.spec
    logits = np.where(model.invalid, -np.inf, model.logits[model.root_state])[row]
    kind: type[Oracle] = PuctOracle if policy == "puct" else GumbelOracle
    oracle = kind(logits, model.value[model.root_state[row]], spec.num_simulations, spec.max_depth)
    state = {0: int(model.root_state[row])}
    for simulation in range(spec.num_simulations):
        ours = int(tree.trace_parent[simulation, row]), int(tree.trace_action[simulation, row])
        theirs = int(golden.parent[row, simulation]), int(golden.action[row, simulation])
        if ours != theirs:
            break
        s, a = state[ours[0]], ours[1]
        following = int(model.next_state[s, a])
        state[simulation + 1] = following
        oracle.grow(
            *ours, model.reward[s, a], model.discount[s, a], model.logits[following],
            model.value[following], terminal=False,
        )  # fmt: skip
    else:
        raise AssertionError("the traces are the same")
    paths = zip(oracle.path(*ours), oracle.path(*theirs), strict=False)
    node, a, b = next((node, a, b) for (node, a), (_, b) in paths if a != b)
    scores = oracle.scores(node)
    assert abs(scores[a] - scores[b]) <= oracle.tolerance(node), (spec, row, node, scores)


@pytest.mark.parametrize("policy", ["puct", "gumbel"])
def test_trees_are_those_of_mctx(policy: str) -> None:
    rows = differing = 0
    for golden in load(policy):
        model, spec = Tabular(golden.spec), golden.spec
        tree = Tree(spec.batch_size, spec.num_actions, spec.num_simulations)
        out = search(policy, model, tree)
        if spec.seed % 30 == 0:  # slower than the search
            tree.check_valid()
        same_visits = (out.visit_counts == golden.visits).all(-1)
        for row in np.flatnonzero(~same_visits):
            assert_tie(policy, model, golden, tree, int(row))
        rows += spec.batch_size
        differing += int((~same_visits).sum())

        n = spec.num_simulations
        differs = (golden.parent != tree.trace_parent[:n].T).any(-1)
        differs |= (golden.action != tree.trace_action[:n].T).any(-1)
        same = ~differs
        for ours, theirs in (
            (out.q_values, golden.q_values),
            (out.value, golden.value),
            (out.action_weights, golden.weights),
        ):
            np.testing.assert_allclose(ours[same], theirs[same], rtol=1e-5, atol=1e-5)
        if golden.chosen is not None:
            np.testing.assert_array_equal(out.action[same], golden.chosen[same])
    assert rows > 2000
    assert differing <= 0.01 * rows
