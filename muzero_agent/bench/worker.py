"""One run, in a process of its own: learn, and be looked at on the way with the clock stopped.

    python -m muzero_agent.bench.worker RUN RESULT

RUN is a `Run` in JSON; its `Result` goes into the file RESULT. Standard output tells the percentage
learned. Standard input is a lifeline: the process ends when it is closed, as it is when whoever
holds the other end is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from muzero_agent.allocator import keep_freed_memory
from muzero_agent.bench import agents
from muzero_agent.bench.plan import Run, Strict
from muzero_agent.evaluation import heeding_masks
from muzero_agent.machine import machine
from muzero_agent.muzero import MuZero


class Evaluation(Strict):
    """Greedy episodes of a model, and what it had cost by then."""

    steps: int
    seconds: float  # of learning: the clock stands still during evaluations
    cpu_seconds: float  # much less if other programs were in the way
    returns: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))


class Result(Strict):
    """What a run did. The last evaluation is of the model that `learn` returned."""

    run: Run
    evaluations: Annotated[list[Evaluation], Field(min_length=1)]
    machine: dict[str, str]  # hardware, versions, commit

    @property
    def final(self) -> Evaluation:
        return self.evaluations[-1]


class Watch(BaseCallback):
    """Evaluates every so many steps, and tells how far learning is."""

    def __init__(self, envs: VecEnv, run: Run) -> None:
        super().__init__()
        self.envs, self.run = envs, run
        self.evaluations: list[Evaluation] = []
        self.started = self.evaluating = np.zeros(2)  # seconds, CPU seconds
        self.next, self.told = run.every, -1

    def start(self) -> None:
        """Start the clock."""
        self.started = clocks()

    def evaluate(self) -> None:
        paused = clocks()
        seconds, cpu_seconds = (paused - self.started - self.evaluating).round(3).tolist()
        envs = self.model.get_env()
        assert envs is not None
        sync_envs_normalization(envs, self.envs)
        player: Any = self.model
        if isinstance(self.model, MuZero):
            player = heeding_masks(self.model, self.envs)
        returns, _ = evaluate_policy(
            player, self.envs, self.run.episodes, return_episode_rewards=True
        )
        self.evaluations.append(
            Evaluation(
                steps=self.model.num_timesteps,
                seconds=seconds,
                cpu_seconds=cpu_seconds,
                returns=np.asarray(returns, np.float64).tolist(),
            )
        )
        self.evaluating = self.evaluating + clocks() - paused

    def _on_step(self) -> bool:
        done, every = self.num_timesteps, self.run.every
        if self.next <= done < self.run.steps:  # at the end, the model that `learn` returns
            self.next = every * (done // every + 1)
            self.evaluate()
        percent = min(100 * done // self.run.steps, 100)
        if percent > self.told:
            self.told = percent
            print(percent, flush=True)
        return True


def clocks() -> NDArray[np.float64]:
    """[2]: seconds, CPU seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(run: Run) -> Result:
    """Learn, and look on."""
    lines = run.settings | {"n_timesteps": run.steps}
    settings = agents.settings_from(lines, str(run), run.algorithm)
    model = agents.build(run.algorithm, run.env, settings, run.seed)
    watch = Watch(agents.evaluation_envs(run.env, settings, run.seed, run.episodes), run)
    watch.start()
    model.learn(run.steps, callback=watch)
    watch.evaluate()
    return Result(run=run, evaluations=watch.evaluations, machine=machine())


def read_result(path: Path) -> Result | None:
    """A finished run's result, or None if there is none.

    :raises ValueError: if the file is something else
    """
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no result of this release's bench: move it away, or give another --out"
        ) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears under its name only when all of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_bytes(content.encode() if isinstance(content, str) else content)
    fresh.replace(path)


def _end_with_lifeline() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    run, path = Run.model_validate_json(sys.argv[1]), Path(sys.argv[2])
    threading.Thread(target=_end_with_lifeline, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(run.threads)
    write_whole(path, measure(run).model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
