"""Which squares the pieces of chess attack, from planes as `adapters.envs.chess` observes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from muzero_agent.outline import constant

ATTACK_PLANES = 14

_FRAME = 7  # number of the newest frame's first plane: six kinds of own pieces, then the opponent's
_STRAIGHT = [(1, 0), (-1, 0), (0, 1), (0, -1)]
_DIAGONAL = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
_KNIGHT = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if abs(dy * dx) == 2]
_STEPS = (  # rows down and columns right, of what goes one step: own pawns, others, knights, kings
    [(-1, -1), (-1, 1)],
    [(1, -1), (1, 1)],
    _KNIGHT,
    _STRAIGHT + _DIAGONAL,
)
_NUM_STRAIGHT = 64 * 14  # pairs of squares on one line
_NUM_PAIRS = _NUM_STRAIGHT + 560


def _line(square: int, step: tuple[int, int], most: int) -> list[int]:
    """The squares that a piece comes to by at most so many steps, in order."""
    row, column = square // 8 + step[0], square % 8 + step[1]
    found: list[int] = []
    while len(found) < most and 0 <= row < 8 and 0 <= column < 8:
        found.append(8 * row + column)
        row, column = row + step[0], column + step[1]
    return found


def _jumps() -> Tensor:
    """1 from a square to those that a step leads to: float32 [4, 64, 64]."""
    found = torch.zeros(len(_STEPS), 64, 64)
    for kind, steps in enumerate(_STEPS):
        for square in range(64):
            for step in steps:
                found[kind, square, _line(square, step, 1)] = 1.0
    return found


def _lines() -> Iterator[tuple[int, list[int]]]:
    """Each square and the squares of each line from it, the straight lines first."""
    for step in _STRAIGHT + _DIAGONAL:
        for square in range(64):
            yield square, _line(square, step, 7)


def _pairs() -> Tensor:
    """Pairs of squares on a line: float32 [2, P, 64], 1 at the second one, and at all between."""
    pairs = torch.zeros(2, _NUM_PAIRS, 64)
    number = 0
    for _, line in _lines():
        for length, target in enumerate(line):
            pairs[0, number, target] = 1.0
            pairs[1, number, line[:length]] = 1.0
            number += 1
    return pairs


def _sources() -> Tensor:
    """The first square of each pair: int64 [P]."""
    return torch.tensor([square for square, line in _lines() for _ in line])


def _passing() -> Tensor:
    """What takes a pawn that has just gone two squares from where it is shown, its owner's first
    rank, to where it stands: float32 [64, 64]."""
    found = torch.zeros(64, 64)
    for column in range(8):
        found[column, column] = -1.0
        found[column, 24 + column] = 1.0
    return found


class ChessAttacks(nn.Module):
    """What a player sees at a glance, and convolutions learn late: which squares are attacked.

    Seven planes for the player to move and seven for the opponent: the squares that their pawns,
    knights, bishops, rooks, queens and king attack, those of their own pieces included, and the
    squares that more than one piece attacks. Pins are not looked at.
    """

    jumps: Tensor
    pairs: Tensor
    sources: Tensor
    passing: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, shape, values in (
            ("jumps", (len(_STEPS), 64, 64), _jumps),
            ("pairs", (2, _NUM_PAIRS, 64), _pairs),
            ("passing", (64, 64), _passing),
        ):
            self.register_buffer(name, constant(shape, values), persistent=False)
        self.register_buffer("sources", constant((_NUM_PAIRS,), _sources).long(), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Planes of 0 and 1, float [B, 14, 8, 8].

        :param obs: float [B, 111, 8, 8], entries 0 and 1
        """
        pieces = obs[:, _FRAME : _FRAME + 12].reshape(-1, 2, 6, 64)
        others = pieces[:, 1, 0] + pieces[:, 1, 0] @ self.passing
        pawns = torch.stack((pieces[:, 0, 0] @ self.jumps[0], others @ self.jumps[1]), 1)
        knights, kings = pieces[:, :, 1] @ self.jumps[2], pieces[:, :, 5] @ self.jumps[3]
        occupied = pieces.flatten(1, 2).sum(1) + pieces[:, 1, 0] @ self.passing
        target, between = self.pairs.unbind(0)
        clear = ((occupied @ between.T) < 0.5).to(obs.dtype)  # [B, P]
        straight, diagonal = slice(_NUM_STRAIGHT), slice(_NUM_STRAIGHT, None)
        bishops, rooks, queens = (
            (pieces[:, :, kind, self.sources[lines]] * clear[:, None, lines]) @ target[lines]
            for kind, lines in ((2, diagonal), (3, straight), (4, slice(None)))
        )
        # How many of each kind attack a square: [B, 2, 6, 64].
        number = torch.stack((pawns, knights, bishops, rooks, queens, kings), 2)
        several = (number.sum(2, keepdim=True) > 1.5).to(number.dtype)
        return torch.cat((number.clamp(max=1.0), several), 2).view(-1, ATTACK_PLANES, 8, 8)
