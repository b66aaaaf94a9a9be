"""Go by GTP: dialogues, and a game against GNU Go, to the end and scored."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.engines.go_game import GoClock
from muzero_agent.adapters.engines.gtp import BUNDLED, GtpEngine, main
from muzero_agent.adapters.engines.protocol import Writer
from muzero_agent.adapters.envs.go import GoEnv, go_vertex, handicap_points
from muzero_agent.matches import play_match
from muzero_agent.programs import GtpPlayer
from muzero_agent.types import RecurrentOutput
from muzero_agent.zoo.bundled import MODELS

PROGRAM = [sys.executable, "-m", "muzero_agent.adapters.engines.gtp"]


@pytest.fixture(scope="module")
def go_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = {"channels": 4, "head_width": 8}
    made = MuZero("CnnPolicy", GoEnv, seed=0, policy_kwargs={"net_arch": arch}, buffer_size=1000)
    path = tmp_path_factory.mktemp("models") / "go"
    zoo.save(made, path)
    return path


class Dialogue:
    def __init__(self, model: Path, **settings: object) -> None:
        self.out = io.BytesIO()
        self.engine = GtpEngine(Writer(self.out), model, **settings)  # type: ignore[arg-type]

    def ask(self, line: str) -> str:
        self.out.seek(0)
        self.out.truncate()
        self.goes_on = self.engine.command(line)
        answer = self.out.getvalue().decode()
        assert answer == "" or answer.endswith("\n\n")
        return answer.rstrip("\n")


@pytest.fixture
def talk(go_model: Path) -> Dialogue:
    return Dialogue(go_model, visits=10)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("protocol_version", "= 2"),
        ("17 name", "=17 muzero-agent"),
        ("known_command genmove", "= true"),
        ("known_command tea", "= false"),
        ("tea", "? unknown command"),
        ("3 tea", "?3 unknown command"),
        ("# a remark", ""),
        ("", ""),
        ("name # a remark", "= muzero-agent"),
        ("boardsize 9", "="),
        ("boardsize 50", "? unacceptable size: the model plays 9x9"),
        ("boardsize x", "? syntax error"),
        ("boardsize", "? syntax error"),
        ("known_command", "? syntax error"),
        ("komi 5.5", "="),
        ("komi much", "? syntax error"),
        ("komi nan", "? syntax error"),
        ("komi inf", "? syntax error"),
        ("komi", "? syntax error"),
        ("play b", "? syntax error"),
        ("play banana e5", "? syntax error"),
        ("genmove", "? syntax error"),
        ("time_settings 60", "? syntax error"),
        ("time_left b 1e3 0", "? syntax error"),
        ("play b e5", "="),
        ("play black E5", "="),
        ("play w pass", "="),
        ("play b z9", "? 'z9' is no point of a Go board"),
        ("play green e5", "? syntax error"),
        ("undo", "? cannot undo"),
        ("final_score", "= W+7.5"),
        ("time_settings 60 10 5", "="),
        ("time_left b 12 3", "="),
        ("quit", "="),
    ],
)
def test_commands(talk: Dialogue, line: str, answer: str) -> None:
    assert talk.ask(line) == answer
    assert talk.goes_on == (line != "quit")


def test_another_size_than_the_models_is_refused_and_the_game_goes_on(talk: Dialogue) -> None:
    assert talk.ask("play b e5") == "="
    assert talk.ask("boardsize 13").startswith("? unacceptable size")
    assert talk.ask("final_score") == "= B+73.5"
    assert talk.ask("genmove w").startswith("= ")
    assert talk.ask("boardsize 9") == "="
    assert talk.ask("final_score") == "= W+7.5"


def test_the_board_has_the_size_of_the_model(tmp_path: Path) -> None:
    arch = {"channels": 4, "head_width": 8}
    made = MuZero(
        "CnnPolicy", partial(GoEnv, 5), seed=0, policy_kwargs={"net_arch": arch}, buffer_size=1000
    )
    zoo.save(made, tmp_path / "go5")
    talk = Dialogue(tmp_path / "go5", visits=10)
    assert talk.ask("boardsize 9").startswith("? unacceptable size")
    assert talk.ask("boardsize 5") == "="
    assert talk.ask("play b a5") == "="
    assert talk.ask("genmove w").startswith("= ")


def test_komi_counts_whenever_it_is_told(talk: Dialogue) -> None:
    for line in ("play b e5", "komi 0.5"):
        assert talk.ask(line) == "="
    assert talk.ask("final_score") == "= B+80.5"
    assert talk.ask("undo") == "="
    assert talk.ask("final_score") == "= W+0.5"


@pytest.mark.parametrize(
    ("stones", "points"),
    [
        (2, "C3 G7"),
        (3, "C3 G7 C7"),
        (4, "C3 G7 C7 G3"),
        (5, "C3 G7 C7 G3 E5"),
        (6, "C3 G7 C7 G3 C5 G5"),
        (8, "C3 G7 C7 G3 C5 G5 E3 E7"),
        (9, "C3 G7 C7 G3 C5 G5 E3 E7 E5"),
    ],
)
def test_fixed_handicaps(talk: Dialogue, stones: int, points: str) -> None:
    """As GTP's specification has them; then White moves, and one undo takes all back."""
    assert talk.ask(f"fixed_handicap {stones}") == f"= {points}"
    assert talk.engine.game.to_move == "w"
    assert (talk.engine.game.state().position.board == 1).sum() == stones
    assert talk.ask("genmove w") not in ("= pass", "= resign")
    for _ in range(2):
        assert talk.ask("undo") == "="
    assert talk.ask("final_score") == "= W+7.5"


