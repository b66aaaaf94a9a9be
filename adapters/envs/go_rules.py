"""The rules of go_v5 for searches that look ahead by them; observations are PettingZoo's.

Area scoring, no suicide, simple ko, two passes end the game (pettingzoo.classic.go).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.games import random_outcome, winning_actions

BLACK = 1  # of PettingZoo's boards; White is -1
FRAMES = 8


class GoState:
    """A position, and what counts of the game that led to it.

    :param position: of PettingZoo; not to be changed
    :param frames: bool [N, N, 2], at most 8, the newest first: stones of the player who had just
        moved there, and of the other one
    """

    __slots__ = ("frames", "position")

    def __init__(self, position: Any, frames: tuple[NDArray[np.bool_], ...] = ()) -> None:
        self.position = position
        self.frames = frames

    @property
    def over(self) -> bool:
        """Whether both have passed."""
        return bool(self.position.is_game_over())

    def _identity(self) -> tuple[Any, ...]:
        position = self.position
        passed = bool(position.recent) and position.recent[-1].move is None
        return position.board.tobytes(), position.to_play, position.ko, passed, self.over

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GoState) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class GoRules:
    """go_v5.

    :param board_size: lines of the board
    :param komi: points for White
    """

    def __init__(self, board_size: int = 9, komi: float = 7.5) -> None:
        from pettingzoo.classic import go_v5

        self.board_size = board_size
        self.komi = komi
        self.num_actions = board_size**2 + 1
        self._env = go_v5.raw_env(board_size=board_size)
        self._base = sys.modules["pettingzoo.classic.go.go_base"]

    def _set_size(self) -> None:
        """PettingZoo keeps the size in global variables."""
        if self.board_size != self._base.N:
            self._env._overwrite_go_global_variables(self.board_size)

    def initial(self) -> GoState:
        """The empty board."""
        self._set_size()
        return GoState(self._base.Position(board=None, komi=self.komi))

    def legal(self, state: GoState) -> list[int]:
        """Empty points that may be played, and a pass."""
        self._set_size()
        return np.flatnonzero(state.position.all_legal_moves()).tolist()

    def play(self, state: GoState, action: int) -> GoState:
        """The state after a legal action."""
        self._set_size()
        size = self.board_size
        point = None if action == size**2 else divmod(action, size)
        mover = state.position.to_play
        position = state.position.play_move(point)
        frame = np.stack((position.board == mover, position.board == -mover), -1)
        return GoState(position, (frame, *state.frames[: FRAMES - 1]))

    def score(self, state: GoState) -> float:
        """Points by which Black is ahead, were the game over."""
        self._set_size()
        return float(state.position.score())

    def outcome(self, state: GoState) -> float | None:
        """For the player to move: -1 lost, 0 drawn, 1 won; None before both have passed."""
        if not state.over:
            return None
        return float(np.sign(self.score(state)) * state.position.to_play)  # Black is 1

    def wins(self, state: GoState, legal: Sequence[int]) -> list[int]:
        """The pass, where it ends the game and the player to move is ahead."""
        recent = state.position.recent
        passed = bool(recent) and recent[-1].move is None
        return winning_actions(self, state, [self.board_size**2]) if passed else []

    def observe(self, state: GoState) -> NDArray[np.bool_]:
        """bool [N, N, 17]: eight frames, and one that is full for White."""
        size = self.board_size
        planes = np.zeros((size, size, 2 * FRAMES + 1), np.bool_)
        for number, frame in enumerate(state.frames):
            planes[..., 2 * number : 2 * number + 2] = frame
        planes[..., -1] = state.position.to_play != BLACK
        return planes

    def rollout(self, state: GoState, rng: random.Random) -> float:
        """Outcome of random play, for the player to move."""
        return random_outcome(self, state, rng)
