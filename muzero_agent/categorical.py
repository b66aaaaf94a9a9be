"""Scalars as categorical distributions: the h-transform and two-hot targets.

MuZero, appendix F ("Network architecture"): values and rewards are squashed by

    h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x,   epsilon = 0.001

(Pohlen et al. 2018, arXiv 1805.11593, proposition A.2 gives the inverse), and each squashed scalar
is a distribution over the atoms of a support with its mass on the two atoms next to it.

MuZero reads a distribution as the scalar whose h is its mean in units of h. That is no expectation:
of -100 or 0 at even odds it makes -30, since h is no straight line. Where a model cannot know the
step in which something comes, large rewards shrink so. The mean of the scalars that atoms stand for
is right (symexp two-hot: DreamerV3, arXiv 2301.04104).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from muzero_agent.outline import constant

EPSILON = 0.001
MEANS = ("scalars", "transformed")


def h(x: Tensor) -> Tensor:
    """Squash scalars of any magnitude; strictly increasing, odd, h(0) = 0."""
    return torch.sign(x) * (torch.sqrt(x.abs() + 1.0) - 1.0) + EPSILON * x


def squashed(x: float) -> float:
    """`h` of one number."""
    return float(h(torch.tensor(x, dtype=torch.float64)))


def h_inverse(y: Tensor) -> Tensor:
    """The exact inverse of `h`.

    The textbook form (sqrt(1 + 4 eps (|y| + 1 + eps)) - 1) / (2 eps) loses four digits of float32
    to cancellation; multiplied out by the conjugate, it loses none.
    """
    magnitude = y.abs()
    shifted = magnitude + (1.0 + EPSILON)
    root = 2.0 * shifted / (torch.sqrt(1.0 + 4.0 * EPSILON * shifted) + 1.0)
    return torch.sign(y) * (root * root - 1.0)


def check_same_mean(theirs: str, own: str, source: object) -> None:
    """ValueError if weights that are read as means of `theirs` are to be read as of `own`.

    :param source: what the weights come from, as a message calls it
    """
    if theirs != own:
        raise ValueError(
            f"{source} has a model whose predictions are means of {theirs!r}, and those of this "
            f"one are of {own!r}: make it with policy_kwargs support_mean={theirs!r}"
        )


class Support(nn.Module):
    """`size` equally spaced atoms over [-bound, bound] in units of h(x).

    :param bound: largest |h(x)| that can be told; scalars beyond are clipped. 30 reaches ~ 900.
    :param size: odd number of atoms, so that zero is one of them.
    :param mean: of what predictions are means: of "scalars", as expectations are, or of scalars
        "transformed" by h (MuZero, appendix F); targets are told so that theirs is exact
    """

    atoms: Tensor  # [size], in units of h(x); in every file of weights, so it stays a buffer
    coordinates: Tensor  # [size], in the units of which means are taken
    smoothing: float = 0.0
    """Standard deviation of the targets, in steps between atoms; 0: they are two-hot. Their mean is
    the same but for what a bound cuts off, and of scalars nearly so (Farebrother et al. 2024, arXiv
    2403.03950, section 3.1, "HL-Gauss", who recommend 0.75)."""

    def __init__(self, bound: float = 30.0, size: int = 61, mean: str = "transformed") -> None:
        super().__init__()
        if mean not in MEANS:
            raise ValueError(f"support_mean={mean!r}: choose one of {list(MEANS)}")
        if size < 3 or size % 2 == 0:
            raise ValueError(f"support_size={size}: choose an odd number of atoms >= 3")
        if bound <= 0:
            raise ValueError(f"support_bound={bound}: choose a positive bound on |h(x)|")
        self.bound = float(bound)
        self.size = size
        self.of_scalars = mean == "scalars"
        self.reach = float(h_inverse(torch.tensor(bound, device="cpu")))  # largest |x|
        atoms = constant((size,), lambda: torch.linspace(-bound, bound, size))
        self.register_buffer("atoms", atoms)
        coordinates = constant(
            (size,), lambda: h_inverse(atoms) if self.of_scalars else atoms.clone()
        )
        self.register_buffer("coordinates", coordinates, persistent=False)

    def scalar(self, logits: Tensor) -> Tensor:
        """Scalars [...] that distributions with logits [..., size] stand for."""
        mean = torch.softmax(logits, -1) @ self.coordinates
        return mean if self.of_scalars else h_inverse(mean)

    def position(self, x: Tensor) -> Tensor:
        """Where scalars [...] lie among the atoms: 0 .. size - 1, fractional."""
        step = 2.0 * self.bound / (self.size - 1)
        return ((h(x) + self.bound) / step).clamp(0.0, self.size - 1.0)

    def bracket(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two atoms next to h(x), int64 [..., 2], and the mass of the upper one [...]."""
        position = self.position(x)
        lower = position.floor().clamp(max=self.size - 2.0)
        index = lower.long()
        pair = torch.stack((index, index + 1), -1)
        if not self.of_scalars:
            return pair, position - lower
        below, above = self.coordinates[pair].unbind(-1)
        return pair, ((x - below) / (above - below)).clamp(0.0, 1.0)

    def two_hot(self, x: Tensor) -> Tensor:
        """Distributions [..., size] with their mass on the two atoms next to h(x)."""
        index, upper_mass = self.bracket(x)
        target = torch.zeros(*x.shape, self.size, dtype=x.dtype, device=x.device)
        return target.scatter_(-1, index, torch.stack((1.0 - upper_mass, upper_mass), -1))

    def gaussian(self, x: Tensor) -> Tensor:
        """Distributions [..., size] with the mass that a normal one around h(x) has nearest to each
        atom; what lies beyond the bounds goes to the others."""
        mass = self._normal(x)
        if self.of_scalars:  # h is curved: what the mean of scalars came to be off by, once
            mass = self._normal(2 * x - mass @ self.coordinates)
        return mass

    def _normal(self, x: Tensor) -> Tensor:
        edges = torch.arange(self.size + 1, dtype=x.dtype, device=x.device) - 0.5
        distance = (edges - self.position(x).unsqueeze(-1)) / (self.smoothing * math.sqrt(2.0))
        mass = torch.erf(distance).diff(dim=-1)
        return mass / mass.sum(-1, keepdim=True)

    def cross_entropy(self, logits: Tensor, x: Tensor) -> Tensor:
        """-sum(two_hot(x) log softmax(logits)): [...] of logits [..., size] and scalars [...]; with
        `smoothing`, `gaussian` takes the place of `two_hot`."""
        if self.smoothing > 0:
            return -(self.gaussian(x) * torch.log_softmax(logits, -1)).sum(-1)
        index, upper_mass = self.bracket(x)
        lower, upper = torch.log_softmax(logits, -1).gather(-1, index).unbind(-1)
        return -torch.lerp(lower, upper, upper_mass)
