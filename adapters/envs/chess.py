"""Moves of chess as actions: AlphaZero's 8 x 8 x 73 (arXiv 1712.01815, table S2), as in chess_v6.

An action is (file * 8 + rank) * 73 + plane of the square that a piece leaves, seen by the player to
move: for Black the board is mirrored top to bottom. Planes: 56 moves of a queen, by distance and
direction; 8 of a knight; 9 promotions to a knight, bishop or rook. A pawn's move to the last rank
as a queen's move promotes to a queen, and castling is the king's move by two squares.
"""

from __future__ import annotations

from collections.abc import Iterator

import chess

NUM_ACTIONS = 8 * 8 * 73

_DIRECTIONS = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
_KNIGHT = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3) if abs(dx) + abs(dy) == 3]
_PROMOTIONS = [
    (dx, 1, piece) for dx in (-1, 0, 1) for piece in (chess.KNIGHT, chess.BISHOP, chess.ROOK)
]


def _planes() -> Iterator[tuple[int, int, chess.PieceType | None]]:
    """Files and ranks by which a piece moves, and what it is promoted to, in the planes' order."""
    for distance in range(1, 8):
        for dx, dy in _DIRECTIONS:
            yield dx * distance, dy * distance, None
    for dx, dy in _KNIGHT:
        yield dx, dy, None
    yield from _PROMOTIONS


def _moves() -> Iterator[tuple[int, chess.Move]]:
    for file in range(8):
        for rank in range(8):
            for plane, (dx, dy, promotion) in enumerate(_planes()):
                if 0 <= file + dx < 8 and 0 <= rank + dy < 8:
                    if promotion is not None and rank != 6:
                        continue
                    source = chess.square(file, rank)
                    target = chess.square(file + dx, rank + dy)
                    yield (file * 8 + rank) * 73 + plane, chess.Move(source, target, promotion)


_MOVES = dict(_moves())
_ACTIONS = {move: action for action, move in _MOVES.items()}


def action_of(move: chess.Move, color: chess.Color) -> int:
    """The action of a move.

    :param color: of the player who moves
    :raises ValueError: if no piece moves like that
    """
    if color == chess.BLACK:
        move = _mirror(move)
    if move.promotion == chess.QUEEN:
        move = chess.Move(move.from_square, move.to_square)
    if move not in _ACTIONS:
        raise ValueError(f"{move} is no move of chess")
    return _ACTIONS[move]


def move_of(action: int, board: chess.Board) -> chess.Move:
    """The move of an action, in a position: it tells pawns, which promote, from other pieces.

    :raises ValueError: if the action leads off the board
    """
    if action not in _MOVES:
        raise ValueError(f"action {action} leads off the board")
    move = _MOVES[action]
    if board.turn == chess.BLACK:
        move = _mirror(move)
    last = chess.square_rank(move.to_square) in (0, 7)
    if move.promotion is None and last and board.piece_type_at(move.from_square) == chess.PAWN:
        return chess.Move(move.from_square, move.to_square, chess.QUEEN)
    return move


def _mirror(move: chess.Move) -> chess.Move:
    return chess.Move(
        chess.square_mirror(move.from_square),
        chess.square_mirror(move.to_square),
        move.promotion,
    )
