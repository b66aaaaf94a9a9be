"""Self-play with the settings of hyperparams.yml: moves a second, the environment's share of the
time, losses and memory.

    python benchmarks/self_play.py                                    # a minute each
    python benchmarks/self_play.py --games go_9x9 --minutes 10 --json benchmarks/results/go_9x9.json

One torch thread; seconds are of the CPU, so that other programs count little. Learning goes on
until the minutes are over; the curve has a point every tenth of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from muzero_agent import MuZero
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import commit


class Clock(BaseCallback):
    """Stops after so many CPU seconds, and keeps losses and memory on the way."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.started = seconds, time.process_time()
        self.curve: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        assert isinstance(self.model, MuZero)
        passed = time.process_time() - self.started
        if passed >= self.seconds * (len(self.curve) + 1) / 10 and self.model._n_updates:
            logged = self.logger.name_to_value
            names = ("loss", "policy_loss", "value_loss", "reward_loss")
            self.curve.append(
                {
                    "cpu_seconds": round(passed, 1),
                    "moves": self.num_timesteps,
                    "updates": self.model._n_updates,
                    "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    **{name: round(float(logged[f"train/{name}"]), 4) for name in names},
                }
            )
            print(f"  {self.curve[-1]}", flush=True)
        return passed < self.seconds


def measure(game: str, minutes: float, seed: int) -> dict[str, Any]:
    """Learn a game for so many minutes."""
    params = load_hyperparams(game)
    env = params.make_env(game, seed)
    spent = 0.0
    step = env.step

    def timed(actions: Any) -> Any:
        nonlocal spent
        before = time.process_time()
        result = step(actions)
        spent += time.process_time() - before
        return result

    env.step = timed  # type: ignore[method-assign]
    model = MuZero(params.policy, env, seed=seed, **params.kwargs)
    clock = Clock(60 * minutes)
    model.learn(10**9, callback=clock)
    seconds = time.process_time() - clock.started
    return {
        "game": game,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "moves": model.num_timesteps,
        "moves_per_second": round(model.num_timesteps / seconds, 1),
        "environment_share": round(spent / seconds, 4),
        "curve": clock.curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--games", default="tictactoe,connect_four,go_9x9,chess")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    revision = commit()
    results = []
    print(f"commit {revision}")
    for game in arguments.games.split(","):
        results.append(measure(game, arguments.minutes, arguments.seed))
        found = results[-1]
        print(
            f"| {game} | {found['moves_per_second']:.0f} moves a second | environment "
            f"{100 * found['environment_share']:.1f}% | {found['moves']:,} moves |",
            flush=True,
        )
        if arguments.json is not None:
            arguments.json.write_text(
                json.dumps({"commit": revision, "runs": results}, indent=1) + "\n", encoding="utf-8"
            )


if __name__ == "__main__":
    main()
