"""The exact solver of the benchmarks, against plain search to the end."""

from __future__ import annotations

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from muzero_agent.adapters.envs.games import ConnectFour, ConnectFourState
from muzero_agent.players import AlphaBetaPlayer

RULES = ConnectFour()


def load() -> ModuleType:
    """The module, which is no part of the package."""
    path = Path(__file__).parents[2] / "benchmarks" / "connect_four_solver.py"
    spec = spec_from_file_location("connect_four_solver", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)  # numba looks it up by its name
    spec.loader.exec_module(module)
    return module


Solver = load().Solver


def random_position(moves: int, rng: random.Random) -> ConnectFourState:
    """After so many random moves, with the game going on."""
    while True:
        state = RULES.initial()
        for _ in range(moves):
            state = RULES.play(state, rng.choice(RULES.legal(state)))
            if RULES.outcome(state) is not None:
                break
        else:
            return state


def test_it_agrees_with_search_to_the_end() -> None:
    rng = random.Random(0)
    solver = Solver(65_537)
    plain = AlphaBetaPlayer(RULES, 12)
    seen = []
    for moves in (30, 31, 32, 33, 35, 38, 40, 41):
        for _ in range(20):
            state = random_position(moves, rng)
            values = plain.action_values(state)
            assert solver.action_values(state) == values
            assert solver.value(state) == max(values.values())
            seen.append(solver.value(state))
    assert {-1, 0, 1} == set(seen)


def test_what_was_solved_before_changes_nothing() -> None:
    rng = random.Random(1)
    states = [random_position(24, rng) for _ in range(10)]
    together, alone = Solver(65_537), [Solver(65_537).value(state) for state in states]
    assert [together.value(state) for state in states] == alone
