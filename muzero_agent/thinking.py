"""Thinking about one position for as long as it lasts: what engines do between two moves.

A `Thinker` grows one tree slice by slice, by the true rules or in the learned model, and goes on
with the part of it that the next moves lead to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from muzero_agent.planner import Behind, LatentModel
from muzero_agent.rules_planner import EvaluationCache, RulesModel
from muzero_agent.search.anytime import AnytimeSearch
from muzero_agent.tracing import Traced
from muzero_agent.types import RecurrentOutput, RootOutput

__all__ = ["EvaluationCache", "LatentModel", "Model", "RulesModel", "Thinker", "traced_steps"]

Position = TypeVar("Position")
_Seen = TypeVar("_Seen", contravariant=True)


def traced_steps() -> Traced:
    """What several `LatentModel`s of a network may share."""
    return Traced(Behind)


class Model(Protocol[_Seen]):
    """What a tree is searched in: `rules_planner.RulesModel` or `planner.LatentModel`."""

    follows: bool
    """Whether a node behind the root may become the root: in a learned model, illegal moves lie
    behind it."""

    def plant(self, positions: Sequence[_Seen], /) -> RootOutput:
        """Begin with these positions; -inf where an action is illegal."""
        ...

    def step(self, parents: Sequence[int], actions: Sequence[int], /) -> RecurrentOutput:
        """Step from nodes, by number; the new nodes get the next numbers."""
        ...

    def keep(self, kept: NDArray[np.int32], /) -> None:
        """Forget all nodes but these, which are numbered anew."""
        ...


class Thinker(Generic[Position]):
    """The tree of one position, and the model that it grows in.

    :param model: see `Model`
    :param search: room for the tree, and the rule by which it grows
    :param leaves: edges that a slice evaluates by one call of the network
    """

    def __init__(self, model: Model[Position], search: AnytimeSearch, leaves: int = 16) -> None:
        if leaves < 1:
            raise ValueError(f"leaves={leaves}: give at least 1")
        self.model = model
        self.search = search
        self.leaves = leaves

    def begin(self, position: Position, allowed: Collection[int] | None = None) -> None:
        """Forget what was thought, and turn to a position.

        :param allowed: actions to choose among; None: all legal ones
        """
        root = self.model.plant([position])
        if allowed is not None:
            logits = np.full_like(root.prior_logits, -np.inf)
            chosen = list(allowed)
            logits[0, chosen] = root.prior_logits[0, chosen]
            root = RootOutput(logits, root.value)
        self.search.plant(root)

    def follow(self, action: int) -> bool:
        """Turn to the position behind an action, and keep what is known of it.

        :return: whether that is possible; if not, all stays as it was
        """
        if not self.model.follows or not self.search.num_nodes:
            return False
        kept = self.search.descend(action)
        if kept is None:
            return False
        self.model.keep(kept)
        return True

    def grow(self, visits: int | None = None) -> bool:
        """Think one slice further.

        :param visits: at most so many; None: as many as there are `leaves`
        :return: whether the tree had room for it
        """
        before = self.search.visits
        edges = self.search.gather(self.leaves if visits is None else min(visits, self.leaves))
        if len(edges.action):
            self.search.absorb(self.model.step(edges.parent.tolist(), edges.action.tolist()))
        return self.search.visits > before
