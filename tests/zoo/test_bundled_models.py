"""The models in the package load, are small, and are as good as their cards say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muzero_agent import MuZero, zoo
from muzero_agent.evaluation import POINTS, RETURN, agrees, measure_again
from muzero_agent.hyperparams import make_env
from muzero_agent.training import preprocessing_of
from muzero_agent.zoo.bundled import MODELS, bundled

NAMES = {
    "acrobot", "cartpole", "chess", "connect_four", "go_9x9", "lunar_lander", "minatar_breakout",
    "mountain_car", "pong", "tictactoe",
}  # fmt: skip
FEW, LONG = 10, ("chess", "go_9x9")
"""Episodes, and games that are so long that two have to do, against the first opponent."""
QUICK = {"random", "one-ply", None}
"""Opponents that do not take long to move."""


def test_all_are_there() -> None:
    assert set(bundled()) == NAMES
    assert {path.name for path in MODELS.iterdir() if path.is_dir()} - {"__pycache__"} == NAMES
    assert sum(entry.num_bytes for entry in zoo.available()) <= 20_000_000


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_card(name: str) -> None:
    zoo.verify(name)
    card = zoo.card(name)
    assert card.command.startswith(("muzero-agent train", "python examples/"))
    assert card.commit
    assert card.hardware
    assert card.training_seconds > 0
    assert zoo.load(name).num_timesteps >= card.training_steps > 0
    assert all(evaluation.episodes >= 100 for evaluation in card.evaluations)
    assert any(evaluation.metric in (RETURN, POINTS) for evaluation in card.evaluations) or (
        name == "tictactoe"  # all lines of play are walked
    )
    assert sum(file.stat().st_size for file in (MODELS / name).iterdir()) <= 5_000_000


def check(name: str, episodes: int | None = None, most: int | None = None) -> None:
    """Repeat what the card tells.

    :param episodes: in place of as many; then against quick opponents alone
    :param most: evaluations; None: all
    """
    card, model = zoo.card(name), zoo.load(name)
    preprocessing = preprocessing_of(MODELS / name, card.env)
    for told in card.evaluations[:most]:
        if told.opponent not in QUICK and episodes is not None:
            continue
        found = measure_again(model, card, told, episodes, preprocessing)
        if found is not None:
            print(name, told.opponent, told.mean, told.bounds(), found.mean, found.episodes)
            assert agrees(told, found), (told, found)


@pytest.mark.parametrize("name", sorted(NAMES - {"pong", "tictactoe"}))
def test_a_model_in_short(name: str) -> None:
    """A few episodes; one of Pong lasts minutes, and tic-tac-toe's lines of play are all walked in
    another test."""
    if name in LONG:
        check(name, 2, most=1)
    else:
        check(name, FEW)


def test_pong_is_played() -> None:
    """For 150 decisions in four environments: who does nothing loses twelve points by then."""
    card, model = zoo.card("pong"), zoo.load("pong", num_simulations=8)
    preprocessing = preprocessing_of(MODELS / "pong", card.env)

    def points() -> float:
        envs = MuZero._wrap_env(make_env(card.env, 4, 1000, **preprocessing))
        obs: Any = envs.reset()
        total = 0.0
        for _ in range(150):
            obs, rewards, _, _ = envs.step(model.predict(obs, deterministic=True)[0])
            total += rewards.sum()
        envs.close()
        return total

    assert points() > -8
    for parameter in model.policy.target_network.parameters():
        parameter.data.zero_()
    assert points() == -12


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES - {"tictactoe"}))
def test_a_model(name: str) -> None:
    check(name)


@pytest.mark.slow
def test_exact_moves_of_connect_four(tmp_path: Path) -> None:
    """The evaluation that needs the solver."""
    card = zoo.card("connect_four")
    (told,) = (e for e in card.evaluations if e.metric not in (RETURN, POINTS))
    script = Path(__file__).parents[2] / "benchmarks" / "connect_four.py"
    command = [sys.executable, script, MODELS / "connect_four", "--pairs", 1, "--against", "random"]
    command += ["--positions", told.episodes, "--simulations", told.num_simulations]
    command += ["--seed", told.seed, "--json", tmp_path / "x.json"]
    subprocess.run([str(part) for part in command], check=True)
    exact = json.loads((tmp_path / "x.json").read_text())["exact"]
    assert exact["positions"] == told.episodes
    low, high = told.bounds()
    assert low <= exact["kept"] / exact["positions"] <= high


def test_what_does_not_hold_is_noticed() -> None:
    """A card that promises too much, or a model that became worse."""
    card = zoo.card("acrobot")
    (told,) = card.evaluations
    model = zoo.load("acrobot")
    found = measure_again(model, card, told, 4)
    assert found is not None
    assert agrees(told, found)
    boast = told.model_copy(update={"mean": -60.0, "std": 2.0, "interval": None})
    assert not agrees(boast, found)
    for parameter in model.policy.target_network.parameters():
        parameter.data.zero_()
    spoilt = measure_again(model, card, told, 4)
    assert spoilt is not None
    assert not agrees(told, spoilt)
