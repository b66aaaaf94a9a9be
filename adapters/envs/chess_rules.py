"""The rules of chess for searches that look ahead by them; actions and planes are `ChessEnv`'s."""

from __future__ import annotations

import random
from typing import Any

import chess
import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.chess import (
    FRAMES,
    NUM_ACTIONS,
    frame_of,
    legal_actions,
    move_of,
    observe,
)
from muzero_agent.adapters.envs.games import random_outcome

_FRAME_BYTES = 13 * 8


class ChessState:
    """A position, and what counts of the game that led to it.

    :param board: without its moves; not to be changed
    :param frames: the newest first, at most 8: the bytes of `frame_of`. Arrays would not do: their
        memory lies between that of a search's large arrays, which the system then cannot reuse.
    :param before: keys of the positions since the last move that cannot be taken back
    """

    __slots__ = ("before", "board", "frames", "key")

    def __init__(
        self,
        board: chess.Board,
        frames: tuple[bytes, ...] = (),
        before: tuple[Any, ...] = (),
    ) -> None:
        self.board = board
        self.key = board._transposition_key()
        self.before = before
        self.frames = (frame_of(board, self.key in before).tobytes(), *frames[: FRAMES - 1])

    def times(self) -> int:
        """How often the position has been there, this time included."""
        return self.before.count(self.key) + 1

    def _identity(self) -> tuple[Any, ...]:
        return self.key, self.board.halfmove_clock, self.before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChessState) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class ChessRules:
    """Chess as in `ChessEnv`: drawn by the third repetition, and by fifty moves."""

    num_actions = NUM_ACTIONS

    def initial(self) -> ChessState:
        """The position in which games begin."""
        return ChessState(chess.Board())

    def legal(self, state: ChessState) -> list[int]:
        """Legal actions; there may be some even where the game counts as drawn."""
        return sorted(legal_actions(state.board))

    def play(self, state: ChessState, action: int) -> ChessState:
        """The state after a legal action."""
        return self.play_move(state, move_of(action, state.board))

    def play_move(self, state: ChessState, move: chess.Move) -> ChessState:
        """The state after a legal move."""
        board = state.board.copy(stack=False)
        board.push(move)
        board.clear_stack()
        final = board.halfmove_clock == 0  # nothing before it can come again
        return ChessState(board, state.frames, () if final else (*state.before, state.key))

    def outcome(self, state: ChessState) -> float | None:
        """For the player to move: -1 if mated, 0 if drawn, None while the game goes on."""
        board = state.board
        if not any(board.generate_legal_moves()):
            return -1.0 if board.is_check() else 0.0
        drawn = (
            board.halfmove_clock >= 100 or state.times() >= 3 or board.is_insufficient_material()
        )
        return 0.0 if drawn else None

    def observe(self, state: ChessState) -> NDArray[np.bool_]:
        """bool [8, 8, 111], as `adapters.envs.chess` describes it."""
        frames = b"".join(state.frames).ljust(FRAMES * _FRAME_BYTES, b"\0")
        return observe(state.board, np.frombuffer(frames, np.uint64).reshape(FRAMES, -1))

    def rollout(self, state: ChessState, rng: random.Random) -> float:
        """Outcome of random play, for the player to move."""
        return random_outcome(self, state, rng)
