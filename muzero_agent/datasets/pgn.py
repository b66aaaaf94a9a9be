"""Games of chess from PGN files, plain or compressed by zstandard, as rows of numbers.

Comments tell what an engine thought of the position in which they stand, as lichess publishes it:
`[%eval 0.35]` in pawns for White, or `[%eval #-3]` where Black mates in three. `[%mpv
e2e4:35,d2d4:30]` adds its best moves, with centipawns, or `#3`, for the player to move.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import chess
import chess.pgn
import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.chess import action_of, frame_of, rights_of

CANDIDATES = 4
"""Scored moves that are kept of a position, the best ones."""

MATE = 30_000
"""Score of a mate in 0 moves, in centipawns; in n moves it is n less."""
UNSCORED = -32_768
"""In place of a score that is not told."""
NO_ACTION = -1
UNKNOWN = 2
"""In place of a result."""

_CHUNK = 1 << 17  # bytes
_EVAL = re.compile(r"\[%eval\s+(#?-?[\d.]+)[\s,\]]")  # a depth may follow
_CANDIDATES = re.compile(r"\[%mpv\s+([^\]]*)\]")
_RESULTS = {"1-0": 1, "0-1": -1, "1/2-1/2": 0}


class Game(NamedTuple):
    """A game of T moves as T + 1 rows, one for each position."""

    frames: NDArray[np.uint64]  # [T + 1, 13], see `adapters.envs.chess.frame_of`
    state: NDArray[np.uint8]  # [T + 1], rights_of(position) * 2 + (Black is to move)
    clock: NDArray[np.uint8]  # [T + 1], moves of one player since a capture or a pawn's move
    action: NDArray[np.int16]  # [T + 1], what was played; NO_ACTION in the last row
    candidates: NDArray[np.int16]  # [T + 1, CANDIDATES], actions, the best first; or NO_ACTION
    scores: NDArray[np.int16]  # [T + 1, CANDIDATES], centipawns for the player to move
    evaluation: NDArray[np.int16]  # [T + 1], likewise, of the position; or UNSCORED
    result: int  # for White: 1, 0 or -1; or UNKNOWN
    terminated: bool  # whether the game ended by the rules

    @property
    def num_moves(self) -> int:
        """T."""
        return len(self.action) - 1


def parse_game(text: str) -> Game | None:
    """The first game of a PGN text; None if it is no game of chess, or has no or illegal moves."""
    return chess.pgn.read_game(io.StringIO(text), Visitor=_Visitor)


class _Visitor(chess.pgn.BaseVisitor[Game | None]):
    """Takes a game down as rows, without a tree of its moves."""

    def begin_game(self) -> None:
        self._board: chess.Board | None = None  # of the last row
        self._usable = True
        self._result = UNKNOWN
        self._rows: list[tuple[NDArray[np.uint64], int, int]] = []
        self._actions: list[int] = []
        self._told: list[tuple[int, list[tuple[int, int]]]] = []
        self._seen: dict[Any, int] = {}

    def visit_header(self, tagname: str, tagvalue: str) -> None:
        if tagname == "Result":
            self._result = _RESULTS.get(tagvalue, UNKNOWN)
        elif tagname == "Variant" and tagvalue.lower() not in ("standard", "from position"):
            self._usable = False

    def end_headers(self) -> Any:
        return None if self._usable else chess.pgn.SKIP

    def visit_board(self, board: chess.Board) -> None:
        if self._usable and not self._rows:
            self._usable = board.is_valid() and not board.chess960
            self._enter(board)

    def begin_variation(self) -> Any:
        return chess.pgn.SKIP

    def visit_move(self, board: chess.Board, move: chess.Move) -> None:
        if self._usable:
            self._actions.append(action_of(move, board.turn))
            after = board.copy(stack=False)
            after.push(move)
            self._enter(after)

    def _enter(self, board: chess.Board) -> None:
        key = board._transposition_key()
        self._seen[key] = self._seen.get(key, 0) + 1
        self._board = board.copy(stack=False)
        self._rows.append(
            (
                frame_of(board, self._seen[key] > 1),
                rights_of(board) * 2 + (board.turn == chess.BLACK),
                min(board.halfmove_clock, 255),
            )
        )
        self._told.append((UNSCORED, []))

    def visit_comment(self, comment: str) -> None:
        if not self._usable or self._board is None or not comment:
            return
        evaluation, candidates = self._told[-1]
        if told := _EVAL.search(comment):
            score = _centipawns(told[1], 100)
            if score is not None:
                evaluation = score if self._board.turn else -score
        if told := _CANDIDATES.search(comment):
            candidates = list(self._scored(told[1]))
        self._told[-1] = evaluation, candidates

    def _scored(self, text: str) -> Iterator[tuple[int, int]]:
        assert self._board is not None
        for entry in text.split(",")[:CANDIDATES]:
            name, _, told = entry.strip().partition(":")
            score = _centipawns(told, 1)
            try:
                move = chess.Move.from_uci(name)
            except ValueError:
                continue
            if score is not None and self._board.is_legal(move):
                yield action_of(move, self._board.turn), score

    def handle_error(self, error: Exception) -> None:
        self._usable = False

    def result(self) -> Game | None:
        if not self._usable or not self._actions or self._board is None:
            return None
        num = len(self._rows)
        candidates = np.full((num, CANDIDATES), NO_ACTION, np.int16)
        scores = np.full((num, CANDIDATES), UNSCORED, np.int16)
        for row, (_, found) in enumerate(self._told):
            found.sort(key=lambda pair: -pair[1])  # a last, unfinished iteration may mix them up
            for i, (action, score) in enumerate(found):
                candidates[row, i], scores[row, i] = action, score
        board = self._board
        times = self._seen[board._transposition_key()]
        moves = any(board.generate_legal_moves())
        if not moves:  # what the tag says may be wrong
            lost = -1 if board.turn == chess.WHITE else 1
            self._result = lost if board.is_check() else 0
        drawn = times >= 3 or board.halfmove_clock >= 100 or board.is_insufficient_material()
        return Game(
            np.stack([frame for frame, _, _ in self._rows]),
            np.array([state for _, state, _ in self._rows], np.uint8),
            np.array([clock for _, _, clock in self._rows], np.uint8),
            np.array([*self._actions, NO_ACTION], np.int16),
            candidates,
            scores,
            np.array([evaluation for evaluation, _ in self._told], np.int16),
            self._result,
            drawn or not moves,
        )


def _centipawns(text: str, unit: int) -> int | None:
    """Of a score as comments tell it; None if it is none.

    :param unit: centipawns of a 1
    """
    try:
        if text.startswith("#"):
            moves = int(text[1:])
            most = min(abs(moves), 1000)
            return -MATE + most if text[1:2] == "-" else MATE - most
        score = float(text) * unit
        return round(max(min(score, MATE - 1001.0), 1001.0 - MATE))
    except (ValueError, OverflowError):
        return None


def split_games(stream: TextIO) -> Iterator[str]:
    """The texts of the games of a stream, one after the other."""
    lines: list[str] = []
    in_moves = blank = in_comment = False
    for line in stream:
        if in_moves and blank and not in_comment and line.startswith("["):
            yield "".join(lines)
            lines, in_moves = [], False
        blank = not line.strip()
        if not blank and not line.startswith(("[", "%")):
            in_moves = True
        if in_moves:
            opened, closed = line.rfind("{"), line.rfind("}")
            in_comment = opened > closed or (in_comment and closed < 0)
        lines.append(line)
    if in_moves:
        yield "".join(lines)


class _Decompressed(io.RawIOBase):
    """The content of a .zst file, of any number of frames. Where the last one is not whole there is
    a warning: a download that was cut off would look complete.

    :param file: to read from
    :param path: to name
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._parts = self._decompress(file, path)
        self._rest = memoryview(b"")

    @staticmethod
    def _decompress(file: BinaryIO, path: Path) -> Iterator[bytes]:
        import zstandard

        frame = None
        while data := file.read(_CHUNK):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise ValueError(
                        f"{path} is damaged, or not compressed by zstandard: {error}"
                    ) from None
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
        if frame is not None:
            warnings.warn(
                f"{path} ends in the middle of its compressed content: was all of it downloaded? "
                "Only the games before that are read",
                stacklevel=2,
            )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        into = memoryview(buffer)
        size = min(len(into), len(self._rest))
        into[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@contextmanager
def open_pgn(path: Path) -> Iterator[tuple[TextIO, BinaryIO]]:
    """Open a PGN file, decompressed if its name ends in .zst.

    :return: its text, and the file itself, whose position tells the progress
    :raises ValueError: while it is read, if it is not compressed as its name says
    """
    with path.open("rb") as file:
        raw: BinaryIO | io.BufferedReader = file
        if path.suffix == ".zst":
            raw = io.BufferedReader(_Decompressed(file, path), _CHUNK)
        yield io.TextIOWrapper(raw, encoding="utf-8", errors="replace"), file
