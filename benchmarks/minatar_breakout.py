"""A small game of pixels: MuZero beside DQN on MinAtar's Breakout, at equal steps.

    pip install 'muzero-agent[minatar]'    # licensed under the GPL, version 3
    python benchmarks/minatar_breakout.py --algos MuZero DQN --seeds 0 1 2 --steps 30000

Both see the board [10, 10, 4] and no more. MuZero is "CnnPolicy" with the settings of
hyperparams.yml: a small network, an update for every four steps, one compared step, and else the
constructor's defaults: less exploration was tried on seed 10, and is worse. DQN has the network and
the settings of MinAtar's paper (Young & Tian 2019, arXiv 1903.03176: 16 filters of 3x3, 128 units),
in SB3. A run is looked at every tenth of its steps by 20 greedy episodes, and in the end by 100;
finished runs are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from muzero_agent import MuZero
from muzero_agent.bench.plan import Run
from muzero_agent.bench.results import report, write_csv
from muzero_agent.bench.worker import Result, Watch, read_result, write_whole
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine
from muzero_agent.training import parse_changes

ENV = "MinAtar/Breakout-v1"
MOST_STEPS = 2_000  # of an episode that is looked at: good players go on for ever
ROOT = Path(__file__).resolve().parents[1]
MUZERO = load_hyperparams(ENV)
MUZERO_SETTINGS = MUZERO.kwargs
DQN_SETTINGS: dict[str, Any] = {
    "learning_rate": 2.5e-4,
    "buffer_size": 100_000,
    "learning_starts": 5_000,
    "batch_size": 32,
    "gamma": 0.99,
    "train_freq": 1,
    "target_update_interval": 1_000,
    "exploration_final_eps": 0.1,
}


class MinAtarCnn(BaseFeaturesExtractor):
    """16 filters of 3x3 on [height, width, channels], then 128 units."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, 128)
        height, width, channels = observation_space.shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (height - 2) * (width - 2), 128),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x.permute(0, 3, 1, 2))
        return features


def build(run: Run, settings: dict[str, Any]) -> BaseAlgorithm:
    if run.algorithm == "MuZero":
        envs = make_vec_env(ENV, MUZERO.n_envs, seed=run.seed)
        return MuZero("CnnPolicy", envs, seed=run.seed, **settings)
    kwargs = {"features_extractor_class": MinAtarCnn, "net_arch": []}
    # The paper's exploration falls over its first 100,000 of 5 million frames; here over a tenth.
    return DQN(
        "MlpPolicy",
        make_vec_env(ENV, 1, seed=run.seed),
        seed=run.seed,
        policy_kwargs=kwargs,
        **settings,
    )


def measure(run: Run, settings: dict[str, Any]) -> Result:
    seed = 1_000_000 + 1_000 * run.seed
    # Inside of Monitor, which else would not notice the end of a long episode.
    envs = make_vec_env(ENV, 20, seed=seed, env_kwargs={"max_episode_steps": MOST_STEPS})
    watch = Watch(envs, run)
    model = build(run, settings)
    watch.start()
    model.learn(run.steps, callback=watch)
    watch.run = run.model_copy(update={"episodes": 100})
    watch.evaluate()
    return Result(run=run, evaluations=watch.evaluations, machine=machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--algos", nargs="+", choices=["MuZero", "DQN"], default=["MuZero", "DQN"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "minatar")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE, of MuZero")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"MuZero": MUZERO_SETTINGS | parse_changes(given.set), "DQN": DQN_SETTINGS}
    results = []
    for seed in given.seeds:
        for name in given.algos:
            run = Run(
                env=ENV, algorithm=name, seed=seed, steps=given.steps, every=given.steps // 10,
                episodes=20, threads=1, settings={k: str(v) for k, v in settings[name].items()},
                defaults={"n_envs": str(MUZERO.n_envs if name == "MuZero" else 1)},
            )  # fmt: skip
            result = read_result(given.out / run.file)
            if result is None or result.run != run:
                result = measure(run, settings[name])
                write_whole(given.out / run.file, result.model_dump_json(indent=1) + "\n")
            final = result.final
            spread = 1.96 * np.std(final.returns) / np.sqrt(len(final.returns))
            print(
                f"{run}: {final.mean:.1f} +- {spread:.1f} after {final.seconds:.0f} s", flush=True
            )
            results.append(result)
    write_csv(results, given.out)
    print(report(results))


if __name__ == "__main__":
    main()