def test_handicaps_of_other_boards() -> None:
    assert [go_vertex(point, 19) for point in handicap_points(19, 5)] == [
        "d4", "q16", "d16", "q4", "k10",
    ]  # fmt: skip
    assert [go_vertex(point, 13) for point in handicap_points(13, 2)] == ["d4", "k10"]
    assert len(handicap_points(10, 4)) == 4


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("set_free_handicap a1 e5 j9", "="),
        ("place_free_handicap 2", "= C3 G7"),
        ("set_free_handicap a1", "? bad vertex list"),
        ("set_free_handicap a1 a1", "? bad vertex list"),
        ("set_free_handicap a1 pass", "? bad vertex list"),
        ("set_free_handicap a1 z9", "? 'z9' is no point of a Go board"),
        ("fixed_handicap 10", "? invalid number of stones: give 2 to 9 on a board of 7 or more"),
        ("fixed_handicap x", "? syntax error"),
    ],
)
def test_handicaps(talk: Dialogue, line: str, answer: str) -> None:
    assert talk.ask(line) == answer
    if answer.startswith("="):
        assert talk.ask(line) == "? board not empty"


@pytest.mark.parametrize("before", [[], ["play b c3", "play w d4"]])
def test_a_pass_that_nobody_made_does_not_end_the_game(talk: Dialogue, before: list[str]) -> None:
    """White is ahead by the komi, and moves out of turn: to pass would win."""
    for line in [*before, "play b pass"]:
        talk.ask(line)
    if not before:
        assert talk.ask("genmove w") == "= pass"  # as it does after a real one
        talk.ask("undo")
    talk.ask("undo")
    for _ in range(2):
        assert talk.ask("genmove w") not in ("= pass", "= resign")


def test_a_whole_komi_makes_draws(talk: Dialogue) -> None:
    for line in ("komi 0", "play b pass"):
        assert talk.ask(line) == "="
    assert talk.ask("genmove w") != "= pass"  # there is more to be had
    talk.ask("undo")
    assert talk.ask("play w pass") == "="
    game = talk.engine.game
    assert game.state().position.result() == game.rules.outcome(game.state()) == 0
    assert talk.ask("final_score") == "= 0"


@pytest.mark.parametrize("line", ["play w e5", "genmove w", "reg_genmove w"])
def test_a_move_out_of_turn_is_taken_back_with_its_pass(talk: Dialogue, line: str) -> None:
    talk.ask("play b c3")
    talk.ask("play w c4")
    before = talk.engine.game.actions()
    assert talk.ask(line).startswith("=")
    if line == "reg_genmove w":
        assert talk.engine.game.actions() == before
    else:
        assert len(talk.engine.game.actions()) == 4
        assert talk.ask("undo") == "="
        assert talk.engine.game.actions() == before
    assert talk.engine.game.to_move == "b"
    assert talk.ask("play w c3") == "? illegal move"
    assert talk.engine.game.actions() == before


def test_a_search_that_fails_costs_its_tree_alone(talk: Dialogue) -> None:
    talk.ask("genmove b")
    thinker = talk.engine.mind.current
    assert thinker is not None

    def failing(*_: Any) -> RecurrentOutput:
        raise RuntimeError("out of memory, say")

    thinker.model.step = failing  # type: ignore[method-assign]
    assert talk.ask("genmove w") == "? genmove failed: out of memory, say"
    assert talk.ask("genmove w").startswith("= ")
    assert len(talk.engine.game.actions()) == 2


