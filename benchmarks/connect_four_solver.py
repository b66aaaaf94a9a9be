"""An exact solver of Connect Four, from about the fourteenth move on: what every move leads to.

Negamax with alpha-beta on bitboards (those of `adapters.envs.games`), with moves that lose at once
left out, the centre first, and a table of known positions; after P. Pons, "Solving Connect 4: how
to build a perfect AI" (2019, blog.gamesolver.org). Won, drawn or lost is told, not how soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.games import ConnectFour, ConnectFourState

RULES = ConnectFour()

U = np.uint64
ONE, SEVEN = U(1), U(7)
BOTTOM = U(sum(1 << 7 * column for column in range(7)))
FULL = U(int(BOTTOM) * 0b111111)
COLUMN = np.array([0b111111 << 7 * column for column in range(7)], np.uint64)
ORDER = np.array([3, 2, 4, 1, 5, 0, 6])
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """By numba, whose own types hide the function's."""
    return cast(F, numba.njit(function))


EXACT, LOWER, UPPER = 1, 2, 3


@compiled
def completing(stones: U, taken: U) -> U:
    """Empty squares that complete a line of four."""
    found = (stones << ONE) & (stones << U(2)) & (stones << U(3))
    for step in (U(7), U(6), U(8)):
        pair = (stones << step) & (stones << (step + step))
        found |= pair & (stones << (step + step + step))
        found |= pair & (stones >> step)
        pair = (stones >> step) & (stones >> (step + step))
        found |= pair & (stones << step)
        found |= pair & (stones >> (step + step + step))
    return found & (FULL ^ taken)


@compiled
def negamax(
    own: U,
    taken: U,
    empty: int,
    alpha: int,
    beta: int,
    keys: NDArray[np.uint64],
    values: NDArray[np.int8],
    flags: NDArray[np.int8],
) -> int:
    """Value, within [alpha, beta], of a position whose player to move cannot win at once."""
    if empty == 0:
        return 0
    other = own ^ taken
    moves = (taken + BOTTOM) & FULL
    threats = completing(other, taken)
    forced = moves & threats
    if forced != U(0):
        if forced & (forced - ONE) != U(0):
            return -1
        moves = forced
    moves &= ~(threats >> ONE)  # not right below a square where the other one would win
    if moves == U(0):
        return -1
    if empty == 1:
        return 0
    key = own + taken + BOTTOM
    slot = key % U(len(keys))
    if keys[slot] == key:
        value, flag = int(values[slot]), flags[slot]
        if flag == EXACT or (flag == LOWER and value >= beta) or (flag == UPPER and value <= alpha):
            return value
    best = -2
    for i in range(7):
        move = moves & COLUMN[ORDER[i]]
        if move == U(0):
            continue
        value = -negamax(
            other, taken | move, empty - 1, -beta, -max(alpha, best), keys, values, flags
        )
        best = max(best, value)
        if best >= beta:
            break
    keys[slot], values[slot] = key, best
    flags[slot] = LOWER if best >= beta else UPPER if best <= alpha else EXACT
    return best


class Solver:
    """Tells what positions and moves are worth, and remembers them.

    :param size: of the table, a prime
    """

    def __init__(self, size: int = 4_194_301) -> None:
        self.keys = np.zeros(size, np.uint64)
        self.values = np.zeros(size, np.int8)
        self.flags = np.zeros(size, np.int8)

    def value(self, state: ConnectFourState) -> int:
        """For the player to move: 1 won, 0 drawn, -1 lost; of a game that goes on."""
        own, taken = U(state.own), U(state.all)
        if completing(own, taken) & (taken + BOTTOM) & FULL:
            return 1
        empty = 42 - int(state.all).bit_count()
        return int(negamax(own, taken, empty, -1, 1, self.keys, self.values, self.flags))

    def action_values(self, state: ConnectFourState) -> dict[int, int]:
        """What each legal action leads to, for the player who takes it."""
        worth = {}
        for action in RULES.legal(state):
            after = RULES.play(state, action)
            outcome = RULES.outcome(after)
            worth[action] = -self.value(after) if outcome is None else -int(outcome)
        return worth
