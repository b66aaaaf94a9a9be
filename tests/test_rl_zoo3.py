"""rl_zoo3 trains MuZero and shows what it learned: the real scripts, in processes of their own."""

from __future__ import annotations

import csv
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muzero_agent import MuZero

TRAIN = ["train", "--algo", "muzero", "--env", "CartPole-v1"]
SHORT = [*TRAIN, "-n", "300", "--eval-freq", "150", "--eval-episodes", "2", "--num-threads", "1"]


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muzero_agent.rl_zoo3", *arguments],
        cwd=where,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_train_and_enjoy(tmp_path: Path) -> None:
    done = run(tmp_path, *SHORT, "--seed", "1")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "logs" / "muzero" / "CartPole-v1_1"
    assert (directory / "CartPole-v1.zip").exists()
    assert (directory / "evaluations.npz").exists()
    config = (directory / "CartPole-v1" / "config.yml").read_text()
    assert "MlpPolicy" in config  # from this package's settings
    done = run(
        tmp_path,
        *["enjoy", "--algo", "muzero", "--env", "CartPole-v1", "-n", "40", "--no-render"],
        *["-f", "logs", "--num-threads", "1"],
    )
    assert done.returncode == 0, done.stderr
    assert "Episode Reward" in done.stdout


def test_other_settings_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text(
        "CartPole-v1:\n  n_timesteps: 60\n  n_envs: 2\n  policy: MlpPolicy\n"
        "  learning_starts: 20\n  num_simulations: 3\n"
        '  policy_kwargs: "dict(net_arch=[16])"\n'
    )
    arguments = [*TRAIN, "-conf", "own.yml", "--hyperparams", "batch_size:16"]
    done = run(tmp_path, *arguments, "--eval-freq", "-1", "--num-threads", "1")
    assert done.returncode == 0, done.stderr
    config = (tmp_path / "logs/muzero/CartPole-v1_1/CartPole-v1/config.yml").read_text()
    assert "num_simulations" in config
    assert "batch_size" in config


def test_atari_games_have_their_section(tmp_path: Path) -> None:
    small = ["batch_size:4", "num_simulations:2", "learning_starts:16", "n_envs:2"]
    small += ["policy_kwargs:dict(net_arch=dict(channels=8))", "buffer_size:100"]
    done = run(
        tmp_path,
        *["train", "--algo", "muzero", "--env", "PongNoFrameskip-v4", "-n", "32"],
        *["--eval-freq", "-1", "--num-threads", "1", "--hyperparams", *small],
    )
    assert done.returncode == 0, done.stderr
    assert "skipped twice" not in done.stderr
    (saved,) = tmp_path.rglob("PongNoFrameskip-v4/config.yml")
    config = " ".join(saved.read_text().split())
    for line in (
        "AtariWrapper",
        "ShowActions",
        "frame_stack - 4",
        "gamma - 0.988054",
        "policy - CnnPolicy",
    ):
        assert line in config


def test_tuning_and_training_with_what_was_found(tmp_path: Path) -> None:
    study = ["--storage", "study.log", "--study-name", "mine", "--num-threads", "1"]
    done = run(
        tmp_path,
        *[*TRAIN, "-n", "232", "-optimize", "--n-trials", "2", "--n-evaluations", "1"],
        *["--eval-episodes", "1", "--seed", "1", *study],
    )
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.rglob("report_CartPole-v1_2-trials*.csv")
    with report.open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * 2
    tried = {name.removeprefix("params_") for name in trials[0] if name.startswith("params_")}
    assert {"learning_rate", "num_simulations", "batch_size"} < tried
    assert tried < inspect.signature(MuZero).parameters.keys()
    done = run(tmp_path, *TRAIN, "-n", "32", "--eval-freq", "-1", "--trial-id", "1", *study)
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.rglob("CartPole-v1/config.yml")
    lines = " ".join(saved.read_text().split())
    assert all(f"- {name} - {trials[1][f'params_{name}']}" in lines for name in tried)


@pytest.mark.parametrize("arguments", [[], ["play"], ["--algo", "muzero"]])
def test_what_there_is_to_run_is_said(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode != 0
    assert "is none of train, enjoy" in done.stderr
    assert "Traceback" not in done.stderr
