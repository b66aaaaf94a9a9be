"""Sampling in proportion to changing weights, in O(log N) a draw, vectorised over draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """A binary tree whose leaves hold weights and whose inner nodes the sums below them.

    :param size: number of leaves
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.depth = max(1, (size - 1).bit_length())
        self.nodes = np.zeros(2 << self.depth, np.float64)  # root at 1, leaves from 2 ** depth

    def set(self, leaf: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Set the weights [B] >= 0 of leaves [B]; of repeated leaves the last one counts."""
        node = leaf + (1 << self.depth)
        self.nodes[node] = weight
        for _ in range(self.depth):
            node = np.unique(node >> 1)
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def get(self, leaf: NDArray[np.int64]) -> NDArray[np.float64]:
        """Weights [B] of leaves [B]."""
        return self.nodes[leaf + (1 << self.depth)]

    def sample(
        self, num: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw leaves [num] with replacement, each with its probability [num].

        Stratified: one draw from each of `num` equal parts of the total weight, which keeps the
        marginal distribution and lowers its variance (Schaul et al. 2016, appendix B.2.1).
        """
        total = self.nodes[1]
        target = (np.arange(num) + rng.random(num)) * (total / num)
        node = np.ones(num, np.int64)
        for _ in range(self.depth):
            node *= 2
            left = self.nodes[node]
            # An empty right side must never be entered, not even where rounding points past it.
            right = (target >= left) & (self.nodes[node + 1] > 0)
            target -= left * right
            node += right
        return node - (1 << self.depth), self.nodes[node] / total
