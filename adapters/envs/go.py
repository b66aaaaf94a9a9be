"""Go: go_v5 with two changes for training, and how its points are called."""

from __future__ import annotations

import math
from typing import Any

from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.types import MASK_KEY

_FILES = "abcdefghjklmnopqrstuvwxyz"  # of a Go board: there is no i


def go_vertex(action: int, board_size: int) -> str:
    """What Go's protocol GTP calls an action of go_v5: "a9", or "pass"."""
    if action == board_size**2:
        return "pass"
    row, file = divmod(action, board_size)
    return f"{_FILES[file]}{board_size - row}"


def go_action(vertex: str, board_size: int) -> int:
    """The action of go_v5 that GTP calls `vertex`, such as "a9" or "pass".

    :raises ValueError: if the board has no such point
    """
    vertex = vertex.lower()
    if vertex == "pass":
        return board_size**2
    file, rank = _FILES.find(vertex[:1]), vertex[1:]
    if not (vertex and 0 <= file < board_size and rank.isdecimal()):
        raise ValueError(f"{vertex!r} is no point of a Go board")
    row = board_size - int(rank)
    if not 0 <= row < board_size:
        raise ValueError(f"{vertex!r} is no point of a board of {board_size} x {board_size}")
    return row * board_size + file


def handicap_points(board_size: int, stones: int) -> list[int]:
    """Where GTP 2 puts handicap stones (section 4.1.1).

    :raises ValueError: if it has no place for so many
    """
    most = 9 if board_size % 2 and board_size > 7 else 4
    if not 2 <= stones <= most or board_size < 7:
        raise ValueError(f"invalid number of stones: give 2 to {most} on a board of 7 or more")
    near = 2 if board_size < 13 else 3
    low, middle, high = board_size - 1 - near, board_size // 2, near  # rows count from above
    left, right = near, board_size - 1 - near
    points = [(low, left), (high, right), (high, left), (low, right)][:stones]
    if stones > 5:
        points += [(middle, left), (middle, right)]
    if stones > 7:
        points += [(low, middle), (high, middle)]
    if stones % 2 and stones > 4:
        points.append((middle, middle))
    return [row * board_size + column for row, column in points]


class GoEnv(TurnBasedEnv):
    """go_v5 as a `TurnBasedEnv`, with two changes for training.

    Beginners of 9x9 lose with Black, because of the komi. So self-play comes to think that Black is
    lost whatever it plays, and ends games by two passes before anything could contradict it; and
    where all moves seem to lose alike, nothing is learned from a search. If passes are put off,
    games are played. If each point counts, moves differ before games are close (compare the
    auxiliary target of scores in Wu 2019).

    :param board_size: lines of the board
    :param komi: points for White
    :param margin_scale: sigma > 0 rewards who wins by m points with erf(m / (sigma sqrt(2))), the
        mean result if the komi were drawn from a normal distribution of this standard deviation; 0
        with 1, as in Go
    :param first_pass: in each game passing is legal from a move on that is drawn from 0 to this
        one, 0 as in Go; before, it is only if nothing else is
    """

    def __init__(
        self,
        board_size: int = 9,
        komi: float = 7.5,
        margin_scale: float = 0.0,
        first_pass: int = 0,
    ) -> None:
        from pettingzoo.classic import go_v5

        self.margin_scale = margin_scale
        self.first_pass = first_pass
        self._move = self._from = 0
        super().__init__(go_v5.env(board_size=board_size, komi=komi))

    def _begin(self) -> None:
        self._move, self._from = 0, int(self.np_random.integers(self.first_pass + 1))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play a move; see `TurnBasedEnv`."""
        self._move += 1
        mover = self.to_play
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated and self.margin_scale > 0 and "illegal_move" not in info:
            game: Any = self.aec.unwrapped
            margin = float(game._go.score()) * (1 if mover == 0 else -1)  # score is Black's
            reward = math.erf(margin / (self.margin_scale * math.sqrt(2)))
        return obs, reward, terminated, truncated, info

    def _observe(self) -> Any:
        obs = super()._observe()
        if self._move < self._from and obs[MASK_KEY][:-1].any():
            mask = obs[MASK_KEY].copy()
            mask[-1] = 0
            self._observed = obs = {**obs, MASK_KEY: mask}
        return obs
