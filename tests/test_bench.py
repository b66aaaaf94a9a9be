"""`muzero-agent bench`: real runs from the command line, and the arithmetic behind its tables."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from stable_baselines3.common.evaluation import evaluate_policy
from typer.testing import CliRunner
from typer.testing import Result as Done

from muzero_agent.bench import agents, runner, worker
from muzero_agent.bench.plan import SUITES, Run, make_plan
from muzero_agent.bench.plots import COLOURS, draw
from muzero_agent.bench.results import interval, report, table, time_to, write_csv
from muzero_agent.bench.worker import Evaluation, Result, read_result
from muzero_agent.cli import app
from muzero_agent.machine import LIBRARIES, machine
from muzero_agent.turns import DEFAULTS

SMALL = ["--steps", "120", "--every", "50", "--episodes", "3", "--jobs", "2", "--no-progress"]
SMALL += ["--set", "num_simulations=2", "--set", "batch_size=8", "--set", "learning_starts=20"]
THREE = ["--algos", "MuZero,ppo,QRDQN", "--seeds", "4"]


shared = pytest.mark.xdist_group("bench")  # those that look at one benchmark


def bench(*arguments: str | Path) -> Done:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def inodes(out: Path) -> dict[str, int]:
    """Which files these are: one that is written anew is another."""
    return {path.name: path.stat().st_ino for path in out.glob("CartPole-v1/*.json")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench") / "three"
    done = bench(*SMALL, *THREE, "--out", directory)
    assert done.exit_code == 0, done.output
    assert "3 of 3 runs are in" in done.output
    return directory


# -- what a benchmark leaves -----------------------------------------------------------------------


@shared
def test_a_row_for_each_evaluation_and_each_run(out: Path) -> None:
    looks = rows(out / "evaluations.csv")
    columns = ["env", "algorithm", "seed", "steps", "seconds", "cpu_seconds", "mean_return"]
    facts = ["threads", "commit", "processor", "cores", "system", "python", *LIBRARIES]
    assert list(looks[0]) == [*columns, "episodes", *facts]
    finals = rows(out / "final.csv")
    assert [(row["algorithm"], row["seed"]) for row in finals] == [
        (name, "4") for name in ("MuZero", "PPO", "QRDQN")
    ]
    for final in finals:
        run = read_result(out / "CartPole-v1" / f"{final['algorithm']}-{final['seed']}.json")
        assert run is not None
        mine = [
            r for r in looks if (r["algorithm"], r["seed"]) == (final["algorithm"], final["seed"])
        ]
        # 8 environments of PPO's pass 50 at 56; in the end it has learned from whole rollouts
        expected = {"MuZero": [50, 100, 120], "PPO": [56, 104, 256], "QRDQN": [50, 100, 256]}
        assert [int(row["steps"]) for row in mine] == expected[final["algorithm"]]
        assert [float(row["mean_return"]) for row in mine] == [e.mean for e in run.evaluations]
        assert {row["episodes"] for row in mine} == {"3"}
        seconds = [float(row["seconds"]) for row in mine]
        assert 0 < seconds[0] < seconds[1] < seconds[2]
        assert 8 <= float(final["mean_return"]) <= 500
        assert final["threshold"] == "475.0"
        assert final["threads"] == "1"
        made_with = {fact: final[fact] for fact in facts}
        assert made_with == {"threads": "1", **machine()}
        assert all({fact: row[fact] for fact in facts} == made_with for row in mine)
        assert all(text for fact, text in made_with.items() if fact != "commit"), made_with


@shared
def test_the_report_has_a_table_and_a_picture(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    table_rows = [line for line in text.splitlines() if line.startswith(("| M", "| P", "| Q"))]
    assert [line.split(" | ")[0] for line in table_rows] == ["| MuZero", "| PPO", "| QRDQN"]
    ppo = read_result(out / "CartPole-v1" / "PPO-4.json")
    assert ppo is not None
    returns = ppo.final.returns  # of three episodes: each end of the interval may be the mean of it
    assert f"| {np.mean(returns):.1f} [{min(returns):.1f}, {max(returns):.1f}] |" in table_rows[1]
    assert "torch" in text
    assert "![CartPole-v1](CartPole-v1.png)" in text
    with Image.open(out / "CartPole-v1.png") as picture:
        seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    drawn = {tuple(bytes.fromhex(COLOURS[name][1:])) for name in ("MuZero", "PPO", "QRDQN")}
    assert drawn <= seen
    assert tuple(bytes.fromhex(COLOURS["A2C"][1:])) not in seen


# -- going on --------------------------------------------------------------------------------------


@shared
def test_what_is_finished_is_not_repeated(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    before = inodes(copy)
    assert len(before) == 3
    (copy / "final.csv").unlink()
    done = bench(*SMALL, *THREE, "--out", copy)
    assert done.exit_code == 0, done.output
    assert "repeated" not in done.output
    assert inodes(copy) == before
    assert rows(copy / "final.csv") == rows(out / "final.csv")


@shared
def test_what_has_changed_is_repeated(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    before = inodes(copy)
    (copy / "CartPole-v1" / "QRDQN-4.json").unlink()
    done = bench(*SMALL, "--set", "num_simulations=3", *THREE, "--out", copy)
    assert done.exit_code == 0, done.output
    assert "MuZero CartPole-v1 seed 4 is repeated: num_simulations changed" in done.output
    after = inodes(copy)
    assert {name for name in before if before[name] != after[name]} == {
        "MuZero-4.json",
        "QRDQN-4.json",
    }
    again, first = (read_result(where / "CartPole-v1" / "QRDQN-4.json") for where in (copy, out))
    assert again is not None
    assert first is not None
    assert [e.returns for e in again.evaluations] == [e.returns for e in first.evaluations]


@shared
def test_again_repeats(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    before = inodes(copy)
    done = bench(*SMALL, "--algos", "PPO", "--seeds", "4", "--out", copy, "--again")
    assert done.exit_code == 0, done.output
    after = inodes(copy)
    assert [name for name in before if before[name] != after[name]] == ["PPO-4.json"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_loses_the_run_in_progress_alone(
    how: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["--steps", "2000", "--seeds", "0", "--episodes", "2", "--no-progress"]
    command = [sys.executable, "-m", "muzero_agent.cli", "bench", *arguments, "--out", str(out)]
    results = out / "CartPole-v1"
    with subprocess.Popen(
        [*command, "--algos", "PPO,MuZero,DQN"], stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 90
        # The tables are written beside the beginning of the next run.
        wanted = (results / "MuZero-0.log", out / "final.csv")
        while not all(path.exists() for path in wanted) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        said = process.communicate(timeout=60)[0]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "1 of 3 runs are in" in said
        assert "the same command goes on" in said
    # One that was about to begin cannot be told from the command itself until it has begun.
    deadline, looks = time.monotonic() + 30, 0
    while looks < 10 and time.monotonic() < deadline:
        time.sleep(0.1)
        looks = 0 if _working(out) else looks + 1
    assert looks == 10, _working(out)
    assert [path.name for path in results.glob("*.json")] == ["PPO-0.json"]
    assert {row["algorithm"] for row in rows(out / "final.csv")} == {"PPO"}
    before = inodes(out)
    done = bench(*arguments, "--algos", "PPO", "--out", out)
    assert done.exit_code == 0, done.output
    assert inodes(out) == before


def _working(out: Path) -> list[str]:
    """Command lines of workers that write below a directory."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if "bench.worker" in line and str(out) in line]


