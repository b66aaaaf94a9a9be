"""Dialogues of the UCI contract, point by point, each with the reply expected."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import chess
import pytest
import torch

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.engines import chess_game
from muzero_agent.adapters.engines.chess_game import ChessGame, chess_mind
from muzero_agent.adapters.engines.protocol import Writer
from muzero_agent.adapters.engines.strength import MEASURED, Play
from muzero_agent.adapters.engines.uci import UciEngine
from muzero_agent.adapters.engines.uci_words import legal_line, score_of, wdl_of
from muzero_agent.adapters.envs.chess import action_of, move_of
from muzero_agent.adapters.envs.chess_rules import ChessRules
from muzero_agent.search.anytime import Child
from muzero_agent.types import RecurrentOutput

from .host import Host, Lines

MATE_IN_ONE = "fen 6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1"
CASTLING_960 = "fen r3k1r1/p5p1/8/8/8/8/P5P1/R3K1R1 w GAga - 0 1"  # Shredder's letters
INFO = re.compile(
    r"info depth \d+ seldepth \d+ time \d+ nodes \d+ score (?:cp -?\d+|mate -?\d+)"
    r"(?: wdl \d+ \d+ \d+)? nps \d+ hashfull \d+ multipv \d+ pv(?: [a-h][1-8][a-h][1-8][nbrq]?)+"
)


def check_lines(lines: list[str], board: chess.Board) -> None:
    """One best move, right behind an info whose line begins with it; all lines are legal."""
    assert sum(line.startswith("bestmove") for line in lines) == 1
    infos = [line for line in lines if line.startswith("info depth")]
    assert infos
    for info in infos:
        assert INFO.fullmatch(info), info
        walk = board.copy()
        for text in info.split(" pv ")[1].split():
            assert not walk.is_game_over()
            move = chess.Move.from_uci(text)
            assert walk.is_legal(move), (info, text)
            walk.push(move)
    words = lines[-1].split()
    first = next(line for line in reversed(lines) if " multipv 1 " in line)
    line = first.split(" pv ")[1].split()
    assert words[1] == line[0]
    assert words[2:] == (["ponder", line[1]] if len(line) > 1 else [])
    count = len([x for x in lines if x.startswith("info depth")])
    assert count == 1 or lines[-2].startswith("info depth")


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "isready",
        "  isready",
        "\tisready\t",
        "isready\r",
        "joho isready",
        "xyz isready now",
        "isready  ",
    ],
)
def test_lines_are_read_as_meant(host: Host, line: str) -> None:
    host.say("", line)
    assert host.expect("readyok") == ["readyok"]


def test_stray_commands_are_ignored(host: Host) -> None:
    host.say("stop", "ponderhit", "register later", "joho", "go_on", "isready")
    assert host.expect("readyok") == ["readyok"]


def test_unknown_tokens_in_front_of_a_command_are_skipped(host: Host) -> None:
    host.say("joho debug on", "isready")
    host.expect("readyok")
    assert host.engine.debug
    host.say("debug off", "isready")
    host.expect("readyok")
    assert not host.engine.debug


def test_a_log_that_cannot_be_written_leaves_the_one_before(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    host.say(f"setoption name Debug Log File value {log}")
    host.say(f"setoption name Debug Log File value {tmp_path}", "isready")
    host.expect("readyok")
    assert "Is a directory" in (text := log.read_text())
    assert "< readyok" in text


def test_the_overhead_has_two_names(host: Host) -> None:
    for name, seconds in (("Move Overhead", 100), ("MoveOverhead", 70)):
        host.say(f"setoption name {name} value {seconds}", "isready")
        host.expect("readyok")
        assert host.engine.options["MoveOverhead"] == seconds


@pytest.mark.parametrize("clock", ["wtime 90.5 btime 90.5", "wtime 1e9", "wtime", "wtime much"])
def test_a_clock_with_a_fraction_or_nonsense_is_no_invitation_to_think(
    host: Host, clock: str
) -> None:
    host.say("position startpos", f"go {clock}")
    host.expect("bestmove .*")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_is_not_there_is_told_of(model: Path) -> None:
    with Host(model) as host:
        host.say("setoption name Backend value cuda", "isready")
        assert "info string Backend is cpu: PyTorch finds no cuda here" in host.expect("readyok")


@pytest.mark.parametrize(("line", "shown"), [("d", True), ("hello d you", False)])
def test_the_board_is_shown_where_that_is_meant(host: Host, line: str, shown: bool) -> None:
    host.say(line, "isready")
    assert any(said.startswith("Fen: ") for said in host.expect("readyok")) == shown


def test_options_by_any_case_and_with_spaces(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "a log.txt"
    host.say("setoption name multipv value 2", f"setoption  name   Debug Log File  value {log}")
    host.say("setoption name Clear Hash", "isready", "setoption name Debug Log File value <empty>")
    host.say("isready")
    host.expect("readyok")
    host.expect("readyok")
    assert host.engine.options["MultiPV"] == 2
    text = log.read_text()
    assert "> isready" in text
    assert "< readyok" in text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("setoption name Nonsense value 1", "no option is called 'Nonsense'"),
        ("setoption name MultiPV value many", "no whole number"),
        ("setoption name MultiPV value 1000", "not in 1 .. 218"),
        ("setoption name Planner value magic", "none of rules, latent"),
        ("setoption name Ponder value maybe", "neither true nor false"),
        ("setoption MultiPV 3", "setoption name NAME value VALUE"),
        ("position", "position startpos"),
        ("position fen nonsense", "no position"),
        ("position fen", "no position"),
        ("position fen 8/8/8/8/8/8/8/8 w - - 0 1", "no position"),
        ("position fen k7/8/8/8/8/8/8/K6r w - - 0 1 moves a1b1 a1a2", "illegal move"),
        ("position startpos moves 0000 e2e4", "illegal move: '0000'"),
        ("setoption name WeightsFile value /nowhere", "neither a model directory"),
        ("setoption name WeightsFile value go_9x9", "it knows 82 actions, and chess has 4672"),
        ("setoption name CPuct value abc", "'abc' is no number of 0 or more"),
        ("setoption name Temperature value -4", "'-4' is no number of 0 or more"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_else_happens(
    host: Host, line: str, complaint: str
) -> None:
    host.say(line, "isready")
    said = host.expect("readyok")
    assert len(said) == 2
    assert said[0].startswith("info string")
    assert complaint in said[0]
    for option in host.engine.options:
        assert option.kind == "button" or host.engine.options[option.name] == option.default
    _, lines = host.go("nodes 3")
    check_lines(lines, host.engine.game.board)


def test_options_are_declared_as_uci_wants_them(host: Host) -> None:
    host.say("uci")
    lines = host.expect("uciok")
    options = [line for line in lines if line.startswith("option")]
    names = {re.match(r"option name (.+?) type", line)[1] for line in options}  # type: ignore[index]
    assert {"Threads", "Hash", "MultiPV", "Ponder", "UCI_Chess960", "UCI_ShowWDL"} <= names
    assert {"UCI_LimitStrength", "UCI_Elo", "WeightsFile", "Debug Log File"} <= names
    for line in options:
        assert re.fullmatch(
            r"option name .+ type (check default (true|false)"
            r"|spin default -?\d+ min -?\d+ max -?\d+"
            r"|combo default \S+( var \S+)+|string default \S.*|button)",
            line,
        ), line


# -- one search at a time ------------------------------------------------------------------------


def test_isready_is_answered_during_a_search(host: Host) -> None:
    host.say("go infinite")
    host.quiet(0.3)
    asked = time.monotonic()
    host.say("isready")
    lines = host.expect("readyok")
    assert time.monotonic() - asked < 1
    assert not any(line.startswith("bestmove") for line in lines)
    host.say("stop")
    host.expect("bestmove .*")


def test_a_stop_at_once_gives_one_best_move(host: Host) -> None:
    for _ in range(20):
        host.say("go infinite", "stop", "isready")
        lines = host.expect("readyok")
        if not any(line.startswith("bestmove") for line in lines):
            host.expect("bestmove .*")
    host.say("stop", "stop", "isready")
    assert host.expect("readyok") == ["readyok"]


def test_a_stop_is_heeded_at_once(host: Host) -> None:
    waits = []
    for _ in range(5):
        host.say("go infinite")
        host.quiet(0.2)
        asked = time.monotonic()
        host.say("stop")
        host.expect("bestmove .*")
        waits.append(time.monotonic() - asked)
    assert min(waits) < 0.1  # the benchmark tells the usual time


@pytest.mark.parametrize("line", ["go nodes 5", "position startpos", "ucinewgame"])
def test_in_mid_search_the_move_comes_first(host: Host, line: str) -> None:
    host.say("go infinite")
    host.quiet(0.1)
    host.say(line, "isready")
    lines = host.expect("bestmove .*")
    assert "readyok" not in lines
    rest = host.expect("readyok")
    if line.startswith("go") and not any(said.startswith("bestmove") for said in rest):
        host.expect("bestmove .*")  # five nodes may be searched before the answer is out, or not


def test_an_option_in_mid_search_is_applied_after_the_move(host: Host) -> None:
    host.say("go infinite")
    host.quiet(0.1)
    host.say("setoption name MultiPV value 3", "isready")
    host.expect("bestmove .*")
    host.expect("readyok")
    _, lines = host.go("nodes 50")
    assert sum("multipv" in line for line in lines) == 3


def test_infinite_holds_the_move_even_after_a_mate(host: Host) -> None:
    for position in (MATE_IN_ONE, "fen 7k/5Q2/6K1/8/8/8/8/8 b - - 0 1"):
        host.say(f"position {position}", "go infinite")
        assert not any(line.startswith("bestmove") for line in host.quiet(0.5))
        host.say("stop")
        host.expect("bestmove .*")


@pytest.mark.parametrize(
    ("fen", "option", "told"),
    [
        ("6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1", "", "score mate 1"),
        ("R5k1/5ppp/8/8/8/8/8/6K1 b - - 0 1", "", "score mate 0"),
        ("7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", "", "score cp 0"),
        (chess.STARTING_FEN, "UCI_LimitStrength value true", " pv "),
        (chess.STARTING_FEN, "Hash value 1", " hashfull 1000 "),
    ],
)
@pytest.mark.parametrize("mode", ["infinite", "ponder"])
def test_what_is_known_is_told_before_the_stop(
    host: Host, fen: str, option: str, told: str, mode: str
) -> None:
    """However early there is nothing left to find."""
    host.say(f"position fen {fen}", "setoption name UCI_Elo value 600")
    if option:
        host.say(f"setoption name {option}")
    host.say(f"go {mode}")
    host.expect(rf"info .*{told}.*|info .*{told}")
    host.say("stop")
    host.expect("bestmove .*")


def test_pondering_holds_the_move_until_the_ponderhit(host: Host) -> None:
    waits = []
    for _ in range(3):
        host.say("position startpos moves e2e4", "go ponder wtime 300 btime 300")
        assert not any(line.startswith("bestmove") for line in host.quiet(0.6))
        asked = time.monotonic()
        host.say("ponderhit")
        host.expect("bestmove .*")
        waits.append(time.monotonic() - asked)
    assert min(waits) < 0.3  # other programs run beside the tests
    host.say("go ponder wtime 1000 btime 1000")
    host.quiet(0.1)
    host.say("stop")
    host.expect("bestmove .*")


def test_a_stray_ponderhit_does_not_start_the_clock_again(host: Host) -> None:
    waits = []
    for _ in range(3):
        began = time.monotonic()
        host.say("position startpos", "go movetime 600")
        host.quiet(0.4)
        host.say("ponderhit")
        host.expect("bestmove .*")
        waits.append(time.monotonic() - began)
    assert min(waits) < 0.9  # 1 s if it did


def test_a_search_that_fails_costs_its_tree_alone(host: Host) -> None:
    """The move comes from the policy; the next search begins anew."""
    host.go("movetime 100", "startpos")
    assert host.engine._mind is not None
    thinker = host.engine._mind.current
    assert thinker is not None
    steps = 0
    step = thinker.model.step

    def failing(*arguments: Any) -> RecurrentOutput:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise RuntimeError("out of memory, say")
        return step(*arguments)

    thinker.model.step = failing  # type: ignore[method-assign]
    move, lines = host.go("movetime 10000")
    assert steps == 3
    assert any("the search failed: out of memory, say" in line for line in lines)
    policy, _ = host.go("nodes 1", "startpos")
    assert move == policy
    _, lines = host.go("nodes 50")
    assert nodes_of(lines) == 50
    assert not any("failed" in line for line in lines)


# -- limits --------------------------------------------------------------------------------------


def nodes_of(lines: list[str]) -> int:
    return int(re.search(r" nodes (\d+)", lines[-2])[1])  # type: ignore[index]


@pytest.mark.parametrize("nodes", [1, 7, 100])
def test_nodes_are_visits(host: Host, nodes: int) -> None:
    _, lines = host.go(f"nodes {nodes}")
    assert nodes_of(lines) == nodes


def test_one_node_is_the_policy_alone(host: Host, model: Path) -> None:
    rules = ChessRules()
    state = rules.initial()
    logits = zoo.load(model).policy.evaluate(rules.observe(state)[None]).prior_logits[0]
    best = max(rules.legal(state), key=lambda action: float(logits[action]))
    move, _ = host.go("nodes 1", "startpos")
    assert move == move_of(best, state.board).uci()


def test_depth_is_reached(host: Host) -> None:
    _, lines = host.go("depth 2")
    assert int(lines[-2].split()[2]) >= 2


@pytest.mark.parametrize(("limit", "most"), [("nodes", 1), ("depth", 100)])
def test_a_limit_of_nothing_is_one(host: Host, limit: str, most: int) -> None:
    for number in ("0", "-5", "1"):
        _, lines = host.go(f"{limit} {number}")
        assert nodes_of(lines) <= most


def test_limits_beyond_all_numbers_are_none(host: Host) -> None:
    host.say(f"go nodes {10**30} wtime {10**30} btime {10**30} depth {10**20}")
    host.quiet(0.2)
    host.say("stop")
    check_lines(host.expect("bestmove .*"), chess.Board())


def test_a_search_ends_where_there_is_no_more_to_find(host: Host) -> None:
    """All moves end the game, which two kings never do before."""
    host.go("depth 20", "fen 8/8/8/4k3/8/8/8/4K3 w - - 0 1")
    host.say("go infinite")
    assert not any(line.startswith("bestmove") for line in host.quiet(0.5))
    host.say("stop")
    assert nodes_of(host.expect("bestmove .*")) < 3000


def test_a_mate_in_one_is_told_and_ends_the_search(host: Host) -> None:
    move, lines = host.go("mate 1", MATE_IN_ONE)
    assert move == "a1a8"
    assert " score mate 1 " in lines[-2]
    began = time.monotonic()
    host.go("mate 1", "startpos")  # there is none: as many seconds
    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [
        ("winc 100 binc 100", 0.0, 0.2),
        ("movestogo 10", 0.0, 0.2),
        ("btime 500", 0.0, 0.3),  # the other one's, as there is no other
        ("movetime 300", 0.1, 0.5),
        ("wtime 3000 btime 3000", 0.0, 1.0),
        ("wtime 200 btime 200 winc 0 binc 0", 0.0, 0.2),
        ("wtime 1 btime 1", 0.0, 0.2),
        ("wtime 0 btime 0", 0.0, 0.2),
        ("wtime -50 btime 100", 0.0, 0.2),
        ("winc 10 wtime 500", 0.0, 0.3),  # in any order, one clock alone
        ("wtime 1000 btime 1000 movestogo 1", 0.0, 0.95),
        ("wtime 1000 btime 1000 movestogo 0", 0.0, 0.5),
        ("movetime 0", 0.0, 0.2),
        ("movetime 200 depth 90 nodes 9999999 wtime 5000", 0.0, 0.5),
    ],
)
def test_the_clock_is_kept(host: Host, arguments: str, least: float, most: float) -> None:
    waits: list[float] = []
    while not waits or (waits[-1] > most and len(waits) < 3):  # other programs run beside the tests
        host.say("position startpos", "isready")
        host.expect("readyok")
        began = time.monotonic()
        _, lines = host.go(arguments)
        waits.append(time.monotonic() - began)
        check_lines(lines, chess.Board())
    assert least <= min(waits) <= most, waits


@pytest.mark.parametrize(
    "position",
    ["fen k7/8/8/8/8/8/1q6/K7 w - - 0 1", MATE_IN_ONE],  # one legal move; a mate
    ids=["the only move", "a mate"],
)
def test_what_is_clear_takes_no_time(host: Host, position: str) -> None:
    began = time.monotonic()
    host.go("wtime 600000 btime 600000 winc 10000", position)
    assert time.monotonic() - began < 3  # of 28 s that it may take


def test_what_is_not_clear_takes_its_time(host: Host) -> None:
    began = time.monotonic()
    host.go("wtime 10000 btime 10000 winc 500", "startpos")
    assert 0.05 < time.monotonic() - began < 3


def test_only_searchmoves_are_played(host: Host) -> None:
    move, _ = host.go("nodes 60 searchmoves a2a3 h2h4")
    assert move in ("a2a3", "h2h4")
    move, lines = host.go("searchmoves a2a3 nodes 3")
    assert move == "a2a3"
    move, _ = host.go("nodes 20 searchmoves 0000")
    assert chess.Board().is_legal(chess.Move.from_uci(move))
    move, lines = host.go("nodes 20 searchmoves e7e5")
    assert "info string searchmoves: e7e5 is illegal here" in lines
    assert chess.Board().is_legal(chess.Move.from_uci(move))


def test_junk_among_limits_is_skipped(host: Host) -> None:
    _, lines = host.go("joho nodes x depth nodes 10 perft")
    assert nodes_of(lines) == 10


# -- positions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fen", "score"),
    [
        ("7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", "cp 0"),
        ("R5k1/5ppp/8/8/8/8/8/6K1 b - - 0 1", "mate 0"),
    ],
)
def test_there_is_no_move_at_the_end(host: Host, fen: str, score: str) -> None:
    _, lines = host.go("nodes 10", f"fen {fen}")
    assert lines == [f"info depth 0 score {score}", "bestmove (none)"]


@pytest.mark.parametrize("planner", ["rules", "latent"])
@pytest.mark.parametrize(
    "position",
    [
        "startpos moves g1f3 g8f6 f3g1 f6g8 g1f3 g8f6 f3g1 f6g8 g1f3 g8f6 f3g1 f6g8",
        "fen 8/8/4k3/8/8/4K3/8/7R w - - 130 90",
        "fen 8/8/4k3/8/8/4K3/8/8 w - - 0 1",
        "fen 8/8/4k3/8/8/4K3/8/7N b - - 12 70",
    ],
    ids=["repetition", "fifty moves", "bare kings", "a knight"],
)
def test_there_is_a_legal_move_where_a_game_could_be_drawn(
    host: Host, planner: str, position: str
) -> None:
    host.say(f"setoption name Planner value {planner}", f"position {position}")
    move, _ = host.go("nodes 20")
    assert host.engine.game.board.is_legal(chess.Move.from_uci(move))


def test_the_legal_part_of_a_line_of_moves_is_kept(host: Host) -> None:
    host.say("position startpos moves e2e4 e7e5 e4e5 g1f3", "isready")
    lines = host.expect("readyok")
    assert "illegal move" in lines[0]
    assert [move.uci() for move in host.engine.game.moves] == ["e2e4", "e7e5"]
    move, _ = host.go("nodes 10")
    assert host.engine.game.board.is_legal(chess.Move.from_uci(move))


def test_a_position_that_is_none_changes_nothing(host: Host) -> None:
    host.say("position startpos moves e2e4", "position fen 9/8/8/8/8/8/8/8 w - - 0 1", "isready")
    host.expect("readyok")
    assert [move.uci() for move in host.engine.game.moves] == ["e2e4"]


def test_castling_in_chess960(host: Host) -> None:
    host.say("setoption name UCI_Chess960 value true")
    for moves in ("", " moves e1g1", " moves e1a1 e8g8"):
        move, _ = host.go("nodes 30", CASTLING_960 + moves)
        assert host.engine.game.board.is_legal(chess.Move.from_uci(move))
    assert host.engine.game.board.chess960
    move, _ = host.go("nodes 10 searchmoves e1g1", CASTLING_960)
    assert move == "e1g1"  # the king takes its rook: a legal move of chess960 alone
    move, _ = host.go("nodes 5", "fen rkr5/8/8/8/8/8/8/RKR5 w KQkq - 0 1")  # X-FEN
    assert host.engine.game.board.is_legal(chess.Move.from_uci(move))


# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("planner", ["rules", "latent"])
@pytest.mark.parametrize("temperature", ["0", "1.5"])
def test_what_is_said_is_true_on_a_board(host: Host, planner: str, temperature: str) -> None:
    host.say(f"setoption name Planner value {planner}", "setoption name MultiPV value 3")
    host.say(f"setoption name Temperature value {temperature}")
    host.say("setoption name UCI_ShowWDL value true")
    board = chess.Board()
    for ply in range(8):
        moves = " ".join(move.uci() for move in board.move_stack)
        move, lines = host.go(f"nodes {60 + ply}", f"startpos moves {moves}".strip())
        check_lines(lines, board)
        count = min(3, board.legal_moves.count())  # a check may leave a single reply
        last = [line for line in lines if " multipv " in line][-count:]
        assert [line.split(" multipv ")[1][0] for line in last] == ["1", "2", "3"][:count]
        for line in last:
            win, draw, loss = map(int, re.search(r"wdl (\d+) (\d+) (\d+)", line).groups())  # type: ignore[union-attr]
            assert win + draw + loss == 1000
        board.push(chess.Move.from_uci(move))
        if board.is_game_over():  # moves drawn at a temperature may be a fool's mate
            break


@pytest.mark.parametrize("planner", ["rules", "latent"])
def test_a_single_reply_is_the_only_line(host: Host, planner: str) -> None:
    host.say(f"setoption name Planner value {planner}", "setoption name MultiPV value 3")
    move, lines = host.go("nodes 60", "startpos moves f2f3 e7e5 a2a3 d8h4")
    assert move == "g2g3"
    assert [line.split(" multipv ")[1][0] for line in lines if " multipv " in line] == ["1"]


def test_more_lines_than_moves(host: Host) -> None:
    host.say("setoption name MultiPV value 218")
    _, lines = host.go("nodes 50", "startpos")
    last = [line for line in lines if " multipv " in line]
    assert len(last) == 20
    assert len({line.split(" pv ")[1].split()[0] for line in last}) == 20


def test_a_weaker_opponent_does_not_ponder_itself_strong(host: Host) -> None:
    host.say("setoption name UCI_LimitStrength value true", "setoption name UCI_Elo value 800")
    host.say("position startpos", "go ponder wtime 60000 btime 60000")
    assert not any(line.startswith("bestmove") for line in host.quiet(0.5))
    host.say("ponderhit")
    assert nodes_of(host.expect("bestmove .*")) <= 4


def test_statistics_of_all_moves(host: Host) -> None:
    host.say("setoption name VerboseMoveStats value true")
    _, lines = host.go("nodes 50", "startpos")
    told = [line for line in lines if line.startswith("info string")]
    assert len(told) == 20
    visits = [int(re.search(r"N: +(\d+)", line)[1]) for line in told]  # type: ignore[index]
    assert sum(visits) == 50


def test_a_weaker_opponent_looks_at_less(host: Host) -> None:
    (elo,) = (elo for elo, play in MEASURED if play.nodes == 16)
    host.say("setoption name UCI_LimitStrength value true", f"setoption name UCI_Elo value {elo}")
    _, lines = host.go("movetime 3000", "startpos")
    assert nodes_of(lines) == 16


def test_an_opponent_weaker_than_the_policy_errs_at_random(host: Host) -> None:
    def moves(elo: int) -> set[str]:
        host.say(f"setoption name UCI_Elo value {elo}")
        return {host.go("movetime 3000", "startpos")[0] for _ in range(20)}

    host.say("setoption name UCI_LimitStrength value true")
    (policy_alone,) = (elo for elo, play in MEASURED if play == Play(1, 0.0))
    assert len(moves(policy_alone)) == 1
    assert len(moves(MEASURED[0][0])) > 5  # of 20 moves drawn


def test_scores() -> None:
    def child(q: float, mate: int = 0) -> Child:
        return Child(0, 1, q, 0.5, mate)

    assert score_of(child(0.0)) == "cp 0"
    assert score_of(child(0.5)) == f"cp {round(90 * math.tan(1.5637541897 * 0.5))}"
    assert score_of(child(-1.5)) == "cp -12780"
    assert [score_of(child(1.0, mate)) for mate in (1, 3, -2, -4)] == [
        "mate 1", "mate 2", "mate -1", "mate -2",
    ]  # fmt: skip
    for q in (-1.0, -0.3, 0.0, 0.7, 1.0):
        win, draw, loss = wdl_of(child(q))
        assert win + draw + loss == 1000
        assert (win - loss) / 1000 == pytest.approx(q, abs=2e-3)


# -- the tree ------------------------------------------------------------------------------------


def test_the_tree_is_kept_along_the_game(host: Host) -> None:
    move, lines = host.go("movetime 400", "startpos")
    reply = lines[-1].split()[3]
    host.say(f"position startpos moves {move} {reply}", "go infinite")
    host.quiet(0.05)
    host.say("stop")
    kept = nodes_of(host.expect("bestmove .*"))
    host.say("ucinewgame")
    host.say(f"position startpos moves {move} {reply}", "go infinite")
    host.quiet(0.05)
    host.say("stop")
    host.expect("bestmove .*")
    assert host.engine._mind is not None
    assert kept > 1
    tree = host.engine._mind.current.search  # type: ignore[union-attr]
    assert tree.num_nodes <= tree.max_nodes


def test_a_full_hash_ends_the_search_and_is_told(host: Host) -> None:
    host.say("setoption name Hash value 1")
    _, lines = host.go("nodes 100000", "startpos")
    assert int(re.search(r"hashfull (\d+)", lines[-2])[1]) == 1000  # type: ignore[index]
    host.say("go infinite")
    assert not any(line.startswith("bestmove") for line in host.quiet(0.5))
    host.say("stop")
    host.expect("bestmove .*")


def test_what_the_network_said_is_kept(host: Host) -> None:
    """The same search again asks it nothing, and finds the same."""
    mind = host.engine._mind
    assert mind is not None
    seen = []
    evaluate = mind.model.policy.evaluate

    def counting(obs: Any) -> Any:
        seen.append(len(obs))
        return evaluate(obs)

    host.say("setoption name Clear Hash", "setoption name MinibatchSize value 1", "isready")
    host.expect("readyok")
    mind.drop()
    mind.model.policy.evaluate = counting
    try:
        for size, asked in ((20_000, 101), (20_000, 0), (0, 101), (20, 101)):
            host.say(f"setoption name NNCacheSize value {size}")
            if size == 0:
                host.say("setoption name Clear Hash")
            seen.clear()
            _, lines = host.go("nodes 100", "startpos")
            words = [re.sub(r" (time|nps) \d+", "", line) for line in lines[-2:]]
            assert sum(seen) == asked
            if asked and size == 20_000:
                first = words
            assert words[1:] == first[1:]
        assert len(mind.cache) == 20
        host.say("setoption name NNCacheSize value 3", "isready")
        host.expect("readyok")
        assert len(mind.cache) == 3
    finally:
        del mind.model.policy.evaluate
        mind.drop()


def test_a_hash_without_room_is_halved(model: Path) -> None:
    mind = chess_mind(model, "cpu")
    for planner in ("rules", "latent"):
        thinker = mind.think_of(ChessGame(), planner, megabytes=2**26)  # 64 TB
        assert mind.megabytes < 2**26
        assert thinker.grow()


def test_the_learned_model_is_trusted_less(model: Path) -> None:
    """Than the rules are: its least range of Q values is a multiple of theirs."""
    mind = chess_mind(model, "cpu", latent_error=3.0)
    mind.model.policy.value_error.fill_(0.1)
    ranges = {
        planner: mind.think_of(ChessGame(), planner).search._settings["min_q_range"][0]
        for planner in ("rules", "latent")
    }
    assert ranges == {"rules": pytest.approx(0.2), "latent": pytest.approx(0.6)}


def test_a_line_ends_with_the_game() -> None:
    """By repetition, by fifty moves, and where nobody can win."""
    shuffle = ["g1f3", "g8f6", "f3g1", "f6g8"]
    for fen, moves, length in (
        (chess.STARTING_FEN, shuffle * 3, 8),
        ("k7/8/8/8/8/8/8/K6R w - - 97 80", ["h1h2", "a8b8", "h2h1", "b8a8"], 3),
        ("k7/8/8/8/8/8/1n6/K7 w - - 0 1", ["a1b2", "a8b8", "b2a1"], 1),
    ):
        board, actions = chess.Board(fen), []
        for text in moves:
            move = board.parse_uci(text)
            actions.append(action_of(move, board.turn))
            board.push(move)
        line = legal_line(chess.Board(fen), actions)
        assert [move.uci() for move in line] == moves[:length]


def test_mates_in_one_are_found_at_once(host: Host) -> None:
    """Whatever the network makes of them, in a new tree and in one that goes on."""
    rng = random.Random(0)
    found = 0
    while found < 30:
        board, line = chess.Board(), list[str]()
        while not board.is_game_over() and len(line) < 80:
            before = list(line)
            mates = set()
            for move in board.legal_moves:
                board.push(move)
                if board.is_checkmate():
                    mates.add(move.uci())
                board.pop()
            if mates:
                if found % 2 and len(before) > 2:
                    host.go("nodes 50", f"startpos moves {' '.join(before[:-2])}")
                    best, _ = host.go("movetime 50", f"startpos moves {' '.join(before)}")
                else:
                    best, _ = host.go("nodes 5", f"startpos moves {' '.join(before)}")
                assert best in mates
                found += 1
                break
            move = rng.choice(list(board.legal_moves))
            line.append(move.uci())
            board.push(move)


@pytest.mark.parametrize(
    ("fen", "move"),
    [
        ("kbK5/pp6/1P6/8/8/8/8/R7 w - - 0 1", "a1a6"),
        ("5k2/rb5r/ppP1p2p/4qp1P/1PPp1pP1/BR1Kn3/P3P3/4RBN1 b - - 0 34", "e5e4"),
        ("1nb1k1r1/2qp1p2/1pp1np2/3P1P1P/r4pp1/pP1K4/P1P1P2R/2R2BN1 b - - 1 28", "a4d4"),
        ("q3k3/3p1rR1/rp2p1B1/pP2P3/2pn3R/P4NP1/2PP1P2/1NBQ1K2 w - - 5 29", "h4h8"),
        ("2b2qnr/2p2p1p/3ppk2/prn4P/2pP2P1/NPP2K2/P2P4/R1B1QBN1 w - - 3 24", "e1h4"),
        ("br2k1nr/3q4/2p1Bb2/2P1pPpp/ppN5/1P1Q2PN/PB1P1P1R/R3K3 w Qk - 0 23", "d3d7"),
    ],
)
def test_mates_in_two_are_found(host: Host, fen: str, move: str) -> None:
    """By a network that knows nothing; 23 to 886 nodes were enough where this was measured."""
    found, lines = host.go("nodes 8000", f"fen {fen}")
    assert found == move
    assert " score mate 2 " in lines[-2]


# -- models --------------------------------------------------------------------------------------


def test_another_model_by_an_option(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "an other model"
    zoo.save(zoo.load(model), other)
    wrong = tmp_path / "cartpole"
    zoo.save(MuZero("MlpPolicy", "CartPole-v1"), wrong)
    with Host(model) as host:
        host.say(f"setoption name WeightsFile value {other}", "isready")
        host.expect("readyok")
        host.go("nodes 5")
        assert host.engine.directory == other
        host.say(f"setoption name WeightsFile value {wrong}", "isready")
        lines = host.expect("readyok")
        assert any(
            "of another game: it knows 2 actions, and chess has 4672" in line for line in lines
        )
        assert host.engine.directory == other
        host.go("nodes 5")  # with the model that it had
        host.say("setoption name WeightsFile value <empty>", "isready")
        host.expect("readyok")
        host.go("nodes 5")
        assert host.engine.directory == model  # that it was started with


def test_a_model_that_is_damaged_is_told_and_tried_again(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    zoo.save(zoo.load(model), other)
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-1])
    with Host(model) as host:
        host.say(f"setoption name WeightsFile value {other}", "isready")
        lines = host.expect("readyok")
        assert any("is damaged" in line and f"{model} plays on" in line for line in lines)
        (other / "model.safetensors").write_bytes(weights)
        host.say(f"setoption name WeightsFile value {other}", "isready")
        assert not any("info string" in line for line in host.expect("readyok"))
        assert host.engine._played == other


def test_options_are_heard_while_the_model_loads(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wished for last is loaded in the end, and the number of threads is that of then."""
    goes_on, loads = threading.Event(), []
    load = chess_game.chess_mind

    def slow(directory: Path, backend: str, planner: str) -> Any:
        loads.append(planner)
        goes_on.wait(30)
        return load(directory, backend, planner)

    monkeypatch.setattr(chess_game, "chess_mind", slow)
    out = Lines()
    engine = UciEngine(Writer(out), model)  # type: ignore[arg-type]
    engine.command("uci")
    while not loads:
        time.sleep(0.01)
    began = time.monotonic()
    engine.command("go infinite")
    for line in ("Planner value latent", "Threads value 2", "Backend value auto"):
        engine.command(f"setoption name {line}")
    engine.command("d")
    engine.command("go infinite")
    engine.command("position startpos moves e2e4")
    assert time.monotonic() - began < 1.0
    assert sum(line.startswith("bestmove") for line in out.lines) == 2
    assert "info string the search failed: the model is still being loaded" in out.lines
    engine.command("isready")
    assert "readyok" not in out.lines
    goes_on.set()
    assert engine._loaded.wait(30)
    assert loads == ["rules", "latent"]
    used: list[int] = []
    assert engine._mind is not None
    think_of = engine._mind.think_of

    def counted(*args: Any, **kwargs: Any) -> Any:
        used.append(torch.get_num_threads())
        return think_of(*args, **kwargs)

    monkeypatch.setattr(engine._mind, "think_of", counted)
    engine.command("go nodes 2")
    engine.interrupt(10)
    assert used == [2]
    for line in ("setoption name Threads value 1", "go nodes 2"):
        engine.command(line)
    engine.interrupt(10)
    assert used == [2, 1]


