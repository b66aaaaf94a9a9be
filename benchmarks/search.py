"""Time the search: its trees alone, and as a multiple of the network calls that it makes.

    python benchmarks/search.py
    python benchmarks/search.py --repeats 20 --only puct

The first table gives microseconds per simulation step over all roots, with a network that costs
nothing (it returns arrays made beforehand). Beside it the same for mctx, measured in the same run
if it can be imported (`pip install mctx`, or `make bench`), and the figures measured for LightZero
0.2.0's C++ tree, which is not run here. Every figure is the best of several medians, since other
processes can only make it slower. One thread.

The second table gives the ratio (search with a network) / (the same calls of the network alone).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from muzero_agent.search import (
    RecurrentFn,
    RecurrentOutput,
    RootOutput,
    Tree,
    gumbel_muzero_policy,
    muzero_policy,
)

NUM_SIMULATIONS = 50


class Case(NamedTuple):
    """A size, what it should cost at most, and what it costs in LightZero: microseconds."""

    batch_size: int
    num_actions: int
    goal: float
    lightzero: float


CASES = (
    Case(8, 2, 7.0, 11),
    Case(256, 2, 136, 560),
    Case(8, 18, 13, 44),
    Case(256, 18, 333, 2_266),
    Case(8, 362, 56, 2_079),
    Case(8, 4672, 280, 62_789),
)
POLICIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "puct": (muzero_policy, {"dirichlet_fraction": 0.0}),
    "gumbel": (gumbel_muzero_policy, {"gumbel_scale": 0.0}),
}


def best_median(run: Callable[[], object], repeats: int, runs: int = 9) -> float:
    """Seconds per run: the best of `repeats` medians of `runs` each."""
    run()
    medians = []
    for _ in range(repeats):
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        medians.append(statistics.median(times))
    return min(medians)


def free_outputs(case: Case) -> list[RecurrentOutput]:
    """What the free network says, for each simulation: standard normal numbers, discount 0.99."""
    rng = np.random.default_rng(0)
    size, num_actions = case.batch_size, case.num_actions

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    return [
        RecurrentOutput(
            normal(size), np.full(size, 0.99, np.float32), normal(size, num_actions), normal(size)
        )
        for _ in range(NUM_SIMULATIONS)
    ]


def time_tree(policy: str, case: Case, repeats: int) -> float:
    """Microseconds per simulation."""
    outputs = free_outputs(case)
    search, noise_off = POLICIES[policy]
    root = RootOutput(outputs[0].prior_logits, outputs[0].value)
    tree = Tree(case.batch_size, case.num_actions, NUM_SIMULATIONS)
    rng = np.random.default_rng(0)

    def run() -> None:
        search(root, lambda i, *_: outputs[i], NUM_SIMULATIONS, tree=tree, rng=rng, **noise_off)

    return best_median(run, repeats) / NUM_SIMULATIONS * 1e6


def time_mctx(policy: str, case: Case, repeats: int) -> float | None:
    """The same for mctx, compiled; None where it is not installed."""
    if find_spec("mctx") is None:
        return None
    import jax
    import mctx

    output = free_outputs(case)[0]
    free = mctx.RecurrentFnOutput(
        reward=output.reward,
        discount=output.discount,
        prior_logits=output.prior_logits,
        value=output.value,
    )
    root = mctx.RootFnOutput(
        prior_logits=output.prior_logits,
        value=output.value,
        embedding=np.zeros(case.batch_size, np.int32),
    )
    search = getattr(mctx, POLICIES[policy][0].__name__)

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def visits(free: Any, root: Any, key: Any) -> Any:
        out = search(
            free,
            key,
            root,
            lambda free, key, action, embedding: (free, embedding),
            num_simulations=NUM_SIMULATIONS,
            **POLICIES[policy][1],
        )
        return out.search_tree.summary().visit_counts

    key = jax.random.PRNGKey(0)
    run = lambda: visits(free, root, key).block_until_ready()  # noqa: E731
    return best_median(run, max(1, repeats // 3), runs=3) / NUM_SIMULATIONS * 1e6


def print_trees(policies: list[str], repeats: int) -> None:
    """The first table."""
    columns = [f"{p}{suffix}" for p in policies for suffix in ("", " mctx")]
    print(f"microseconds per simulation step over all roots, {NUM_SIMULATIONS} simulations")
    print(f"{'roots x actions':>16}", *(f"{c:>14}" for c in [*columns, "goal", "LightZero"]))
    for case in CASES:
        figures: list[float | None] = []
        for policy in policies:
            figures += [time_tree(policy, case, repeats), time_mctx(policy, case, repeats)]
        figures += [case.goal, case.lightzero]
        texts = ("not installed" if f is None else f"{f:,.1f}" for f in figures)
        size = f"{case.batch_size} x {case.num_actions}"
        print(f"{size:>16}", *(f"{text:>14}" for text in texts), flush=True)


def ratio_to_network(
    policy: str, root: RootOutput, recurrent_fn: RecurrentFn, num_simulations: int, repeats: int
) -> float:
    """(search with this network) / (the calls that it makes of it, alone)."""
    search, noise_off = POLICIES[policy]
    size, num_actions = np.shape(root.prior_logits)
    tree = Tree(size, num_actions, num_simulations)
    search(root, recurrent_fn, num_simulations, tree=tree, **noise_off)
    calls = list(enumerate(tree.steps(size)[:num_simulations]))
    calls = [(i, (parent.copy(), action.copy())) for i, (parent, action) in calls]

    def search_it() -> None:
        search(root, recurrent_fn, num_simulations, tree=tree, **noise_off)

    def call_it() -> None:
        for i, (parent, action) in calls:
            recurrent_fn(i, parent, action)

    # by turns, so that both see the same machine
    ratios = [best_median(search_it, 1) / best_median(call_it, 1) for _ in range(repeats)]
    return statistics.median(ratios)


NETWORKS: dict[str, Callable[[], tuple[RootOutput, RecurrentFn]]] = {}
"""Makers of a root and a network, by the name that the second table gives them."""


def print_ratios(policies: list[str], repeats: int) -> None:
    """The second table."""
    if not NETWORKS:
        return
    print(f"\n(search) / (its network calls alone), {NUM_SIMULATIONS} simulations")
    for name, make in NETWORKS.items():
        root, recurrent_fn = make()
        ratios = (
            f"{policy} {ratio_to_network(policy, root, recurrent_fn, NUM_SIMULATIONS, repeats):.3f}"
            for policy in policies
        )
        print(f"{name:>32}", *ratios, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=9, help="medians to take the best of")
    parser.add_argument("--only", choices=sorted(POLICIES), help="a single policy")
    arguments = parser.parse_args()
    policies = [arguments.only] if arguments.only else list(POLICIES)
    print_trees(policies, arguments.repeats)
    print_ratios(policies, arguments.repeats)


if __name__ == "__main__":
    main()