def test_a_run_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    sections = {
        "PPO": {"CartPole-v1": {
                "n_timesteps": 16, "policy": "MlpPolicy", "n_steps": 16, "batch_size": 16
            }},
        "DQN": {
            "CartPole-v1": {
                "n_timesteps": 16, "policy": "MlpPolicy", "learning_starts": 0, "batch_size": -5
            }
        },
    }  # fmt: skip
    file = tmp_path / "mine.yml"
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")
    out = tmp_path / "out"
    done = bench(
        "--algos", "DQN,PPO", "--seeds", "3", "--episodes", "1", "--baselines", file, "--out", out,
    )  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "DQN CartPole-v1 seed 3 failed with code 1: ValueError" in done.output
    assert "1 of 2 runs failed" in done.output
    assert "Traceback" in (out / "CartPole-v1" / "DQN-3.log").read_text(encoding="utf-8")
    (final,) = rows(out / "final.csv")
    assert (final["algorithm"], final["steps"], final["episodes"]) == ("PPO", "16", "1")


# -- a single run ----------------------------------------------------------------------------------


def test_the_clock_stands_still_during_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any, **options: Any) -> tuple[list[float], list[int]]:
        time.sleep(0.5)
        return [1.0], [1]

    (run,) = make_plan(algos=["A2C"], seeds=[0], steps=160, every=40)
    monkeypatch.setattr(worker, "evaluate_policy", slow)
    started = time.perf_counter()
    result = worker.measure(run)
    assert [e.steps for e in result.evaluations] == [40, 80, 120, 160]
    assert time.perf_counter() - started > 2.0
    assert 0 < result.final.seconds < 1.5
    assert 0 < result.final.cpu_seconds < 1.5


