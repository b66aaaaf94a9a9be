"""The rules of small games, for players who look ahead by the rules, and for checks.

States are immutable and hashable, actions are those of PettingZoo's environment of the same name.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from muzero_agent.types import Rules, TurnBased

State = TypeVar("State")

_LINES = tuple(
    sum(1 << square for square in line)
    for line in (
        *((0, 1, 2), (3, 4, 5), (6, 7, 8)),
        *((0, 3, 6), (1, 4, 7), (2, 5, 8)),
        *((0, 4, 8), (2, 4, 6)),
    )
)


class TicTacToeState(NamedTuple):
    """Bit i is square i, numbered row by row as in tictactoe_v3."""

    own: int = 0  # of the player to move
    other: int = 0


class TicTacToe:
    """tictactoe_v3."""

    num_actions = 9

    def initial(self) -> TicTacToeState:
        """The empty board."""
        return TicTacToeState()

    def legal(self, state: TicTacToeState) -> list[int]:
        """Empty squares."""
        taken = state.own | state.other
        return [square for square in range(9) if not taken >> square & 1]

    def play(self, state: TicTacToeState, action: int) -> TicTacToeState:
        """The state after a move, seen by the other player."""
        return TicTacToeState(state.other, state.own | 1 << action)

    def outcome(self, state: TicTacToeState) -> float | None:
        """For the player to move: -1 if the other one has won, 0 if drawn, None before the end."""
        if any(state.other & line == line for line in _LINES):
            return -1.0
        return 0.0 if state.own | state.other == 0x1FF else None

    def wins(self, state: TicTacToeState, legal: Sequence[int]) -> list[int]:
        """Those of its legal actions that win at once."""
        return winning_actions(self, state, legal)

    def observe(self, state: TicTacToeState) -> NDArray[np.int8]:
        """int8 [3, 3, 2], squares of the player to move and of the other one."""
        return _planes((state.own, state.other), 9).reshape(2, 3, 3).transpose(1, 2, 0)

    def rollout(self, state: TicTacToeState, rng: random.Random) -> float:
        """Outcome of random play, for the player to move."""
        return random_outcome(self, state, rng)


class ConnectFourState(NamedTuple):
    """Bit 7 c + r is row r, counted from below, of column c; rows have one bit more than squares,
    so that lines do not run over the edge."""

    own: int = 0  # of the player to move
    all: int = 0


_BOTTOM = sum(1 << 7 * column for column in range(7))
_FULL = _BOTTOM * 0b111111
_TOP = tuple(1 << 7 * column + 5 for column in range(7))


def connected(stones: int) -> bool:
    """Whether four of the stones stand in a line."""
    for step in (1, 7, 6, 8):
        pairs = stones & stones >> step
        if pairs & pairs >> 2 * step:
            return True
    return False


class ConnectFour:
    """connect_four_v3."""

    num_actions = 7

    def initial(self) -> ConnectFourState:
        """The empty board."""
        return ConnectFourState()

    def legal(self, state: ConnectFourState) -> list[int]:
        """Columns that are not full."""
        return [column for column in range(7) if not state.all & _TOP[column]]

    def play(self, state: ConnectFourState, action: int) -> ConnectFourState:
        """The state after a move, seen by the other player."""
        return ConnectFourState(state.own ^ state.all, state.all | state.all + (1 << 7 * action))

    def outcome(self, state: ConnectFourState) -> float | None:
        """For the player to move: -1 if the other one has won, 0 if drawn, None before the end."""
        if connected(state.own ^ state.all):
            return -1.0
        return 0.0 if state.all == _FULL else None

    def wins(self, state: ConnectFourState, legal: Sequence[int]) -> list[int]:
        """Those of its legal actions that win at once."""
        return winning_actions(self, state, legal)

    def observe(self, state: ConnectFourState) -> NDArray[np.int8]:
        """int8 [6, 7, 2], from the top row down, stones of the player to move and of the other."""
        stones = _planes((state.own, state.own ^ state.all), 49).reshape(2, 7, 7)
        return np.ascontiguousarray(stones[:, :, 5::-1].transpose(2, 1, 0))

    def rollout(self, state: ConnectFourState, rng: random.Random) -> float:
        """Outcome of random play, for the player to move."""
        mover, other, taken, sign = state.own, state.own ^ state.all, state.all, -1.0
        if connected(other):
            return -1.0
        while taken != _FULL:
            column = int(rng.random() * 7)
            if taken & _TOP[column]:
                continue
            fuller = taken | taken + (1 << 7 * column)
            mover |= fuller ^ taken
            sign = -sign
            if connected(mover):
                return sign
            mover, other, taken = other, mover, fuller
        return 0.0


def _planes(boards: tuple[int, int], size: int) -> NDArray[np.int8]:
    """int8 [2, size], the lowest bits of two numbers."""
    raw = np.array(boards, np.uint64).view(np.uint8).reshape(2, 8)
    return np.unpackbits(raw, axis=1, count=size, bitorder="little").view(np.int8)


def winning_actions(rules: Rules[State], state: State, actions: Sequence[int]) -> list[int]:
    """Those of the actions that win at once, found by trying each."""
    return [action for action in actions if rules.outcome(rules.play(state, action)) == -1.0]


def random_outcome(rules: Rules[State], state: State, rng: random.Random) -> float:
    """Outcome of random play by any rules, for the player to move."""
    sign = 1.0
    while (outcome := rules.outcome(state)) is None:
        state = rules.play(state, rng.choice(rules.legal(state)))
        sign = -sign
    return sign * outcome


RULES: dict[str, str] = {
    "tictactoe_v3": "muzero_agent.adapters.envs.games.TicTacToe",
    "connect_four_v3": "muzero_agent.adapters.envs.games.ConnectFour",
    "chess": "muzero_agent.adapters.envs.chess_rules.ChessRules",
    "go_v5": "muzero_agent.adapters.envs.go_rules.GoRules",
}
"""Where the rules of a game are, by the game's own name."""


def find_rules(game: TurnBased) -> Rules[Any] | None:
    """The rules of a game, for who looks ahead by them; None if they are not known here."""
    if game.name not in RULES:
        return None
    module, _, rules = RULES[game.name].rpartition(".")
    size = {"board_size": math.isqrt(game.num_actions)} if game.name == "go_v5" else {}
    made: Rules[Any] = getattr(import_module(module), rules)(**size)
    return made
