"""Write tests/golden/trees.npz: what mctx's two policies do on random tabular models.

mctx and JAX are needed for this script alone, never by the package or its tests:

    python -m venv /tmp/golden && /tmp/golden/bin/pip install mctx
    /tmp/golden/bin/python benchmarks/golden_trees.py

All noise is off. mctx breaks ties in PUCT by random numbers of up to 1e-7, which
`dirichlet_fraction=0` does not switch off: zeros replace them here, so that its argmax takes the
lower index.

Per model and policy the file holds, row after row: the edge (parent node, action) that every
simulation evaluated, the root's value, the Q values of its visited actions by ascending action, and
for Gumbel the action weights (PUCT's are the visits) and the chosen action.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
NO_MAX_DEPTH = 0


def specs(spec_type: Any, discounts: list[str]) -> Iterator[Any]:
    """The models: shapes drawn at random, few enough of them that compiling stays bearable."""
    rng = np.random.default_rng(20)
    shapes = [
        (
            int(rng.integers(1, 17)),
            int(rng.choice([2, 3, 4, 6, 9, 18, 33, 64])),
            int(np.exp(rng.uniform(0, np.log(200)))),
            int(rng.integers(1, 5)) if i % 4 == 0 else NO_MAX_DEPTH,
        )
        for i in range(30)
    ]
    shapes += [(1, 2, 1, 0), (16, 64, 200, 0), (16, 2, 200, 0), (4, 5, 16, 1)]
    shapes = [shape for shape in shapes for _ in range(9)]
    shapes += [(4, 362, 50, 0)] * 8 + [(2, 362, 200, 0)] * 4 + [(3, 362, 16, 3)] * 4
    shapes += [(2, 4672, 50, 0)] * 5 + [(1, 4672, 200, 0)] * 3
    for seed, (batch_size, num_actions, num_simulations, max_depth) in enumerate(shapes):
        yield spec_type(
            seed=seed,
            batch_size=batch_size,
            num_actions=num_actions,
            num_simulations=num_simulations,
            max_depth=max_depth,
            masked=bool(rng.random() < 0.5),
            discount=discounts[seed % len(discounts)],
            logit_scale=float(rng.choice([0.0, 0.5, 1.0, 3.0])),
        )


def run_mctx(tables: Any, policy: str) -> dict[str, Any]:
    """Search with mctx and follow which edge every simulation evaluates."""
    import jax
    import jax.numpy as jnp

    spec = tables.spec
    names = ("reward", "discount", "next_state", "logits", "value", "root_state", "invalid")
    search = compiled_search(policy, spec.num_simulations, spec.max_depth or None)
    calls.clear()
    visits, value, q_values, weights, chosen = map(
        np.asarray, search({name: jnp.asarray(getattr(tables, name)) for name in names})
    )
    jax.effects_barrier()
    assert len(calls) == spec.num_simulations
    assert visits.sum() == spec.num_simulations * spec.batch_size

    node_of_path: list[dict[int, int]] = [{ROOT_PATH: 0} for _ in range(spec.batch_size)]
    parent = np.zeros((spec.batch_size, spec.num_simulations), np.uint8)
    action = np.zeros((spec.batch_size, spec.num_simulations), np.uint16)
    for simulation, (paths, actions) in enumerate(calls):
        for row, (path, a) in enumerate(zip(paths.tolist(), actions.tolist(), strict=True)):
            nodes = node_of_path[row]
            parent[row, simulation] = nodes[path]
            action[row, simulation] = a
            nodes.setdefault(extended(path, a) & 0xFFFFFFFF, simulation + 1)
    return {
        "parent": parent,
        "action": action,
        "value": value,
        "q_values": q_values[visits > 0],
        "weights": weights,
        "chosen": chosen.astype(np.uint16),
    }


ROOT_PATH = 1
calls: list[tuple[Any, Any]] = []  # (path, action) [B] of every simulation


def extended(path: Any, action: Any) -> Any:
    """A number that tells the nodes of a tree apart: a hash of the actions that lead there."""
    return path * 0x01000193 + action + 1


@cache
def compiled_search(policy: str, num_simulations: int, max_depth: int | None) -> Any:
    """The jitted search, from tables to results."""
    import jax
    import jax.numpy as jnp
    import mctx
    from jax.experimental import io_callback

    def recurrent_fn(tables: Any, key: Any, action: Any, embedding: Any) -> Any:
        state, path = embedding
        io_callback(
            lambda *call: calls.append((np.asarray(call[0]), np.asarray(call[1]))),
            None, path, action, ordered=True,
        )  # fmt: skip
        following = tables["next_state"][state, action]
        output = mctx.RecurrentFnOutput(
            reward=tables["reward"][state, action],
            discount=tables["discount"][state, action],
            prior_logits=tables["logits"][following],
            value=tables["value"][following],
        )
        return output, (following, extended(path, action.astype(jnp.uint32)))

    def search(tables: Any) -> Any:
        state = tables["root_state"]
        root = mctx.RootFnOutput(
            prior_logits=tables["logits"][state],
            value=tables["value"][state],
            embedding=(state, jnp.full_like(state, ROOT_PATH, jnp.uint32)),
        )
        if policy == "puct":
            mctx_policy = partial(mctx.muzero_policy, dirichlet_fraction=0.0)
        else:
            mctx_policy = partial(mctx.gumbel_muzero_policy, gumbel_scale=0.0)
        with mock.patch.object(jax.random, "uniform", lambda key, shape: jnp.zeros(shape)):
            output = mctx_policy(
                tables,
                jax.random.PRNGKey(0),
                root,
                recurrent_fn,
                num_simulations,
                invalid_actions=tables["invalid"],
                max_depth=max_depth,
            )
        summary = output.search_tree.summary()
        return (
            summary.visit_counts, summary.value, summary.qvalues,
            output.action_weights, output.action,
        )  # fmt: skip

    return jax.jit(search)


def main() -> None:
    sys.path.insert(0, str(REPOSITORY))
    tabular = SimpleNamespace(**runpy.run_path(str(REPOSITORY / "tests/search/tabular.py")))
    models = list(specs(tabular.Spec, sorted(tabular.DISCOUNTS)))
    arrays: dict[str, list[Any]] = {}
    for i, spec in enumerate(models):
        print(f"{i + 1}/{len(models)} {spec}", flush=True)
        for policy in ("puct", "gumbel"):
            for name, array in run_mctx(tabular.Tabular(spec), policy).items():
                if (policy, name) not in (("puct", "weights"), ("puct", "chosen")):
                    arrays.setdefault(f"{policy}_{name}", []).append(array.ravel())
    packed = {name: np.concatenate(parts) for name, parts in arrays.items()}
    packed |= {
        f"spec_{name}": np.array([getattr(m, name) for m in models]) for name in models[0]._fields
    }
    path = REPOSITORY / "tests/golden/trees.npz"
    np.savez_compressed(path, allow_pickle=False, **packed)
    rows = sum(m.batch_size for m in models)
    print(f"{path}: {len(models)} models, {rows} rows, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
