"""The rules of chess for searches that look ahead by them; actions and planes are `ChessEnv`'s."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
    squares_of,
)
from muzero_agent.adapters.envs.games import random_outcome

_FRAME_BYTES = 13 * 8
_CASTLED = chess.BB_C1 | chess.BB_G1 | chess.BB_C8 | chess.BB_G8


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


def _checks(board: chess.Board, legal: Sequence[int]) -> list[int]:
    """Legal actions by which check may be given: all that do, and a few others."""
    king = board.king(not board.turn)
    if king is None:
        return []
    own, occupied = board.occupied_co[board.turn], board.occupied
    diagonal, straight = _lines(king, occupied)
    # Pieces that stand in front of one of their own may give check wherever they go.
    behind = occupied & ~((diagonal | straight) & own)
    far_diagonal, far_straight = _lines(king, behind)
    sliders = far_diagonal & (board.bishops | board.queens)
    sliders |= far_straight & (board.rooks | board.queens)
    anywhere = (diagonal | straight) & own if sliders & own else 0
    en_passant = 0 if board.ep_square is None else chess.BB_SQUARES[board.ep_square]
    special = chess.BB_RANK_1 | chess.BB_RANK_8 | en_passant
    pawn = chess.BB_PAWN_ATTACKS[not board.turn][king]
    targets = (  # of each kind, where it attacks the king, or checks in its own way
        (board.pawns, pawn | special),
        (board.knights, chess.BB_KNIGHT_ATTACKS[king]),
        (board.bishops, diagonal),
        (board.rooks, straight),
        (board.queens, diagonal | straight),
        (board.kings, board.castling_rights and _CASTLED | board.rooks & own),
    )
    reach = {}
    for kind, goal in targets:
        for square in chess.scan_forward(kind & own):
            reach[square] = chess.BB_ALL if chess.BB_SQUARES[square] & anywhere else goal
    found = []
    for action in legal:
        source, target = squares_of(action, board.turn)
        if reach[source] & chess.BB_SQUARES[target]:
            found.append(action)
    return found


def _lines(square: chess.Square, occupied: chess.Bitboard) -> tuple[chess.Bitboard, chess.Bitboard]:
    """What a bishop and a rook attack from a square."""
    masks, attacks = chess.BB_DIAG_MASKS, chess.BB_DIAG_ATTACKS
    diagonal = attacks[square][masks[square] & occupied]
    straight = (
        chess.BB_RANK_ATTACKS[square][chess.BB_RANK_MASKS[square] & occupied]
        | chess.BB_FILE_ATTACKS[square][chess.BB_FILE_MASKS[square] & occupied]
    )
    return diagonal, straight


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

    def wins(self, state: ChessState, legal: Sequence[int]) -> list[int]:
        """Those of its legal actions that mate.

        Every position of a search is looked at, so only moves that may give check are tried.
        """
        board, found = state.board, list[int]()
        moves = _checks(board, legal)
        if moves:
            board = board.copy(stack=False)
        for action in moves:
            board.push(move_of(action, board))
            if board.is_checkmate():
                found.append(action)
            board.pop()
        return found

    def observe(self, state: ChessState) -> NDArray[np.bool_]:
        """bool [8, 8, 111], as `adapters.envs.chess` describes it."""
        frames = b"".join(state.frames).ljust(FRAMES * _FRAME_BYTES, b"\0")
        return observe(state.board, np.frombuffer(frames, np.uint64).reshape(FRAMES, -1))

    def rollout(self, state: ChessState, rng: random.Random) -> float:
        """Outcome of random play, for the player to move."""
        return random_outcome(self, state, rng)
