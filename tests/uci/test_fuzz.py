"""Whatever lines come, at whatever moment: the engine lives, answers, and moves legally."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import chess
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from .host import Host

JUNK = [
    "", "   ", "\t", "joho", "go_on", "uci uci uci", "position", "position startpos moves",
    "position fen", "position fen 8/8/8/8 w", "position startpos moves e2e5 e7e5", "setoption",
    "setoption name", "setoption name value", "setoption name Hash value", "debug", "debug on",
    "debug off", "register", "isready isready", "d", "\x00\x01", "go go go stop", "ucinewgame x",
    "setoption name UCI_Elo value 99999999999", "setoption name Temperature value nan",
    "setoption name CPuct value -1", "position fen " + "9" * 200, "é ü 棋", "stop stop",
]  # fmt: skip
LIMITS = [
    "nodes 1", "nodes 30", "movetime 5", "movetime -5", "wtime 50 btime 50", "wtime -1 btime 0",
    "wtime 100 winc 5 movestogo 3", "depth 2", "infinite", "ponder wtime 100 btime 100", "mate 1",
    "infinite searchmoves e2e4 a7a6", "searchmoves 0000 nodes 5", "nodes 99999999999 movetime 10",
    "ponder infinite", "movetime 1 depth 1 nodes 1 mate 1", "depth x", "wtime", "ponder nodes 3",
]  # fmt: skip
OPTIONS = [
    "MultiPV value 3", "MultiPV value 1", "Hash value 1", "Hash value 16", "Planner value latent",
    "Planner value rules", "Temperature value 1", "Temperature value 0", "UCI_ShowWDL value true",
    "UCI_LimitStrength value true", "UCI_LimitStrength value false", "UCI_Elo value 700",
    "MinibatchSize value 1", "MinibatchSize value 64", "VerboseMoveStats value true",
    "UCI_Chess960 value true", "UCI_Chess960 value false", "Clear Hash", "Ponder value true",
    "MoveOverhead value 0", "CPuct value 3.5",
]  # fmt: skip
ENDS = ["7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", "R5k1/5ppp/8/8/8/8/8/6K1 b - - 0 1"]


class Fuzz(RuleBasedStateMachine):
    """Lines in any order, with pauses."""

    host: Host
    waits: list[float]  # seconds, for `readyok`

    def __init__(self) -> None:
        super().__init__()
        self.boards: list[chess.Board] = []  # one for each `go`
        self.board, self.chess960 = chess.Board(), False
        self.answered = 0
        self.said: list[str] = []
        self.say("stop", "setoption name UCI_Chess960 value false", "position startpos")
        self.ready()

    def say(self, *lines: str) -> None:
        self.said += lines
        self.host.say(*lines)

    def ready(self) -> None:
        asked = time.monotonic()
        self.say("isready")
        while True:
            line = self.host.expect(r"readyok|bestmove .*", seconds=20)[-1]
            if line == "readyok":
                break
            self.check(line)
        self.waits.append(time.monotonic() - asked)

    def check(self, line: str) -> None:
        board = self.boards[self.answered]
        self.answered += 1
        if line == "bestmove (none)":
            assert not any(board.legal_moves)
            return
        words = line.split()
        move = chess.Move.from_uci(words[1])
        assert board.is_legal(move), (line, board.fen(), self.said[-30:])
        if len(words) > 2:
            board.push(move)
            assert board.is_legal(chess.Move.from_uci(words[3])), (line, board.fen())

    @rule(line=st.sampled_from(JUNK))
    def junk(self, line: str) -> None:
        if line.startswith("go") and line != "go_on":
            self.boards.append(self.board.copy())
        if line == "position startpos moves":
            self.board = chess.Board(chess960=self.chess960)
        if line.startswith("position startpos moves e2e5"):
            self.board = chess.Board(chess960=self.chess960)
        self.say(line)

    @rule(seed=st.integers(0, 2**16), plies=st.integers(0, 60))
    def position(self, seed: int, plies: int) -> None:
        rng = random.Random(seed)
        board = chess.Board(chess960=self.chess960)
        for _ in range(plies):
            if not any(board.legal_moves):
                break
            board.push(rng.choice(list(board.legal_moves)))
        moves = " ".join(move.uci() for move in board.move_stack)
        self.say(f"position startpos moves {moves}" if moves else "position startpos")
        self.board = board

    @rule(fen=st.sampled_from(ENDS))
    def end(self, fen: str) -> None:
        self.board = chess.Board(fen, chess960=self.chess960)
        self.say(f"position fen {fen}")

    @rule(limits=st.sampled_from(LIMITS), pause=st.sampled_from([0.0, 0.0, 0.01, 0.05]))
    def go(self, limits: str, pause: float) -> None:
        self.boards.append(self.board.copy())
        self.say(f"go {limits}")
        time.sleep(pause)

    @rule(option=st.sampled_from(OPTIONS))
    def option(self, option: str) -> None:
        if option.startswith("UCI_Chess960"):
            self.chess960 = option.endswith("true")
        self.say(f"setoption name {option}")

    @rule(line=st.sampled_from(["stop", "ponderhit", "ucinewgame", "stop"]))
    def control(self, line: str) -> None:
        self.say(line)

    @rule()
    def is_ready(self) -> None:
        self.ready()

    def teardown(self) -> None:
        self.say("stop")
        self.ready()
        while self.answered < len(self.boards):
            self.check(self.host.expect("bestmove .*")[-1])
        self.ready()


def run(model: Path, examples: int, steps: int) -> None:
    with Host(model) as host:
        waits: list[float] = []
        kind: Any = type("Fuzz", (Fuzz,), {"host": host, "waits": waits})
        run_state_machine_as_test(
            kind,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
    # A second is for all of them; but other tests run beside it, and a machine may stand still.
    late = [wait for wait in waits if wait > 1.0]
    assert len(waits) > examples
    assert len(late) <= 2 + len(waits) // 1000, late
    assert max(waits) < 20


def test_five_hundred_lines(model: Path) -> None:
    run(model, examples=10, steps=50)


@pytest.mark.slow
def test_twenty_thousand_lines(model: Path) -> None:
    run(model, examples=200, steps=100)
