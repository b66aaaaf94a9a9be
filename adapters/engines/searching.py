"""How an engine thinks about a move: until time, visits or certainty are enough.

For any game; what is said of a position is up to the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from muzero_agent.adapters.engines.protocol import Budget, Limits, Stop, budget_of
from muzero_agent.search.anytime import AnytimeSearch, Child
from muzero_agent.thinking import Thinker

SLICE_SECONDS = 0.01
"""What a slice should take at most, so that the search heeds a stop at once."""
BARREN_VISITS = 1000
"""So many visits, and half of all, that reach no new position: there are none worth a visit."""


class Report(NamedTuple):
    """What is known at one time of a search."""

    children: list[Child]  # the best first
    visits: int  # those included that were there before
    seconds: float
    per_second: float
    mean_depth: float
    most_depth: int
    fullness: float


def search(
    thinker: Thinker[Any],
    limits: Limits,
    stop: Stop,
    overhead: float,
    tell: Callable[[Report], None],
    prune: bool = True,
) -> Report:
    """Think until a limit is reached, or `stop` says so.

    :param thinker: with its position; what it knows already counts
    :param overhead: see `budget_of`
    :param tell: called with reports on the way
    :param prune: stop when no other move can catch up within the budget
    """
    tree = thinker.search
    began, before = time.monotonic(), tree.visits
    leaves, told, best = thinker.leaves, 0.0, -1
    size, barren, idle = 1, 0, False

    def report() -> Report:
        seconds = time.monotonic() - began
        mean, most = tree.depths()
        return Report(
            tree.children(),
            tree.visits,
            seconds,
            (tree.visits - before) / max(seconds, 1e-3),
            mean,
            most,
            tree.fullness,
        )

    clock_began = before  # visits
    while not stop.stopped.is_set():
        if stop.pondering:
            clock_began = tree.visits
        if not (limits.infinite or stop.pondering) and _enough(
            tree, limits, stop, overhead, prune, tree.visits - clock_began
        ):
            break
        started = time.monotonic()
        wanted = min(size, 1 + tree.visits // 8)
        if limits.nodes is not None:
            wanted = min(wanted, max(limits.nodes - tree.visits, 1))
        exhausted = tree.decided or barren > max(BARREN_VISITS, tree.visits // 2)
        exhausted |= limits.most_nodes is not None and tree.visits >= limits.most_nodes
        visits, nodes = tree.visits, tree.num_nodes
        if exhausted or not thinker.grow(wanted):
            if not (limits.infinite or stop.pondering):
                break
            if not idle:  # a host would wait for a word until it says `stop`
                idle = True
                tell(report())
            stop.stopped.wait(0.01)
            continue
        barren = barren + tree.visits - visits if tree.num_nodes == nodes else 0
        taken = time.monotonic() - started
        if wanted == size:
            size = min(size * 2, leaves) if taken < SLICE_SECONDS / 2 else size
            size = max(size // 2, 1) if taken > SLICE_SECONDS else size
        now = time.monotonic() - began
        if now - told > 0.5:
            first = tree.children()[0].action
            if first != best or now - told > 1.0:
                told, best = now, first
                tell(report())
    return report()


def _enough(
    tree: AnytimeSearch,
    limits: Limits,
    stop: Stop,
    overhead: float,
    prune: bool,
    new_visits: int,
) -> bool:
    if tree.visits < 1:
        return False
    if limits.nodes is not None and tree.visits >= limits.nodes:
        return True
    if limits.depth is not None and tree.depths()[0] >= limits.depth:
        return True
    elapsed = stop.elapsed()
    budget = budget_of(limits, overhead)
    if limits.mate is not None:
        first = tree.children()[0]
        if (0 < first.mate <= 2 * limits.mate - 1) or elapsed >= limits.mate:
            return True
    if budget is None:
        return False
    if elapsed >= budget.hard:
        return True
    if not limits.timed:
        return False
    return _settled(tree, budget, elapsed, new_visits) if prune else elapsed >= budget.soft


def _settled(tree: AnytimeSearch, budget: Budget, elapsed: float, new_visits: int) -> bool:
    """Whether the clock is better spent on later moves."""
    children = tree.children()
    first = children[0]
    if len(children) == 1 or first.mate > 0:
        return True
    if elapsed < 0.1 * budget.soft:
        return False
    if elapsed < budget.soft:  # can the runner-up still catch up?
        visits_to_come = new_visits / max(elapsed, 1e-3) * (budget.soft - elapsed)
        return first.visits - children[1].visits > visits_to_come
    # Beyond the soft limit only while another move looks better than the most visited one.
    better = max(child.q for child in children if child.visits) > first.q + 0.02
    return not better


def choose(children: list[Child], temperature: float, rng: np.random.Generator) -> Child:
    """The best child, or one drawn by (visits + prior) ** (1 / temperature).

    The priors count as one visit together: they decide in a search of a single node, that is, in
    play by the policy alone, and hardly matter in longer ones.
    """
    if temperature <= 0 or children[0].mate > 0:
        return children[0]
    counts = np.array([child.visits + child.prior for child in children])
    weights = np.log(np.maximum(counts, np.finfo(np.float64).tiny)) / temperature
    chances = np.exp(weights - weights.max())
    return children[int(rng.choice(len(children), p=chances / chances.sum()))]
