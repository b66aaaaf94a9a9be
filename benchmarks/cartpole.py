"""CartPole-v1, seed by seed: MuZero's defaults beside PPO and DQN of Stable-Baselines3.

    python benchmarks/cartpole.py                          # all: 5 seeds, 3 algorithms
    python benchmarks/cartpole.py --seeds 7 --algos MuZero --json runs/try.json

MuZero is `MuZero("MlpPolicy", "CartPole-v1", seed=s).learn(10_000)`; PPO and DQN have the settings
that rl_zoo3 2.9.2 tuned for CartPole-v1 (its hyperparams/ppo.yml and dqn.yml, whose n_timesteps are
100,000 and 50,000; both get 50,000 here, over which PPO's schedules fall).

Every 500 steps the mean of 20 greedy episodes is taken in environments of their own, with the clock
stopped; in the end 20 more are played by the model that `learn` returned. Each run is written to
the JSON file as soon as it is over, and is not repeated unless its settings have changed or --again
is given. Prints a table in Markdown and draws the curves beside the JSON file.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent import MuZero
from muzero_agent.policies import MlpPolicy

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
ENV = "CartPole-v1"
SOLVED = 475.0  # Gymnasium's reward_threshold of CartPole-v1
EPISODES = 20

PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": LinearSchedule(0.001, 0.0, 1.0),  # lin_0.001
    "clip_range": LinearSchedule(0.2, 0.0, 1.0),  # lin_0.2
}
PPO_ENVS = 8
DQN_SETTINGS: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
WITHOUT_EFFECT = {"stats_window_size", "verbose", "device", "_init_setup_model"}
STEPS = {"MuZero": 10_000, "PPO": 50_000, "DQN": 50_000}
COLOURS = {"MuZero": "#0072b2", "PPO": "#d55e00", "DQN": "#7f7f7f"}


def build(algorithm: str, seed: int) -> BaseAlgorithm:
    """A model as it is before learning."""
    if algorithm == "MuZero":
        return MuZero("MlpPolicy", ENV, seed=seed)
    if algorithm == "PPO":
        envs = make_vec_env(ENV, PPO_ENVS, seed=seed)
        return PPO("MlpPolicy", envs, seed=seed, device="cpu", **PPO_SETTINGS)
    return DQN("MlpPolicy", ENV, seed=seed, device="cpu", **DQN_SETTINGS)


def settings(algorithm: str) -> dict[str, str]:
    """What, if it changes, makes an earlier run worthless."""
    given = {"PPO": {**PPO_SETTINGS, "n_envs": PPO_ENVS}, "DQN": DQN_SETTINGS}.get(algorithm)
    if given is None:
        given = {
            name: parameter.default
            for callable_ in (MlpPolicy, MuZero)
            for name, parameter in inspect.signature(callable_).parameters.items()
            if parameter.default not in (parameter.empty, None) and name not in WITHOUT_EFFECT
        }
    return {name: str(value) for name, value in given.items()}


@dataclass
class Run:
    """What one seed of one algorithm did."""

    algorithm: str
    seed: int
    steps: int
    every: int
    settings: dict[str, str]
    machine: str
    commit: str
    curve: list[tuple[int, float, float]]  # steps, seconds of learning, mean of EPISODES episodes
    final_mean: float  # of the model that `learn` returned
    seconds: float  # of `learn`, without evaluation
    cpu_seconds: float  # likewise; much less than `seconds` if other programs were in the way

    @property
    def solved(self) -> tuple[float, float]:
        """Steps and seconds at which the mean is first >= SOLVED; infinite if it never is."""
        for steps, seconds, mean in self.curve:
            if mean >= SOLVED:
                return steps, seconds
        return float("inf"), float("inf")


class Curve(BaseCallback):
    """Evaluates every so many steps, with the clock stopped."""

    def __init__(self, envs: VecEnv, every: int) -> None:
        super().__init__()
        self.envs = envs
        self.every = every
        self.points: list[tuple[int, float, float]] = []
        self.evaluating = np.zeros(2)  # seconds, CPU seconds

    def _on_training_start(self) -> None:
        self.started = clocks()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.every * (len(self.points) + 1):
            paused = clocks()
            seconds = (paused - self.started - self.evaluating)[0]
            mean, _ = evaluate_policy(self.model, self.envs, EPISODES)
            self.points.append((self.num_timesteps, round(seconds, 3), float(mean)))  # type: ignore[arg-type]
            self.evaluating += clocks() - paused
        return True


def clocks() -> NDArray[np.float64]:
    """[2]: seconds, CPU seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(algorithm: str, seed: int, steps: int, every: int) -> Run:
    """Learn, and look on."""
    curve = Curve(make_vec_env(ENV, EPISODES, seed=10_000 + seed), every)
    model = build(algorithm, seed)
    started = clocks()
    model.learn(steps, callback=curve)
    seconds, cpu_seconds = clocks() - started - curve.evaluating
    final_mean, _ = evaluate_policy(model, curve.envs, EPISODES)
    return Run(
        algorithm,
        seed,
        steps,
        every,
        settings(algorithm),
        machine(),
        commit(),
        curve.points,
        float(final_mean),  # type: ignore[arg-type]
        round(seconds, 3),
        round(cpu_seconds, 3),
    )


def machine() -> str:
    """Hardware and software."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return ", ".join(
        [
            names[0] if names else platform.processor() or platform.machine(),
            f"{os.cpu_count()} cores",
            f"{torch.get_num_threads()} torch thread{'s' * (torch.get_num_threads() > 1)}",
            f"Python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in ("torch", "stable-baselines3", "gymnasium")),
        ]
    )


def commit() -> str:
    """Where the repository stands, with a mark if something is not committed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")  # its own output
    return (git("rev-parse", "--short", "HEAD") or "unknown") + "-dirty" * bool(changed)


