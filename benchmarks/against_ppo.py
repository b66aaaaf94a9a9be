"""MuZero against MaskablePPO in Connect Four, each trained by self-play for the same time.

    python benchmarks/against_ppo.py --minutes 20 --json benchmarks/results/against_ppo.json

Each learns in a process of its own, both at once, with one torch thread, until its minutes of CPU
time are over; MuZero with the settings of hyperparams.yml. MaskablePPO (sb3-contrib) plays
one side of each game, by lot, and the other side is a copy of itself, renewed before each of its
rollouts; the copies of all games choose in one batch. Then both meet in pairs of games with the
same two random opening moves, each moving first in one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pettingzoo.classic import connect_four_v3
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent import MuZero
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.evaluation import table
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import commit
from muzero_agent.matches import play_match
from muzero_agent.players import ModelPlayer

GAME = connect_four_v3.env


class AgainstOneself(VecEnv):
    """Games in which the learner plays one side and `opponent` the other, by lot.

    `opponent`: a policy that draws its moves; None plays at random.
    """

    def __init__(self, n_envs: int, seed: int) -> None:
        self.games = [TurnBasedEnv(GAME()) for _ in range(n_envs)]
        self.opponent: Any = None
        self.rng = np.random.default_rng(seed)
        self.side = np.zeros(n_envs, np.int64)  # of the learner
        self.observed: list[dict[str, NDArray[Any]]] = [{} for _ in range(n_envs)]
        super().__init__(n_envs, self.games[0].observation_space, self.games[0].action_space)

    def reset(self) -> Any:
        for i in range(self.num_envs):
            self._begin(i)
        self._let_opponent_move(list(range(self.num_envs)))
        return self._stack(self.observed)

    def _begin(self, i: int) -> None:
        self.observed[i], _ = self.games[i].reset()
        self.side[i] = self.rng.integers(2)

    def step_async(self, actions: NDArray[Any]) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        rewards = np.zeros(self.num_envs, np.float32)
        over = np.zeros(self.num_envs, np.bool_)
        for i, action in enumerate(self.actions):
            self.observed[i], rewards[i], over[i], _, _ = self.games[i].step(int(action))
        replies, ends = self._let_opponent_move(np.flatnonzero(~over).tolist())
        rewards -= replies
        over |= ends
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(over).tolist()
        for i in ended:
            infos[i]["terminal_observation"] = self.observed[i]
            self._begin(i)
        self._let_opponent_move(ended)
        return self._stack(self.observed), rewards, over, infos

    def _let_opponent_move(self, among: list[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where it is its turn: its rewards, and which games are over."""
        rewards = np.zeros(self.num_envs, np.float32)
        over = np.zeros(self.num_envs, np.bool_)
        turn = [i for i in among if self.games[i].to_play != self.side[i]]
        if not turn:
            return rewards, over
        masks = np.stack([self.games[i].action_masks() for i in turn])
        if self.opponent is None:
            actions = [int(self.rng.choice(np.flatnonzero(mask))) for mask in masks]
        else:
            actions, _ = self.opponent.predict(
                self._stack([self.observed[i] for i in turn]), action_masks=masks
            )
        for i, action in zip(turn, actions, strict=True):
            self.observed[i], rewards[i], over[i], _, _ = self.games[i].step(int(action))
        return rewards, over

    @staticmethod
    def _stack(observed: Sequence[dict[str, NDArray[Any]]]) -> Any:
        return {key: np.stack([part[key] for part in observed]) for key in observed[0]}

    def close(self) -> None:
        for game in self.games:
            game.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.games[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        for i in self._get_indices(indices):
            setattr(self.games[i], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        return [
            getattr(self.games[i], method_name)(*method_args, **method_kwargs)
            for i in self._get_indices(indices)
        ]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class Timer(BaseCallback):
    """Stops after so many CPU seconds; renews the opponent, if any, before each rollout."""

    def __init__(self, seconds: float, copy: Any = None) -> None:
        super().__init__()
        self.end, self.copy = time.process_time() + seconds, copy

    def _on_rollout_start(self) -> None:
        if self.copy is not None:
            self.copy.load_state_dict(self.model.policy.state_dict())
            self.model.env.opponent = self.copy  # type: ignore[union-attr]

    def _on_step(self) -> bool:
        return time.process_time() < self.end


def train(algorithm: str, seconds: float, seed: int, path: Path) -> int:
    """Learn, save, and return the number of steps: moves of MuZero, who plays both sides, and moves
    of one side of MaskablePPO."""
    torch.set_num_threads(1)
    if algorithm == "MuZero":
        params = load_hyperparams("connect_four")
        muzero = MuZero(
            params.policy, params.make_env("connect_four", seed), seed=seed, **params.kwargs
        )
        muzero.learn(params.n_timesteps, callback=Timer(seconds))
        muzero.save(path)
        return muzero.num_timesteps
    settings: dict[str, Any] = {
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 4,
        "gamma": 1.0,
        "ent_coef": 0.01,
        "policy_kwargs": {"net_arch": [256, 256]},
        "seed": seed,
        "device": "cpu",
    }
    env = AgainstOneself(16, seed)
    ppo = MaskablePPO("MultiInputPolicy", env, **settings)
    copy = MaskablePPO("MultiInputPolicy", env, **settings).policy
    ppo.learn(10**9, callback=Timer(seconds, copy))
    ppo.save(path)
    return ppo.num_timesteps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/against_ppo"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    revision = commit()
    algorithms = ("MuZero", "MaskablePPO")
    with get_context("spawn").Pool(len(algorithms)) as pool:
        settings = [
            (name, 60 * arguments.minutes, arguments.seed, arguments.out / f"{name}.zip")
            for name in algorithms
        ]
        steps = dict(zip(algorithms, pool.starmap(train, settings), strict=True))
    print(", ".join(f"{name}: {number:,} steps" for name, number in steps.items()), flush=True)
    result = play_match(
        ModelPlayer(MuZero.load(arguments.out / "MuZero.zip")),
        ModelPlayer(MaskablePPO.load(arguments.out / "MaskablePPO.zip"), name="MaskablePPO"),
        GAME,
        pairs=arguments.pairs,
        seed=arguments.seed + 1000,
    )
    print(table([result]))
    if arguments.json is not None:
        found = {
            "commit": revision,
            "seed": arguments.seed,
            "cpu_minutes": arguments.minutes,
            "steps": steps,
            **result.summary(),
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