def test_models_are_looked_at_with_their_own_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def look(model: Any, envs: Any, *arguments: Any, **options: Any) -> Any:
        assert not envs.training
        assert not envs.norm_reward
        counts.append((envs.obs_rms.count, model.get_vec_normalize_env().obs_rms.count))
        return evaluate_policy(model, envs, *arguments, **options)

    monkeypatch.setattr(worker, "evaluate_policy", look)
    (run,) = make_plan(envs=["MountainCar-v0"], algos=["a2c"], seeds=[0], steps=160, every=80)
    result = worker.measure(run)
    assert [own for own, _ in counts] == [model for _, model in counts]
    assert counts[0][0] < counts[1][0]
    assert set(result.final.returns) == {
        -200.0
    }  # rewards as they are: nobody is up in so few steps


def test_nobody_learns_and_is_looked_at_in_the_same_episodes() -> None:
    run = make_plan(algos=["PPO"], seeds=[0])[0]
    settings = agents.settings_from(run.settings | {"n_timesteps": 1}, "", "PPO")
    model = agents.build("PPO", run.env, settings, seed=0)
    envs = model.get_env()
    assert envs is not None
    firsts = [
        envs.reset(),
        *(agents.evaluation_envs(run.env, settings, s, 20).reset() for s in (0, 1)),
    ]
    observations = np.concatenate([np.asarray(first) for first in firsts])
    assert len(np.unique(observations, axis=0)) == len(observations) == 8 + 20 + 20


# -- settings --------------------------------------------------------------------------------------

SECTIONS = [
    (name, env)
    for name, sections in yaml.safe_load(agents.OWN_FILE.read_text(encoding="utf-8")).items()
    for env in sections
]


@pytest.mark.parametrize(("name", "env"), SECTIONS)
def test_settings_are_rl_zoos(name: str, env: str) -> None:
    zoo = pytest.importorskip("rl_zoo3")
    file = Path(zoo.__file__).parent / "hyperparams" / f"{name.lower()}.yml"
    theirs = yaml.safe_load(file.read_text(encoding="utf-8"))[env]
    ours, _ = agents.read_baseline(name, env)
    kwargs = ours.get("policy_kwargs")
    if kwargs is not None:  # Python there
        ours["policy_kwargs"] = f"dict({', '.join(f'{k}={v}' for k, v in kwargs.items())})"
    for section in (ours, theirs):
        rate = section.get("learning_rate")
        if isinstance(rate, str):
            section["learning_rate"] = ("lin", float(rate.removeprefix("lin_")))
    assert ours == theirs


