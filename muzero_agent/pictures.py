"""Positions of games as pictures, with what a search thinks of them: visits and values.

Needs the extra `plots`. Colours are of Okabe and Ito, whom most of the colour-blind thank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from numpy.typing import NDArray

from muzero_agent.planner import Plan
from muzero_agent.play import Notation, chess_board, stones
from muzero_agent.types import TurnBased

BLUE, ORANGE, YELLOW, GREEN = "#0072b2", "#d55e00", "#f0e442", "#009e73"
CHOSEN = "#56b4e9"  # the move that the search would play; others are green
WOOD, FRAME, EMPTY = "#e3c08d", "#2b5f8a", "#f4f4f4"
LIGHT, DARK = "#f0d9b5", "#b58863"  # squares of chess
MOST_SHOWN = 8
"""Moves that are written into a picture, the most visited ones."""

_Marks = dict[int, tuple[float, str, str]]  # of an action: share of visits, text, and colour


def draw_position(
    env: TurnBased,
    observation: Any,
    plan: Plan | None = None,
    last: int | None = None,
    title: str = "",
    inches: float = 5.0,
) -> Figure:
    """The position of a game, and over it what a search found there.

    :param env: tic-tac-toe, Connect Four, Go, chess, or another game whose actions name the cells
        or the columns of a board that the observation's first two planes show
    :param plan: of one state; None: the board alone
    :param last: the action that led here, which is marked
    :param inches: width; height follows from the board
    :raises ValueError: if it is no such game
    """
    marks = {} if plan is None else _marks(plan)
    draw, height, width = _painter(env, observation)
    figure = Figure(figsize=(inches, inches * (height + 1.3) / (width + 0.6)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-0.8, width - 0.2), ylim=(height - 0.3, -1.6), aspect="equal")
    axes.set_axis_off()
    draw(axes, marks, last)
    _name_cells(axes, env, width, height - 0.4)
    axes.text((width - 1) / 2, -1.1, title, ha="center", va="center", fontsize=10)
    return figure


def _name_cells(axes: Axes, env: TurnBased, size: int, bottom: float) -> None:
    """Letters and numbers beside the board, as the moves are written.

    :param bottom: below a board of columns
    """
    if env.name.startswith(("chess", "go_")):
        letters = "abcdefgh" if env.name.startswith("chess") else "abcdefghjklmnopqrst"
        beside = -0.62 if env.name.startswith("chess") else -0.66
        for i in range(size):
            axes.text(beside, i, str(size - i), ha="center", va="center", fontsize=6, zorder=2)
            below = size - 1 - beside
            axes.text(i, below, letters[i], ha="center", va="center", fontsize=6, zorder=2)
    elif env.num_actions == size:
        for column in range(size):
            axes.text(column, bottom, str(column), ha="center", va="center", fontsize=7)
    else:
        for action in range(env.num_actions):
            row, column = divmod(action, size)
            axes.text(column - 0.46, row - 0.44, str(action), va="top", fontsize=8, color="grey")


def _marks(plan: Plan) -> _Marks:
    visits = plan.visit_counts[0]
    total = max(int(visits.sum()), 1)
    order = np.argsort(-visits, kind="stable")[:MOST_SHOWN]
    return {
        int(a): (
            float(visits[a]) / total,
            f"{100 * visits[a] / total:.0f}%\n{_signed(plan.q_values[0, a])}",
            CHOSEN if a == plan.action[0] else GREEN,
        )
        for a in order
        if visits[a]
    }


def _signed(value: float) -> str:
    """With two digits; what rounds to nothing has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def _painter(
    env: TurnBased, observation: Any
) -> tuple[Callable[[Axes, _Marks, int | None], None], float, int]:
    """What draws this game, and how many cells high and wide that is."""
    if env.name.startswith("chess"):
        return (lambda axes, marks, last: _chess(axes, env, marks, last)), 8, 8
    found = stones(env, observation)
    if found is not None:
        height, width = found[0].shape
        if env.num_actions == width:
            return (lambda axes, marks, last: _columns(axes, found, marks, last)), height + 1, width
        if env.name.startswith("go_"):
            return (lambda axes, marks, last: _go(axes, found, marks, last)), height + 0.8, width
        if env.num_actions == height * width:
            return (lambda axes, marks, last: _cells(axes, found, marks, last)), height, width
    raise ValueError(f"no picture is known here of {env.name}")


