"""CartPole with the constructor's defaults: the line that everybody types first."""

from __future__ import annotations

import time

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(20, 25))
def test_cartpole_is_solved_with_the_defaults(seed: int) -> None:
    """Mean of 20 greedy episodes of the model that `learn(10_000)` returns."""
    start = time.perf_counter()
    model = MuZero("MlpPolicy", "CartPole-v1", seed=seed).learn(10_000)
    seconds = time.perf_counter() - start
    env = make_vec_env("CartPole-v1", n_envs=20, seed=1000 + seed)
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=20)
    print(f"seed {seed}: mean {mean:.1f} +- {deviation:.1f} of 20 episodes, {seconds:.0f} s")
    assert isinstance(mean, float)
    assert mean >= 475
