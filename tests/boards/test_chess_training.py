"""The command by which chess is learned from games: it goes on where it was, and what it leaves."""

from __future__ import annotations

import csv
import json
import random
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import chess
import chess.pgn
import numpy as np
import pytest
import torch

from muzero_agent import zoo
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.adapters.envs.pettingzoo import make_turn_based_env
from muzero_agent.checkpoints import load_checkpoint
from muzero_agent.training import start_from

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ["none", "labels", "searches", "both", "own-games"]
SMALL = ["--channels", "8", "--blocks", "1", "--dynamics-blocks", "1", "--batch-size", "8"]


def labelled_game(seed: int, moves: int = 12) -> str:
    """Random moves, each labelled as the best one."""
    rng, game = random.Random(seed), chess.pgn.Game()
    node: chess.pgn.GameNode = game
    for _ in range(moves):
        move = rng.choice(list(node.board().legal_moves))
        node.comment = f"[%eval {rng.uniform(-2, 2):.2f}] [%mpv {move.uci()}:{rng.randrange(99)}]"
        node = node.add_variation(move)
    node.comment = "[%eval 0.10]"
    game.headers["Result"] = "1/2-1/2"
    return f"{game}\n\n"


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("games") / "games.pgn"
    path.write_text("".join(labelled_game(seed) for seed in range(4)), encoding="utf-8")
    return path


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """run(script, *arguments): what it prints. In this process: another takes seconds to import."""
    monkeypatch.setenv("MUZERO_AGENT_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # which as scripts import each other

    def call(script: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(ROOT / script), run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.mark.timeout(240)
def test_a_run_that_was_ended_goes_on(
    games: Path, tmp_path: Path, program: Callable[[str], str], run: Callable[..., str]
) -> None:
    """And what was learned can be measured in the end, and go on in a larger network."""
    script = "examples/chess_from_games.py"
    arguments: list[str | Path] = [
        games, "--out", tmp_path / "run", "--supervised", "4", "--unrolled", "2", "--every", "2",
        "--threads", "1", *SMALL,
    ]  # fmt: skip
    begun = run(script, *arguments, "--minutes", "0")
    assert "update 1 of 6" in begun
    ended = run(script, *arguments)
    assert "from update 1" in ended
    assert "update 6 of 6" in ended
    with (tmp_path / "run" / "held_out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["updates"]) for row in rows] == [2, 4, 6]
    assert all(int(row["positions"]) == 12 for row in rows)
    model = zoo.load(tmp_path / "run" / "model")
    assert model.num_timesteps == 6
    env = make_turn_based_env(ChessEnv, 1, 0)
    before, after = (
        load_checkpoint(tmp_path / "run" / "checkpoints" / f"{updates:012}", env).policy.network
        for updates in (4, 6)
    )
    changed = {
        name.partition(".")[0]
        for name, weight in after.state_dict().items()
        if not torch.equal(weight, before.state_dict()[name])
    }
    assert changed == {  # the dynamics alone, and what looks at its latents
        "action_embedding", "decoder", "reward_head", "transition", "transition_in",
        "transition_norm",
    }  # fmt: skip

    further = run(
        script, games, "--out", tmp_path / "further", "--start-from", tmp_path / "run" / "model",
        "--policy-from", tmp_path / "run" / "model", "--supervised", "1", "--unrolled", "0",
        "--learning-rate", "0", "--threads", "1", *SMALL,
        "--blocks", "2", "--dynamics-blocks", "2",
    )  # fmt: skip
    assert "from update 0" in further
    taken = zoo.load(tmp_path / "further" / "model")
    seen = ChessEnv().reset()[0]["observation"][None]
    np.testing.assert_allclose(
        taken.policy.evaluate(seen).prior_logits,
        model.policy.evaluate(seen).prior_logits,
        atol=1e-4,
    )

    other, known = zoo.load(tmp_path / "run" / "model"), model.policy.state_dict()
    with torch.no_grad():
        for weight in other.policy.parameters():
            weight.add_(1)
    start_from(other, tmp_path / "run" / "model", parts=("encoder", "policy_head"))
    taken_parts = {
        name.split(".")[1]
        for name, weight in other.policy.named_parameters()
        if torch.equal(weight, known[name])
    }
    assert taken_parts == {"encoder", "policy_head"}

    shown = run(
        "benchmarks/chess_latent.py", tmp_path / "run" / "model", games, "--positions", "12",
        "--searches", "2", "--simulations", "8", "--out", tmp_path / "latent.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "latent.json").read_text(encoding="utf-8"))
    assert [row["moves_imagined"] for row in found["along_play"]] == list(range(7))
    assert all(0 < row["illegal_share"] < 1 for row in found["along_play"])
    assert found["along_play"][0]["latent_error"] == 0
    assert all(row["latent_error"] > 0 for row in found["along_play"][1:])
    first = found["in_searches"][0]
    assert (first["depth"], first["illegal"], first["behind_illegal"]) == (0, 0, 0)
    assert sum(row["moves"] for row in found["in_searches"]) <= 2 * 8
    assert [row["probability_from"] for row in found["behind_moves"]] == [0.1, 0.01, 0.0]
    assert sum(row["moves"] for row in found["behind_moves"]) > 2 * 10
    assert any(row["value_difference"] > 0 for row in found["behind_moves"])
    assert re.search(r"\| moves_imagined \|", shown)

    regret = (
        "benchmarks/chess_regret.py", tmp_path / "run" / "model", "--out", tmp_path,
        "--engine", program("stockfish"), "--positions", "20", "--searched", "2",
    )  # fmt: skip
    run(*regret)
    rows = json.loads((tmp_path / "regret.json").read_text(encoding="utf-8"))["rows"]
    label, policy, *searches = rows
    assert label["positions"] == policy["positions"] == 20
    assert [row["positions"] for row in searches] == [2] * 6
    assert 0 <= label["regret"] < policy["regret"]  # which learned next to nothing
    assert all("minus_policy" in row for row in searches)
    run(*regret, "--latent-error", "1", "4")
    rows = json.loads((tmp_path / "latent_error.json").read_text(encoding="utf-8"))["rows"]
    assert rows[:2] == [label, policy]
    assert [row["player"] for row in rows[2:]] == [
        f"latent error {error}, {nodes}" for error in (1, 4) for nodes in (16, 64, 256)
    ]
    assert {row["positions"] for row in rows[2:]} == {2}
    scored = json.loads((tmp_path / "positions.json").read_text(encoding="utf-8"))["positions"]
    board = chess.Board(scored[0]["start"])
    for move in scored[0]["moves"]:
        board.push_uci(move)
    assert {move.uci() for move in board.legal_moves} == scored[0]["scores"].keys()

    reanalyse = (
        "benchmarks/chess_reanalyse.py", tmp_path / "run" / "model", games, "--own", games,
        "--out", tmp_path, "--updates", "1", "--simulations", "2", "--held-out", "12",
        "--rate", "1", "--engine", program("stockfish"), "--positions", "20", "--seed", "77",
    )  # fmt: skip
    shown = run(*reanalyse)
    told = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (tmp_path / f"{name}.json" for name in VARIANTS)
    }
    assert told["none"]["updates"] == 0
    assert np.mean(told["none"]["regrets"]) == policy["regret"]
    assert all(told[name]["updates"] == 1 for name in VARIANTS[1:])
    # Searches find what such a network expects, a draw; the labels tell something else.
    assert len({told[name]["value_error"] for name in ("none", "labels", "both")}) == 3
    assert len(re.findall(r"^\| (none|labels|searches|both|own games) ", shown, re.MULTILINE)) == 5
    errors = told["none"]["search_values"]
    assert errors["positions"] > 0
    assert all(errors[name] > 0 for name in ("network", "value", "mixed_value", "improved_value"))
    written = (tmp_path / "both.json").stat().st_mtime_ns
    assert run(*reanalyse) == shown
    assert (tmp_path / "both.json").stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match="with other arguments: give another --out"):
        run(*reanalyse, "--rate", "2")


def test_games_that_are_not_labelled_are_refused_at_once(
    run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.pgn").write_text("1. e4 e5 1-0\n\n1. d4 d5 0-1\n\n", encoding="utf-8")
    (tmp_path / "eval.pgn").write_text("1. e4 { [%eval 0.1] } e5 1-0\n\n" * 2, encoding="utf-8")
    nothing = "hold no scored moves and evaluations"
    for name, said in (
        ("plain.pgn", nothing), ("eval.pgn", nothing), ("none.pgn", "no such file of games"),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            run("examples/chess_from_games.py", tmp_path / name, "--out", tmp_path / "run")
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
