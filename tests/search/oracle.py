"""The searches once more, slow and dense, in float64, straight from the papers' formulas.

One root at a time and every action of every node: no prior order, no slots. It shares no line with
the package. It does not choose by itself: it replays the edges that a search evaluated and scores
what could have been chosen, so that rounding shows as a small gap instead of as another tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Path = list[tuple[int, int]]  # (node, action) from the root to the edge evaluated


@dataclass
class Node:
    logits: Floats  # [A], -inf where there is no action
    raw_value: float
    depth: int
    leaf: bool  # never to be expanded
    above: tuple[int, int] | None  # (node, action)
    value: float = field(init=False)
    visits: int = 1

    def __post_init__(self) -> None:
        self.value = self.raw_value
        num_actions = self.logits.size
        self.child = np.full(num_actions, -1)
        self.child_visits = np.zeros(num_actions, int)
        self.reward = np.zeros(num_actions)
        self.discount = np.zeros(num_actions)
        self.child_value = np.zeros(num_actions)

    @property
    def q(self) -> Floats:
        return self.reward + self.discount * self.child_value


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def halving(num_considered: int, num_simulations: int) -> list[int]:
    """Sequential halving, acted out: the visits of the action whose turn it is."""
    visits = [0] * num_considered
    active = num_considered
    turns: list[int] = []
    while len(turns) < num_simulations:
        phases = max(1, int(np.ceil(np.log2(num_considered))))
        for _ in range(max(1, num_simulations // (phases * active))):
            for i in range(active):
                turns.append(visits[i])
                visits[i] += 1
        active = max(min(2, num_considered), active // 2)
    return turns[:num_simulations]


class Oracle:
    """The tree of one root. :param logits: [A], -inf where illegal."""

    def __init__(
        self, logits: NDArray[np.floating], value: float, num_simulations: int, max_depth: int
    ) -> None:
        self.num_simulations = num_simulations
        self.max_depth = max_depth or num_simulations
        self.nodes = {0: Node(logits.astype(float), float(value), 0, leaf=False, above=None)}
        self.simulation = 0

    def scores(self, node: int) -> Floats:
        """What the rule compares at a node: [A], -inf where an action cannot be chosen."""
        raise NotImplementedError

    def action_scores(self) -> Floats:
        """What the final choice compares, without noise."""
        raise NotImplementedError

    def weights(self) -> Floats:
        raise NotImplementedError

    def improved_value(self) -> float:
        raise NotImplementedError

    def path(self, parent: int, action: int) -> Path:
        path = [(parent, action)]
        while (above := self.nodes[path[0][0]].above) is not None:
            path.insert(0, above)
        return path

    def tolerance(self, node: int) -> float:
        """By how much float32 may move a score: more where close values are scaled up."""
        raise NotImplementedError

    def check(self, parent: int, action: int) -> None:
        """Is this an edge that the rule may evaluate next?"""
        for node, chosen in self.path(parent, action):
            scores = self.scores(node)
            gap = scores.max() - scores[chosen]
            assert gap <= self.tolerance(node), (self.simulation, node, chosen, scores)
        child = self.nodes[parent].child[action]
        assert child < 0 or self.nodes[child].leaf

    def grow(
        self,
        parent: int,
        action: int,
        reward: float,
        discount: float,
        logits: NDArray[np.floating],
        value: float,
        terminal: bool,
    ) -> None:
        """Evaluate an edge and back up."""
        above = self.nodes[parent]
        if above.child[action] < 0:
            depth = above.depth + 1
            leaf = terminal or depth >= self.max_depth or bool(np.isneginf(logits).all())
            above.child[action] = self.simulation + 1
            above.reward[action] = reward
            above.discount[action] = discount
            self.nodes[self.simulation + 1] = Node(
                logits.astype(float), float(value), depth, leaf, (parent, action)
            )
        else:
            self.nodes[int(above.child[action])].visits += 1
        backed_up = self.nodes[int(above.child[action])].raw_value
        for index, chosen in reversed(self.path(parent, action)):
            node = self.nodes[index]
            backed_up = node.reward[chosen] + node.discount[chosen] * backed_up
            node.value = (node.value * node.visits + backed_up) / (node.visits + 1)
            node.visits += 1
            node.child_visits[chosen] += 1
            node.child_value[chosen] = self.nodes[int(node.child[chosen])].value
        self.simulation += 1


class PuctOracle(Oracle):
    pb_c_init = 1.25
    pb_c_base = 19652.0
    min_q_range = 1e-8

    def scores(self, node: int) -> Floats:
        this = self.nodes[node]
        visited = this.child_visits > 0
        known = np.append(this.q[visited], this.value)
        span = max(known.max() - known.min(), self.min_q_range)
        normalised = np.where(visited, (this.q - known.min()) / span, 0.0)
        rate = self.pb_c_init + np.log((this.visits + self.pb_c_base + 1) / self.pb_c_base)
        bonus = np.sqrt(this.visits) * rate * softmax(this.logits) / (1 + this.child_visits)
        return np.where(np.isneginf(this.logits), -np.inf, normalised + bonus)

    def tolerance(self, node: int) -> float:
        this = self.nodes[node]
        known = np.append(this.q[this.child_visits > 0], this.value)
        return float(1e-5 + 1e-6 * np.abs(known).max() / max(np.ptp(known), self.min_q_range))

    def action_scores(self) -> Floats:
        return np.asarray(self.nodes[0].child_visits, float)

    def weights(self) -> Floats:
        visits = self.nodes[0].child_visits
        return np.asarray(visits / visits.sum())

    def improved_value(self) -> float:
        return float(self.weights() @ self.nodes[0].q)


class GumbelOracle(Oracle):
    value_scale = 0.1
    maxvisit_init = 50.0
    rescale_values = True
    use_mixed_value = True
    min_q_range = 1e-8
    max_num_considered_actions = 16

    def completed_q(self, node: int) -> Floats:
        this = self.nodes[node]
        visited = this.child_visits > 0
        mixed = this.raw_value
        if self.use_mixed_value and visited.any():
            prior = np.maximum(softmax(this.logits), np.finfo(np.float32).tiny)[visited]
            total = this.child_visits.sum()
            average = (prior * this.q[visited]).sum() / prior.sum()
            mixed = (this.raw_value + total * average) / (1 + total)
        return np.where(visited, this.q, mixed)

    def sigma(self, node: int) -> Floats:
        q = self.completed_q(node)
        if self.rescale_values:
            q = (q - q.min()) / max(q.max() - q.min(), self.min_q_range)
        most = self.nodes[node].child_visits.max()
        return np.asarray((self.maxvisit_init + most) * self.value_scale * q)

    def scores(self, node: int) -> Floats:
        this = self.nodes[node]
        exists = ~np.isneginf(this.logits)
        if node != 0:
            improved = softmax(this.logits + self.sigma(node))
            wanted = improved - this.child_visits / (1 + this.child_visits.sum())
            return np.where(exists, wanted, -np.inf)
        considered = min(self.max_num_considered_actions, int(exists.sum()))
        visits = halving(considered, self.num_simulations)[self.simulation]
        exists &= this.child_visits == visits
        return np.where(exists, this.logits - this.logits.max() + self.sigma(0), -np.inf)

    def tolerance(self, node: int) -> float:
        q = self.completed_q(node)
        span = max(np.ptp(q), self.min_q_range) if self.rescale_values else 1.0
        scale = (self.maxvisit_init + self.nodes[node].child_visits.max()) * self.value_scale
        return float(1e-5 + 1e-6 * scale * np.abs(q).max() / span)

    def action_scores(self) -> Floats:
        root = self.nodes[0]
        best = root.child_visits == root.child_visits.max()
        return np.where(best, root.logits + self.sigma(0), -np.inf)

    def weights(self) -> Floats:
        return softmax(self.nodes[0].logits + self.sigma(0))

    def improved_value(self) -> float:
        return float(self.weights() @ self.completed_q(0))