# -- the JSON file -----------------------------------------------------------------------------


def read(path: Path) -> dict[tuple[str, int], Run]:
    """The runs of a file, by algorithm and seed."""
    if not path.exists():
        return {}
    runs = [Run(**run) for run in json.loads(path.read_text(encoding="utf-8"))]
    return {(run.algorithm, run.seed): run for run in runs}


def write(path: Path, runs: dict[tuple[str, int], Run]) -> None:
    """All of a file anew, in one move: an interruption leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [
        ",\n ".join(f'"{name}": {json.dumps(value)}' for name, value in asdict(run).items())
        for run in ordered(runs)
    ]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("[\n" + ",\n".join(f"{{{text}}}" for text in texts) + "\n]\n", "utf-8")
    fresh.replace(path)


def ordered(runs: dict[tuple[str, int], Run]) -> list[Run]:
    return sorted(runs.values(), key=lambda run: (list(STEPS).index(run.algorithm), run.seed))


# -- what is shown -----------------------------------------------------------------------------


COLUMNS = {
    f"steps to {SOLVED:.0f}": ",.0f",
    f"seconds to {SOLVED:.0f}": ",.0f",
    "mean return at the end": ".1f",
    "steps learned": ",.0f",
    "seconds": ",.0f",
    "of the CPU": ",.0f",
}


def table(runs: list[Run]) -> str:
    """Every seed and the medians, in Markdown."""
    lines = [
        f"| algorithm | seed | {' | '.join(COLUMNS)} |",
        f"| --- {'| ---: ' * (1 + len(COLUMNS))}|",
    ]
    for algorithm, group in groupby(runs, key=lambda run: run.algorithm):
        figures = {
            str(run.seed): (*run.solved, run.final_mean, run.steps, run.seconds, run.cpu_seconds)
            for run in group
        }
        figures["**median**"] = tuple(map(median, zip(*figures.values(), strict=True)))
        for seed, row in figures.items():
            cells = [
                f"{figure:{form}}" if figure < float("inf") else "never"
                for figure, form in zip(row, COLUMNS.values(), strict=True)
            ]
            lines.append(f"| {' | '.join([algorithm, seed, *cells])} |")
    return "\n".join(lines)


def plot(runs: list[Run], path: Path) -> None:
    """Learning curves: a thin line per seed, a bold one for the median of the seeds."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.axhline(SOLVED, color="black", linewidth=0.8, linestyle=":")
    most = max(run.curve[-1][0] for run in runs)
    for algorithm, group in groupby(runs, key=lambda run: run.algorithm):
        curves = [np.array(run.curve) for run in group]
        colour, order = COLOURS[algorithm], 5 - list(COLOURS).index(algorithm)
        for curve in curves:
            axes.plot(
                curve[:, 0], curve[:, 2], color=colour, linewidth=0.6, alpha=0.3, zorder=order
            )
        shared = min(len(curve) for curve in curves)
        middle = np.median([curve[:shared, 2] for curve in curves], axis=0)
        axes.plot(
            curves[0][:shared, 0], middle, color=colour, linewidth=2, label=algorithm, zorder=order
        )
    seeds = len({run.seed for run in runs})
    axes.set(
        xscale="log",
        xlabel="environment steps (logarithmic)",
        ylabel=f"mean return of {EPISODES} greedy episodes",
        ylim=(0, 515),
    )
    axes.set_title(f"{ENV}: {seeds} seed{'s' * (seeds > 1)}, median bold", loc="left")
    ticks = [t for t in (500, 1000, 2000, 5000, 10_000, 20_000, 50_000) if t <= most]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.text(
        0.005, SOLVED - 6, f"solved: {SOLVED:.0f}", transform=axes.get_yaxis_transform(),
        size=8, va="top",
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.2)
    axes.legend(frameon=False, ncol=3, loc="lower right", bbox_to_anchor=(1.01, 0.99))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--algos", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--steps", type=int, help=f"instead of {STEPS}")
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations")
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    parser.add_argument("--again", action="store_true", help="repeat runs that are in the file")
    default = ROOT / "benchmarks" / "results" / "cartpole.json"
    parser.add_argument("--json", type=Path, default=default, help="the plot lies beside it")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    runs = read(given.json)
    for seed in given.seeds:
        for algorithm in given.algos:
            steps = given.steps or STEPS[algorithm]
            known = runs.get((algorithm, seed))
            wanted = (steps, given.every, settings(algorithm))
            if known and (known.steps, known.every, known.settings) == wanted and not given.again:
                continue
            print(f"{algorithm}, seed {seed}: {steps:,} steps ...", end=" ", flush=True)
            run = measure(algorithm, seed, steps, given.every)
            print(f"{run.final_mean:.1f} after {run.seconds:.0f} s", flush=True)
            runs = {**read(given.json), (algorithm, seed): run}  # another run may have written
            write(given.json, runs)

    shown = [r for r in ordered(runs) if r.seed in given.seeds and r.algorithm in given.algos]
    picture = given.json.with_suffix(".png")
    plot(shown, picture)
    print(f"\n{table(shown)}\n")
    for where in sorted({run.machine for run in shown}):
        commits = sorted({run.commit for run in shown if run.machine == where})
        print(f"Measured on {where}; commit {', '.join(commits)}")
    print(f"Runs: {given.json}\nCurves: {picture}")


if __name__ == "__main__":
    main()