def test_no_thread_is_left_behind(model: Path) -> None:
    before = set(threading.enumerate())
    with Host(model) as host:
        searches = ("go infinite", "go ponder", "go movetime 100", "go nodes 5")
        for line in searches:
            host.say(line, "isready")
        host.say("stop")
        for _ in searches:
            host.expect("bestmove .*")
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) - before == set()


def test_another_planner_is_ready_when_it_says_so(model: Path) -> None:
    with Host(model) as host:
        assert host.engine._warm == {"rules"}
        host.say("setoption name Planner value latent", "isready")
        host.expect("readyok")
        assert host.engine._warm == {"rules", "latent"}


def test_a_position_by_its_fen_is_seen_as_one_by_its_moves() -> None:
    """A pawn that has just made its double step is, whether it can be captured or not."""
    by_fen, by_moves = ChessGame(), ChessGame()
    board = chess.Board()
    board.push_uci("e2e4")
    assert by_fen.set(board.fen(en_passant="fen"), []) is None
    assert by_moves.set(None, ["e2e4"]) is None
    seen, moved = by_fen.state(), by_moves.state()
    assert seen.frames[0] == moved.frames[0]
    nothing = ChessGame()
    assert nothing.set("4k3/8/8/3P4/8/8/8/4K3 w - e6 0 1", []) is None
    assert "d5e6" not in [move.uci() for move in nothing.board.legal_moves]


def test_positions_of_a_game() -> None:
    game = ChessGame()
    assert game.set(None, ["e2e4", "e7e5"], chess960=True) is None
    start = game.start
    assert game.set(None, ["e2e4", "e7e5"]) is None
    assert game.start != start  # castling is another action
    state = game.state()
    assert state.board.fen() == game.board.fen()
    assert len(state.frames) == 3
