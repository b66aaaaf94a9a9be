"""The search trees of a batch of roots: flat arrays, allocated once, reused from move to move."""

from __future__ import annotations

import itertools

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
        ("pending", np.int16),  # visits that wait for the network; see `kernels.gather`
        ("mate", np.int16),  # n > 0: who moves here wins in n moves of both; < 0: loses; 0: open
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
        num_slots = num_simulations * num_actions
        if num_actions > FEW_ACTIONS:
            remaining = np.arange(num_simulations, 0, -1)
            num_slots = int(np.minimum(remaining, num_actions).sum())

        self.nodes = np.zeros((batch_size, num_simulations + 1), NODE)  # [B, N + 1]
        self.slots = np.zeros((batch_size, num_slots), SLOT)  # [B, M]
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

    def principal_variation(self, row: int = 0, action: int | None = None) -> list[int]:
        """The actions along the most visited edges, from the root of a row to a leaf.

        :param action: the first of them; else the most visited one, of equals the higher prior
        """
        nodes, slots = self.nodes[row], self.slots[row]
        variation: list[int] = []
        index = ROOT
        while nodes[index]["num_children"] > 0:
            children = slots[nodes[index]["first"] :][: nodes[index]["num_children"]]
            best = int(children["visits"].argmax())
            if action is not None and index == ROOT:
                if action not in children["action"]:
                    return [action]
                best = int((children["action"] == action).argmax())
            variation.append(int(children[best]["action"]))
            index = children[best]["child"]
        return variation

    def check_valid(self) -> None:
        """:raises ValueError: if the trees in here are not what a search leaves behind."""
        for row in np.flatnonzero(self.nodes["visits"][:, ROOT]):
            spans = [(0, 0)]
            pending = [ROOT]
            while pending:
                index = pending.pop()
                children, span = self._check_node(int(row), index)
                pending += children
                spans.append(span)
            spans.sort()
            if any(stop > start for (_, stop), (start, _) in itertools.pairwise(spans)):
                raise ValueError(f"row {row}: two nodes share a slot")
            if spans[-1][1] > self.num_slots[row]:
                raise ValueError(f"row {row}: more slots in use than {self.num_slots[row]}")

    def _check_node(self, row: int, index: int) -> tuple[list[int], tuple[int, int]]:
        """The node's children, and its range of slots."""
        node = self.nodes[row, index]
        start, stop = int(node["first"]), int(node["first"] + node["num_slots"])
        slots = self.slots[row, start:stop]
        visited, others = slots[: node["num_children"]], slots[node["num_children"] :]
        children = self.nodes[row, visited["child"]]
        backed_up = node["raw_value"] + (visited["visits"] * visited["q"]).sum(dtype=np.float64)
        order = [(-float(slot["logit"]), int(slot["action"])) for slot in slots]
        ordered = order[: len(visited)]
        for fine, what in (
            (node["visits"] >= 1, "not visited"),
            (np.isfinite(node["value"]), "the value is not finite"),
            (node["num_children"] <= node["num_slots"], "more children than slots"),
            (start >= 0 and stop <= self.slots.shape[1], "its slots lie outside of the tree"),
            (len({action for _, action in order}) == len(order), "an action stands in two slots"),
            ((slots["action"] >= 0).all(), "an action below 0"),
            ((slots["action"] < self.num_actions).all(), "an action above the last"),
            ((others["visits"] == 0).all(), "visits of an unvisited action"),
            (ordered == sorted(order)[: len(visited)], "the visited are not the best by prior"),
            ((children["parent"] == index).all(), "a child has another parent"),
            ((children["slot"] == np.arange(start, start + len(visited))).all(), "a wrong slot"),
            ((children["depth"] == node["depth"] + 1).all(), "a child has another depth"),
            ((children["visits"] == visited["visits"]).all(), "visits differ from the child's"),
            (
                (
                    visited["q"] == children["reward"] + children["discount"] * children["value"]
                ).all(),
                "Q is not reward + discount * value of the child",
            ),
            (
                len(visited) == 0
                or (
                    node["visits"] == 1 + visited["visits"].sum()
                    and np.isclose(node["value"] * node["visits"], backed_up, 1e-3, 1e-3)
                ),
                "visits and value are not those of the children",
            ),
        ):
            if not fine:
                raise ValueError(f"row {row}, node {index}: {what}")
        return visited["child"].tolist(), (start, stop)
