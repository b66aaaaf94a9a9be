"""The command line: train, resume, evaluate; what is wrong is said without a traceback."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from typer.testing import CliRunner, Result

from muzero_agent import MuZero, zoo
from muzero_agent.cli import app

SMALL = ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]
SMALL += ["--set", "policy_kwargs={net_arch: [16]}", "--no-progress"]
EVERY_32 = ["--checkpoint-every", "32"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cartpole"
    done = run("train", "CartPole-v1", "--steps", "120", "--out", out, "--n-envs", "2", *SMALL)
    assert done.exit_code == 0, done.output
    return out


def test_training_leaves_a_model_and_logs(trained: Path) -> None:
    assert sorted(path.name for path in (trained / "model").iterdir()) == [
        "README.md",
        "card.json",
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    card = zoo.card(trained / "model")
    assert (card.env, card.seed, card.evaluations) == ("CartPole-v1", 0, [])
    assert card.training_steps >= 120
    assert 0 <= card.training_seconds < 120  # whole ones
    assert card.command == json.loads((trained / "run.json").read_text())["command"]
    assert card.hardware
    assert card.versions["torch"]
    config = json.loads((trained / "model" / "config.json").read_text())
    assert config["arguments"]["num_simulations"] == 2
    assert config["num_timesteps"] >= 120
    assert "train/loss" in (trained / "logs" / "000000000000" / "progress.csv").read_text()
    assert json.loads((trained / "run.json").read_text())["n_envs"] == 2


def test_logs_for_tensorboard_and_checkpoints_without_the_replay(tmp_path: Path) -> None:
    options = ["--tensorboard", "--no-checkpoint-replay", "--steps", "160", *SMALL]
    done = run("train", "CartPole-v1", "--out", tmp_path / "run", *options)
    assert done.exit_code == 0, done.output
    logged = EventAccumulator(str(tmp_path / "run" / "logs" / "000000000000"))
    logged.Reload()
    assert logged.Tags()["scalars"].count("train/loss") == 1
    assert [event.step for event in logged.Scalars("train/loss")][-1] <= 160
    checkpoint = max((tmp_path / "run" / "checkpoints").iterdir())
    assert {path.name for path in checkpoint.iterdir()} == {"model.zip", "state.json"}
    further = ["--resume", "--no-checkpoint-replay", "--steps", "200", "--no-progress"]
    done = run("train", "CartPole-v1", "--out", tmp_path / "run", *further)
    assert done.exit_code == 0, done.output
    assert zoo.load(tmp_path / "run" / "model").num_timesteps >= 200


def test_evaluation_of_a_directory(trained: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = run("eval", trained / "model", "--episodes", "3", "--simulations", "5", "--json", result)
    assert done.exit_code == 0, done.output
    assert "over 3 episodes" in done.output
    found = json.loads(result.read_text())
    assert found["env"] == "CartPole-v1"
    assert found["num_simulations"] == 5
    assert len(found["returns"]) == 3
    assert found["mean"] == pytest.approx(sum(found["returns"]) / 3)
    again = run("eval", trained / "model", "--episodes", "3", "--simulations", "5")
    assert again.output == done.output


def test_a_pickle_needs_trust(trained: Path) -> None:
    checkpoint = next((trained / "checkpoints").iterdir())
    zipped = str(checkpoint / "model.zip")
    arguments = ["eval", zipped, "--env", "CartPole-v1", "--episodes", "1"]
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--trust" in refused.output
    assert run(*arguments, "--trust").exit_code == 0


def test_where_results_cannot_be_written_nothing_is_played(trained: Path, tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "none" / "result.json"):
        done = run("eval", trained / "model", "--episodes", "3", "--json", where)
        assert done.exit_code == 2
        assert "cannot be written: give a file in another directory" in " ".join(
            done.output.split()
        )


def test_resuming_goes_on(trained: Path) -> None:
    done = run("train", "CartPole-v1", "--out", trained, "--resume", "--steps", "160", *SMALL[-1:])
    assert done.exit_code == 0, done.output
    assert json.loads((trained / "model" / "config.json").read_text())["num_timesteps"] >= 160
    assert len(list((trained / "logs").iterdir())) == 2
    assert json.loads((trained / "run.json").read_text())["steps"] == 160


def test_a_run_may_start_from_a_model(trained: Path, tmp_path: Path) -> None:
    short: list[str | Path] = ["--steps", "10", *SMALL]  # without an update
    out = tmp_path / "further"
    done = run("train", "CartPole-v1", "--start-from", trained / "model", "--out", out, *short)
    assert done.exit_code == 0, done.output
    weights = (out / "model" / "model.safetensors").read_bytes()
    assert weights == (trained / "model" / "model.safetensors").read_bytes()
    assert json.loads((out / "run.json").read_text())["start_from"] == str(trained / "model")
    own = tmp_path / "own"  # a name of the package's
    done = run("train", "CartPole-v1", "--start-from", "cartpole", "--steps", "10", "--out", own)
    assert done.exit_code == 0, done.output
    assert json.loads((own / "run.json").read_text())["start_from"].endswith("cartpole")
    wider: list[str | Path] = [
        "--set",
        "policy_kwargs={net_arch: [24]}",
        "--out",
        tmp_path / "wider",
    ]
    refused = run("train", "CartPole-v1", "--start-from", trained / "model", *short, *wider)
    assert refused.exit_code == 2
    assert "other shapes" in refused.output


def test_a_run_reads_predictions_as_the_model_that_it_starts_from(tmp_path: Path) -> None:
    """The model in the package was saved before predictions were means of scalars."""
    short: list[str | Path] = [
        "--start-from",
        Path(__file__).parents[1] / "zoo" / "models" / "cartpole",
        "--steps",
        "10",
    ]
    out = tmp_path / "further"
    done = run("train", "CartPole-v1", "--out", out, *short)
    assert done.exit_code == 0, done.output
    made = json.loads((out / "model" / "config.json").read_text())["policy_kwargs"]
    assert made["support_mean"] == "transformed"
    other = ["--set", "policy_kwargs={support_mean: scalars}", "--out", str(tmp_path / "other")]
    refused = run("train", "CartPole-v1", *short, *other)
    assert refused.exit_code == 2
    assert "support_mean='transformed'" in refused.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "CartPole-v1", "--out", "{run}"], "--resume"),
        (["train", "Acrobot-v1", "--out", "{run}", "--resume"], "is a run of CartPole-v1"),
        (["train", "CartPole-v1", "--out", "{new}", "--resume"], "no run to go on with"),
        (["train", "CartPole-v1", "--out", "{run}", "--resume", "--steps", "9"], "steps already"),
        (["train", "CartPole-v1", "--out", "{run}", "--resume", "--set", "gamma=1"], "--set"),
        (["train", "CartPoole-v1", "--out", "{new}"], "CartPoole"),
        (["train", "Pendulum-v1", "--out", "{new}"], "action space"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "simulations=3"], "num_simulations"),
        (["train", "CartPole-v1", "--out", "{run}", "--resume", "--seed", "3"], "--seed"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "seed=3"], "--seed 3"),
        (["train", "CartPole-v1", "--out", "{new}", "--device", "abacus"], "abacus"),
        (["train", "CartPole-v1", "--out", "{new}", "--device", "abacus"], "give cpu, cuda or"),
        (["train", "CartPole-v1", "--out", "{new}", "--seed", "-1"], "--seed"),
        (["train", "CartPole-v1", "--out", "{new}", "--hyperparams", "no.yml"], "not exist"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "tensorboard_log=x"], "--tensorboard"),
        (["eval", "{run}/model", "--by-rules"], "--by-rules is of games"),
        (["eval", "{run}/model", "--against", "random"], "--against is of games"),
        (["eval", "{run}/model", "--json", "{new}/x.json"], "--json"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "gamma"], "KEY=VALUE"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "gamma=[1"], "YAML"),
        (["train", "CartPole-v1", "--out", "{new}", "--set", "gamma=2"], "gamma=2"),
        (["train", "CartPole-v1", "--out", "{new}", "--steps", "0"], "--steps 0: give"),
        (["train", "CartPole-v1", "--out", "{new}", "--checkpoint-every", "0"], "at least 1"),
        (["train", "CartPole-v1", "--out", "{run}/run.json/x"], "run.json"),
        (["eval", "{new}"], "does not exist"),
        (["eval", "{run}/model", "--env", "Acrobot-v1"], "was trained on"),
        (["eval", "{run}/model", "--episodes", "0"], "at least 1"),
        (["eval", "{run}/model", "--threads", "0"], "--threads"),
        (["train", "CartPole-v1", "--out", "{new}", "--threads", "0"], "--threads"),
        (["train", "CartPole-v1", "--out", "{run}/run.json"], "--out"),
        (["eval", "{run}"], "config.json"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], complaint: str, trained: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    done = run(*(argument.format(run=trained, new=new) for argument in arguments))
    assert done.exit_code == 2, done.output
    assert complaint in done.output
    assert "Traceback" not in done.output
    assert not new.exists()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("env_kwargs={foo: 1}", "CartPole-v1 cannot be made with env_kwargs={'foo': 1}"),
        ("policy_kwargs={foo: 1}", "foo is not an argument of MlpPolicy"),
        ("policy_kwargs={activation_fn: tanh}", "'Tanh'"),
        ("policy_kwargs={support_bound: abc}", "--set 'policy_kwargs={support_bound: abc}': no"),
        ("policy_kwargs={optimizer_kwargs: {foo: 1}}", "unexpected keyword argument 'foo'"),
        ("policy_kwargs={features_extractor_class: NatureCNN}", "NatureCNN only with images"),
    ],
)
def test_what_is_wrong_in_a_setting_is_said(setting: str, complaint: str, tmp_path: Path) -> None:
    done = run("train", "CartPole-v1", "--out", tmp_path / "new", *SMALL[:-3], "--set", setting)
    assert done.exit_code == 2, done.output
    assert complaint in done.output
    assert not (tmp_path / "new").exists()


def test_a_setting_names_a_class_as_config_json_does(tmp_path: Path) -> None:
    setting = ["--set", "policy_kwargs={net_arch: [16], activation_fn: Tanh}"]
    done = run("train", "CartPole-v1", "--out", tmp_path, "--steps", "24", *SMALL, *setting)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["policy_kwargs"]["activation_fn"] == "Tanh"


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "CartPole-v1", "--steps", "100000", "--out", str(out), *SMALL]
    with subprocess.Popen(
        [sys.executable, "-m", "muzero_agent", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("logs/*/progress.csv")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    (checkpoint,) = (out / "checkpoints").iterdir()
    steps = int(checkpoint.name)
    assert f"Interrupted at {steps:,} steps" in said
    resumed = run("train", "CartPole-v1", "--out", out, "--resume", "--steps", str(steps + 16))
    assert resumed.exit_code == 0, resumed.output
    assert f"steps {steps:,} to {steps + 16:,}" in resumed.output


def test_a_run_without_a_checkpoint_begins_anew_and_keeps_its_log(
    trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(trained / "run.json", out)
    shutil.copytree(trained / "logs", out / "logs")
    done = run("train", "CartPole-v1", "--out", out, "--resume", "--steps", "40", SMALL[-1])
    assert done.exit_code == 0, done.output
    assert "begins anew" in done.output
    assert {"000000000000", "000000000000-2"} <= {path.name for path in (out / "logs").iterdir()}


def test_a_model_is_kept_whose_checkpoint_does_not_fit(
    tmp_path: Path, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    out = tmp_path / "run"
    with files_of_at_most(100_000), pytest.warns(UserWarning, match="no checkpoint at step 32"):
        done = run("train", "CartPole-v1", "--steps", "40", "--out", out, *EVERY_32, *SMALL)
    assert done.exit_code == 2, done.output
    assert "step 40 could not be written" in done.output
    assert "too large" in done.output
    assert not list((out / "checkpoints").iterdir())
    done = run("eval", out / "model", "--episodes", "1")
    assert done.exit_code == 0, done.output


class Breaking(CartPoleEnv):
    """Its disk is full from the 30th step on."""

    steps = 0

    def step(self, action: Any) -> Any:
        Breaking.steps += 1
        if Breaking.steps == 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().step(action)  # type: ignore[no-untyped-call]


def test_learning_that_cannot_go_on_is_kept_and_can_be_resumed(tmp_path: Path) -> None:
    Breaking.steps = 0
    gym.register("Breaking-v0", lambda **kwargs: Breaking(**kwargs))
    out = tmp_path / "run"
    try:
        done = run("train", "Breaking-v0", "--steps", "60", "--out", out, *SMALL)
        assert done.exit_code == 2, done.output
        said = " ".join(done.output.split())
        assert "learning stopped at step 29: [Errno 28] No space left on device" in said
        assert "--resume goes on from there" in said
        assert (out / "checkpoints" / "000000000029").exists()
        done = run("train", "Breaking-v0", "--out", out, "--resume", SMALL[-1])
        assert done.exit_code == 0, done.output
        assert zoo.load(out / "model").num_timesteps >= 60
    finally:
        del gym.registry["Breaking-v0"]


def test_a_disk_that_is_full_from_the_start_is_told_with_what_to_do(
    tmp_path: Path, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Nothing but run.json fits, the log neither."""
    out = tmp_path / "run"
    with files_of_at_most(2000), pytest.warns(UserWarning, match="no checkpoint at step"):
        done = run("train", "CartPole-v1", "--steps", "1500", "--out", out, *SMALL)
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "could not be written: " in said
    assert "Nor could the model: " in said
    assert "and --resume; older checkpoints are kept" in said


