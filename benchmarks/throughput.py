"""Environment steps a second, end to end: MuZero beside PPO and DQN on CartPole-v1 and Pong.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only Pong --rounds 5

Each algorithm learns with its settings for the environment, past its warm-up: acting, storing and
updates in the proportions of a real run. MuZero's are of hyperparams.yml, the others' of rl_zoo3
2.9.2, whose Atari settings stand below. The algorithms take turns in one process, and the best
round of each counts, since other programs can only make it slower. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent.bench import agents
from muzero_agent.bench.plan import make_plan
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine
from muzero_agent.muzero import MuZero

PONG = "PongNoFrameskip-v4"
CARTPOLE = "CartPole-v1"
# rl_zoo3 2.9.2, hyperparams/ppo.yml and dqn.yml, section atari; DQN's warm-up is cut from 100,000
# steps, in which it does not learn, and its replay to what is needed here.
PPO_ATARI: dict[str, Any] = {
    "n_steps": 128,
    "n_epochs": 4,
    "batch_size": 256,
    "learning_rate": LinearSchedule(2.5e-4, 0.0, 1.0),
    "clip_range": LinearSchedule(0.1, 0.0, 1.0),
    "vf_coef": 0.5,
    "ent_coef": 0.01,
}
DQN_ATARI: dict[str, Any] = {
    "buffer_size": 10_000,
    "learning_rate": 1e-4,
    "batch_size": 32,
    "learning_starts": 200,
    "target_update_interval": 1000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
}


def cartpole(name: str) -> BaseAlgorithm:
    (run,) = make_plan(envs=[CARTPOLE], algos=[name], seeds=[0], steps=10_000)
    lines = run.settings | {"n_timesteps": run.steps}
    return agents.build(name, CARTPOLE, agents.settings_from(lines, CARTPOLE, name), seed=0)


def pong(name: str) -> BaseAlgorithm:
    params = load_hyperparams(PONG)
    if name != "MuZero":
        params = params._replace(show_actions=False)
    if name == "DQN":
        params = params._replace(n_envs=1)  # as rl_zoo3 has it
    env = params.make_env(PONG, seed=0)
    if name == "MuZero":
        return MuZero(params.policy, env, seed=0, **params.kwargs)
    if name == "PPO":
        return PPO("CnnPolicy", env, seed=0, **PPO_ATARI)
    return DQN("CnnPolicy", env, seed=0, **DQN_ATARI)


ENVS: dict[str, tuple[Callable[[str], BaseAlgorithm], int, int]] = {  # steps before and of a round
    "CartPole": (cartpole, 2_048, 2_048),
    "Pong": (pong, 2_048, 1_024),
}


def steps_per_second(model: BaseAlgorithm, steps: int) -> float:
    """Of one round."""
    before, start = model.num_timesteps, time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return (model.num_timesteps - before) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=list(ENVS), nargs="+", default=list(ENVS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| environment | algorithm | environment steps a second |\n| --- | --- | ---: |")
    for env in given.only:
        build, warm_up, steps = ENVS[env]
        models = {name: build(name) for name in ("MuZero", "PPO", "DQN")}
        for model in models.values():
            model.learn(warm_up)
        rounds = [
            {name: steps_per_second(model, steps) for name, model in models.items()}
            for _ in range(given.rounds)
        ]
        for name in models:
            print(f"| {env} | {name} | {max(r[name] for r in rounds):,.0f} |", flush=True)
    print("\n" + ", ".join(f"{name} {fact}" for name, fact in machine().items() if fact))


if __name__ == "__main__":
    main()
