"""Programs of others as players: chess engines by UCI, Go by GTP, and moves in their notations."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chess
import numpy as np
import pytest
from pettingzoo.classic import chess_v6, go_v5
from typer.testing import CliRunner

from muzero_agent import MuZero, programs, zoo
from muzero_agent.adapters.envs.chess import NUM_ACTIONS, action_of, move_of
from muzero_agent.adapters.envs.go import go_action, go_vertex
from muzero_agent.adapters.envs.names import GAMES
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv, as_game
from muzero_agent.cli import app
from muzero_agent.commands import split_command
from muzero_agent.evaluation import evaluate_game, opponent
from muzero_agent.matches import play_match
from muzero_agent.players import RESIGN, Position, RandomPlayer
from muzero_agent.programs import GtpPlayer, UciPlayer

TINY: dict[str, Any] = {
    "learning_starts": 20,
    "num_simulations": 2,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 0,
}
GNUGO = "gnugo --mode gtp --chinese-rules --level 1"


# -- notations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 19])
def test_go_vertices(size: int) -> None:
    from pettingzoo.classic.go import coords

    env = TurnBasedEnv(go_v5.env(board_size=size))
    env.reset()  # sets the size that coords are of
    names = [go_vertex(action, size) for action in range(size**2 + 1)]
    assert names == [coords.to_gtp(coords.from_flat(a)).lower() for a in range(size**2 + 1)]
    assert [go_action(name.upper(), size) for name in names] == list(range(size**2 + 1))
    for wrong in ("i5", "a0", f"a{size + 1}", "a", "", "z1", "a-1"):
        with pytest.raises(ValueError, match="no point"):
            go_action(wrong, size)


# -- playing --------------------------------------------------------------------------------------


def test_stockfish_beats_random_play(program: Callable[[str], str]) -> None:
    with UciPlayer(program("stockfish"), seconds=None, nodes=200, options={"Threads": 1}) as engine:
        assert engine.name.startswith("Stockfish")
        result = play_match(engine, RandomPlayer(), chess_v6.env, pairs=2, opening_moves=4)
    assert (result.score, result.illegal) == (1.0, 0)


def test_stockfish_mates_in_one(program: Callable[[str], str]) -> None:
    """As Black, too, whose actions are mirrored."""
    board = chess.Board()
    actions = []
    for move in ("f2f3", "e7e5", "g2g4"):
        actions.append(action_of(chess.Move.from_uci(move), board.turn))
        board.push_uci(move)
    position = Position[Any](None, np.ones(NUM_ACTIONS, np.bool_), None, tuple(actions))
    with UciPlayer(program("stockfish"), seconds=None, depth=2) as engine:
        (action,) = engine.act([position])
    assert move_of(action, board) == chess.Move.from_uci("d8h4")


def test_a_script_ends_though_its_engine_is_open(program: Callable[[str], str]) -> None:
    script = f"from muzero_agent.programs import UciPlayer\nUciPlayer({program('stockfish')!r})"
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)


def test_an_engine_that_dies_is_named(program: Callable[[str], str]) -> None:
    position = Position[Any](None, np.ones(NUM_ACTIONS, np.bool_))
    with UciPlayer(program("stockfish")) as engine:
        pid = engine.engine.transport.get_pid()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ValueError, match=r"Stockfish .* failed in rnbqkbnr"):
            engine.act([position])


def test_an_engine_may_load_for_longer_than_it_may_think(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    if line.startswith('uci\\n'): print('id name slow\\nuciok', flush=True)\n"
        "    if line.startswith('isready'): time.sleep(1); print('readyok', flush=True)\n"
        "    if line.startswith('quit'): break\n"
    )
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(slow))}"
    with UciPlayer(command) as engine:
        assert engine.name == "slow"
        assert engine.engine.timeout == 10.0  # what python-chess gives a move
    monkeypatch.setattr(programs, "READY", 0.1)
    with pytest.raises(ValueError, match=r"does not get ready to play: no answer in 0.1 s"):
        UciPlayer(command)


def test_gnugo_beats_random_play(program: Callable[[str], str]) -> None:
    """It captures what is dead: else passing would leave the stones on the board, alive."""
    with GtpPlayer(GNUGO.replace("gnugo", program("gnugo")), 9) as engine:
        assert engine.name.startswith("GNU Go")
        result = play_match(engine, RandomPlayer(), GAMES["go_9x9"], pairs=2)
    assert (result.score, result.illegal) == (1.0, 0)


class _Resigns(RandomPlayer):
    def act(self, positions: Any) -> list[int]:
        return [RESIGN for _ in positions]


def test_who_resigns_loses() -> None:
    result = play_match(_Resigns(), RandomPlayer(), chess_v6.env, pairs=1)
    assert (result.score, result.illegal) == (0.0, 0)


def test_a_position_tells_all_actions() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(RandomPlayer):
        def act(self, positions: Any) -> list[int]:
            seen.extend(position.actions for position in positions)
            return super().act(positions)

    play_match(Watching(), Watching(), GAMES["tictactoe"], pairs=1, opening_moves=2)
    assert min(map(len, seen)) == 2
    assert max(map(len, seen)) >= 4
    for actions in seen:
        env = TurnBasedEnv(GAMES["tictactoe"]())
        env.reset()
        for action in actions:
            assert not env.step(action)[2]


# -- by name --------------------------------------------------------------------------------------


def test_programs_by_name(program: Callable[[str], str], tmp_path: Path) -> None:
    """Through the command line, options included."""
    model = MuZero("MlpPolicy", chess_v6.env, **TINY)
    zoo.save(model, tmp_path / "model")
    stockfish = program("stockfish")
    run = CliRunner().invoke(
        app,
        ["eval", str(tmp_path / "model"), "--env", "chess", "--against", f"uci:{stockfish}",
         "--episodes", "2", "--move-time", "0.01", "--option", "Skill Level=0",
         "--json", str(tmp_path / "found.json")],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "Stockfish" in run.output
    (match,) = json.loads((tmp_path / "found.json").read_text())["matches"]
    assert match["second"].startswith("Stockfish")
    assert (match["games"], match["illegal"]) == (2, 0)


def test_gtp_by_name(program: Callable[[str], str]) -> None:
    model = MuZero("MlpPolicy", GAMES["go_9x9"], **TINY)
    command = GNUGO.replace("gnugo", program("gnugo"))
    (result,) = evaluate_game(model, GAMES["go_9x9"], [f"gtp:{command}"], pairs=1)
    assert (result.score, result.illegal) == (0.0, 0)


def test_a_program_plays_its_game_alone() -> None:
    with pytest.raises(ValueError, match="in chess uci:COMMAND"):
        opponent("uci:stockfish", as_game(GAMES["go_9x9"]()))


@pytest.mark.parametrize(
    ("command", "windows", "words"),
    [
        ("gnugo --level 1", False, ["gnugo", "--level", "1"]),
        ("'my engines/sf' a\\ b", False, ["my engines/sf", "a b"]),
        (r"C:\engines\sf.exe -x", True, [r"C:\engines\sf.exe", "-x"]),
        (r'"C:\Program Files\sf.exe" -d "two words"', True,
         [r"C:\Program Files\sf.exe", "-d", "two words"]),
        (r'sf --opt="a b" c', True, ["sf", "--opt=a b", "c"]),
    ],
)  # fmt: skip
def test_commands_are_split_as_the_system_writes_them(
    command: str, windows: bool, words: list[str]
) -> None:
    assert split_command(command, windows) == words


@pytest.mark.parametrize("command", ["", "  ", '"stockfish'])
def test_what_is_no_command_is_refused(command: str) -> None:
    for windows in (False, True):
        with pytest.raises(ValueError, match="is no command"):
            split_command(command, windows)


def test_what_is_no_engine_is_refused(program: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="no such program on PATH; give its whole path"):
        UciPlayer("/nowhere/engine")
    with pytest.raises(ValueError, match="no UCI engine that starts"):
        UciPlayer("true")
    with pytest.raises(ValueError, match="Skill Level"):
        UciPlayer(program("stockfish"), options={"Skil Level": 0})
    with pytest.raises(ValueError, match="for ever"):
        UciPlayer("true", seconds=None)
    with pytest.raises(ValueError, match="does not start"):
        GtpPlayer("/nowhere/engine", 9)
    with pytest.raises(ValueError, match="ended"):
        GtpPlayer("true", 9)
    with pytest.raises(ValueError, match="did not answer 'name' within"):
        GtpPlayer(f"{sys.executable} -c 'import time; time.sleep(60)'", 9, timeout=0.2)
    with pytest.raises(ValueError, match="boardsize 30"):
        GtpPlayer(GNUGO.replace("gnugo", program("gnugo")), 30)
