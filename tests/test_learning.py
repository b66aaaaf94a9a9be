"""Small problems with known answers are solved exactly: policy, value and reward."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.envs import IdentityEnv
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero

FAST: dict[str, Any] = {
    "learning_starts": 64,
    "batch_size": 64,
    "num_simulations": 8,
    "learning_rate": 3e-3,
    "reanalyse_ratio": 8,
    "target_decay": 0.9,  # the network that searches follows within ten updates
    "policy_kwargs": {"net_arch": [32]},
    "seed": 0,
}


class Bandit(gym.Env[NDArray[np.float32], np.int64]):
    """One step, a reward per arm."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space: spaces.Discrete = spaces.Discrete(4)
    rewards = (0.0, -1.0, 2.0, 1.5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        return np.ones(1, np.float32), self.rewards[int(action)], True, False, {}


class Chain(gym.Env[NDArray[np.float32], np.int64]):
    """`length` states in a row. 1 steps on, and pays 1 behind the last state; 0 pays 0.1 and ends.

    Taking what is at hand gives 0.1; waiting gives gamma ** (length - 1).
    """

    length = 5
    observation_space = spaces.Box(0, 1, (length + 1,))
    action_space: spaces.Discrete = spaces.Discrete(2)

    def _obs(self) -> NDArray[np.float32]:
        one_hot = np.zeros(self.length + 1, np.float32)
        one_hot[self.state] = 1
        return one_hot

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = 0
        return self._obs(), {}

    def step(self, action: np.int64) -> Any:
        if action == 0:
            return self._obs(), 0.1, True, False, {}
        self.state += 1
        done = self.state == self.length
        return self._obs(), float(done), done, False, {}


class Endless(gym.Env[NDArray[np.float32], np.int64]):
    """Reward 1 for ever; an episode is cut after ten steps. Its value is 1 / (1 - gamma)."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space: spaces.Discrete = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.steps += 1
        return np.ones(1, np.float32), 1.0, False, self.steps == 10, {}


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_identity(search: str) -> None:
    """The right action is the one observed."""
    env = IdentityEnv(dim=4, ep_length=20)
    settings = FAST | {
        "learning_starts": 256,  # each action is tried in each state
        "policy_kwargs": {"net_arch": [64]},  # 32 units hardly hold a table of 4 x 4
    }
    model = MuZero("MlpPolicy", env, gamma=0.5, search=search, **settings).learn(1000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=5)
    assert mean == 20


def test_bandit() -> None:
    model = MuZero("MlpPolicy", Bandit(), **FAST).learn(700)
    plan = model.plan(np.ones(1, np.float32))
    assert plan.action[0] == 2
    seen = plan.visit_counts[0] > 0
    np.testing.assert_allclose(plan.q_values[0][seen], np.array(Bandit.rewards)[seen], atol=0.15)


def test_chain_with_a_delayed_reward() -> None:
    """The greedy policy walks to the end, and values along it are gamma ** (steps to go)."""
    gamma = 0.9
    settings = FAST | {"learning_starts": 256}  # at random, one episode of 32 reaches the end
    model = MuZero("MlpPolicy", Chain(), gamma=gamma, **settings).learn(900)
    states = np.eye(Chain.length + 1, dtype=np.float32)[: Chain.length]
    plan = model.plan(states)
    assert plan.action.tolist() == [1] * Chain.length
    expected = gamma ** np.arange(Chain.length - 1, -1, -1)
    np.testing.assert_allclose(plan.improved_value, expected, atol=0.1)


def test_truncation_is_not_an_end() -> None:
    """Were it one, the value would be below 10 rewards."""
    gamma = 0.9
    settings = FAST | {"td_steps": 20}
    model = MuZero("MlpPolicy", Endless(), gamma=gamma, **settings).learn(500)
    value = model.plan(np.ones(1, np.float32)).value[0]
    assert value == pytest.approx(1 / (1 - gamma), rel=0.1)


class Fuse(gym.Env[NDArray[np.float32], np.int64]):
    """Each step may be the last, at even odds, and then costs 100: nobody can know which it is."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space: spaces.Discrete = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        burnt = bool(self.np_random.random() < 0.5)
        return np.ones(1, np.float32), -100.0 * burnt, burnt, False, {}


def test_what_comes_at_an_unknown_time_is_worth_no_less() -> None:
    """Rewards and values behind a step are expectations: together they are the value before it.

    A step costs 50 on average, and half of them lead on to the same state: V = -50 + gamma V / 2.
    Of means in units of h a search would make about half of that.
    """
    gamma = 0.9
    model = MuZero("MlpPolicy", Fuse(), gamma=gamma, **FAST).learn(600)
    value = -50 / (1 - gamma / 2)
    told = model.policy.evaluate(np.ones((1, 1), np.float32)).value
    np.testing.assert_allclose(told, [value], rtol=0.1)
    plan = model.plan(np.ones(1, np.float32))
    np.testing.assert_allclose(plan.q_values, [[value, value]], rtol=0.2)


def test_how_much_later_steps_teach_the_representation_is_an_argument() -> None:
    """Where g lets no gradient through, h learns from the first latents alone, though the losses
    are the same."""
    model = MuZero("MlpPolicy", Chain(), **FAST, gradient_scale=1.0).learn(100)
    batch = model.replay_buffer.sample(64)
    encoder = [x for name, x in model.policy.network.named_parameters() if "encoder" in name]

    def loss_and_gradient(scale: float) -> tuple[float, torch.Tensor]:
        model.gradient_scale = scale
        loss = model._loss(batch).total
        gradients = torch.autograd.grad(loss, encoder)
        return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])

    whole, half, none = (loss_and_gradient(scale) for scale in (1.0, 0.5, 0.0))
    assert whole[0] == half[0] == none[0]
    assert float((whole[1] - none[1]).norm()) > float((half[1] - none[1]).norm()) > 0