_Stones = tuple[NDArray[Any], NDArray[Any]]


def _columns(axes: Axes, found: _Stones, marks: _Marks, last: int | None) -> None:
    """A game like Connect Four, whose actions are columns."""
    first, second = found
    height, width = first.shape
    axes.add_patch(Rectangle((-0.5, 0.5), width, height, color=FRAME, zorder=1))
    tops = [int(np.argmax((first | second)[:, c] > 0)) for c in range(width)]
    for row in range(height):
        for column in range(width):
            mine, other = first[row, column], second[row, column]
            colour = ORANGE if mine else YELLOW if other else EMPTY
            newest = last == column and row == tops[column] and (mine or other)
            edge = {"edgecolor": "black", "linewidth": 2.0} if newest else {"linewidth": 0.0}
            axes.add_patch(Circle((column, row + 1), 0.42, facecolor=colour, zorder=2, **edge))
    most = max((share for share, _, _ in marks.values()), default=1.0)
    for action, (share, text, colour) in marks.items():
        bar = 0.4 * share / most
        axes.add_patch(Rectangle((action - 0.32, 0.45 - bar), 0.64, bar, color=colour, zorder=2))
        _write(axes, action, -0.2, text, 7)


def _cells(axes: Axes, found: _Stones, marks: _Marks, last: int | None) -> None:
    """A game like tic-tac-toe, whose actions are cells, row by row."""
    height, width = found[0].shape
    for row in range(height):
        for column in range(width):
            square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=EMPTY, edgecolor="black")
            axes.add_patch(square)
            weight = "bold" if last == row * width + column else "normal"
            for planes, letter, colour in zip(found, "XO", (ORANGE, BLUE), strict=True):
                if planes[row, column]:
                    axes.text(
                        column, row, letter, ha="center", va="center", fontsize=48, color=colour,
                        fontweight=weight,
                    )  # fmt: skip
    for action, (share, text, colour) in marks.items():
        row, column = divmod(action, width)
        _spot(axes, column, row, share, text, colour, 11)


def _go(axes: Axes, found: _Stones, marks: _Marks, last: int | None) -> None:
    size = found[0].shape[0]
    axes.add_patch(Rectangle((-0.75, -0.75), size + 0.5, size + 0.5, color=WOOD, zorder=0))
    for i in range(size):
        axes.plot([0, size - 1], [i, i], color="black", linewidth=0.8, zorder=1)
        axes.plot([i, i], [0, size - 1], color="black", linewidth=0.8, zorder=1)
    for row, column in np.argwhere(found[0] | found[1]):
        colour = "black" if found[0][row, column] else "white"
        stone = Circle((column, row), 0.46, facecolor=colour, edgecolor="black", zorder=3)
        axes.add_patch(stone)
    if last is not None and last < size * size:
        row, column = divmod(last, size)
        axes.add_patch(Circle((column, row), 0.14, color=ORANGE, zorder=4))
    for action, (share, text, colour) in marks.items():
        if action < size * size:
            row, column = divmod(action, size)
            _spot(axes, column, row, share, text, colour, 6.5)
        else:
            said = "pass " + text.replace("\n", ", ")
            axes.text((size - 1) / 2, size - 0.05, said, ha="center", va="center", fontsize=9)
    if last == size * size:
        axes.text(0, size - 0.05, "passed", ha="center", va="center", fontsize=9)


def _spot(
    axes: Axes, x: float, y: float, share: float, text: str, colour: str, size: float
) -> None:
    """A disc as large as its share of the visits."""
    radius = 0.16 + 0.32 * math.sqrt(share)
    axes.add_patch(Circle((x, y), radius, color=colour, alpha=0.75, zorder=5, linewidth=0))
    _write(axes, x, y, text, size)