def test_checkpoints_that_cannot_be_written_are_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file, no directory")
    done = run("train", "CartPole-v1", "--steps", "40", "--out", tmp_path / "run", *SMALL)
    assert done.exit_code == 2
    assert "checkpoints" in done.output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("older", [False, True], ids=["none", "an older one"])
def test_a_run_that_was_killed_before_it_wrote_its_model_gets_one(
    trained: Path, tmp_path: Path, older: bool
) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(out / "model")
    (newest,) = sorted((out / "checkpoints").iterdir())[-1:]
    if older:
        zoo.save(MuZero.load(newest / "model.zip", num_timesteps=7), out / "model")
    done = run("train", "CartPole-v1", "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert "Done" in done.output
    assert zoo.load(out / "model").num_timesteps == int(newest.name)
    assert zoo.card(out / "model").training_steps == int(newest.name)
    again = run("train", "CartPole-v1", "--out", out, "--resume")
    assert again.exit_code == 2
    assert "steps already" in again.output


@pytest.mark.parametrize("resume", [False, True])
def test_what_stands_in_the_models_place_is_told_before_learning(
    trained: Path, tmp_path: Path, resume: bool
) -> None:
    out = tmp_path / "run"
    arguments: list[str | Path] = ["train", "CartPole-v1", "--out", out, "--steps", "100000"]
    if resume:
        shutil.copytree(trained, out, ignore=shutil.ignore_patterns("model"))
    (out / "model").parent.mkdir(exist_ok=True)
    (out / "model").write_text("a file, no directory")
    before = sorted(out.rglob("*"))
    done = run(*arguments, *(["--resume"] if resume else SMALL))
    assert done.exit_code == 2
    assert f"{out / 'model'} is not a model directory" in done.output
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("where", ["card", "run"])
def test_no_module_is_imported_because_a_model_names_it(
    trained: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gymnasium imports what stands in front of the colon of an environment's id."""
    (tmp_path / "sprung_by_name.py").write_text("raise RuntimeError('this was run')")
    monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "model"
    env = "sprung_by_name:CartPole-v1"
    card: dict[str, Any] = {
        "name": "x",
        "env": env,
        "training_steps": 0,
        "training_seconds": 0.0,
        "seed": None,
    }
    card |= {"command": "", "versions": {}, "evaluations": []}
    config = json.loads((trained / "run.json").read_text()) | {"env": env}
    if where == "card":
        zoo.export(trained / "model", model, card=zoo.Card(**card))
    else:
        zoo.save(zoo.load(trained / "model"), model)  # without a card
        (tmp_path / "run.json").write_text(json.dumps(config))
    done = run("eval", model, "--episodes", "1")
    assert done.exit_code == 2
    assert "this was run" not in done.output
    assert f"--env {env!r}" in done.output
    trusted = run("eval", model, "--episodes", "1", "--env", env)
    assert "this was run" in trusted.output


def test_help_waits_for_no_library() -> None:
    code = (
        "import sys\nfrom muzero_agent import cli\n"
        "assert not {'torch', 'numba', 'stable_baselines3', 'gymnasium'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    "says",
    [[], "no", {}, {"frame_stack": 0}, {"frame_stack": True}, {"atari": "yes"}, {"more": 1}],
    ids=str,
)
def test_a_strange_run_json_is_named(trained: Path, tmp_path: Path, says: Any) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    config = tmp_path / "run.json"
    if isinstance(says, dict) and says:
        says = json.loads((trained / "run.json").read_text()) | says
    config.write_text(json.dumps(says))
    for arguments in (
        ("eval", tmp_path / "model"),
        ("train", "CartPole-v1", "--resume", "--out", tmp_path),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert f"{config} is not what `muzero-agent train` writes" in done.output
