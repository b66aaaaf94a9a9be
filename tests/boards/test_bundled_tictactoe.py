"""The TicTacToe model in the package never loses, whatever its opponent plays."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import muzero_agent.zoo
from muzero_agent import zoo

ROOT = Path(__file__).parents[2]


def test_it_loses_no_line_of_play() -> None:
    path = ROOT / "benchmarks" / "tictactoe.py"
    spec = spec_from_file_location("tictactoe_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    models = Path(muzero_agent.zoo.__file__).parent / "models"
    found = module.both_seats(zoo.load(models / "tictactoe"))
    assert found["first"]["lost"] == found["second"]["lost"] == 0
    assert found["first"]["won"] > 50
    assert found["second"]["won"] > 200
    untrained = zoo.load(models / "tictactoe")
    for parameter in untrained.policy.target_network.parameters():
        parameter.data.zero_()
    assert module.both_seats(untrained)["second"]["lost"] > 0  # the walk does find losses
