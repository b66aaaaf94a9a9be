"""Milliseconds of one `predict` on CartPole-v1: MuZero by number of simulations, beside PPO.

    python benchmarks/latency.py
    python benchmarks/latency.py --threads 2 --simulations 16 50

This is the price of planning that a user notices first. The models take turns, call by call, so
that whatever else the machine does hits all of them. They are untrained: what a search costs
depends on the shape of the networks and hardly on their weights. Where the CPU time of a call is
much less than its time, other programs were in the way.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from muzero_agent import MuZero

ENV = "CartPole-v1"


def milliseconds(
    models: dict[str, BaseAlgorithm], observation: NDArray[Any], calls: int
) -> dict[str, NDArray[np.float64]]:
    """Times [calls, 2] of so many calls of `predict`, after some to warm up: wall clock and CPU."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for call in range(-20, calls):
        for name, model in models.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            model.predict(observation, deterministic=True)
            taken = time.perf_counter() - started, time.process_time() - cpu_started
            if call >= 0:
                times[name].append(taken)
    return {name: 1e3 * np.array(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--observations", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--simulations", type=int, nargs="+", default=[4, 16, 50])
    parser.add_argument("--search", choices=["gumbel", "puct"], default="gumbel")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    models: dict[str, BaseAlgorithm] = {
        f"MuZero, {given.search}, {n} simulations": MuZero(
            "MlpPolicy", ENV, num_simulations=n, search=given.search, seed=0
        )
        for n in given.simulations
    }
    models["PPO"] = PPO("MlpPolicy", ENV, seed=0, device="cpu")
    threads = torch.get_num_threads()
    print(f"{given.calls} calls each, {os.cpu_count()} cores, torch threads: {threads}\n")
    print("| model | observations | median ms | 95th percentile | CPU, median |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for size in given.observations:
        batch = np.asarray(make_vec_env(ENV, size, seed=0).reset())
        taken = milliseconds(models, batch[0] if size == 1 else batch, given.calls)
        for name, times in taken.items():
            (median, cpu), (late, _) = np.quantile(times, (0.5, 0.95), axis=0)
            print(f"| {name} | {size} | {median:.2f} | {late:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
