"""Elo ratings that the engine can be told to play at."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import pytest

from muzero_agent.adapters.engines.strength import ELO, MEASURED, Play, play_of

ROOT = Path(__file__).parents[2]


def test_ratings_are_those_of_the_matches() -> None:
    spec = spec_from_file_location("chess_strength", ROOT / "benchmarks" / "chess_strength.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.ratings(ROOT / "benchmarks" / "results" / "chess_strength")
    for elo, play in MEASURED:
        name = f"temperature-{play.temperature}" if play.temperature else f"rules-{play.nodes}"
        assert elo == pytest.approx(found[name][0], abs=0.5)


def test_between_measured_ratings_it_is_interpolated() -> None:
    for elo, play in MEASURED:
        assert play_of(elo) == play
    assert play_of(0) == MEASURED[0][1]
    assert play_of(10_000) == MEASURED[-1][1]
    (low, weak), (high, strong) = MEASURED[-2:]
    assert play_of((low + high) / 2) == Play(round((weak.nodes * strong.nodes) ** 0.5), 0.0)
    (low, weak), (high, strong) = MEASURED[:2]
    middle = play_of((low + high) / 2)
    assert middle.nodes == 1
    assert middle.temperature == pytest.approx((weak.temperature + strong.temperature) / 2)


def test_who_is_rated_higher_looks_at_no_less_and_errs_no_more() -> None:
    plays = [play_of(elo) for elo in range(ELO[0] - 10, ELO[1] + 11)]
    for lower, higher in pairwise(plays):
        assert lower.nodes <= higher.nodes
        assert lower.temperature >= higher.temperature
