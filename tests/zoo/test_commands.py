"""`muzero-agent zoo` and `muzero-agent explain`."""

from __future__ import annotations

import json
import logging
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner, Result

from muzero_agent import zoo
from muzero_agent.cli import app
from muzero_agent.evaluation import POINTS, RETURN
from muzero_agent.training import preprocessing_of
from muzero_agent.zoo.bundled import bundled

from .files import seal
from .hub_server import serving

WHOLE = Path(__file__).parent / "formats" / "2"
SMALL = ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    logging.getLogger("werkzeug").handlers.clear()


def test_list() -> None:
    done = run("zoo", "list")
    assert done.exit_code == 0, done.output
    for name in bundled():
        assert f" {name} " in done.output
    assert "91.8% against mcts-1000" in done.output


def test_show() -> None:
    done = run("zoo", "show", "connect_four")
    assert done.exit_code == 0, done.output
    assert "muzero-agent train connect_four --seed 6" in done.output
    assert "mcts-1000" in done.output
    assert "0.8711 to 0.9482" in done.output
    missing = run("zoo", "show", "conect_four")
    assert missing.exit_code == 2
    assert "did you mean connect_four?" in missing.output


def test_verify(tmp_path: Path) -> None:
    done = run("zoo", "verify")
    assert done.exit_code == 0, done.output
    assert {line.partition(":")[0] for line in done.output.splitlines()} == set(bundled())
    shutil.copytree(WHOLE, tmp_path / "model")
    assert run("zoo", "verify", tmp_path / "model").exit_code == 0
    (tmp_path / "model" / "card.json").write_text("{}")
    refused = run("zoo", "verify", tmp_path / "model")
    assert refused.exit_code == 2
    assert "card.json is not the file" in refused.output


def test_eval(tmp_path: Path) -> None:
    done = run("zoo", "eval", "acrobot", "--episodes", 3)
    assert done.exit_code == 0, done.output
    assert "holds" in done.output
    card = zoo.card("acrobot")
    (told,) = card.evaluations
    boast = told.model_copy(update={"mean": -60.0, "std": 1.0, "interval": None})
    better = card.model_copy(update={"evaluations": [boast]})
    zoo.export("acrobot", tmp_path / "boast", card=better)
    done = run("zoo", "eval", tmp_path / "boast", "--episodes", 3)
    assert done.exit_code == 1, done.output
    assert "DOES NOT HOLD" in done.output
    assert run("zoo", "eval", "acrobot", "--episodes", 0).exit_code == 2


def test_eval_runs_no_program_that_a_card_names(tmp_path: Path) -> None:
    card = zoo.card("chess")
    told = card.evaluations[0].model_copy(
        update={"opponent": f"uci:touch {tmp_path / 'was-run'}", "episodes": 2}
    )
    zoo.export("chess", tmp_path / "evil", card=card.model_copy(update={"evaluations": [told]}))
    done = run("zoo", "eval", tmp_path / "evil")
    assert done.exit_code == 0, done.output
    assert "another program measures it" in done.output
    assert not (tmp_path / "was-run").exists()


