"""Reanalysis rides along with acting: whose results go where, and with which noise."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from muzero_agent import MuZero
from muzero_agent.planner import Plan

N_ENVS, RATIO = 2, 3


def make(**kwargs: Any) -> MuZero:
    settings: dict[str, Any] = {
        "num_simulations": 4,
        "batch_size": 8,
        "learning_starts": 16,
        "train_freq": 4,
        "gradient_steps": 2,
        "reanalyse_ratio": RATIO,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
    }
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")] * N_ENVS)
    return MuZero("MlpPolicy", env, **(settings | kwargs))


def searches(model: MuZero, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Plan]]:
    """Observations, noise and result of each search from now on."""
    seen = []
    plan = model.policy.plan

    def note(obs: Any, **keywords: Any) -> Plan:
        result = plan(obs, **keywords)
        seen.append((obs, keywords["noise"].copy(), result))
        return result

    monkeypatch.setattr(model.policy, "plan", note)
    return seen


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_stored_states_are_searched_beside_those_that_act(
    search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gumbel's noise is for acting alone; without noise, PUCT's visits would close in on an action
    before others are known."""
    model = make(search=search).learn(40)
    replay = model.replay_buffer
    seen = searches(model, monkeypatch)
    model.train_freq = 4
    model.learn(8, reset_num_timesteps=False)
    assert len(seen) == 4
    assert isinstance(replay.obs, np.ndarray)
    newest: dict[tuple[int, int], tuple[Plan, int]] = {}
    for obs, noise, found in seen:
        assert noise[:N_ENVS].tolist() == [1.0] * N_ENVS
        assert noise[N_ENVS:].tolist() == [float(search == "puct")] * RATIO * N_ENVS
        for i in range(N_ENVS, len(obs)):
            env, slot = np.argwhere((replay.obs == obs[i]).all(-1))[0].tolist()
            newest[env, slot] = found, i
    assert len(newest) > 3 * RATIO * N_ENVS
    for (env, slot), (found, i) in newest.items():  # beside the observation they belong to
        assert (replay.policy[env, slot] == found.policy[i]).all()
        if replay.searched[env, slot]:
            assert replay.value[env, slot] == found.mixed_value[i]
            assert replay.regret[env, slot] == found.regret()[i, replay.action[env, slot]]


def test_the_values_error_tells_the_search_which_differences_to_trust() -> None:
    model = make().learn(60)
    error = model.replay_buffer.typical_error
    assert error is not None
    assert error > 0
    assert float(model.policy.value_error) == pytest.approx(error)
    obs = np.zeros((1, 4), np.float32)
    model.policy.value_error.fill_(0.0)
    bold = model.plan(obs)
    model.policy.value_error.fill_(1e6)
    cautious = model.plan(obs)
    np.testing.assert_allclose(cautious.policy, cautious.prior, atol=1e-4)
    assert np.abs(bold.policy - bold.prior).max() > 0.1


def test_without_reanalysis_only_those_that_act_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(reanalyse_ratio=0)
    seen = searches(model, monkeypatch)
    model.learn(40)
    assert {len(obs) for obs, _, _ in seen} == {N_ENVS}
