"""Action spaces of several components: flattened for the search, whole to the environment."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.envs import IdentityEnvMultiBinary, IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero
from muzero_agent.actions import legal_actions, num_actions, to_space

SPACES = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([7]),
    spaces.MultiDiscrete([1] * 70 + [2]),
    spaces.MultiBinary(4),
]
SMALL: dict[str, Any] = {
    "num_simulations": 4,
    "batch_size": 16,
    "learning_starts": 16,
    "train_freq": 4,
    "gradient_steps": 1,
    "reanalyse_ratio": 3,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 0,
}


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_element_has_a_number(space: spaces.Space[Any]) -> None:
    elements = to_space(space, np.arange(num_actions(space)))
    assert all(space.contains(element) for element in elements)
    assert len({tuple(np.atleast_1d(element)) for element in elements}) == num_actions(space)


def test_numbers_run_through_the_last_component_first() -> None:
    space = spaces.MultiDiscrete([2, 3])
    assert to_space(space, np.arange(6)).tolist() == [[a, b] for a in range(2) for b in range(3)]


def test_masks_of_components_make_a_mask_of_actions() -> None:
    space = spaces.MultiDiscrete([2, 3, 2])
    mask = np.random.default_rng(0).random((50, 7)) < 0.6
    elements = list(itertools.product(range(2), range(3), range(2)))
    expected = [[row[a] and row[2 + b] and row[5 + c] for a, b, c in elements] for row in mask]
    np.testing.assert_array_equal(legal_actions(space, mask), expected)
    joint = np.random.default_rng(1).random((50, 12)) < 0.5
    np.testing.assert_array_equal(legal_actions(space, joint), joint)
    one = np.array([[0, 1, 2]])
    assert legal_actions(spaces.Discrete(3), one).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    "env",
    [IdentityEnvMultiDiscrete(dim=2, ep_length=20), IdentityEnvMultiBinary(dim=2, ep_length=20)],
    ids=["MultiDiscrete", "MultiBinary"],
)
def test_identity_is_learned(env: Any) -> None:
    """Every component of the observation is to be repeated."""
    settings = SMALL | {
        "learning_starts": 400,
        "batch_size": 64,
        "gradient_steps": 4,
        "learning_rate": 3e-3,
        "num_simulations": 16,
        "reanalyse_ratio": 8,
        "target_decay": 0.9,
        "policy_kwargs": {"net_arch": [64]},
    }
    model = MuZero("MlpPolicy", env, gamma=0.5, **settings).learn(1000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=5, warn=False)
    assert mean == 20


class Lock(gym.Env[NDArray[np.float32], NDArray[np.int64]]):
    """Three dials, of which some positions are forbidden each step; notes if one was taken."""

    action_space = spaces.MultiDiscrete([2, 3, 2])
    observation_space = spaces.Box(0, 1, (7,))

    def __init__(self) -> None:
        self.violations = self.taken = 0

    def action_masks(self) -> NDArray[np.bool_]:
        return self.mask

    def _observe(self) -> NDArray[np.float32]:
        self.mask = self.np_random.random(7) < 0.4
        for part in (slice(0, 2), slice(2, 5), slice(5, 7)):
            self.mask[part.start + self.np_random.integers(part.stop - part.start)] = True
        return self.mask.astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: NDArray[np.int64]) -> Any:
        assert self.action_space.contains(action)
        self.taken += 1
        self.violations += not self.mask[action + np.array([0, 2, 5])].all()
        self.t += 1
        return self._observe(), 1.0, False, self.t == 10, {}


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_forbidden_components_are_never_taken(search: str) -> None:
    env = Lock()
    MuZero("MlpPolicy", env, search=search, **SMALL).learn(100)
    assert env.taken == 100
    assert env.violations == 0


def test_shapes_and_types_of_predictions(tmp_path: pathlib.Path) -> None:
    model = MuZero("MlpPolicy", Lock(), **SMALL).learn(40)
    obs = np.ones((3, 7), np.float32)
    masks = np.ones((3, 7), np.int8)
    masks[:, [0, 2, 3, 6]] = 0
    action, _ = model.predict(obs, action_masks=masks)
    assert action.tolist() == [[1, 2, 0]] * 3
    action, _ = model.predict(obs[0], action_masks=masks[0])
    assert action.tolist() == [1, 2, 0]
    assert model.action_space.contains(action)
    plan = model.plan(obs, action_masks=masks)
    assert plan.visit_counts.shape == (3, 12)
    assert to_space(model.action_space, plan.action).tolist() == [[1, 2, 0]] * 3
    with pytest.raises(ValueError, match=r"give \(3, 7\) or \(3, 12\)"):
        model.predict(obs, action_masks=np.ones((3, 8)))
    model.save(tmp_path / "lock")
    loaded = MuZero.load(tmp_path / "lock")
    np.testing.assert_array_equal(loaded.plan(obs, masks).visit_counts, plan.visit_counts)
