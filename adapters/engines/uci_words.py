"""UCI's words: what `go` allows of a search, and what `info` tells of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from muzero_agent.adapters.engines.options import MOST
from muzero_agent.adapters.engines.protocol import Limits

if TYPE_CHECKING:
    import chess

    from muzero_agent.adapters.engines.searching import Report
    from muzero_agent.search.anytime import Child

_CLOCKS = {"wtime", "btime", "winc", "binc", "movestogo"}
_NUMBER = r"-?\d+(\.\d*)?"
_ENDS = {"nodes", "depth", "mate", "movetime"}  # limits that end a search without a clock


def limits_of(words: list[str], board: chess.Board, complain: Callable[[str], None]) -> Limits:
    """What `go` allows; words that mean nothing are skipped.

    :param words: behind `go`
    :param complain: is told of `searchmoves` that are illegal on the board
    """
    numbers: dict[str, int] = {}
    flags: set[str] = set()
    allowed: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word in _CLOCKS | _ENDS and at < len(words) and re.fullmatch(_NUMBER, words[at]):
            whole = words[at].partition(".")[0]
            numbers[word] = min(max(int(whole[:12]), -MOST), MOST)
            at += 1
        elif word in ("wtime", "btime"):
            numbers[word] = 0  # it cannot be read: nothing is known to be left
        elif word in ("infinite", "ponder"):
            flags.add(word)
        elif word == "searchmoves":
            while at < len(words) and re.fullmatch(r"[a-h][1-8][a-h][1-8][nbrq]?|0000", words[at]):
                allowed.append(words[at])
                at += 1
    mine, other = "wb" if board.turn else "bw"
    if f"{mine}time" not in numbers and f"{other}time" in numbers:
        mine = other  # better than no clock at all

    def at_least_one(name: str) -> int | None:
        return max(numbers[name], 1) if name in numbers else None

    clock = numbers.get(f"{mine}time")
    if clock is None and numbers and not flags and not numbers.keys() & _ENDS:
        clock = 0  # increments alone: nothing is known to be left
    movetime = numbers.get("movetime")
    return Limits(
        nodes=at_least_one("nodes"),
        depth=at_least_one("depth"),
        mate=at_least_one("mate"),
        movetime=None if movetime is None else max(movetime, 0) / 1000,
        clock=None if clock is None else max(clock, 0) / 1000,
        increment=max(numbers.get(f"{mine}inc", 0), 0) / 1000,
        moves_to_go=max(numbers.get("movestogo", 0), 0) or None,
        infinite="infinite" in flags or not (numbers.keys() | flags),
        ponder="ponder" in flags,
        allowed=_legal_of(allowed, board, complain),
    )


def _legal_of(
    texts: list[str], board: chess.Board, complain: Callable[[str], None]
) -> list[chess.Move]:
    moves = []
    for text in texts:
        try:
            moves.append(board.parse_uci(text))
        except ValueError:
            complain(f"searchmoves: {text} is illegal here")
    return [move for move in moves if move]


def info_lines(
    board: chess.Board,
    report: Report,
    variation: Callable[[int], Iterable[int]],
    multipv: int,
    show_wdl: bool,
) -> list[str]:
    """A line for each of the best moves.

    :param variation: actions that are expected from one on, it included
    """
    lines = []
    for rank, child in enumerate(report.children[:multipv]):
        words = [
            f"info depth {max(round(report.mean_depth), 1)}",
            f"seldepth {max(report.most_depth, 1)}",
            f"time {round(1000 * report.seconds)}",
            f"nodes {max(report.visits, 1)}",
            f"score {score_of(child)}",
        ]
        if show_wdl:
            words.append("wdl {} {} {}".format(*wdl_of(child)))
        words += [
            f"nps {round(report.per_second)}",
            f"hashfull {round(1000 * min(report.fullness, 1))}",
            f"multipv {rank + 1}",
            "pv " + " ".join(move.uci() for move in legal_line(board, variation(child.action))),
        ]
        lines.append(" ".join(words))
    return lines


def statistics_lines(board: chess.Board, report: Report) -> list[str]:
    """What is known of each move, the best last, as Lc0 tells it."""
    return [
        f"info string {move.uci():5} N: {child.visits:7} "
        f"P: {100 * child.prior:5.2f}% Q: {child.q:8.5f}"
        for child in reversed(report.children)
        for move in legal_line(board, [child.action])
    ]


def legal_line(board: chess.Board, actions: Iterable[int]) -> list[chess.Move]:
    """Moves of a variation, as far as they are legal and the game is not over."""
    from muzero_agent.adapters.envs.chess import move_of

    board, moves = board.copy(), []
    for action in actions:
        try:
            move = move_of(action, board)
        except ValueError:
            break
        if not board.is_legal(move):
            break
        moves.append(move)
        board.push(move)
        if _drawn(board):
            break
    return moves


def score_of(child: Child) -> str:
    """UCI's score of a move: by its value, or by a proven mate."""
    if child.mate > 0:
        return f"mate {(child.mate + 1) // 2}"
    if child.mate < 0:
        return f"mate -{-child.mate // 2}"
    q = min(max(child.q, -1.0), 1.0)
    return f"cp {min(max(round(90 * math.tan(1.5637541897 * q)), -12_800), 12_800)}"


def wdl_of(child: Child) -> tuple[int, int, int]:
    """Chances in thousandths to win, draw and lose that have the move's value for their mean.

    The network tells the mean alone; draws are as likely as between two sides that each score with
    their own chance, independently.
    """
    q = min(max(child.q, -1.0), 1.0)
    if child.mate:
        q = math.copysign(1.0, child.mate)
    win, loss = round(250 * (1 + q) ** 2), round(250 * (1 - q) ** 2)
    return win, 1000 - win - loss, loss


def _drawn(board: chess.Board) -> bool:
    """Whether the game ends here without a mate, as `ChessRules` sees it."""
    return board.is_insufficient_material() or board.halfmove_clock >= 100 or board.is_repetition(3)
