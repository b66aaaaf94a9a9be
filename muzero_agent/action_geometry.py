"""Where actions are on a board: the planes by which they enter g, and by which f tells them."""

from __future__ import annotations

import torch
from torch import Tensor

CHESS_ACTIONS = 8 * 8 * 73
GEOMETRIES = ("auto", "chess")
"""See `resnet.ResNet`."""


def action_planes(num_actions: int, height: int, width: int) -> Tensor:
    """The plane by which each action enters g: float32 [A, 1, height, width].

    Where actions are as many as the board has squares (one more may pass), each names a square, and
    where they are as many as it has columns, a column: it is 1 there and 0 elsewhere. Others are
    (index + 1) / A everywhere, as in MuZero's Atari network.
    """
    squares = height * width
    if num_actions in (squares, squares + 1):
        return torch.eye(squares + 1)[:num_actions, :squares].view(-1, 1, height, width)
    if num_actions == width:
        return torch.eye(width).view(-1, 1, 1, width).expand(-1, 1, height, width).clone()
    return number_planes(num_actions, height, width)


def number_planes(num_actions: int, height: int, width: int) -> Tensor:
    """(index + 1) / A everywhere: float32 [A, 1, height, width]."""
    index = torch.arange(1, num_actions + 1) / num_actions
    return index.view(-1, 1, 1, 1).expand(-1, 1, height, width).clone()


def chess_planes() -> Tensor:
    """Actions of chess as in `adapters.envs.chess`: float32 [4672, 3, 8, 8].

    The square that a piece leaves; the one it goes to; and for a promotion to a knight, bishop or
    rook 1/3, 2/3 or 1 everywhere. Actions that lead off the board have no square to go to.
    """
    steps = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
    deltas = [(n * dx, n * dy, 0.0) for n in range(1, 8) for dx, dy in steps]
    deltas += [(dx, dy, 0.0) for dx in range(-2, 3) for dy in range(-2, 3) if abs(dx * dy) == 2]
    deltas += [(dx, 1, piece / 3) for dx in (-1, 0, 1) for piece in (1, 2, 3)]
    planes = torch.zeros(CHESS_ACTIONS, 3, 8, 8)
    for file in range(8):
        for rank in range(8):
            for plane, (dx, dy, promotion) in enumerate(deltas):
                entry = planes[(file * 8 + rank) * 73 + plane]
                entry[0, 7 - rank, file] = 1.0
                if 0 <= file + dx < 8 and 0 <= rank + dy < 8:
                    entry[1, 7 - rank - dy, file + dx] = 1.0
                entry[2] = promotion
    return planes


def chess_squares() -> Tensor:
    """Of each action of chess 64 * from + to, squares counted from a8 row by row: int64 [4672].

    Actions that lead off the board stay where they are.
    """
    planes = chess_planes().flatten(2)
    source, target = planes[:, 0].argmax(1), planes[:, 1].argmax(1)
    return 64 * source + torch.where(planes[:, 1].any(1), target, source)


def chess_logits(planes: Tensor) -> Tensor:
    """Logits of the actions of chess [B, 4672] from planes [B, 73, 8, 8], rank 8 above."""
    return planes.flip(2).permute(0, 3, 2, 1).flatten(1)
