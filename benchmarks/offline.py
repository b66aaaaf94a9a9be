"""Learning from the play of a mediocre policy: MuZero Unplugged on logged data alone.

    python benchmarks/offline.py CartPole-v1 --seeds 0 1 2
    python benchmarks/offline.py LunarLander-v3 --seeds 0

A PPO of SB3 that has learned for a while plays, drawing its actions, and every step is written
down; then MuZero learns from that alone, and both are measured over 100 episodes whose seeds
neither of them knows. Beside stands what an imitator of the actions comes to, on the same data.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero
from muzero_agent.datasets.episodes import Episode, save_episodes
from muzero_agent.evaluation import evaluate_returns
from muzero_agent.machine import machine


class Setting(NamedTuple):
    """What is recorded of an environment, and how it is learned."""

    ppo_steps: int
    """That the recorded policy has learned for."""
    transitions: int
    updates: int
    num_simulations: int
    policy_targets: str
    reanalyse_ratio: int


SETTINGS = {
    "CartPole-v1": Setting(6_000, 20_000, 6_000, 16, "auto", 64),
    "LunarLander-v3": Setting(100_000, 500_000, 40_000, 4, "good_actions", 31),
}
EPISODES, TEST_SEED = 100, 1_000
ENVS = 16


def behaviour(env_id: str, seed: int) -> PPO:
    """A policy that has begun to learn."""
    env = make_vec_env(env_id, 4, seed=seed)
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", n_steps=256, batch_size=64)
    return model.learn(SETTINGS[env_id].ppo_steps)


def play(policy: PPO, env_id: str, transitions: int, seed: int) -> list[Episode]:
    """Whole episodes of its play, of as many environments side by side."""
    envs = make_vec_env(env_id, ENVS, seed=seed)
    torch.manual_seed(seed)
    episodes: list[Episode] = []
    left = np.full(ENVS, -(-transitions // ENVS))  # each ends the episode in which it is through
    seen: list[list[Any]] = [[] for _ in range(ENVS)]
    actions: list[list[int]] = [[] for _ in range(ENVS)]
    rewards: list[list[float]] = [[] for _ in range(ENVS)]
    obs: Any = envs.reset()  # one array, though it might be a dictionary
    while (left > 0).any() or any(actions):
        drawn, _ = policy.predict(obs, deterministic=False)
        after, reward, done, infos = envs.step(drawn)
        for env, info in enumerate(infos):
            if left[env] <= 0 and not actions[env]:
                continue
            seen[env].append(obs[env])
            actions[env].append(int(drawn[env]))
            rewards[env].append(float(reward[env]))
            left[env] -= 1
            if done[env]:
                episode = np.array([*seen[env], info["terminal_observation"]])
                terminated = not info["TimeLimit.truncated"]
                episodes.append(
                    Episode(episode, np.array(actions[env]), np.array(rewards[env]), terminated)
                )
                seen[env], actions[env], rewards[env] = [], [], []
        obs = after
    envs.close()
    return episodes


def learn(env_id: str, data: Path, seed: int, **targets: Any) -> MuZero:
    """From the file alone."""
    setting = SETTINGS[env_id]
    model = MuZero("MlpPolicy", env_id, seed=seed, num_simulations=setting.num_simulations)
    return model.learn_offline(
        data,
        setting.updates,
        reanalyse_ratio=setting.reanalyse_ratio,
        log_interval=setting.updates // 20,
        **targets,
    )


def measure(model: Any, env_id: str) -> tuple[float, float]:
    """Mean return over episodes, and half of its 95% interval."""
    if isinstance(model, PPO):
        envs = make_vec_env(env_id, 10, seed=TEST_SEED)
        returns, _ = evaluate_policy(
            model, envs, EPISODES, deterministic=False, return_episode_rewards=True
        )
    else:
        returns, _ = evaluate_returns(model, env_id, EPISODES, TEST_SEED)
    found = np.array(returns)
    return float(found.mean()), float(1.96 * found.std(ddof=1) / np.sqrt(len(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("env", choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/offline"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS[given.env]
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        policy = behaviour(given.env, seed)
        episodes = play(policy, given.env, setting.transitions, 100_000 * (seed + 1))
        data = given.out / f"{given.env}-{seed}.npz"
        save_episodes(data, episodes)
        returns = [float(episode.rewards.sum()) for episode in episodes]
        result: dict[str, Any] = {
            "env": given.env,
            "seed": seed,
            "transitions": sum(len(episode.actions) for episode in episodes),
            "episodes": len(episodes),
            "best_recorded_return": max(returns),
            "updates": setting.updates,
            "num_simulations": setting.num_simulations,
            "policy_targets": setting.policy_targets,
            "reanalyse_ratio": setting.reanalyse_ratio,
            "test_episodes": EPISODES,
            "test_seed": TEST_SEED,
            "machine": machine(),
            "behaviour": measure(policy, given.env),
        }
        print(f"{given.env} seed {seed}: recorded play {result['behaviour']}", flush=True)
        path = given.out / f"{given.env}-{seed}.json"
        for name, targets in (
            ("muzero", {"policy_targets": setting.policy_targets}),
            ("imitation", {"policy_targets": "actions", "value_targets": "result"}),
        ):
            begun = time.perf_counter()
            model = learn(given.env, data, seed, **targets)
            if name == "imitation":  # the policy alone, without a search
                model.num_simulations = 1
            result[name] = measure(model, given.env)
            result[f"{name}_seconds"] = time.perf_counter() - begun
            print(f"  {name}: {result[name]}, {result[f'{name}_seconds']:.0f} s", flush=True)
            path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
