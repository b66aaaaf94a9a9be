"""A search from one root that can be stopped after any slice, and goes on where it stopped.

An engine does not know beforehand how long it may think, and thinks on where the last move led. So
here the tree grows by slices: `gather` chooses a few edges, the caller evaluates them by one call
of the network, `absorb` backs up what it found. With one edge a slice this is `muzero_policy`
without noise, visit for visit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from muzero_agent.search import kernels
from muzero_agent.search.policies import (
    _bad_output,
    _checked_root,
    _conformed,
    _conforms,
    _exploration,
    _settings,
)
from muzero_agent.search.tree import LEAF, NODE, ROOT, SLOT, Ints
from muzero_agent.types import RecurrentOutput, RootOutput

MOST_LEAVES = 1024
"""Edges that a slice may have."""


class Slice(NamedTuple):
    """Edges to evaluate: row i steps from node `parent[i]` to the new node `first_node + i`."""

    first_node: int
    parent: Ints  # [n]
    action: Ints  # [n]


class Child(NamedTuple):
    """What is known of an action at the root, or at another node."""

    action: int
    visits: int
    q: float  # for who moves; of an action without visits, the node's own value
    prior: float
    mate: int  # n > 0: wins by force in n moves of both together; < 0: loses; 0: not known


def node_bytes(slots_per_node: int) -> int:
    """Memory that a node takes, with its slots."""
    return NODE.itemsize + slots_per_node * SLOT.itemsize + 4


class AnytimeSearch:
    """The tree of one root, of bounded size.

    :param num_actions: A
    :param max_nodes: nodes that the tree may have
    :param children: most children of a node; of more actions, the most probable are kept. None: all
        actions are, of which each node has as many as are not -inf
    :param most_legal: actions that a node has at most, where all are kept; None: A. A slice begins
        only if there is room for so many.
    :param slots_per_node: room for children, on average over all nodes
    :param prove: rewards of terminal edges are 1 for a win and -1 for a loss, and players take
        turns: then what is won by force is found out, and told (`Child.mate`)
    :param pb_c_init: c1 of the rule, see `muzero_policy`
    :param pb_c_base: c2
    :param min_q_range: see `muzero_policy`
    """

    def __init__(
        self,
        num_actions: int,
        max_nodes: int,
        *,
        children: int | None = None,
        most_legal: int | None = None,
        slots_per_node: int = 48,
        prove: bool = False,
        pb_c_init: float = 1.25,
        pb_c_base: float = 19652,
        min_q_range: float = 1e-8,
    ) -> None:
        if max_nodes < 2:
            raise ValueError(f"max_nodes is {max_nodes}; give at least 2")
        if children is not None and children < 1:
            raise ValueError(f"children is {children}; give at least 1, or None for all actions")
        self.num_actions = num_actions
        self.max_nodes = max_nodes
        self.prove = prove
        most = num_actions if children is None else min(children, num_actions)
        self._most_children = most if most_legal is None else min(most, most_legal)
        self._pb_c = (pb_c_init, pb_c_base)
        self._settings = _settings(kernels.PUCT, num_actions, most, None, min_q_range)
        self._settings["keep_all"] = children is None
        self._settings["max_depth"] = np.iinfo(np.int32).max
        num_slots = max(max_nodes * slots_per_node, num_actions)
        self._nodes = np.zeros((1, max_nodes), NODE)
        self._slots = np.zeros((1, num_slots), SLOT)
        self._num_slots = np.zeros(1, np.int32)
        self._leaves = np.zeros(MOST_LEAVES, LEAF)
        self._parent = np.zeros(MOST_LEAVES, np.int32)
        self._action = np.zeros(MOST_LEAVES, np.int32)
        self._moved = np.zeros(max_nodes, np.int32)
        self._floats = np.zeros((2, num_actions), np.float32)
        self._ints = np.zeros((2, num_actions), np.int32)
        self._never = np.zeros(MOST_LEAVES, np.bool_)
        self._considered = np.zeros((1, 0), np.int32)  # for Gumbel's rule
        self._waiting = 0
        self.num_nodes = 0

    # -- growing ---------------------------------------------------------------------------------

    def plant(self, root: RootOutput) -> None:
        """Begin a tree.

        :param root: one row; a logit of -inf marks an action that is illegal
        """
        logits, value = _checked_root(root, None)
        if logits.shape != (1, self.num_actions):
            raise ValueError(f"root.prior_logits has shape {logits.shape}; give one row of actions")
        self._num_slots[0] = 0
        status = kernels.absorb_all(
            self._nodes, self._slots, self._num_slots, np.zeros(1, LEAF), self._floats, self._ints,
            self._settings, value, value, logits, value, self._never[:1], False,
        )  # fmt: skip
        assert status == kernels.FINE
        self.num_nodes, self._waiting = 1, 0

    def gather(self, leaves: int) -> Slice:
        """Choose up to `leaves` edges to evaluate next; none if the tree is full.

        Ends of the game that are met on the way are visits that need no evaluation, so there may be
        fewer edges, or none. Results have to be absorbed before the next slice.
        """
        if self._waiting:
            raise RuntimeError("a slice is waiting to be absorbed")
        leaves = min(leaves, MOST_LEAVES, self._room())
        nodes = self._nodes[0]
        root_visits = int(nodes[ROOT]["visits"])
        enough = 1 << (root_visits + 2 * leaves + 2).bit_length()  # seldom another one
        count = kernels.gather(
            self._nodes, self._slots, self._leaves[:leaves], self._floats, self._ints,
            self._settings, _exploration(enough, *self._pb_c), self._considered, self.num_nodes,
            self._parent[:leaves], self._action[:leaves],
        )  # fmt: skip
        self._waiting = count
        return Slice(self.num_nodes, self._parent[:count], self._action[:count])

    def absorb(self, output: RecurrentOutput) -> None:
        """Back up what the network said of the last slice, a row for each of its edges.

        :raises ValueError: for wrong shapes, NaN and inf
        """
        count = self._waiting
        if not _conforms(output):
            output = _conformed(output, count, self.num_actions)
        absorb = kernels.absorb_all if self._settings["keep_all"][0] else kernels.absorb
        status = absorb(
            self._nodes, self._slots, self._num_slots, self._leaves[:count], self._floats,
            self._ints, self._settings, output.reward, output.discount, output.prior_logits,
            output.value, self._never[:count] if output.terminal is None else output.terminal,
            self.prove,
        )  # fmt: skip
        if status != kernels.FINE:
            raise _bad_output(status, self.num_nodes - 1, output, count, self.num_actions)
        self.num_nodes += count
        self._waiting = 0

    def descend(self, action: int) -> Ints | None:
        """Make the node behind an action the root, and forget the rest.

        :return: int32 [num_nodes], what the index of each node that remains was; None if nothing
            is behind the action, or its end: the tree is as it was
        """
        if self._waiting:
            raise RuntimeError("a slice is waiting to be absorbed")
        root = self._nodes[0, ROOT]
        slots = self._slots[0, root["first"] :][: root["num_children"]]
        behind = slots["child"][slots["action"] == action]
        if len(behind) == 0 or self._nodes[0, behind[0]]["num_slots"] == 0:
            return None
        before = self.num_nodes
        self.num_nodes = kernels.reroot(
            self._nodes, self._slots, self._num_slots, before, int(behind[0]), self._moved[:before]
        )
        return np.flatnonzero(self._moved[:before] >= 0).astype(np.int32)

    def _room(self) -> int:
        """Edges for which there is room."""
        slots = (self._slots.shape[1] - int(self._num_slots[0])) // self._most_children
        return max(min(self.max_nodes - self.num_nodes, slots), 0)

    # -- looking ---------------------------------------------------------------------------------

    @property
    def visits(self) -> int:
        """Of the root, without its own."""
        return int(self._nodes[0, ROOT]["visits"]) - 1

    @property
    def decided(self) -> bool:
        """Whether a move is known to win, or all are known to lose: more visits tell no more."""
        children = self.children()
        return children[0].mate > 0 or all(child.mate < 0 for child in children)

    @property
    def value(self) -> float:
        """Mean of what was backed up to the root, for who moves there."""
        return float(self._nodes[0, ROOT]["value"])

    @property
    def fullness(self) -> float:
        """Share of the room that is in use, 0 .. 1; at 1 `gather` finds none."""
        if self._room() == 0:
            return 1.0
        slots = int(self._num_slots[0]) / self._slots.shape[1]
        return max(self.num_nodes / self.max_nodes, slots)

    def depths(self) -> tuple[float, int]:
        """Mean and greatest number of moves from the root to a node."""
        depths = self._nodes[0, : self.num_nodes]["depth"]
        return float(depths.mean()), int(depths.max())

    def children(self, node: int = ROOT) -> list[Child]:
        """Actions, the best first: proven wins, then by visits, Q and prior; proven losses last."""
        owner = self._nodes[0, node]
        slots = self._slots[0, owner["first"] :][: owner["num_slots"]]
        found = [
            Child(
                int(slot["action"]),
                int(slot["visits"]),
                float(slot["q"] if slot["visits"] else owner["value"]),
                float(slot["prior"]),
                int(slot["mate"]),
            )
            for slot in slots
        ]
        return sorted(found, key=_standing, reverse=True)

    def variation(self, action: int, most: int = 64) -> list[int]:
        """The line of best actions that begins with this one."""
        line, node = [action], self._behind(ROOT, action)
        while node is not None and len(line) < most:
            best = next(iter(self.children(node)), None)
            if best is None or (best.visits == 0 and best.mate == 0):
                break
            line.append(best.action)
            node = self._behind(node, best.action)
        return line

    def _behind(self, node: int, action: int) -> int | None:
        owner = self._nodes[0, node]
        slots = self._slots[0, owner["first"] :][: owner["num_children"]]
        behind = slots["child"][slots["action"] == action]
        return int(behind[0]) if len(behind) else None


def _standing(child: Child) -> tuple[float, int, float, float]:
    """By what children are ordered, the best greatest."""
    proven = 0.0 if child.mate == 0 else 1.0 / child.mate + (1.0 if child.mate > 0 else -1.0)
    if child.mate < 0:  # the longer the better
        return proven, -child.mate, child.q, child.prior
    return proven, child.visits, child.q, child.prior
