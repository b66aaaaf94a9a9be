"""What single parts of learning do, each on a small task on which it shows, most of them exact.

    python benchmarks/small_tasks.py                     # 5 seeds, two runs at a time
    python benchmarks/small_tasks.py --only walk

Beside `ablations.py`, where three seeds of CartPole cannot tell what these parts are worth:

- lambda on the random walk of 19 states (Sutton and Barto 2018, example 7.1), whose values are
  known: how far the values that were learned are from them. Every step is one of chance, so that a
  target without lambda is what a hundred coins make of it.
- the learning rate on 20 coins that fall differently often: how far values are from the means of
  what the coins paid, which a rate that stays large goes on to miss, but for the moving average.
- the temperature on 20 bandits of two arms: one pays 0.5, the other 1 with a chance of 0.7 or 0.3,
  so that who is unlucky at first, and never looks again, takes the worse one for good.
- priorities where each of ten states comes once in 200 steps: how far their values are learned.
- the consistency loss on CartPole: how far latents that g imagined, and the values of these, are
  from what h makes of the states that followed.

Means over seeds, in brackets 95% intervals (bootstrap). Into --out goes every run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from tqdm import tqdm

from muzero_agent import MuZero
from muzero_agent.machine import machine

ROOT = Path(__file__).resolve().parents[1]
State = tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]


class Numbered(gym.Env[NDArray[np.float32], np.int64]):
    """States with numbers, seen as vectors with a 1 at that place."""

    num_states: int

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (self.num_states,))
        self.action_space = spaces.Discrete(2)
        self.state = 0

    @property
    def all_states(self) -> NDArray[np.float32]:
        return np.eye(self.num_states, dtype=np.float32)

    def begin(self) -> int:
        """The state of a new episode."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.begin()
        return self.all_states[self.state], {}


class Walk(Numbered):
    """From the middle of a row to the left or to the right by chance, whatever is done; its left
    end pays -1, its right end 1."""

    num_states = 19

    def begin(self) -> int:
        return self.num_states // 2

    def step(self, action: np.int64) -> State:
        self.state += 1 if self.np_random.random() < 0.5 else -1
        inside = 0 <= self.state < self.num_states
        reward = 0.0 if inside else float(np.sign(self.state))
        self.state = int(np.clip(self.state, 0, self.num_states - 1))
        return self.all_states[self.state], reward, not inside, False, {}

    @property
    def values(self) -> NDArray[np.float64]:
        """Of the states: Sutton and Barto's, linear between the ends."""
        return np.linspace(-1, 1, self.num_states + 2)[1:-1]


class Bandits(Numbered):
    """One of 20 bandits at a time: arm 0 pays 0.5, arm 1 pays 1 with a chance of 0.7, or of 0.3."""

    num_states = 20

    def __init__(self) -> None:
        super().__init__()
        self.chance = np.where(np.arange(self.num_states) % 2, 0.7, 0.3)
        self.regrets: list[float] = []

    def begin(self) -> int:
        return int(self.np_random.integers(self.num_states))

    def step(self, action: np.int64) -> State:
        chance = self.chance[self.state]
        self.regrets.append(float(max(0.5, chance) - (chance if action else 0.5)))
        reward = float(self.np_random.random() < chance) if action else 0.5
        return self.all_states[self.state], reward, True, False, {}


class Coins(Numbered):
    """One of 20 coins at a time, which pays 1 or -1, whatever is done."""

    num_states = 20

    def __init__(self) -> None:
        super().__init__()
        self.chance = np.linspace(0, 1, self.num_states)
        self.total, self.count = np.zeros((2, self.num_states))

    def begin(self) -> int:
        return int(self.np_random.integers(self.num_states))

    def step(self, action: np.int64) -> State:
        reward = 1.0 if self.np_random.random() < self.chance[self.state] else -1.0
        self.total[self.state] += reward
        self.count[self.state] += 1
        return self.all_states[self.state], reward, True, False, {}


