"""Games on the command line: train, eval and play."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from muzero_agent.adapters.envs.names import find_game
from muzero_agent.adapters.envs.pettingzoo import as_game
from muzero_agent.cli import app
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.play import Notation

SMALL = ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]
SMALL += ["--set", "policy_kwargs={net_arch: [16]}", "--set", "gradient_steps=1", "--no-progress"]
PATH = "pettingzoo.classic.tictactoe_v3:raw_env"


def run(*arguments: str | Path, answers: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answers)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tictactoe"
    done = run("train", "tictactoe", "--steps", "200", "--out", out, *SMALL)
    assert done.exit_code == 0, done.output
    return out


def test_a_game_by_its_name(trained: Path) -> None:
    config = json.loads((trained / "model" / "config.json").read_text())
    assert config["arguments"]["num_players"] == 2
    assert json.loads((trained / "run.json").read_text())["n_envs"] == 16


def test_the_import_path_of_a_known_game_has_its_settings() -> None:
    path = "pettingzoo.classic.connect_four_v3"
    assert find_game(path) == find_game("connect_four")
    first, second = load_hyperparams(path), load_hyperparams("connect_four")
    assert first.kwargs["policy_kwargs"] == second.kwargs["policy_kwargs"]
    assert first.n_envs == second.n_envs
    assert load_hyperparams("pettingzoo.classic.go_v5").policy == "MlpPolicy"  # of which size?
    path = "pettingzoo.classic.chess_v6"
    first, second = load_hyperparams(path), load_hyperparams("chess")
    assert first.kwargs["policy_kwargs"] == second.kwargs["policy_kwargs"]
    games = {name: make() for name in ("chess", path) if (make := find_game(name)) is not None}
    assert as_game(games[path]).name == "chess_v6"
    assert as_game(games["chess"]).name == "chess"
    assert games["chess"].observation_space == as_game(games[path]).observation_space


def test_a_game_by_its_import_path(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("train", PATH, "--steps", "60", "--out", out, *SMALL)
    assert done.exit_code == 0, done.output
    done = run("train", PATH, "--steps", "90", "--out", out, "--resume", "--no-progress")
    assert done.exit_code == 0, done.output
    refused = run("eval", out / "model")
    assert refused.exit_code == 2
    assert "if you trust it, give --env" in refused.output
    told = run("eval", out / "model", "--env", PATH, "--episodes", "2")
    assert told.exit_code == 0, told.output


def test_a_module_that_makes_no_game() -> None:
    missing = run("train", "no_such.module_v0", "--no-progress")
    assert missing.exit_code == 2
    assert "No module named 'no_such'" in missing.output
    empty = run("train", "os.path", "--no-progress")
    assert empty.exit_code == 2
    assert "os.path has no env" in empty.output


def test_evaluation_is_a_table_of_matches(trained: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = run(
        *("eval", trained / "model", "--against", "random,one-ply,alpha-beta-2,mcts-20"),
        *("--episodes", "10", "--json", result),
    )
    assert done.exit_code == 0, done.output
    for name in ("random", "one-ply", "alpha-beta 2", "MCTS 20"):
        assert f"| {name} | 10 |" in done.output
    matches = json.loads(result.read_text())["matches"]
    assert [match["games"] for match in matches] == [10] * 4
    assert sum(matches[0]["seats"]["moving first"]) == 5
    unknown = run("eval", trained / "model", "--against", "stockfish")
    assert unknown.exit_code == 2
    assert "choose among random, one-ply" in unknown.output


def test_a_model_may_look_ahead_by_the_rules(trained: Path) -> None:
    done = run("eval", trained / "model", "--episodes", "4", "--against", "random", "--by-rules")
    assert done.exit_code == 0, done.output
    assert "| random | 4 |" in done.output


def test_a_game_in_the_terminal(trained: Path) -> None:
    """Whoever answers with every square in turn comes to the end of a game."""
    squares = "\n".join(map(str, range(9)))
    done = run("play", "tictactoe", trained / "model", answers=f"?\nx\n{squares}\n{squares}\n")
    assert done.exit_code == 0, done.output
    assert "You are X" in done.output
    assert "action visits value prior" in done.output
    assert "'x' is no legal move" in done.output
    assert "It plays" in done.output
    ends = ("You have won", "A draw", "It has won")
    assert sum(done.output.count(end) for end in ends) == 1
    second = run("play", "tictactoe", trained / "model", "--second", "--tell", answers="q\n")
    assert second.exit_code == 0, second.output
    assert "You are O" in second.output
    assert second.output.index("expected:") < second.output.index("Your move")


@pytest.mark.parametrize(
    ("game", "answers", "told"),
    [
        ("tictactoe", "4\n4\nq\n", ["0 1 2", "a number plays", "'4' is no legal move"]),
        ("connect_four", "3\nq\n", ["0 1 2 3 4 5 6", "It plays"]),
        ("chess", "e2e5\ne4\n?\ng1f3\nq\n", ["'e2e5' is no legal move", "P . . .", "g1f3"]),
    ],
)
def test_models_of_the_package_are_played_by_their_names(
    game: str, answers: str, told: list[str]
) -> None:
    done = run("play", game, game, "--simulations", "4", answers=answers)
    assert done.exit_code == 0, done.output
    for text in told:
        assert text in done.output


def test_models_of_the_package_are_evaluated_by_their_names() -> None:
    done = run("eval", "connect_four", "--simulations", "4", "--episodes", "4")
    assert done.exit_code == 0, done.output
    assert "| random | 4 |" in done.output
    missing = run("eval", "no_such_model")
    assert missing.exit_code == 2
    assert "'no_such_model' does not exist" in missing.output


@pytest.mark.parametrize("name", ["chess", "go_9x9", "tictactoe", "connect_four"])
def test_moves_are_written_and_read(name: str) -> None:
    make = find_game(name)
    assert make is not None
    env = as_game(make())
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    notation = Notation(env)
    for _ in range(30):
        legal = np.flatnonzero(env.action_masks()).tolist()
        texts = [notation.text(action) for action in legal]
        assert [notation.action(text) for text in texts] == legal
        with pytest.raises(ValueError, match="nonsense"):
            notation.action("nonsense")
        if any(env.step(int(rng.choice(legal)))[2:4]):
            break
    assert len(texts[0]) == {"chess": 4, "go_9x9": 2}.get(name, 1)


def test_a_model_of_another_game_is_refused(trained: Path) -> None:
    refused = run("play", "connect_four", trained / "model")
    assert refused.exit_code == 2
    assert "was not trained on connect_four" in refused.output
    none = run("play", "CartPole-v1", trained / "model")
    assert none.exit_code == 2
    assert "is no game" in none.output
