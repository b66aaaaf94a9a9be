"""Search over the true model of TicTacToe: with perfect values it finds every forced win.

This holds the sign together, from a reward at an edge to the value of a root: one wrong minus in
rules, discounts, search or opponents' values, and wins are missed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muzero_agent.adapters.envs.games import TicTacToe, TicTacToeState
from muzero_agent.search import gumbel_muzero_policy, muzero_policy
from muzero_agent.types import RecurrentOutput, RootOutput

RULES = TicTacToe()


@cache
def perfect_value(state: TicTacToeState) -> float:
    outcome = RULES.outcome(state)
    if outcome is not None:
        return outcome
    return max(-perfect_value(RULES.play(state, action)) for action in RULES.legal(state))


def reachable() -> set[TicTacToeState]:
    """All states in which a game goes on."""
    found: set[TicTacToeState] = set()
    waiting = [RULES.initial()]
    while waiting:
        state = waiting.pop()
        if state not in found and RULES.outcome(state) is None:
            found.add(state)
            waiting += [RULES.play(state, action) for action in RULES.legal(state)]
    return found


class TrueModel:
    """The rules as a search's model, of one root for each state.

    :param sign: of the discount: -1 where players alternate
    """

    def __init__(self, states: list[TicTacToeState], sign: float = -1.0) -> None:
        self.nodes: list[list[TicTacToeState | None]] = [list(states)]
        self.sign = sign
        self.legal = np.array([self._mask(state) for state in states])
        values = np.array([perfect_value(state) for state in states], np.float32)
        self.root = RootOutput(np.zeros((len(states), 9), np.float32), values)

    def _mask(self, state: TicTacToeState) -> NDArray[np.bool_]:
        return np.isin(np.arange(9), RULES.legal(state))

    def __call__(
        self, simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32]
    ) -> RecurrentOutput:
        size = len(parent)
        reward, value = np.zeros((2, size), np.float32)
        logits = np.zeros((size, 9), np.float32)
        terminal = np.zeros(size, np.bool_)
        reached: list[TicTacToeState | None] = []
        for row in range(size):
            state = self.nodes[parent[row]][row]
            assert state is not None
            after = RULES.play(state, int(action[row]))
            outcome = RULES.outcome(after)
            reached.append(after)
            if outcome is None:
                value[row] = perfect_value(after)
                logits[row] = np.where(self._mask(after), 0.0, -np.inf)
            else:
                reward[row], terminal[row] = -outcome, True
        self.nodes.append(reached)
        discount = np.where(terminal, 0.0, self.sign).astype(np.float32)
        return RecurrentOutput(reward, discount, logits, value, terminal)


def wins_kept(search: str, sign: float = -1.0) -> float:
    """Share of won states in which the search plays a move that wins."""
    states = [state for state in reachable() if perfect_value(state) == 1.0]
    assert len(states) > 2500
    model = TrueModel(states, sign)
    settings: dict[str, Any] = {
        "invalid_actions": ~model.legal,
        "rng": np.random.default_rng(0),
    }
    if search == "gumbel":
        out = gumbel_muzero_policy(
            model.root, model, num_simulations=32, gumbel_scale=0.0, **settings
        )
    else:
        out = muzero_policy(
            model.root,
            model,
            num_simulations=128,
            dirichlet_fraction=0.0,
            temperature=0.0,
            **settings,
        )
    after = [RULES.play(state, int(a)) for state, a in zip(states, out.action, strict=True)]
    return float(np.mean([perfect_value(state) == -1.0 for state in after]))


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_every_forced_win_is_found(search: str) -> None:
    assert wins_kept(search) == 1.0


def test_with_the_wrong_sign_many_are_missed() -> None:
    assert wins_kept("gumbel", sign=1.0) < 0.9
