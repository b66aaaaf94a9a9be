"""The search trees of a batch of roots: flat arrays, allocated once, reused from move to move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]

ROOT = 0
"""Index of the root among a tree's nodes."""

FEW_ACTIONS = 32
"""Nodes of so few actions keep them all: to pick among them costs more than it saves."""

NODE = np.dtype(
    [
        ("visits", np.int32),  # 1 + the sum of the children's; of a leaf, its own
        ("value", np.float32),  # mean of what was backed up to here
        ("raw_value", np.float32),  # the network's
        ("reward", np.float32),  # of the edge that leads here
        ("discount", np.float32),  # of the edge that leads here
        ("parent", np.int32),  # node index; -1 at the root
        ("slot", np.int32),  # the parent's slot that leads here; -1 at the root
        ("depth", np.int32),  # edges from the root
        ("first", np.int32),  # the node's slots are first .. first + num_slots - 1
        ("num_slots", np.int32),  # 0: a leaf for good (terminal, at max_depth, without actions)
        ("num_children", np.int32),  # visited children: the first slots
        ("num_ordered", np.int32),  # slots in their final place: one more than that, if need was
        ("least", np.float32),  # the least logit in a slot, and of the actions without a slot
        ("tail", np.float32),  # the sum of exp(logit - least)
        ("suffix", np.float32),  # sum of exp(logit - the next one's) over all unvisited actions
    ],
    align=True,
)
"""A node and the edge into it, in one cache line, since who visits a node needs most of it."""


SLOT = np.dtype(
    [
        ("action", np.int32),
        ("child", np.int32),  # node index, once visited
        ("visits", np.int32),
        ("q", np.float32),  # reward + discount * value of the child, once visited
        ("prior", np.float32),  # softmax of the node's logits over all its actions
        ("logit", np.float32),  # orders the slots; at the root of Gumbel MuZero the noise is in it
    ],
    align=True,
)
"""An action of a node."""

LEAF = np.dtype(
    [
        ("row", np.int32),
        ("parent", np.int32),  # node index from which to step
        ("slot", np.int32),  # the parent's slot along which to step
        ("node", np.int32),  # index for the node behind it, unless there is one
    ],
    align=True,
)
"""Where a simulation left its tree."""


class Tree:
    """Room for searches from `batch_size` roots at once.

    Pass one as `tree=` and searches need not allocate it. It may be larger than a search needs. It
    keeps the trees of the last search until the next one overwrites them.

    Selection never looks at all actions. The score of an unvisited action depends on its prior
    alone, so the visited children of a node are always its best by (prior, -action), and of the
    others only the next in that order can be chosen. A node created by simulation i gets at most as
    many children as simulations remain, so it has slots for so many of its best actions.

    :param batch_size: roots, B >= 1
    :param num_actions: actions, A >= 1
    :param num_simulations: simulations of a search, N >= 1
    :raises ValueError: if one of them is below 1
    """

    def __init__(self, batch_size: int, num_actions: int, num_simulations: int) -> None:
        for name, number in (
            ("batch_size", batch_size),
            ("num_actions", num_actions),
            ("num_simulations", num_simulations),
        ):
            if number < 1:
                raise ValueError(f"{name} is {number}; give at least 1")
        self.batch_size = batch_size
        self.num_actions = num_actions
        self.num_simulations = num_simulations
        remaining = np.maximum(np.arange(num_simulations, 0, -1), FEW_ACTIONS)
        table = (batch_size, int(np.minimum(remaining, num_actions).sum()))

        self.nodes = np.zeros((batch_size, num_simulations + 1), NODE)  # [B, N + 1]
        self.slots = np.zeros(table, SLOT)  # [B, M]
        self.num_slots = np.zeros(batch_size, np.int32)  # [B], in use
        self.leaves = np.zeros(batch_size, LEAF)  # [B]
        self.leaves["row"] = np.arange(batch_size)
        # The edge that each simulation evaluated, [N + 1, B]; the last row is never read.
        self.trace_parent = np.zeros((num_simulations + 1, batch_size), np.int32)
        self.trace_action = np.zeros((num_simulations + 1, batch_size), np.int32)
        self.never = np.zeros(batch_size, np.bool_)  # [B], flags of a model without terminal states
        self.float_scratch = np.zeros((2, num_actions), np.float32)
        self.int_scratch = np.zeros((2, num_actions), np.int32)  # [2, A]
        self._steps: list[tuple[Ints, Ints]] = []

    def require(self, batch_size: int, num_actions: int, num_simulations: int) -> None:
        """:raises ValueError: if a search of this size does not fit."""
        if (
            batch_size > self.batch_size
            or num_actions > self.num_actions
            or num_simulations > self.num_simulations
        ):
            raise ValueError(
                f"the tree is Tree(batch_size={self.batch_size}, num_actions={self.num_actions}, "
                f"num_simulations={self.num_simulations}), but this search needs at least "
                f"Tree({batch_size}, {num_actions}, {num_simulations})"
            )

    def steps(self, batch_size: int) -> list[tuple[Ints, Ints]]:
        """The (parent, action) of every simulation, each int32 [batch_size]: views made once."""
        if not self._steps or self._steps[0][0].size != batch_size:
            self._steps = [
                (parent[:batch_size], action[:batch_size])
                for parent, action in zip(self.trace_parent, self.trace_action, strict=True)
            ]
        return self._steps
