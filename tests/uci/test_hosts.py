"""Real hosts and real opponents: python-chess, polyglot, xboard, Stockfish and GNU Chess."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import chess
import chess.engine
import chess.pgn
import pytest
from chess.engine import Limit, SimpleEngine

PROGRAM = [sys.executable, "-m", "muzero_agent.adapters.engines.uci", "--model"]
START_SECONDS = 60  # hosts wait less, but other tests run beside this one


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[SimpleEngine]:
    with SimpleEngine.popen_uci([*PROGRAM, str(model)], timeout=START_SECONDS) as engine:
        engine.ping()
        yield engine


def test_python_chess_plays_analyses_and_ponders(engine: SimpleEngine) -> None:
    board = chess.Board()
    for _ in range(6):
        played = engine.play(board, Limit(time=0.1), ponder=True, info=chess.engine.INFO_ALL)
        assert played.move is not None
        assert played.move in board.legal_moves
        assert played.info["nodes"] > 0
        board.push(played.move)
        reply = played.ponder or next(iter(board.legal_moves))
        board.push(reply if board.ply() % 4 else next(iter(board.legal_moves)))
    infos = engine.analyse(board, Limit(nodes=200), multipv=4)
    assert [info["multipv"] for info in infos] == [1, 2, 3, 4]
    for info in infos:
        walk = board.copy()
        for move in info["pv"]:
            assert move in walk.legal_moves
            walk.push(move)
    with engine.analysis(chess.Board()) as analysis:
        for info in analysis:
            if info.get("nodes", 0) > 100:
                break
    assert analysis.wait().move is not None


def test_lichess_bot_can_configure_it(model: Path) -> None:
    """With the options of its default file; python-chess refuses those that are not offered."""
    with SimpleEngine.popen_uci([*PROGRAM, str(model)], timeout=START_SECONDS) as engine:
        engine.configure({"Move Overhead": 100, "Threads": 2, "Hash": 256})
        move = engine.play(chess.Board(), Limit(nodes=5)).move
        assert move is not None
        assert move in chess.Board().legal_moves


def play(
    players: list[SimpleEngine], ours: SimpleEngine, clock: float, increment: float, most: int
) -> str:
    """A game by the clock: its result, or what went wrong with `ours`."""
    board, left, game = chess.Board(), [clock, clock], object()
    while not board.is_game_over(claim_draw=True) and board.ply() < most:
        seat = board.ply() % 2
        limit = Limit(
            white_clock=left[0], black_clock=left[1], white_inc=increment, black_inc=increment
        )
        began = time.monotonic()
        move = players[seat].play(board, limit, game=game).move
        left[seat] -= time.monotonic() - began
        if players[seat] is ours:
            if move is None or move not in board.legal_moves:
                return f"illegal: {move} in {board.fen()}"
            if left[seat] < 0:
                return f"lost on time at ply {board.ply()} of {board.fen()}"
        elif left[seat] < 0 or move is None:
            return "the opponent failed"
        left[seat] += increment
        board.push(move)
    return board.result(claim_draw=True)


@pytest.fixture(scope="module", params=["stockfish", "gnuchess --uci"])
def opponent(
    request: pytest.FixtureRequest, program: Callable[[str], str]
) -> Iterator[SimpleEngine]:
    name, *arguments = shlex.split(request.param)
    with SimpleEngine.popen_uci([program(name), *arguments]) as other:
        yield other


def test_games_by_the_clock(engine: SimpleEngine, opponent: SimpleEngine) -> None:
    """Four in all; a second each would be lost to other tests on the same cores."""
    for players in ([engine, opponent], [opponent, engine]):
        assert play(players, engine, clock=5.0, increment=0.1, most=60) in (
            "1-0",
            "0-1",
            "1/2-1/2",
            "*",
        )


@pytest.mark.slow
def test_two_hundred_games(
    engine: SimpleEngine, program: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """At several clocks: no illegal move, no loss on time, no crash, and memory stays flat."""
    pid = engine.transport.get_pid()
    results: list[str] = []
    memory: list[int] = []
    opponents = [
        SimpleEngine.popen_uci([program("stockfish")]),
        SimpleEngine.popen_uci([program("gnuchess"), "--uci"]),
    ]
    try:
        opponents[0].configure({"Skill Level": 0})
        for number in range(200):
            clock, increment = [(1.0, 0.01), (0.5, 0.05), (2.0, 0.0), (1.0, 0.1)][number % 4]
            players = [engine, opponents[number // 4 % 2]]
            results.append(
                play(players[:: 1 if number % 2 else -1], engine, clock, increment, most=400)
            )
            memory.append(resident(pid))
    finally:
        for other in opponents:
            other.quit()
    with capsys.disabled():
        print({result: results.count(result) for result in set(results)}, memory[::20])
    assert set(results) <= {"1-0", "0-1", "1/2-1/2", "*", "the opponent failed"}
    assert results.count("the opponent failed") < 20
    assert memory[-1] < 1.1 * max(memory[40:80])


def resident(pid: int) -> int:
    """Memory of a process, in kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_polyglot_as_host(model: Path, program: Callable[[str], str], tmp_path: Path) -> None:
    """It speaks UCI to the engine and xboard's protocol to python-chess."""
    command = shlex.join([*PROGRAM, str(model)])
    adapter = [program("polyglot"), "-noini", "-ec", command]
    with SimpleEngine.popen_xboard(adapter, timeout=START_SECONDS, cwd=tmp_path) as engine:
        board = chess.Board()
        for _ in range(4):
            move = engine.play(board, Limit(time=0.2)).move
            assert move is not None
            assert move in board.legal_moves
            board.push(move)


@pytest.mark.skipif(sys.platform != "linux", reason="xboard wants an X server")
def test_a_game_in_xboard(model: Path, program: Callable[[str], str], tmp_path: Path) -> None:
    record = tmp_path / "game.pgn"
    ours = shlex.join([*PROGRAM, str(model)])
    command = [
        program("xvfb-run"), "-a", program("xboard"),
        "-fcp", ours, "-fUCI", "-scp", f"{program('gnuchess')} --uci", "-sUCI",
        "-mode", "TwoMachines", "-matchGames", "1", "-timeControl", "0:20", "-timeIncrement", "0.1",
        "-sgf", str(record), "-xponder", "-noGUI",
    ]  # fmt: skip
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/games"}  # of polyglot
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    ) as host:  # fmt: skip
        try:
            deadline = time.monotonic() + 90
            while not record.exists() or not record.read_text().strip():
                assert time.monotonic() < deadline, "no game was written"
                assert host.poll() in (None, 0)
                time.sleep(0.2)
        finally:  # with no window it does not end by itself, nor when it is asked to
            os.killpg(host.pid, signal.SIGKILL)
    with record.open() as stream:
        game = chess.pgn.read_game(stream)
    assert game is not None
    assert "muzero-agent" in game.headers["White"] + game.headers["Black"]
    assert not game.errors
    assert game.end().ply() > 4