@pytest.mark.parametrize(("name", "env"), SECTIONS)
def test_all_settings_can_be_built(name: str, env: str) -> None:
    settings = agents.settings_from(*agents.read_baseline(name, env), name)
    model = agents.build(name, "CartPole-v1", settings, seed=0)  # wherever it was tuned
    assert type(model).__name__ == name
    assert model.n_envs == settings.params.n_envs
    normalize = model.get_vec_normalize_env()
    assert (normalize is not None) == (
        env in ("Acrobot-v1", "MountainCar-v0") and name in ("PPO", "A2C")
    )
    if normalize is not None:
        assert normalize.gamma == model.gamma  # type: ignore[attr-defined]


def test_suites_cover_what_they_promise() -> None:
    quick = make_plan("quick")
    assert [(r.algorithm, r.seed, r.steps) for r in quick if r.seed == 0] == [
        ("MuZero", 0, 10_000), ("PPO", 0, 50_000), ("DQN", 0, 50_000), ("A2C", 0, 50_000)
    ]  # fmt: skip
    assert {run.every for run in quick} == {1_000}
    classic = make_plan("classic")
    assert len(classic) == len(set(map(str, classic))) == 4 * 5 * 5
    assert {r.steps for r in classic if r.env == "LunarLander-v3"} == {
        150_000,
        1_000_000,
        100_000,
        200_000,
    }
    assert SUITES.keys() == {"quick", "classic"}


def test_every_default_belongs_to_a_run() -> None:
    (run,) = make_plan(algos=["MuZero"], seeds=[0], changes={"num_simulations": 3})
    assert run.settings["num_simulations"] == 3
    assert "num_simulations" not in run.defaults
    assert {"activation_fn", "reanalyse_ratio"} <= run.defaults.keys()  # of the policy, of MuZero
    assert run.defaults["batch_size"].isdecimal()
    assert run.defaults["support_mean"] == "scalars"  # as MuZero has it, not its policy by itself
    assert DEFAULTS[1].keys() <= run.defaults.keys()  # None in the signature
    assert (run.defaults["gamma"], run.defaults["reconstruction_coef"]) == ("0.997", "0.0")
    changes = {"policy_kwargs": {"support_mean": "transformed"}, "gamma": 0.9}
    (run,) = make_plan(algos=["MuZero"], seeds=[0], changes=changes)
    assert run.defaults.get("support_mean") != "scalars"
    assert "gamma" not in run.defaults


# -- statistics ------------------------------------------------------------------------------------


def result(seed: int, *looks: tuple[int, float, Sequence[float]], name: str = "PPO") -> Result:
    run = Run(
        env="CartPole-v1", algorithm=name, seed=seed, steps=looks[-1][0], every=1, episodes=2,
        threads=1, settings={}, defaults={},
    )  # fmt: skip
    evaluations = [
        Evaluation(steps=steps, seconds=seconds, cpu_seconds=seconds / 2, returns=list(returns))
        for steps, seconds, returns in looks
    ]
    facts = {"commit": "abc", "processor": "Abacus", "cores": "2", "system": "Wood", "python": "3"}
    return Result(run=run, evaluations=evaluations, machine=facts)


SLOW = result(0, (1000, 20.0, [100, 200]), (2000, 40.0, [500, 450]), (3000, 60.0, [400, 400]))
FAST = result(1, (1000, 10.0, [500, 500]), (2000, 30.0, [10, 10]), (3000, 50.0, [500, 300]))
NONE = result(2, (1000, 15.0, [9, 9]), (2000, 32.0, [9, 9]), (3000, 55.0, [100, 0]))


def test_time_to_a_threshold_is_that_of_the_first_evaluation_there() -> None:
    assert time_to(SLOW, 475.0) == (2000, 40.0)  # exactly 475
    assert time_to(FAST, 475.0) == (1000, 10.0)  # although it fell back
    assert time_to(NONE, 475.0) == (float("inf"), float("inf"))
    assert time_to(FAST, None) == (float("inf"), float("inf"))


