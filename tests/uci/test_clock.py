"""What a move may take: never more than is left, and not much less than is meant."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from muzero_agent.adapters.engines.options import Option, Options
from muzero_agent.adapters.engines.protocol import Limits, Writer, budget_of
from muzero_agent.adapters.engines.searching import choose
from muzero_agent.search.anytime import Child

Shares = NDArray[np.float64]
seconds = st.floats(0, 10_000)


@given(
    clock=seconds,
    increment=st.floats(0, 60),
    moves=st.none() | st.integers(1, 100),
    overhead=st.floats(0, 10),
)
def test_a_budget_is_within_the_clock(
    clock: float, increment: float, moves: int | None, overhead: float
) -> None:
    budget = budget_of(Limits(clock=clock, increment=increment, moves_to_go=moves), overhead)
    assert budget is not None
    assert 0 <= budget.soft <= budget.hard <= max(clock - overhead, 0)


@pytest.mark.parametrize(
    ("clock", "increment", "moves"),
    [(60, 0, None), (300, 3, None), (5400, 30, 40), (1, 0.01, None)],
)
def test_a_game_uses_its_time_and_does_not_run_out(
    clock: float, increment: float, moves: int | None
) -> None:
    """60 moves, each as long as it is meant to be and 10 ms more."""
    left, to_go = clock, moves
    for _ in range(60):
        budget = budget_of(Limits(clock=left, increment=increment, moves_to_go=to_go), 0.05)
        assert budget is not None
        left -= budget.soft + 0.01
        assert left > 0
        left += increment
        if to_go is not None:
            to_go = to_go - 1 or 40
            left += clock if to_go == 40 else 0
    if moves is None and clock > 1:
        assert left < 0.4 * clock + 30 * increment


def test_a_move_time_is_used_but_for_the_overhead() -> None:
    budget = budget_of(Limits(movetime=1.0, clock=5.0), 0.05)
    assert budget is not None
    assert budget.soft == budget.hard == pytest.approx(0.95)
    budget = budget_of(Limits(movetime=0.04), 0.05)
    assert budget is not None
    assert budget.hard == pytest.approx(0.02)
    assert budget_of(Limits(nodes=5), 0.05) is None


def test_a_temperature_draws_by_visits_and_without_them_by_the_policy() -> None:
    rng = np.random.default_rng(0)

    def shares(visits: Sequence[int], priors: Sequence[float], temperature: float) -> Shares:
        children = [
            Child(n, *known, mate=0)
            for n, known in enumerate(zip(visits, [0.0] * 4, priors, strict=True))
        ]
        drawn = [choose(children, temperature, rng).action for _ in range(2000)]
        return np.bincount(drawn, minlength=4) / 2000

    priors = (0.5, 0.3, 0.2, 0.0)
    of_visits = np.array((600.5, 300.3, 100.2, 0.0)) / 1001
    np.testing.assert_allclose(shares((600, 300, 100, 0), priors, 1.0), of_visits, atol=0.04)
    np.testing.assert_allclose(shares((0, 0, 0, 0), priors, 1.0), priors, atol=0.04)
    roots = np.sqrt(priors)
    np.testing.assert_allclose(shares((0, 0, 0, 0), priors, 2.0), roots / roots.sum(), atol=0.04)
    assert shares((0, 0, 0, 0), priors, 0.01)[0] == 1.0
    children = [Child(n, 1, 0.0, 0.5, 0) for n in range(2)]
    assert choose(children, 0.0, rng) is children[0]
    assert choose([children[1]._replace(mate=3), *children], 5.0, rng).mate == 3


def test_lines_from_several_threads_stay_whole(tmp_path: Path) -> None:
    out = io.BytesIO()
    write = Writer(out)
    write.log.open(str(tmp_path / "log"))

    def many(name: str) -> None:
        for number in range(200):
            write(f"{name} {number} first", f"{name} {number} second")

    threads = [threading.Thread(target=many, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().decode().splitlines()
    assert len(lines) == 1200
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert first.replace("first", "second") == second
    assert len((tmp_path / "log").read_text().splitlines()) == 1200


def test_a_button_is_pressed_and_values_are_told() -> None:
    pressed: list[object] = []
    options = Options(
        Option("Clear", "button", changed=pressed.append),
        Option("Size", "spin", 3, 1, 9, changed=pressed.append),
        Option("Name", "string", ""),
    )
    options.set("clear", "")
    options.set("SIZE", "5")
    assert pressed == ["", 5]
    assert options["size"] == 5
    options.set("name", "a  b")
    assert options["Name"] == "a  b"
    assert [option.uci() for option in options] == [
        "option name Clear type button",
        "option name Size type spin default 3 min 1 max 9",
        "option name Name type string default <empty>",
    ]