class Rare(Numbered):
    """Episodes of a step. Each twentieth is in the next one of ten rare states, which pay 1 or -1
    by turns; the others are in one of ten states that pay nothing."""

    num_states = 20

    def __init__(self) -> None:
        super().__init__()
        self.episodes = 0

    def begin(self) -> int:
        self.episodes += 1
        number, between = divmod(self.episodes, 20)
        return int(self.np_random.integers(10)) if between else 10 + number % 10

    def step(self, action: np.int64) -> State:
        return self.all_states[self.state], float(self.values[self.state]), True, False, {}

    @property
    def values(self) -> NDArray[np.float64]:
        number = np.arange(self.num_states)
        return np.where(number < 10, 0.0, np.where(number % 2, 1.0, -1.0))


# -- measures --------------------------------------------------------------------------------------


def rms(error: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def walk_errors(model: MuZero, env: gym.Env[Any, Any]) -> dict[str, float]:
    assert isinstance(env, Walk)
    return {"error of values": rms(model.policy.evaluate(env.all_states).value - env.values)}


def coin_errors(model: MuZero, env: gym.Env[Any, Any]) -> dict[str, float]:
    assert isinstance(env, Coins)
    means = env.total / env.count
    return {"error of values": rms(model.policy.evaluate(env.all_states).value - means)}


def rare_errors(model: MuZero, env: gym.Env[Any, Any]) -> dict[str, float]:
    assert isinstance(env, Rare)
    error = model.policy.evaluate(env.all_states).value - env.values
    return {"error of rare values": rms(error[10:]), "of others": rms(error[:10])}


def choices(model: MuZero, env: gym.Env[Any, Any]) -> dict[str, float]:
    assert isinstance(env, Bandits)
    action, _ = model.predict(env.all_states, deterministic=True)
    return {
        "better arms chosen in the end": float(np.mean(action == (env.chance > 0.5))),
        "lost per step, last quarter": mean(env.regrets[-len(env.regrets) // 4 :]),
    }


def imagination(model: MuZero, env: gym.Env[Any, Any], ahead: int = 5) -> dict[str, float]:
    """Of 40 random episodes: `ahead` steps imagined, and what was observed then."""
    network, generator = model.policy.target_network, np.random.default_rng(0)
    first, actions, last = [], [], []
    for episode in range(40):
        seen = [env.reset(seed=10_000 + episode)[0]]
        done, played = False, []
        while not done:
            played.append(int(generator.integers(2)))
            obs, _, done, _, _ = env.step(played[-1])
            seen.append(obs)
        for i in range(len(played) - ahead):  # the last state of an episode is no target
            first.append(seen[i])
            actions.append(played[i : i + ahead])
            last.append(seen[i + ahead])
    with torch.inference_mode():
        latent = network.representation(model.policy.network_input(np.stack(first)))
        for action in torch.as_tensor(actions).unbind(1):
            latent, _ = network.dynamics(latent, action)
        target = network.representation(model.policy.network_input(np.stack(last)))
        similarity = torch.cosine_similarity(latent.flatten(1), target.flatten(1)).mean()
        imagined, known = (
            network.support.scalar(network.prediction(x)[1]) for x in (latent, target)
        )
    return {
        "cosine of latents 5 steps ahead": float(similarity),
        "error of values 5 steps ahead": rms((imagined - known).numpy()),
    }


# -- tasks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """:param settings: of all variants"""

    env: Callable[[], gym.Env[Any, Any]]
    steps: int
    settings: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    measure: Callable[[MuZero, gym.Env[Any, Any]], dict[str, float]]


PLAIN: dict[str, Any] = {
    "num_simulations": 4, "reanalyse_ratio": 7, "exploration_rate": 0.0, "learning_rate": 1e-3,
    "policy_kwargs": {"net_arch": [32]},
}  # fmt: skip
# No action is a mistake, and the model cannot foresee chance: it would only do harm in the targets.
WALK = PLAIN | {"gamma": 1.0, "regret_tolerance": 1e9, "consistency_coef": 0.0}
ONE_STEP = PLAIN | {"learning_starts": 20}

TASKS = {
    "walk: lambda of value targets": Task(
        Walk, 2000, WALK, {f"{x}": {"td_lambda": x} for x in (0.0, 0.5, 0.9, 0.98, 1.0)},
        walk_errors,
    ),
    "coins: learning rate": Task(
        Coins,
        2000,
        ONE_STEP,
        {
            "constant, 0.003": {"learning_rate": 3e-3},
            "constant, 0.0003": {"learning_rate": 3e-4},
            "falls from 0.003 to 0": {"learning_rate": "lin_0.003"},
            "constant, 0.003, no moving average": {"learning_rate": 3e-3, "target_decay": 0.0},
            "falls from 0.003 to 0, no moving average": {
                "learning_rate": "lin_0.003",
                "target_decay": 0.0,
            },
        },
        coin_errors,
    ),
    "bandits: temperature": Task(
        Bandits,
        2000,
        ONE_STEP,
        {
            "0": {"temperature": 0.0},
            "1": {"temperature": 1.0},
            "falls from 1 to 0": {"temperature": "lin_1"},
        },
        choices,
    ),
    "rare states: priorities": Task(
        Rare,
        800,
        ONE_STEP,
        {f"{x}": {"priority_exponent": x} for x in (0.0, 0.6, 1.0)},
        rare_errors,
    ),
    "CartPole: consistency loss": Task(
        lambda: gym.make("CartPole-v1"),
        1500,
        {},
        {f"{x}": {"consistency_coef": x} for x in (0.0, 1.0)},
        imagination,
    ),
}  # fmt: skip


def falling(setting: Any) -> Any:
    """A function of the remaining progress where the setting says "lin_"."""
    if not (isinstance(setting, str) and setting.startswith("lin_")):
        return setting
    start = float(setting.removeprefix("lin_"))
    return lambda progress: start * progress


def run(name: str, variant: str, seed: int) -> dict[str, float]:
    """What was measured after learning."""
    torch.set_num_threads(1)
    task = TASKS[name]
    settings = {
        key: falling(setting) for key, setting in (task.settings | task.variants[variant]).items()
    }
    env = task.env()
    model = MuZero("MlpPolicy", env, seed=seed, device="cpu", **settings).learn(task.steps)
    return task.measure(model, env)


def interval(values: list[float]) -> tuple[float, float]:
    """95% interval of the mean, by the percentile bootstrap over seeds."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return float(low), float(high)


def table(name: str, runs: Iterable[dict[str, Any]]) -> str:
    """A row for each variant."""
    task = TASKS[name]
    lines: list[str] = []
    for variant in task.variants:
        found = [one["measured"] for one in runs if one["variant"] == variant]
        cells = []
        for measure in found[0]:
            values = [one[measure] for one in found]
            low, high = interval(values)
            cells.append(f"{mean(values):.3f} [{low:.3f}, {high:.3f}]")
        if not lines:
            lines.append(f"| {name} | {' | '.join(found[0])} |")
            lines.append(f"| --- |{' ---: |' * len(found[0])}")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="tasks whose names hold this")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 105)))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "small_tasks.json"
    )
    given = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"
    names = [name for name in TASKS if given.only in name]
    todo = [
        (name, variant, seed)
        for name in names
        for variant, seed in product(TASKS[name].variants, given.seeds)
    ]
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        measured = list(tqdm(pool.map(run, *zip(*todo, strict=True)), total=len(todo)))
    runs = [
        {"task": name, "variant": variant, "seed": seed, "measured": found}
        for (name, variant, seed), found in zip(todo, measured, strict=True)
    ]
    command = f"python {shlex.join(sys.argv)}"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": machine(), "runs": runs}
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name in names:
        print("\n" + table(name, [one for one in runs if one["task"] == name]))
    print(f"\n`{command}`, {', '.join(f'{k} {v}' for k, v in machine().items() if v)}")


if __name__ == "__main__":
    main()
