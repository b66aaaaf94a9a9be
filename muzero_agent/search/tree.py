"""The search trees of a batch of roots: flat arrays, allocated once, reused from move to move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROOT = 0
"""Node index of the root in every row."""

NODE = np.dtype(
    [
        ("visits", np.int32),  # 1 + the sum of the children's; of a leaf, its own visits
        ("value", np.float32),  # running mean of what was backed up through the node
        ("raw_value", np.float32),  # the network's
        ("reward", np.float32),  # of the edge that leads here
        ("discount", np.float32),  # of the edge that leads here
        ("parent", np.int32),  # node index; -1 at the root
        ("slot", np.int32),  # the parent's slot for this node; -1 at the root
        ("depth", np.int32),  # edges from the root
        ("first", np.int32),  # the node's own slots are first .. first + num_slots - 1
        ("num_slots", np.int32),  # 0: a leaf for good (terminal, at max_depth, no action)
        ("num_children", np.int32),  # the visited children fill the first slots
    ],
    align=True,
)
"""One node, and the edge into it."""

SLOT = np.dtype(
    [
        ("action", np.int32),
        ("child", np.int32),  # node index, once visited
        ("visits", np.int32),
        ("q", np.float32),  # reward + discount * value of the child, once visited
        ("prior", np.float32),  # softmax of the logits over all actions of the node
        ("logit", np.float32),  # what orders the slots; at Gumbel's root with the noise in it
        ("suffix", np.float32),  # sum of exp(logit - this logit) over this and all later actions
    ],
    align=True,
)
"""One action of a node. A node's slots descend by (prior, -action)."""

LEAF = np.dtype(
    [
        ("row", np.int32),
        ("parent", np.int32),  # node index from which to step
        ("slot", np.int32),  # the parent's slot along which to step
        ("node", np.int32),  # index for the node behind it, unless it exists already
    ],
    align=True,
)
"""Where a simulation left the tree."""


class Tree:
    """Room for the trees of `batch_size` searches side by side.

    Pass one as `tree=` to spare every search the allocation. It may be larger than a search needs.
    The contents are those of the last search, and the next one overwrites them.

    An unvisited child's score depends on its prior alone, so a node keeps its actions in prior
    order and the visited ones are always the first. A node that the i-th simulation created can
    see at most as many children as simulations remain, so it stores no more than these.

    :param batch_size: roots, B >= 1
    :param num_actions: actions, A >= 1
    :param num_simulations: simulations per search, N >= 1
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

        num_slots = sum(min(num_actions, num_simulations - i) for i in range(num_simulations))
        self.nodes = np.zeros((batch_size, num_simulations + 1), NODE)  # [B, N + 1]
        self.slots = np.zeros((batch_size, num_slots), SLOT)  # [B, M]
        self.next_slot = np.zeros(batch_size, np.int32)  # [B], slots in use
        self.num_considered = np.zeros(batch_size, np.int32)  # [B], Gumbel's root actions
        self.leaves = np.zeros(batch_size, LEAF)  # [B]
        self.leaves["row"] = np.arange(batch_size)
        self.never = np.zeros(batch_size, np.bool_)  # [B], the terminal flags of a model without
        self.keys = np.zeros(num_actions, np.int64)  # [A], scratch of the sort
        self.scores = np.zeros(max(num_actions, 1), np.float32)  # [A], scratch of the selection
        self.trace_parent = np.zeros((num_simulations, batch_size), np.int32)  # [N, B]
        self.trace_action = np.zeros((num_simulations, batch_size), np.int32)  # [N, B]
        self._steps: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []

    def require(self, batch_size: int, num_actions: int, num_simulations: int) -> None:
        """:raises ValueError: if a search of this size does not fit."""
        if (
            batch_size > self.batch_size
            or num_actions > self.num_actions
            or num_simulations > self.num_simulations
        ):
            raise ValueError(
                f"the tree has room for batch_size={self.batch_size}, "
                f"num_actions={self.num_actions}, num_simulations={self.num_simulations}; this "
                f"search needs Tree({batch_size}, {num_actions}, {num_simulations}) or larger"
            )

    def steps(self, batch_size: int) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The (parent, action) arrays of every simulation, each int32 [batch_size]: views made once."""
        if not self._steps or self._steps[0][0].size != batch_size:
            self._steps = [
                (parent[:batch_size], action[:batch_size])
                for parent, action in zip(self.trace_parent, self.trace_action, strict=True)
            ]
        return self._steps