def _write(axes: Axes, x: float, y: float, text: str, size: float) -> None:
    halo = [patheffects.withStroke(linewidth=2.0, foreground="white")]
    axes.text(
        x, y, text, ha="center", va="center", fontsize=size, linespacing=0.95, zorder=6,
        path_effects=halo,
    )  # fmt: skip


# -- chess -----------------------------------------------------------------------------------------


def _chess(axes: Axes, env: TurnBased, marks: _Marks, last: int | None) -> None:
    """From White's side, in the letters for chess of the font that comes with matplotlib."""
    from muzero_agent.adapters.envs.chess import move_of

    board = chess_board(env)
    moved = board.peek() if last is not None and board.move_stack else None
    ends = () if moved is None else (moved.from_square, moved.to_square)
    for square in range(64):
        x, y = _at(square)
        colour = LIGHT if (square // 8 + square % 8) % 2 else DARK
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colour, zorder=0, linewidth=0))
        if square in ends:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=YELLOW, alpha=0.5, zorder=1))
        piece = board.piece_at(square)
        if piece is not None:
            # the filled letters for both sides: an outline tells white from black
            letter = "♟♞♝♜♛♚"[piece.piece_type - 1] + "\N{VARIATION SELECTOR-15}"
            edge = patheffects.withStroke(linewidth=1.6, foreground="black")
            axes.text(
                x, y + 0.03, letter[0], ha="center", va="center", fontsize=27, zorder=3,
                color="white" if piece.color else "black", path_effects=[edge],
                fontfamily="DejaVu Sans",
            )  # fmt: skip
    labelled: dict[tuple[int, int], int] = {}  # how often each square
    for action, (share, text, colour) in marks.items():
        move = move_of(action, board)
        (x, y), (to_x, to_y) = _at(move.from_square), _at(move.to_square)
        before = labelled.get((to_x, to_y), 0)
        labelled[to_x, to_y] = before + 1
        arrow = FancyArrowPatch(
            (x, y), (to_x, to_y), arrowstyle="simple", mutation_scale=8 + 22 * math.sqrt(share),
            color=colour, alpha=0.85 if colour == CHOSEN else 0.35 + 0.4 * share, zorder=4,
            shrinkA=0, shrinkB=0, linewidth=0,
        )  # fmt: skip
        axes.add_patch(arrow)
        # At the arrow's head: arrows cross, and those of one piece lie over each other.
        _write(axes, to_x, to_y + 0.45 * before, text, 7)


def _at(square: int) -> tuple[int, int]:
    return square % 8, 7 - square // 8


def chess_svg(env: TurnBased, plan: Plan) -> str:
    """A position of chess as SVG, by python-chess: the more visits, the denser a move's arrow."""
    import chess.svg

    from muzero_agent.adapters.envs.chess import move_of

    board = chess_board(env)
    arrows = []
    for action, (share, _, hue) in reversed(_marks(plan).items()):  # the best on top
        move = move_of(action, board)
        colour = f"{hue}{round(255 * (0.25 + 0.7 * share)):02x}"
        arrows.append(chess.svg.Arrow(move.from_square, move.to_square, color=colour))
    lastmove = board.peek() if board.move_stack else None
    return str(chess.svg.board(board, arrows=arrows, lastmove=lastmove, size=480))


def caption(env: TurnBased, plan: Plan) -> str:
    """In one or two lines: who is to move, what it expects, and what it would play."""
    names = ("White", "Black") if env.name.startswith("chess") else ("X", "O")
    if env.name.startswith("connect_four"):
        names = ("Orange", "Yellow")
    if env.name.startswith("go_"):
        names = ("Black", "White")
    notation = Notation(env)
    line = " ".join(notation.line(plan.principal_variation[0])[:8])
    return (
        f"{names[env.to_play]} to move, value {_signed(plan.value[0])}, "
        f"{int(plan.visit_counts[0].sum())} simulations\nexpected: {line}"
    )