def test_curves_are_drawn_against_steps_and_against_seconds() -> None:
    """A line for each seed and one for their median, in either picture."""
    against_steps, against_seconds = draw("CartPole-v1", [SLOW, FAST, NONE]).axes
    assert against_steps.get_xlabel() == "environment steps"
    assert against_seconds.get_xlabel() == "seconds of learning"
    assert "return" in against_steps.get_ylabel()
    returns = [[150, 475, 400], [500, 10, 400], [9, 9, 50], [150, 10, 400]]
    seconds = [[20, 40, 60], [10, 30, 50], [15, 32, 55], [15, 32, 55]]
    for axes, clocks in ((against_steps, 4 * [[1000, 2000, 3000]]), (against_seconds, seconds)):
        *curves, solved = (np.asarray(line.get_xydata()) for line in axes.get_lines())
        for curve, clock, height in zip(curves, clocks, returns, strict=True):
            assert curve.T.tolist() == [clock, height]
        assert solved[:, 1].tolist() == [475, 475]


def test_a_table_by_hand() -> None:
    head, _, row = table([SLOW, FAST, NONE])
    assert head.split(" | ")[2:5] == ["reached 475", "steps to 475", "seconds to 475"]
    # finals: 400, 400, 50, whose mean is 283.3; 3 draws are all of the least with probability 1/27,
    # and more than 2.5% is there; all of the greatest with 8/27
    assert row == "| PPO | 3 | 2 of 3 | 2,000 | 40 | 283.3 [50.0, 400.0] | 3,000 | 55 | 28 |"
    assert "| 1 of 2 | - | - | 225.0 [50.0, 400.0] |" in table([FAST, NONE])[2]
    assert "| 0 of 1 | - | - | 50.0 [0.0, 100.0] |" in table([NONE])[2]


def test_interval_of_many_seeds_is_the_binomials() -> None:
    seeds = [result(seed, (10, 1.0, [seed % 2])) for seed in range(10)]
    # of 10 draws from 5 zeros and 5 ones at most 1 is a one in 1.1%, at most 2 in 5.5% of cases
    assert interval(seeds) == (0.2, 0.8)
    assert interval(seeds[:1]) is None
    assert interval([SLOW, result(1, (10, 1.0, [400]))]) == (400.0, 400.0)


def test_algorithms_and_machines_stand_apart() -> None:
    text = report([SLOW, result(0, (10, 1.0, [500]), name="MuZero")], "muzero-agent bench")
    assert "| PPO | 1 |" in text
    assert "| MuZero | 1 | 1 of 1 | 10 | 1.0 | 500.0 | 10 | 1.0 | 0.5 |" in text
    assert text.count("Abacus, 2 cores, Wood, 1 torch thread; python 3; commit abc") == 1
    assert "`muzero-agent bench`" in text


