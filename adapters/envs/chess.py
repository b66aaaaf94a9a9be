"""Chess: moves as actions, positions as planes, and an environment, as in PettingZoo's chess_v6.

An action is (file * 8 + rank) * 73 + plane of the square that a piece leaves, seen by the player to
move: for Black the board is mirrored top to bottom. Planes: 56 moves of a queen, by distance and
direction; 8 of a knight; 9 promotions to a knight, bishop or rook (AlphaZero, arXiv 1712.01815,
table S2). A pawn's move to the last rank as a queen's move promotes to a queen, and castling is the
king's move by two squares.

An observation is bool [8, 8, 111], the side of the player to move below: four planes of castling
rights (own kingside and queenside, then the opponent's), one that is full for Black, one with the
halved clock of the fifty-move rule as a square, one that is full, and eight frames, the newest
first, of 13 planes: pawns, knights, bishops, rooks, queens and king of the player to move, the
opponent's, and one that is full if the position was there before. A pawn that may be captured en
passant stands on its owner's first rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chess
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from muzero_agent.types import MASK_KEY, Symmetries

NUM_ACTIONS = 8 * 8 * 73
FRAMES = 8
_FRAME = 13  # planes

_DIRECTIONS = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
_KNIGHT = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3) if abs(dx) + abs(dy) == 3]
_PROMOTIONS = [
    (dx, 1, piece) for dx in (-1, 0, 1) for piece in (chess.KNIGHT, chess.BISHOP, chess.ROOK)
]

# -- moves -----------------------------------------------------------------------------------------


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
                if promotion is not None and rank != 6:
                    continue
                if 0 <= file + dx < 8 and 0 <= rank + dy < 8:
                    source = chess.square(file, rank)
                    target = chess.square(file + dx, rank + dy)
                    yield (file * 8 + rank) * 73 + plane, chess.Move(source, target, promotion)


def _key(from_square: int, to_square: int, promotion: int | None) -> int:
    """Of a move in `_ACTIONS`; a promotion to a queen is as the move without it."""
    under = 0 if promotion is None or promotion == chess.QUEEN else promotion
    return from_square << 9 | to_square << 3 | under


def _mirror(move: chess.Move) -> chess.Move:
    return chess.Move(
        chess.square_mirror(move.from_square), chess.square_mirror(move.to_square), move.promotion
    )


_MOVES = {
    chess.WHITE: dict(_moves()),
    chess.BLACK: {action: _mirror(move) for action, move in _moves()},
}
_ACTIONS = {
    color: {_key(m.from_square, m.to_square, m.promotion): action for action, m in moves.items()}
    for color, moves in _MOVES.items()
}


def action_of(move: chess.Move, color: chess.Color) -> int:
    """The action of a move.

    :param color: of the player who moves
    :raises ValueError: if no piece moves like that
    """
    try:
        return _ACTIONS[color][_key(move.from_square, move.to_square, move.promotion)]
    except KeyError:
        raise ValueError(f"{move} is no move of chess") from None


def move_of(action: int, board: chess.Board) -> chess.Move:
    """The move of an action, in a position: it tells pawns, which promote, from other pieces.

    :raises ValueError: if the action leads off the board
    """
    move = _MOVES[board.turn].get(action)
    if move is None:
        raise ValueError(f"action {action} leads off the board")
    last = chess.square_rank(move.to_square) in (0, 7)
    if move.promotion is None and last and board.piece_type_at(move.from_square) == chess.PAWN:
        return chess.Move(move.from_square, move.to_square, chess.QUEEN)
    return move


def squares_of(action: int, color: chess.Color) -> tuple[chess.Square, chess.Square]:
    """From where an action that is legal moves a piece, and where to.

    :param color: of the player who moves
    """
    move = _MOVES[color][action]
    return move.from_square, move.to_square


def legal_actions(board: chess.Board) -> dict[int, chess.Move]:
    """The legal moves by their actions."""
    actions = _ACTIONS[board.turn]
    return {
        actions[_key(move.from_square, move.to_square, move.promotion)]: move
        for move in board.generate_legal_moves()
    }


def mask_of(actions: dict[int, chess.Move]) -> NDArray[np.int8]:
    """int8 [4672], 1 where an action is legal."""
    mask = np.zeros(NUM_ACTIONS, np.int8)
    mask[list(actions)] = 1
    return mask


# -- positions -------------------------------------------------------------------------------------

_ALL = int(chess.BB_ALL)
_SWAPPED = np.array([*range(6, 12), *range(6), 12])  # a frame's planes, seen by Black


def frame_of(board: chess.Board, repeated: bool) -> NDArray[np.uint64]:
    """One frame, seen by White: uint64 [13], a bit for each square.

    :param repeated: whether the position was there before
    """
    white, black = board.occupied_co[chess.WHITE], board.occupied_co[chess.BLACK]
    pieces = (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings)
    planes = [kind & white for kind in pieces] + [kind & black for kind in pieces]
    if board.ep_square is not None:
        square, file = board.ep_square, board.ep_square & 7
        if square < 32:
            planes[0] = planes[0] & ~chess.BB_SQUARES[square + 8] | chess.BB_SQUARES[file]
        else:
            planes[6] = planes[6] & ~chess.BB_SQUARES[square - 8] | chess.BB_SQUARES[56 + file]
    return np.array([*planes, _ALL if repeated else 0], np.uint64)


def board_of(
    frame: NDArray[np.uint64], black: bool, rights: int = 0, clock: int = 0
) -> chess.Board:
    """The position that a frame shows, without its moves: the inverse of `frame_of`.

    :param frame: uint64 [13]
    :param black: whether Black is to move
    :param rights: of `rights_of`
    :param clock: see `observe_many`
    """
    board = chess.Board.empty()
    planes = [int(squares) for squares in frame[:12]]
    for pawns, first, color in ((0, 0, chess.WHITE), (6, 56, chess.BLACK)):
        # A pawn on its owner's first rank has just gone two squares.
        for square in chess.scan_forward(planes[pawns] & chess.BB_RANKS[first // 8]):
            stands, behind = (24, 16) if color == chess.WHITE else (-24, -16)
            planes[pawns] ^= chess.BB_SQUARES[square] | chess.BB_SQUARES[square + stands]
            board.ep_square = square + behind
    kinds = planes[:6], planes[6:]
    (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings) = (
        white | black for white, black in zip(*kinds, strict=True)
    )
    board.occupied_co = [sum(kinds[1]), sum(kinds[0])]  # no square counts twice
    board.occupied = sum(board.occupied_co)
    board.turn = chess.BLACK if black else chess.WHITE
    corners = (chess.BB_H1, chess.BB_A1, chess.BB_H8, chess.BB_A8)
    board.castling_rights = sum(corners[i] for i in range(4) if rights >> i & 1)
    board.halfmove_clock = clock
    return board


def observe(board: chess.Board, frames: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """What the player to move sees: bool [8, 8, 111].

    :param frames: uint64 [8, 13], the newest first, of `frame_of`
    """
    own, other = (0, 7) if board.turn == chess.WHITE else (7, 0)
    rights = board.castling_rights
    squares = np.empty(7 + FRAMES * _FRAME, np.uint64)
    squares[:7] = (
        _ALL if rights & chess.BB_SQUARES[8 * own + 7] else 0,
        _ALL if rights & chess.BB_SQUARES[8 * own] else 0,
        _ALL if rights & chess.BB_SQUARES[8 * other + 7] else 0,
        _ALL if rights & chess.BB_SQUARES[8 * other] else 0,
        _ALL if board.turn == chess.BLACK else 0,
        chess.BB_SQUARES[min(board.halfmove_clock // 2, 63)],
        _ALL,
    )
    seen = frames if board.turn == chess.WHITE else frames[:, _SWAPPED]
    squares[7:] = seen.ravel()
    ranks = squares.view(np.uint8).reshape(-1, 8)
    if board.turn == chess.WHITE:
        ranks = ranks[:, ::-1]  # rank 8 above
    bits = np.unpackbits(ranks, axis=1, bitorder="little")  # [111, 64]
    return np.ascontiguousarray(bits.T).reshape(8, 8, -1).view(np.bool_)


def rights_of(board: chess.Board) -> int:
    """Castling rights as four bits, from the lowest: White's kingside and queenside, Black's."""
    held = board.castling_rights
    corners = (chess.BB_H1, chess.BB_A1, chess.BB_H8, chess.BB_A8)
    return sum(1 << i for i, corner in enumerate(corners) if held & corner)


_FULL = np.uint64(_ALL)
_BITS = np.array([chess.BB_SQUARES[i] for i in range(64)], np.uint64)
_RIGHTS = np.array([[_ALL * (held >> i & 1) for i in range(4)] for held in range(16)], np.uint64)


def observe_many(
    frames: NDArray[np.uint64],
    black: NDArray[np.bool_],
    rights: NDArray[np.integer[Any]],
    clock: NDArray[np.integer[Any]],
) -> NDArray[np.bool_]:
    """`observe` for B positions at once, in a tenth of the time: bool [B, 8, 8, 111].

    :param frames: uint64 [B, 8, 13], of each position the newest first, of `frame_of`
    :param black: bool [B], whether Black is to move
    :param rights: [B], of `rights_of`
    :param clock: [B], moves of one player since a capture or a move of a pawn
    """
    num = len(frames)
    squares = np.empty((num, 7 + FRAMES * _FRAME), np.uint64)
    own = np.where(black, 2, 0)[:, None]
    squares[:, :4] = _RIGHTS[rights[:, None], (own + np.arange(4)) % 4]
    squares[:, 4] = np.where(black, _FULL, 0)
    squares[:, 5] = _BITS[np.minimum(clock // 2, 63)]
    squares[:, 6] = _FULL
    seen = np.where(black[:, None, None], frames[:, :, _SWAPPED], frames)
    squares[:, 7:] = seen.reshape(num, -1)
    ranks = squares.view(np.uint8).reshape(num, -1, 8)
    ranks = np.where(black[:, None, None], ranks, ranks[:, :, ::-1])  # the opponent's side above
    bits = np.unpackbits(ranks, axis=2, bitorder="little")  # [B, 111, 64]
    # A view: convolutions take planes one after the other as well, and copies cost the most here.
    return bits.view(np.bool_).reshape(num, -1, 8, 8).transpose(0, 2, 3, 1)


def frames_of(board: chess.Board, empty_start: bool = False) -> NDArray[np.uint64]:
    """The newest frames of a game: uint64 [8, 13], zeros where there was no position.

    :param board: with its moves
    :param empty_start: leave out the position that the game began with
    """
    frames = np.zeros((FRAMES, _FRAME), np.uint64)
    board = board.copy()
    for i in range(FRAMES):
        if empty_start and not board.move_stack:
            break
        frames[i] = frame_of(board, board.is_repetition(2))
        if not board.move_stack:
            break
        board.pop()
    return frames


class ChessEnv(gym.Env[Any, Any]):
    """Chess, a step a move, seen by the player to move: chess_v6 as a `TurnBasedEnv`, but faster.

    :param empty_start: as in chess_v6, leave the position that the game begins with out of the
        observation, which then shows no piece before the first move
    :param claim_early: as in chess_v6, end the game as drawn once the player to move could claim it
        by a move; else once a position is there for the third time, or fifty moves have gone by
    :param render_mode: "ansi" or None
    """

    num_players = 2
    name = "chess"
    num_actions = NUM_ACTIONS
    symmetries: Symmetries | None = None

    def __init__(
        self,
        *,
        empty_start: bool = False,
        claim_early: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"name": self.name, "render_modes": ["ansi"]}
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(0, 1, (8, 8, 111), bool),
                MASK_KEY: spaces.Box(0, 1, (NUM_ACTIONS,), np.int8),
            }
        )
        self.action_space = spaces.Discrete(NUM_ACTIONS)
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode={render_mode!r}: give 'ansi' or None")
        self.render_mode = render_mode
        self.empty_start = empty_start
        self.claim_early = claim_early
        self.board = chess.Board()
        self.over = True

    @property
    def to_play(self) -> int:
        """0 if White is to move, else 1."""
        return int(self.board.turn == chess.BLACK)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin a game.

        :param options: {"fen": where to begin}
        """
        super().reset(seed=seed)
        self.board = chess.Board((options or {}).get("fen", chess.STARTING_FEN))
        if not self.board.is_valid():
            raise ValueError(f"{self.board.fen()} is no position of chess: {self.board.status()!r}")
        self.over = False
        self._seen: dict[Any, int] = {}  # how often each position was there
        self._frames = np.zeros((FRAMES, _FRAME), np.uint64)
        times = self._enter(show=not self.empty_start)
        self._moves = legal_actions(self.board)
        if self._result(times) is not None:
            raise ValueError(f"{self.board.fen()}: the game is over")
        return self._observe(), {"to_play": self.to_play}

    def step(
        self, action: int
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Play a move.

        :return: observation of the player to move next, reward of the one who moved, whether the
            game ended, False, info
        :raises RuntimeError: if the game is over or has not begun
        :raises ValueError: for an illegal action
        """
        if self.over:
            raise RuntimeError("chess: no game is going on; call `reset` first")
        move = self._moves.get(int(action))
        if move is None:
            raise ValueError(f"action {action} is illegal in {self.board.fen()}")
        self.board.push(move)
        times = self._enter()
        self._moves = legal_actions(self.board)
        result = self._result(times)
        self.over = result is not None
        if self.over:
            self._moves = {}
        return self._observe(), result or 0.0, self.over, False, {"to_play": self.to_play}

    def _enter(self, show: bool = True) -> int:
        """Take note of the position; how often it has been there now."""
        key = self.board._transposition_key()
        times = self._seen.get(key, 0) + 1
        self._seen[key] = times
        if show:
            self._frames[1:] = self._frames[:-1]
            self._frames[0] = frame_of(self.board, times > 1)
        return times

    def _result(self, times: int) -> float | None:
        """For the player who moved last; None while the game goes on."""
        board = self.board
        if not self._moves:
            return 1.0 if board.is_check() else 0.0
        drawn = (
            board.can_claim_draw()
            if self.claim_early
            else times >= 3 or board.halfmove_clock >= 100
        )
        return 0.0 if drawn or board.is_insufficient_material() else None

    def _observe(self) -> dict[str, NDArray[Any]]:
        return {"observation": observe(self.board, self._frames), MASK_KEY: mask_of(self._moves)}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal: bool [4672]."""
        return mask_of(self._moves).astype(np.bool_)

    def render(self) -> str | None:
        """The board as text."""
        return str(self.board) if self.render_mode == "ansi" else None
