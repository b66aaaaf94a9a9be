"""What each part of learning does: the defaults, with one part changed at a time.

    python benchmarks/ablations.py                       # CartPole-v1, 3 seeds, 6,000 steps
    python benchmarks/ablations.py --seeds 3 --only "no reanalysis" "as it is"

Every run is one of `muzero-agent bench`, in a process of its own; finished ones are not repeated.
For each variant, over all seeds: how many reached the environment's threshold, the median of the
steps that it took, the mean of all looks (the area under the learning curve, which tells fast from
slow where all arrive), the mean of the later half of the looks, and of the last one.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console

from muzero_agent.bench.plan import file_name, make_plan
from muzero_agent.bench.results import NEVER, threshold, time_to
from muzero_agent.bench.runner import read_results, run_all
from muzero_agent.bench.worker import Result
from muzero_agent.machine import machine

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no reanalysis": {"reanalyse_ratio": 0},
    "priorities": {"priority_exponent": 0.6},
    "no consistency loss": {"consistency_coef": 0.0},
    "value targets of 5 steps": {"td_steps": 5, "td_lambda": 1.0},
    "value targets of 100 steps, no lambda": {"td_lambda": 1.0},
    "value targets through mistakes": {"regret_tolerance": 1e9},
    "no random actions": {"exploration_rate": 0.0},
    "random actions not repeated": {"exploration_rate": 0.12, "exploration_length": 1},
    "temperature 0": {"temperature": 0.0},
    "temperature falls from 1 to 0": {"temperature": "lin_1"},
    "constant learning rate": {"learning_rate": 0.001},
    "means of transformed scalars": {"policy_kwargs": {"support_mean": "transformed"}},
}
ROOT = Path(__file__).resolve().parents[1]


def row(variant: str, results: list[Result]) -> str:
    """A line of the table."""
    goal = threshold(results[0].run.env)
    steps = [time_to(result, goal)[0] for result in results]
    reached = sum(x < NEVER for x in steps)
    curves = [[look.mean for look in result.evaluations] for result in results]
    cells = [
        variant,
        f"{reached} of {len(results)}",
        f"{median(steps):,.0f}" if median(steps) < NEVER else "-",
        f"{mean(mean(curve) for curve in curves):.0f}",
        f"{mean(mean(curve[len(curve) // 2 :]) for curve in curves):.0f}",
        f"{mean(curve[-1] for curve in curves):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202])
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--every", type=int, default=500, help="steps between looks")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ablations")
    given = parser.parse_args()

    lines = [
        "| variant | reached | steps | all looks | later half | last |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant in given.only:
        plan = make_plan(
            envs=[given.env],
            algos=["MuZero"],
            seeds=given.seeds,
            steps=given.steps,
            every=given.every,
            changes=VARIANTS[variant],
        )
        out = given.out / file_name(variant.replace(" ", "-"))
        console = Console(highlight=False, markup=False)
        console.print(variant)
        for complaint in run_all(plan, out, given.jobs, False, True, console):
            sys.exit(complaint)
        lines.append(row(variant, read_results(plan, out)))
    print("\n".join(["", *lines, "", f"`python {shlex.join(sys.argv)}`", ""]))
    print(", ".join(f"{name} {fact}" for name, fact in machine().items() if fact))


if __name__ == "__main__":
    main()
