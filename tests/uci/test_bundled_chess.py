"""The chess model in the package: the engine's own, and how it plays."""

from __future__ import annotations

import pytest

from muzero_agent import zoo
from muzero_agent.adapters.engines.uci import BUNDLED
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.evaluation import evaluate_game
from muzero_agent.zoo.bundled import MODELS

from .host import Host


def test_it_takes_a_queen_that_hangs() -> None:
    """From both sides, with few nodes."""
    with Host(MODELS / BUNDLED) as host:
        white = "fen rnb1kbnr/ppp1pppp/8/3q4/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 0 3"
        assert host.go("nodes 300", white)[0] == "e4d5"
        black = "fen rnbqkbnr/pppp1ppp/8/4p3/3Q4/8/PPP1PPPP/RNB1KBNR b KQkq - 0 3"
        assert host.go("nodes 300", black)[0] == "e5d4"


@pytest.mark.slow
def test_it_beats_random_moves() -> None:
    model = zoo.load(MODELS / BUNDLED)
    model.num_simulations = 64
    (result,) = evaluate_game(model, ChessEnv, ["random"], pairs=25, seed=2000, by_rules=True)
    print(result)
    assert result.count(1.0) >= 45  # of 50