def test_a_point_is_played_once_and_taken_back(talk: Dialogue) -> None:
    assert talk.ask("play b c3") == "="
    assert talk.ask("play w c3") == "? illegal move"
    assert "X" in talk.ask("showboard")
    assert talk.ask("undo") == "="
    assert "X" not in talk.ask("showboard")
    assert talk.ask("play w c3") == "="  # out of turn: Black has passed
    assert talk.ask("final_score") == "= W+88.5"
    assert talk.ask("clear_board") == "="
    assert talk.ask("final_score") == "= W+7.5"


@pytest.mark.parametrize("planner", ["rules", "latent"])
def test_moves_are_legal_and_played(go_model: Path, planner: str) -> None:
    talk = Dialogue(go_model, visits=6, planner=planner)
    for number in range(30):
        answer = talk.ask(f"genmove {'bw'[number % 2]}")
        assert answer.startswith("= ")
        assert len(talk.engine.game.actions()) == number + 1
    before = talk.engine.game.actions()
    assert talk.ask("reg_genmove b").startswith("= ")
    assert talk.engine.game.actions() == before


def test_it_thinks_as_long_as_the_clock_allows(go_model: Path) -> None:
    talk = Dialogue(go_model)
    talk.engine.load()  # as the program does before its first move; it may take seconds
    talk.ask("time_settings 1 0 0")
    assert talk.engine._limits("b").clock == 1
    assert talk.ask("genmove b").startswith("= ")
    assert 0.3 < talk.engine.clocks["b"].seconds < 1  # nobody need tell
    assert talk.engine.clocks["w"].seconds == 1
    talk.ask("time_left w 2 4")
    limits = talk.engine._limits("w")
    assert (limits.clock, limits.moves_to_go) == (2, 4)
    talk.ask("time_settings 0 10 0")  # no limit
    assert talk.engine._limits("b").clock is None


def test_clocks() -> None:
    """Main time, then periods of two stones in ten seconds."""
    clock = GoClock(5, 10, 2)
    left = []
    for seconds in (4, 4, 7, 2, 12, 1):
        clock.spend(seconds)
        left.append((clock.seconds, clock.stones))
    assert left == [(1, 0), (10, 2), (3, 1), (10, 2), (-2, 1), (10, 2)]
    assert GoClock(0, 10, 2).limits().moves_to_go == 2
    spent = GoClock(3, 0, 0)
    spent.spend(5)
    assert spent.limits().clock == 0


def test_it_passes_to_win_and_gives_up_if_told_so(go_model: Path) -> None:
    talk = Dialogue(go_model, visits=200, resign=-0.9)
    talk.ask("play b e5")
    talk.ask("play w pass")  # Black's one stone owns the board
    assert talk.ask("genmove b") == "= pass"
    hopeless = Dialogue(go_model, visits=10, resign=1.1)
    assert hopeless.ask("genmove b") == "= resign"


def test_a_game_against_gnu_go(go_model: Path, program: Callable[[str], str]) -> None:
    """Both as programs; PettingZoo's Go is the referee, and the score is compared with its."""
    gnugo = f"{program('gnugo')} --mode gtp --chinese-rules --level 1"
    ours = shlex.join([*PROGRAM, "--model", str(go_model), "--visits", "4"])
    with GtpPlayer(ours, 9) as first, GtpPlayer(gnugo, 9) as second:
        result = play_match(first, second, GoEnv, pairs=1, opening_moves=0)
        assert result.illegal == 0
        assert first.name == "muzero-agent 0.1.0"
        score = first.ask("final_score")
    assert result.num_games == 2
    assert result.score == 0  # it knows nothing
    assert score[0] in "BW"
    assert np.isfinite(float(score[2:]))


def test_the_model_of_the_package() -> None:
    """It begins with a stone, not with a pass."""
    talk = Dialogue(MODELS / BUNDLED, visits=100)
    assert talk.ask("genmove b").startswith("= ")
    assert talk.ask("final_score").startswith("= B+")
    assert talk.engine.mind.model.num_simulations == 64


@pytest.mark.parametrize(
    "arguments", [["--visits", "0"], ["--visits", "many"], ["--resign", "5"], ["--resign", "x"]]
)
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"{arguments[1]}: give a " in capsys.readouterr().err


def test_a_model_that_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from muzero_agent.adapters.engines import gtp

    assert gtp.main(["--model", "/nowhere"]) == 1
    assert "neither a model directory" in capsys.readouterr().err
    assert gtp.main(["--model", "connect_four"]) == 1
    assert "a model of another game" in capsys.readouterr().err
