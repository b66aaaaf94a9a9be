"""Atari by ale-py's `AtariVectorEnv`: that MuZero learns from its pictures, too.

    python benchmarks/atari_vector_env.py --steps 10000 --json FILE \\
        --set gradient_steps=12 --set learning_rate=0.001 --set gamma=0.95

`muzero-agent train` makes Atari environments by `make_atari_env`; here `make_atari_vector_env`
makes them, and the rest are the settings of `atari`. The model is looked at by greedy games of
`ALE/Pong-v5`, which has sticky actions, every so many steps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero
from muzero_agent.adapters.envs.atari import make_atari_vector_env
from muzero_agent.allocator import keep_freed_memory
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine
from muzero_agent.training import parse_changes

LEARNED, LOOKED_AT = "PongNoFrameskip-v4", "ALE/Pong-v5"
FIRST_SEED = 1000  # of the games that are looked at


def scores(model: MuZero, episodes: int) -> list[float]:
    """Of greedy games, each in an environment of its own."""
    env = make_atari_vector_env(LOOKED_AT, episodes, FIRST_SEED, show_actions=True)
    returns, _ = evaluate_policy(model, env, episodes, return_episode_rewards=True)
    env.close()
    assert isinstance(returns, list)
    return list(map(float, returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=5_000, help="steps between looks")
    parser.add_argument("--episodes", type=int, default=20, help="games of a look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, as in train")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    if given.steps % given.every:
        parser.error(f"--steps {given.steps} is no multiple of --every {given.every}")
    torch.set_num_threads(1)
    keep_freed_memory()

    params = load_hyperparams(LEARNED)
    stacked = {"stack_num": params.frame_stack}
    env = make_atari_vector_env(LEARNED, params.n_envs, given.seed, stacked, show_actions=True)
    settings = params.kwargs | parse_changes(given.set)
    model = MuZero(params.policy, env, seed=given.seed, **settings)
    results: dict[str, Any] = {
        "machine": machine(), "env": LEARNED, "looked at": LOOKED_AT, "first seed": FIRST_SEED,
        "seed": given.seed, "set": given.set, "looks": [],
    }  # fmt: skip
    print("| decisions | updates | minutes | mean return |")
    print("| ---: | ---: | ---: | ---: |")
    spent = 0.0
    for steps in range(0, given.steps + 1, given.every):
        if steps:
            began = time.perf_counter()
            model.learn(given.every, reset_num_timesteps=False)
            spent += time.perf_counter() - began
        returns = scores(model, given.episodes)
        results["looks"].append(
            {
                "decisions": model.num_timesteps, "updates": model._n_updates, "seconds": spent,
                "scores": returns,
            }
        )  # fmt: skip
        print(
            f"| {model.num_timesteps} | {model._n_updates} | {spent / 60:.0f} "
            f"| {np.mean(returns):.2f} |",
            flush=True,
        )
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    env.close()


if __name__ == "__main__":
    main()