def test_a_trained_model_becomes_one_of_a_zoo(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("train", "CartPole-v1", "--steps", 60, "--out", out, "--no-progress", *SMALL)
    assert done.exit_code == 0, done.output
    done = run("zoo", "pack", out / "model", tmp_path / "mine", "--episodes", 4, "--notes", "Tiny.")
    assert done.exit_code == 0, done.output
    zoo.verify(tmp_path / "mine")
    card = zoo.card(tmp_path / "mine")
    (evaluation,) = card.evaluations
    assert (evaluation.metric, evaluation.episodes, evaluation.seed) == (RETURN, 4, 1000)
    assert (card.name, card.notes, card.seed) == ("muzero-mine", "Tiny.", 0)
    weights = [path / "model.safetensors" for path in (out / "model", tmp_path / "mine")]
    assert weights[1].stat().st_size < 0.6 * weights[0].stat().st_size
    done = run("zoo", "eval", tmp_path / "mine")
    assert done.exit_code == 0, done.output


def test_a_model_is_measured_where_it_was_trained_wherever_it_lies(tmp_path: Path) -> None:
    """Its environment's arguments and wrappers stand in its card, too."""
    out, found = tmp_path / "run", tmp_path / "found.json"
    settings = ["--set", "env_kwargs={sutton_barto_reward: true}", "--set", "frame_stack=2"]
    done = run(
        "train", "CartPole-v1", "--steps", 60, "--out", out, "--no-progress", *SMALL, *settings
    )
    assert done.exit_code == 0, done.output
    model = shutil.copytree(out / "model", tmp_path / "elsewhere" / "model")
    done = run("eval", model, "--episodes", 2, "--json", found)
    assert done.exit_code == 0, done.output
    assert json.loads(found.read_text())["returns"] == [-1, -1]
    done = run("zoo", "pack", model, tmp_path / "mine", "--episodes", 2)
    assert done.exit_code == 0, done.output
    assert zoo.card(tmp_path / "mine").evaluations[0].mean == -1
    assert run("zoo", "eval", tmp_path / "mine").exit_code == 0
    assert "return -1" in run("zoo", "gif", tmp_path / "mine", "--out", "x.gif").output


def test_wrappers_of_a_card(tmp_path: Path) -> None:
    def export(*wrappers: str) -> Path:
        card = zoo.card("cartpole").model_copy(update={"wrappers": list(wrappers)})
        return zoo.export("cartpole", tmp_path / "model", card=card)

    for atari, shown, frame_stack in (
        (True, True, 4), (True, False, 4), (True, False, 1), (False, False, 3), (False, False, 1)
    ):  # fmt: skip
        names = ["AtariWrapper"] * atari + ["ShowActions"] * shown
        names += [f"VecFrameStack({frame_stack})"] * (frame_stack > 1)
        found = preprocessing_of(export(*names), "CartPole-v1")
        assert found == {
            "atari": atari, "show_actions": shown, "frame_stack": frame_stack, "env_kwargs": {}
        }  # fmt: skip
    for strange in (
        ["Mine"],
        ["VecFrameStack(4)", "AtariWrapper"],
        ["VecFrameStack(99999)"],
        ["ShowActions"],
    ):
        done = run("eval", export(*strange))
        assert done.exit_code == 2
        assert f"names the wrappers {strange}" in done.output


def test_a_game_becomes_one_of_a_zoo(tmp_path: Path) -> None:
    """Against several opponents, by the rules and without."""
    done = run(
        "zoo", "pack", Path(zoo.export("tictactoe", tmp_path / "t")), tmp_path / "mine",
        "--episodes", 4, "--against", "random,one-ply", "--by-rules", "--simulations", 5,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = zoo.card(tmp_path / "mine").evaluations
    assert [(e.opponent, e.by_rules) for e in found] == [
        ("random", True),
        ("one-ply", True),
        ("random", False),
        ("one-ply", False),
    ]
    assert {(e.metric, e.episodes, e.num_simulations) for e in found} == {(POINTS, 4, 5)}
    assert all(e.interval is not None and e.interval[0] <= e.mean for e in found)


def test_export_and_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("zoo", "export", "acrobot", tmp_path / "copy")
    assert done.exit_code == 0, done.output
    assert zoo.card(tmp_path / "copy") == zoo.card("acrobot")
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        done = run("zoo", "push", tmp_path / "copy", "arcade/acrobot")
        assert done.exit_code == 0, done.output
        commit = list(hub.repos["arcade/acrobot"])[-1]
        assert f"zoo.load('arcade/acrobot', revision='{commit}')" in done.output
        shown = run("zoo", "show", f"arcade/acrobot@{commit}")
        assert shown.exit_code == 0, shown.output
        done = run("eval", f"arcade/acrobot@{commit}", "--episodes", 1)
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", ["cartpole", "tictactoe", "go_9x9", "minatar_breakout"])
def test_gif(name: str, tmp_path: Path) -> None:
    done = run("zoo", "gif", name, "--most-steps", 8, "--width", 120, "--simulations", 4)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / f"{name}.gif") as picture:
        assert picture.format == "GIF"
        assert picture.width == 120
        frames = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            assert picture.info["duration"] >= 20
            frames.append(np.asarray(picture.convert("RGB")).copy())
    assert len(frames) >= 4
    assert any((a != b).any() for a, b in pairwise(frames))


@pytest.mark.parametrize("name", ["tictactoe", "connect_four", "go_9x9"])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_explain(name: str, kind: str, tmp_path: Path) -> None:
    moves = {"tictactoe": "4 0", "connect_four": "3 3 2", "go_9x9": "e5 d4 pass"}[name]
    out = tmp_path / "deep" / f"what.{kind}"
    done = run("explain", name, "--moves", moves, "--out", out, "--simulations", 8)
    assert done.exit_code == 0, done.output
    assert "visits value prior" in done.output
    assert str(out) in done.output
    if kind == "svg":
        assert ET.parse(out).getroot().tag.endswith("svg")
        return
    with Image.open(out) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    alone, env = tmp_path / "other.png", zoo.card(name).env
    assert env is not None
    assert run("explain", name, "--env", env, "--out", alone, "--simulations", 8).exit_code == 0
    assert alone.read_bytes() != out.read_bytes()


def test_explain_chess(tmp_path: Path) -> None:
    """A mate in one is seen by the rules, and its arrow is drawn."""
    fen = "6k1/5ppp/8/8/8/8/5PPP/3R2K1 w - - 0 1"
    done = run(
        "explain", "chess", "--fen", fen, "--by-rules", "--simulations", 16, "--out", "c.svg"
    )
    assert done.exit_code == 0, done.output
    assert "expected: d1d8" in done.output
    text = Path("c.svg").read_text()
    ET.fromstring(text)
    assert "<line" in text  # an arrow's
    assert run("explain", "chess", "--moves", "e4 e7e5 Nf3", "--simulations", 4).exit_code == 0
    assert Image.open("chess.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["connect_four", "--moves", "3 9"], "move 2, '9', is not legal there; legal are 0, 1"),
        (["connect_four", "--moves", "x"], "move 1, 'x'"),
        (["connect_four", "--moves", "0 1 0 1 0 1 0"], "over after move 7"),
        (["connect_four", "--out", "x.jpg"], "ends in .png or .svg"),
        (["connect_four", "--fen", "8/8"], "connect_four_v3 has no such positions"),
        (["chess", "--fen", "8/8"], "8/8"),
        (["acrobot"], "is no game"),
        (["nothing"], "does not exist"),
    ],
)
def test_what_cannot_be_explained(arguments: list[str], complaint: str) -> None:
    done = run("explain", *arguments)
    assert done.exit_code == 2
    assert complaint in done.output


def test_names_of_gifs_and_faults(tmp_path: Path) -> None:
    shutil.copytree(WHOLE, tmp_path / "model")
    done = run(
        "zoo", "gif", tmp_path / "model", "--most-steps", 3, "--out", tmp_path / "a" / "b.gif"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a" / "b.gif").exists()
    assert run("zoo", "gif", tmp_path / "model", "--most-steps", 0).exit_code == 2
    seal(tmp_path / "model")
