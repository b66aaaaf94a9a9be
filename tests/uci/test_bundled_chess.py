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


@pytest.mark.parametrize("leaves", [1, 16])
def test_several_leaves_at_once_find_the_same_best_moves(leaves: int) -> None:
    """Where a piece is to be had, and Stockfish 15.1 (depth 8) finds one move five pawns better
    than all others; chosen among such positions for that one leaf at a time finds it."""
    with Host(MODELS / BUNDLED) as host:
        host.say(f"setoption name MinibatchSize value {leaves}")
        for fen, best in (
            ("2b1k2r/2qp3p/1bp1pn2/n3Pp2/1p3PpQ/N4K1N/P1PPB1PP/R1B4R w k - 0 20", "h4g4"),
            ("1nbq1bnr/3ppkpp/r4p2/1pp4Q/pP2P3/7N/P1PP1PPP/RNB1KB1R b KQ - 3 8", "g7g6"),
            ("rnb1kbnr/p4pp1/3Pp3/7Q/3p1P2/NP1PP3/P3K1PP/R1B3NR b q - 4 18", "h8h5"),
            ("r1bq1b1r/pppkpp1p/n4n2/1N1p2p1/6Q1/P2PP1P1/1PPK1P1P/R1B2BNR b - - 2 8", "f6g4"),
            ("2kr1b1r/p3pPpp/1p3nQ1/2ppP3/2P3qP/P1NB1NP1/1P1P4/R1B1K1R1 b - - 3 20", "h7g6"),
            ("1rb2bnr/3k2pp/n1pppp2/5qN1/ppPP2PP/8/1Q1BPP2/RN2KB1R w K - 7 19", "g4f5"),
            ("rnb1k1nr/p2p4/1p3p1p/1Pb1p3/P3P2P/q2pB3/3Q1KP1/R4BNR w - - 1 20", "a1a3"),
            ("r1bq1b1r/1p3p1p/2pp1k2/p2np1p1/3P1PPP/BPN5/P1nQPN2/1R2KBR1 w - - 0 17", "d2c2"),
        ):
            host.say("ucinewgame")
            assert host.go("nodes 200", f"fen {fen}")[0] == best, fen


@pytest.mark.slow
def test_it_beats_random_moves() -> None:
    model = zoo.load(MODELS / BUNDLED)
    model.num_simulations = 64
    (result,) = evaluate_game(model, ChessEnv, ["random"], pairs=25, seed=2000, by_rules=True)
    print(result)
    assert result.count(1.0) >= 45  # of 50
