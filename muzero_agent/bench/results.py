"""What a benchmark found: CSV files, statistics and a table in Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.stats import bootstrap

from muzero_agent.bench.plan import file_name
from muzero_agent.bench.worker import Evaluation, Result, write_whole

EVALUATIONS, FINAL, REPORT = "evaluations.csv", "final.csv", "report.md"
NEVER = float("inf")


def write_csv(results: Sequence[Result], out: Path) -> None:
    """A row for each evaluation, and a row for each run as it ended."""
    looks = (_row(r, e) | _origin(r) for r in results for e in r.evaluations)
    write_whole(out / EVALUATIONS, _csv(looks))
    write_whole(out / FINAL, _csv(map(_final_row, results)))


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)  # machines differ in what they tell
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(result: Result, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "env": result.run.env,
        "algorithm": result.run.algorithm,
        "seed": result.run.seed,
        "steps": evaluation.steps,
        "seconds": evaluation.seconds,
        "cpu_seconds": evaluation.cpu_seconds,
        "mean_return": evaluation.mean,
        "episodes": len(evaluation.returns),
    }


def _final_row(result: Result) -> dict[str, Any]:
    goal = threshold(result.run.env)
    steps, seconds = time_to(result, goal)
    return (
        _row(result, result.final)
        | {
            "std_return": float(np.std(result.final.returns)),
            "threshold": goal,  # None is written as nothing
            "steps_to_threshold": None if steps == NEVER else steps,
            "seconds_to_threshold": None if seconds == NEVER else seconds,
        }
        | _origin(result)
    )


def _origin(result: Result) -> dict[str, Any]:
    """What it was made with."""
    return {"threads": result.run.threads, **result.machine}


# -- statistics ------------------------------------------------------------------------------------


def threshold(env_id: str) -> float | None:
    """The mean return from which on Gymnasium calls an environment solved, if it says so."""
    return gym.spec(env_id).reward_threshold


def time_to(result: Result, goal: float | None) -> tuple[float, float]:
    """Steps and seconds at the first evaluation whose mean reaches the goal; infinite if none."""
    for evaluation in result.evaluations:
        if goal is not None and evaluation.mean >= goal:
            return evaluation.steps, evaluation.seconds
    return NEVER, NEVER


def interval(results: Sequence[Result]) -> tuple[float, float] | None:
    """95% interval of the mean final return, by the percentile bootstrap.

    What is drawn again are seeds, by their means: episodes of one model say nothing about how the
    next one would have turned out. Of a single seed there are only its episodes.

    :return: None if there is a single number
    """
    sample = [result.final.mean for result in results]
    if len(sample) == 1:
        sample = results[0].final.returns
    if len(sample) == 1:
        return None
    found = bootstrap(
        (sample,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


# -- the table -------------------------------------------------------------------------------------


def report(results: Sequence[Result], command: str = "") -> str:
    """A page in Markdown: a table and the learning curves of each environment."""
    lines = ["# Benchmark", ""]
    for env, group in groupby(results, key=lambda result: result.run.env):
        lines += [f"## {env}", "", *table(list(group)), "", f"![{env}]({file_name(env)}.png)", ""]
    if command:
        lines += [f"`{command}`", ""]
    lines += [NOTES, "", *(f"- {line}" for line in sorted(set(map(_machine, results)))), ""]
    return "\n".join(lines)


NOTES = """\
Steps and seconds to the threshold are medians over all seeds, and missing unless more than half of
them reached it. The final return is the mean over seeds, each with the model that `learn` returned;
in brackets stands its 95% interval (percentile bootstrap over seeds, or over episodes if there is
one seed), which few seeds make too narrow. Steps, seconds and CPU seconds are medians, without
evaluation."""


def table(results: Sequence[Result]) -> list[str]:
    """The results of an environment, a row for each algorithm."""
    goal = threshold(results[0].run.env)
    names = ["algorithm", "seeds"]
    if goal is not None:
        names += [f"{what} {goal:g}" for what in ("reached", "steps to", "seconds to")]
    names += ["final return", "steps", "seconds", "of the CPU"]
    lines = [f"| {' | '.join(names)} |", f"| --- {'| ---: ' * (len(names) - 1)}|"]
    by_algorithm: dict[str, list[Result]] = {}
    for result in results:
        by_algorithm.setdefault(result.run.algorithm, []).append(result)
    for algorithm, runs in by_algorithm.items():
        cells = [algorithm, str(len(runs))]
        if goal is not None:
            times = [time_to(run, goal) for run in runs]
            cells.append(f"{sum(steps < NEVER for steps, _ in times)} of {len(runs)}")
            cells += [_number(median(column)) for column in zip(*times, strict=True)]
        finals = [run.final for run in runs]
        mean = f"{np.mean([final.mean for final in finals]):.1f}"
        around = interval(runs)
        cells.append(f"{mean} [{around[0]:.1f}, {around[1]:.1f}]" if around else mean)
        cells += [
            _number(median(getattr(final, name) for final in finals))
            for name in ("steps", "seconds", "cpu_seconds")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(x: float) -> str:
    if x == NEVER:
        return "-"
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}"


def _machine(result: Result) -> str:
    facts = result.machine
    versions = [f"{k} {v}" for k, v in facts.items() if v and k not in HARDWARE]
    threads = f"{result.run.threads} torch thread{'s' * (result.run.threads > 1)}"
    processor, cores, system = (facts.get(name, "?") for name in HARDWARE[1:])
    where = f"{processor}, {cores} cores, {system}, {threads}"
    commit = f"; commit {facts['commit']}" if facts.get("commit") else ""
    return f"{where}; {', '.join(versions)}{commit}"


HARDWARE = ("commit", "processor", "cores", "system")