def test_machines_need_not_tell_the_same(tmp_path: Path) -> None:
    """A library that was not looked at before, or a commit that is not known, spoils nothing."""
    more = SLOW.model_copy(update={"machine": SLOW.machine | {"ale-py": "1"}})
    less = SLOW.model_copy(update={"machine": {"python": "3"}})
    write_csv([SLOW, more, less], tmp_path)
    with (tmp_path / "final.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["ale-py"] for row in rows] == ["", "1", ""]
    assert "?, ? cores, ?, 1 torch thread; python 3" in report([less])


@pytest.mark.parametrize(("threads", "jobs"), [(1, 6), (4, 1), (8, 1)])
def test_as_many_runs_at_a_time_as_there_are_cores(
    threads: int, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def tell(runs: Sequence[Run], out: Path, *, jobs: int, **others: object) -> list[Run]:
        told.append(jobs)
        return []

    monkeypatch.setattr(runner, "bench", tell)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert bench("--threads", str(threads), "--out", tmp_path).exit_code == 0
    assert told == [jobs]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--suite", "quack"], "--suite quack: it is none of quick, classic"),
        (["--algos", "PPO,Magic"], "--algos Magic: it is none of MuZero, PPO"),
        (["--envs", "CartPoole-v1"], "CartPoole"),
        (["--envs", "FrozenLake-v1"], "no settings of PPO for FrozenLake-v1: leave PPO out"),
        (["--envs", "Pendulum-v1", "--algos", "MuZero"], "action space"),
        (["--seeds", "one"], "--seeds one: give whole numbers"),
        (["--seeds", "-1"], "--seeds -1: give numbers from 0"),
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--every", "0"], "--every 0"),
        (["--jobs", "0"], "--jobs 0"),
        (["--threads", "0"], "--threads 0"),
        (["--episodes", "5000"], "at most 1000"),
        (["--set", "simulations=3"], "did you mean num_simulations"),
        (["--set", "gamma=2"], "gamma=2"),
        (["--set", "seed=2"], "--seed"),
        (["--hyperparams", "nowhere.yml"], "nowhere.yml"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bench(*arguments, "--out", out)
    assert done.exit_code == 2, done.output
    assert complaint in done.output
    assert "Traceback" not in done.output
    assert not out.exists()


def test_a_file_is_no_directory_of_results() -> None:
    done = bench("--out", Path(__file__))
    assert done.exit_code == 2
    assert "--out" in done.output
    assert "is a file" in done.output


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ({"normalize": "dict(norm_obs=True)"}, "normalize: write true, false or a mapping"),
        ({"normalize": {"norm_everything": True}}, "normalize: write true, false or a mapping"),
        ({"policy_kwargs": "dict(net_arch=[8])"}, "text is not evaluated"),
        ({"clip_range": "lin_wide"}, "'lin_wide' is neither a number nor lin_<number>"),
        ({"env_wrapper": "os.system"}, "env_wrapper: 'os.system' is not "),
        ({"seed": 3}, "seeds are given by --seeds"),
        ({"n_step": 8}, "did you mean n_steps"),
        ({"policy": "TablePolicy"}, "'TablePolicy' is none of"),
        ({"n_timesteps": "many"}, "not a positive whole number"),
    ],
)
def test_wrong_settings_are_named(lines: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    section = {"n_timesteps": 10, "policy": "MlpPolicy"} | lines
    file.write_text(yaml.safe_dump({"PPO": {"CartPole-v1": section}}), encoding="utf-8")
    with pytest.raises(ValueError, match=complaint) as caught:
        make_plan(algos=["PPO"], baselines_file=file)
    assert f"{file}, PPO, CartPole-v1" in str(caught.value)


@pytest.mark.parametrize("text", ["- PPO", "PPO: 3", "PPO: {CartPole-v1: 3}", "PPO: [", "{}"])
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=str(file)):
        make_plan(algos=["PPO"], baselines_file=file)


def test_a_foreign_result_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "CartPole-v1" / "PPO-0.json"
    file.parent.mkdir()
    file.write_text('{"mine": 1}', encoding="utf-8")
    done = bench("--algos", "PPO", "--steps", "10", "--out", tmp_path)
    assert done.exit_code == 2, done.output
    assert f"{file} is no result of this release's bench" in done.output
    assert file.read_text(encoding="utf-8") == '{"mine": 1}'


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("scipy", [], "baselines"),
        ("matplotlib", [], "baselines"),
        ("sb3_contrib", ["--algos", "QRDQN"], "baselines"),
        ("Box2D", ["--envs", "LunarLander-v3", "--algos", "PPO"], "box2d"),
    ],
)
def test_a_missing_extra_is_named(
    library: str, arguments: list[str], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    done = bench(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert f"pip install 'muzero-agent[{extra}]'" in done.output


def test_atari_games_can_be_compared() -> None:
    (run,) = make_plan(envs=["ALE/Pong-v5"], algos=["MuZero"], seeds=[0], steps=100)
    assert run.settings["frame_stack"] == 4


def test_an_interruption_is_noted_where_an_exception_would_get_lost() -> None:
    """In a destructor, Python prints what is raised and goes on."""
    script = """
import signal
from muzero_agent.bench.runner import noted_interrupts

class Interrupting:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

with noted_interrupts() as interrupted:
    Interrupting()
    assert interrupted.is_set()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
