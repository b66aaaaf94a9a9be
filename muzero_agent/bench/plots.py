"""Learning curves as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from muzero_agent.bench.plan import file_name
from muzero_agent.bench.results import threshold
from muzero_agent.bench.worker import Result, write_whole

# of Okabe and Ito, whom most of the colour-blind thank
COLOURS = {
    "MuZero": "#0072b2",
    "PPO": "#d55e00",
    "DQN": "#7f7f7f",
    "A2C": "#009e73",
    "QRDQN": "#cc79a7",
}


def write_plots(results: Sequence[Result], out: Path) -> list[Path]:
    """A picture for each environment: return against steps, and against seconds of learning."""
    paths = []
    for env, group in groupby(results, key=lambda result: result.run.env):
        figure = draw(env, list(group))
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150)
        paths.append(out / f"{file_name(env)}.png")
        write_whole(paths[-1], image.getvalue())
    return paths


def draw(env: str, results: Sequence[Result]) -> Figure:
    """A thin line for each seed, a bold one for the median of the seeds."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    seeds = len({result.run.seed for result in results})
    title = f"{env}: {seeds} seed{'s' * (seeds > 1)}" + ", median bold" * (seeds > 1)
    left.set_title(title, loc="left")
    left.set_ylabel("mean return of greedy episodes")
    goal = threshold(env)
    for axes, clock, label in (
        (left, "steps", "environment steps"), (right, "seconds", "seconds of learning"),
    ):  # fmt: skip
        for algorithm, colour in COLOURS.items():
            runs = [result for result in results if result.run.algorithm == algorithm]
            if runs:
                _curves(axes, clock, runs, colour)
        if goal is not None:
            axes.axhline(goal, color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel=label)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.2)
    if goal is not None:
        left.annotate(
            f"solved: {goal:g}", (0, goal), (4, -4), size=8, va="top",
            xycoords=left.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
    right.legend(frameon=False, ncol=len(COLOURS), loc="lower right", bbox_to_anchor=(1.01, 0.99))
    return figure


def _curves(axes: Axes, clock: str, runs: Sequence[Result], colour: str) -> None:
    curves = [
        np.array([(getattr(point, clock), point.mean) for point in run.evaluations]) for run in runs
    ]  # of each seed [T, 2]
    for curve in curves:
        axes.plot(*curve.T, color=colour, linewidth=0.6, alpha=0.4, marker="." * (len(curve) == 1))
    shared = min(map(len, curves))
    middle = np.median([curve[:shared] for curve in curves], axis=0)  # [T, 2]
    axes.plot(
        *middle.T, color=colour, linewidth=2, label=runs[0].run.algorithm,
        marker="o" * (shared == 1), zorder=3 - 0.1 * list(COLOURS.values()).index(colour),
    )  # fmt: skip
