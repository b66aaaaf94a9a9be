"""Which runs a benchmark has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import gymnasium as gym
from pydantic import BaseModel, ConfigDict

from muzero_agent import hyperparams
from muzero_agent.bench import agents
from muzero_agent.bench.agents import MODULES, MUZERO
from muzero_agent.hyperparams import read_section

LOOKS = 10  # evaluations of MuZero, unless --every says otherwise
MOST = 1_000  # seeds, and episodes of an evaluation: the seeds of evaluations lie this far apart


@dataclass(frozen=True)
class Suite:
    """A benchmark with a name."""

    envs: tuple[str, ...]
    algos: tuple[str, ...]
    seeds: tuple[int, ...]
    cap: int | None = None  # steps of a run at most


SUITES = {
    "quick": Suite(("CartPole-v1",), ("MuZero", "PPO", "DQN", "A2C"), (0, 1), cap=50_000),
    "classic": Suite(
        ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"),
        tuple(MODULES),
        (0, 1, 2, 3, 4),
    ),
}


class Strict(BaseModel):
    """What files hold that are read again: whatever does not fit is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Strict):
    """A run before it is run. When any of this has changed, an earlier result is of no use."""

    env: str
    algorithm: str
    seed: int
    steps: int
    every: int  # steps between evaluations
    episodes: int  # of an evaluation
    threads: int  # of torch
    settings: dict[str, Any]  # as they stand in the file
    defaults: dict[str, str]  # arguments that the settings leave out

    def __str__(self) -> str:
        return f"{self.algorithm} {self.env} seed {self.seed}"

    @property
    def file(self) -> str:
        """Of its result."""
        return f"{file_name(self.env)}/{self.algorithm}-{self.seed}.json"


def file_name(env_id: str) -> str:
    """The environment's id without what a file's name may not have."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in env_id)


def make_plan(
    suite: str = "quick",
    envs: Sequence[str] = (),
    algos: Sequence[str] = (),
    seeds: Sequence[int] = (),
    *,
    steps: int | None = None,
    cap: int | None = None,
    every: int | None = None,
    episodes: int = 20,
    threads: int = 1,
    changes: Mapping[str, Any] | None = None,
    muzero_file: str | os.PathLike[str] = hyperparams.OWN_FILE,
    baselines_file: str | os.PathLike[str] = agents.OWN_FILE,
) -> list[Run]:
    """All runs of a benchmark, by environment, seed and algorithm.

    :param suite: gives environments, algorithms, seeds and cap where they are not given
    :param steps: of every run; None takes the tuned number
    :param cap: steps of a run at most
    :param every: steps between evaluations; None takes a tenth of MuZero's steps on the
        environment, for all algorithms alike, so that all are looked at equally often
    :param changes: settings of MuZero in place of those in its file
    :raises ValueError: naming what cannot be run
    """
    if suite not in SUITES:
        raise ValueError(f"--suite {suite}: it is none of {', '.join(SUITES)}")
    chosen = SUITES[suite]
    envs, algos, seeds = envs or chosen.envs, algos or chosen.algos, seeds or chosen.seeds
    counts = {"steps": steps, "cap": cap, "every": every, "episodes": episodes, "threads": threads}
    for option, number in counts.items():
        if number is not None and number < 1:
            raise ValueError(f"--{option} {number}: give at least 1")
    if episodes > MOST:
        raise ValueError(f"--episodes {episodes}: give at most {MOST}")
    for seed in seeds:
        if not 0 <= seed < MOST:
            raise ValueError(f"--seeds {seed}: give numbers from 0 to {MOST - 1}")
    algos = [_algorithm(name) for name in algos]
    cap = chosen.cap if cap is None else cap

    pairs = {}
    for env, name in product(envs, algos):
        section, where = read_section(env, muzero_file)  # registers Atari's ids
        gym.spec(env)  # complains of an id that is not known
        section = section | dict(changes or {})
        muzeros = tuned = agents.settings_from(section, where, MUZERO).params.n_timesteps
        if name != MUZERO:
            section, where = agents.read_baseline(name, env, baselines_file)
            tuned = agents.settings_from(section, where, name).params.n_timesteps
        budget = steps or min(tuned, cap or tuned)
        pairs[env, name] = Run(
            env=env,
            algorithm=name,
            seed=0,
            steps=budget,
            every=every or max(min(muzeros, budget) // LOOKS, 1),
            episodes=episodes,
            threads=threads,
            settings={key: value for key, value in section.items() if key != "n_timesteps"},
            defaults=agents.left_out(section, name),
        )
    return [
        pairs[env, name].model_copy(update={"seed": seed})
        for env, seed, name in dict.fromkeys(product(envs, seeds, algos))  # each once
    ]


def _algorithm(name: str) -> str:
    """As it is spelt here."""
    for known in MODULES:
        if name.lower() == known.lower():
            return known
    raise ValueError(f"--algos {name}: it is none of {', '.join(MODULES)}")
