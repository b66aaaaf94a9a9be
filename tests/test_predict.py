"""`predict` and `plan`: shapes, noise, settings, and what they leave alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from muzero_agent import MuZero
from muzero_agent.planner import Plan
from muzero_agent.policies import CnnPolicy, MultiInputPolicy, MuZeroPolicy

ENV_ID = "CartPole-v1"


def make(**kwargs: Any) -> MuZero:
    settings: dict[str, Any] = {
        "num_simulations": 4,
        "batch_size": 8,
        "learning_starts": 16,
        "gradient_steps": 2,
        "reanalyse_ratio": 3,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
    }
    return MuZero("MlpPolicy", ENV_ID, **(settings | kwargs))


@pytest.fixture(scope="module")
def model() -> MuZero:
    """A model with opinions: random weights, so that actions differ from state to state."""
    model = make().learn(48)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in model.policy.target_network.parameters():
            part.add_(torch.randn(part.shape, generator=generator), alpha=0.5)
    return model


@pytest.fixture(params=["gumbel", "puct"])
def searching(request: pytest.FixtureRequest, model: MuZero) -> Iterator[MuZero]:
    """The model with each of the searches."""
    usual, model.search = model.search, request.param
    yield model
    model.search = usual


@pytest.fixture(scope="module")
def observations() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


# -- shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [False, True])
def test_one_observation_gives_one_action(
    searching: MuZero, observations: NDArray[np.float32], deterministic: bool
) -> None:
    for player in (searching, searching.policy):
        action, state = player.predict(observations[0], deterministic=deterministic)
        assert isinstance(action, np.ndarray)
        assert action.shape == searching.action_space.shape == ()
        assert action.dtype == np.int64
        assert searching.action_space.contains(action)
        assert state is None


@pytest.mark.parametrize("n", [1, 2, 20])
def test_n_observations_give_n_actions(
    searching: MuZero, observations: NDArray[np.float32], n: int
) -> None:
    for player in (searching, searching.policy):
        actions, _ = player.predict(observations[:n])
        assert actions.shape == (n,)
        assert actions.dtype == np.int64
        assert set(actions.tolist()) <= {0, 1}


def test_a_row_does_not_depend_on_its_neighbours(
    searching: MuZero, observations: NDArray[np.float32]
) -> None:
    together, _ = searching.predict(observations, deterministic=True)
    alone = [int(searching.predict(obs, deterministic=True)[0]) for obs in observations]
    assert together.tolist() == alone
    assert len(set(alone)) == 2  # not simply always the same action


@pytest.mark.parametrize(
    ("policy", "space"),
    [
        (CnnPolicy, spaces.Box(0, 255, (8, 8, 3), np.uint8)),
        (CnnPolicy, spaces.Box(0, 255, (3, 8, 8), np.uint8)),
        (CnnPolicy, spaces.Box(0, 1, (2, 3, 3))),
        (MuZeroPolicy, spaces.Box(-1, 1, (2, 3))),
        (MuZeroPolicy, spaces.Box(-9, 9, (3,), np.int64)),
        (MuZeroPolicy, spaces.Discrete(5)),
        (MuZeroPolicy, spaces.MultiDiscrete([2, 3])),
        (MuZeroPolicy, spaces.MultiBinary(4)),
        (MultiInputPolicy, spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (2,))})),
        (
            MultiInputPolicy,
            spaces.Dict({"a": spaces.MultiBinary(3), "b": spaces.MultiDiscrete([2, 2])}),
        ),
    ],
    ids=str,
)
def test_shapes_for_kinds_of_observations(
    policy: type[MuZeroPolicy], space: spaces.Space[Any]
) -> None:
    """Images may come channels-first or channels-last, whichever the space says."""
    given = space
    if isinstance(space, spaces.Box) and space.shape == (8, 8, 3):
        space = spaces.Box(0, 255, (3, 8, 8), np.uint8)  # as behind VecTransposeImage
    arch = {"channels": 4, "num_blocks": 1, "head_width": 4} if policy is CnnPolicy else [8]
    player = policy(
        space, spaces.Discrete(3), lambda progress: 1e-3, net_arch=arch, num_simulations=2
    )
    given.seed(0)
    one: Any = given.sample()
    assert player.predict(one)[0].shape == ()
    samples: Any = [given.sample() for _ in range(5)]
    batch: Any = np.array(samples)
    if isinstance(given, spaces.Dict):
        batch = {key: np.array([sample[key] for sample in samples]) for key in given.spaces}
    actions, _ = player.predict(batch, deterministic=True)
    assert actions.shape == (5,)
    alone = [player.predict(sample, deterministic=True)[0] for sample in samples]
    assert actions.tolist() == alone


@pytest.mark.parametrize(
    "as_given",
    [
        lambda obs: obs.tolist(),
        lambda obs: obs.astype(np.float64),
        lambda obs: np.ascontiguousarray(obs[:, ::-1])[:, ::-1],
        lambda obs: np.asfortranarray(obs),
        lambda obs: np.broadcast_to(obs, obs.shape),
    ],
    ids=["list", "float64", "negative strides", "Fortran order", "read-only"],
)
@pytest.mark.filterwarnings("error")
def test_observations_in_any_dress(
    model: MuZero, observations: NDArray[np.float32], as_given: Any
) -> None:
    expected, _ = model.predict(observations, deterministic=True)
    actions, _ = model.predict(as_given(observations), deterministic=True)
    np.testing.assert_array_equal(actions, expected)


def test_the_policy_is_callable_on_tensors(
    model: MuZero, observations: NDArray[np.float32]
) -> None:
    actions = model.policy(torch.as_tensor(observations), deterministic=True)
    assert isinstance(actions, torch.Tensor)
    expected, _ = model.predict(observations, deterministic=True)
    assert actions.tolist() == expected.tolist()


@pytest.mark.parametrize("state", [None, (np.arange(3), np.ones((2, 2)))])
def test_state_is_passed_through(
    model: MuZero, observations: NDArray[np.float32], state: Any
) -> None:
    for player in (model, model.policy):
        _, after = player.predict(observations[:2], state, np.array([True, False]))
        assert after is state


# -- noise -----------------------------------------------------------------------------------------


def test_deterministic_actions_repeat(searching: MuZero, observations: NDArray[np.float32]) -> None:
    first, _ = searching.predict(observations, deterministic=True)
    searching.predict(observations)  # moves the generator on
    again, _ = searching.predict(observations, deterministic=True)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_stochastic_actions_vary(search: str, observations: NDArray[np.float32]) -> None:
    model = make(search=search)  # which has learned nothing, so that noise decides
    repeated = np.repeat(observations[:1], 40, 0)
    assert len(set(model.predict(repeated, deterministic=True)[0].tolist())) == 1
    assert len(set(model.predict(repeated)[0].tolist())) == 2
    one_by_one = {int(model.predict(observations[0])[0]) for _ in range(40)}
    assert one_by_one == {0, 1}


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_a_seed_repeats_what_is_drawn(search: str, observations: NDArray[np.float32]) -> None:
    model = make(search=search)  # which has learned nothing, so that noise decides
    drawn = []
    for seed in (1, 1, 2):
        model.set_random_seed(seed)
        drawn.append([model.predict(observations)[0].tolist() for _ in range(5)])
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


# -- plan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [None, 1, 6])
def test_a_plan_has_rows(
    searching: MuZero, observations: NDArray[np.float32], n: int | None
) -> None:
    plan = searching.plan(observations[0] if n is None else observations[:n])
    rows = n or 1
    assert isinstance(plan, Plan)
    parts = plan._asdict()
    assert len(parts.pop("principal_variation")) == rows
    shapes = {name: part.shape for name, part in parts.items()}
    in_all = ("policy", "prior", "visit_counts", "q_values")
    assert shapes == {name: (rows, 2) if name in in_all else (rows,) for name in shapes}
    assert set(in_all) < set(shapes)
    assert {"action", "value", "improved_value", "mixed_value"} < set(shapes)
    assert (plan.visit_counts.sum(-1) == searching.num_simulations).all()
    np.testing.assert_allclose(plan.policy.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(plan.prior.sum(-1), 1, atol=1e-5)
    assert all(np.isfinite(part).all() for part in parts.values())


def test_a_principal_variation_starts_with_the_action(
    searching: MuZero, observations: NDArray[np.float32]
) -> None:
    plan = searching.plan(observations)
    assert [line[0] for line in plan.principal_variation] == plan.action.tolist()
    lengths = {len(line) for line in plan.principal_variation}
    assert max(lengths) > 1
    assert max(lengths) <= searching.num_simulations
    assert all(action in (0, 1) for line in plan.principal_variation for action in line)


def test_a_plan_agrees_with_predict(searching: MuZero, observations: NDArray[np.float32]) -> None:
    actions, _ = searching.predict(observations, deterministic=True)
    plan = searching.plan(observations)
    np.testing.assert_array_equal(plan.action, actions)
    np.testing.assert_array_equal(searching.plan(observations).policy, plan.policy)
    noisy = searching.plan(np.repeat(observations, 100, 0), deterministic=False)
    assert (noisy.action != np.repeat(actions, 100)).any()


def test_a_plan_keeps_what_it_holds(searching: MuZero, observations: NDArray[np.float32]) -> None:
    """The tree is used again for the next search; results are not views of it."""
    plan = searching.plan(observations[:5])
    held = copy.deepcopy(plan)
    searching.plan(-observations[5:10])
    searching.predict(observations[10:15])
    assert held.principal_variation == plan.principal_variation
    for name in set(plan._fields) - {"principal_variation"}:
        np.testing.assert_array_equal(getattr(held, name), getattr(plan, name))


# -- settings --------------------------------------------------------------------------------------


def test_settings_changed_later_take_effect(observations: NDArray[np.float32]) -> None:
    model = make().learn(48)
    assert (model.plan(observations).visit_counts.sum(-1) == 4).all()
    gumbel = model.plan(observations)
    model.num_simulations = 9
    assert (model.plan(observations).visit_counts.sum(-1) == 9).all()
    assert model.policy.num_simulations == 9
    model.num_simulations, model.search = 4, "puct"
    puct = model.plan(observations)
    np.testing.assert_allclose(puct.policy, puct.visit_counts / 4)  # PUCT's policy is its visits
    assert (gumbel.policy != puct.policy).any()
    model.gamma = 0.1
    assert (model.plan(observations).value != puct.value).any()
    model.gamma, model.dirichlet_fraction = 0.997, 0.0
    noiseless = [model.plan(observations, deterministic=False).visit_counts for _ in range(2)]
    np.testing.assert_array_equal(noiseless[0], noiseless[1])
    model.dirichlet_fraction = 1.0
    noisy = [model.plan(observations, deterministic=False).visit_counts for _ in range(2)]
    assert (noisy[0] != noisy[1]).any()
    model.search, model.max_num_considered_actions = "gumbel", 1
    assert (model.plan(observations).visit_counts.max(-1) == 4).all()


def test_one_simulation_is_enough(observations: NDArray[np.float32]) -> None:
    for search in ("gumbel", "puct"):
        model = make(num_simulations=1, search=search)
        plan = model.plan(observations)
        assert (plan.visit_counts.sum(-1) == 1).all()
        assert all(len(line) == 1 for line in plan.principal_variation)


# -- evaluation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy(model: MuZero, n_envs: int) -> None:
    env = make_vec_env(ENV_ID, n_envs)
    results = []
    for player in (model, model.policy):
        env.seed(0)
        returns, lengths = evaluate_policy(player, env, 3, return_episode_rewards=True)
        assert isinstance(returns, list)
        assert isinstance(lengths, list)
        assert len(returns) == len(lengths) == 3
        assert returns == lengths
        assert all(8 <= total <= 500 for total in returns)
        results.append(returns)
    assert results[0] == results[1]  # deterministic, from the same states


def test_the_loop_of_the_documentation(model: MuZero) -> None:
    env = gym.make(ENV_ID)
    obs, _ = env.reset(seed=0)
    steps, over = 0, False
    while not over:
        action, _ = model.predict(obs, deterministic=True)
        obs, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        steps += 1
    assert 8 <= steps <= 500


# -- what stays as it is ---------------------------------------------------------------------------


def test_predict_changes_no_parameter(observations: NDArray[np.float32]) -> None:
    model = make().learn(48)
    before = copy.deepcopy(model.get_parameters())
    given = observations.copy()
    for deterministic in (False, True):
        model.predict(observations, deterministic=deterministic)
        model.policy.predict(observations, deterministic=deterministic)
        model.plan(observations, deterministic=deterministic)
    after: Any = model.get_parameters()
    for name, part in before["policy"].items():  # statistics of observations included
        assert bool((after["policy"][name] == part).all()), name
    np.testing.assert_array_equal(observations, given)
    assert model.num_timesteps == 48
    assert not model.policy.training


def test_predict_does_not_touch_the_stream_of_learning(
    observations: NDArray[np.float32],
) -> None:
    """A model that was watched learns exactly what one that was not learns."""
    alone, watched = make().learn(40), make().learn(40)
    for n in (1, 7, 20):
        watched.predict(observations[:n])
        watched.policy.predict(observations[:n])
        watched.plan(observations[:n], deterministic=False)
    for model in (alone, watched):
        model.learn(40, reset_num_timesteps=False)
    np.testing.assert_array_equal(alone.replay_buffer.action, watched.replay_buffer.action)
    np.testing.assert_array_equal(alone.replay_buffer.policy, watched.replay_buffer.policy)
    for a, b in zip(alone.policy.parameters(), watched.policy.parameters(), strict=True):
        assert bool((a == b).all())


def test_predict_leaves_the_global_generators_alone(
    model: MuZero, observations: NDArray[np.float32]
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - this is about the legacy generator
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    model.predict(observations)
    model.plan(observations, deterministic=False)
    assert bool((torch.rand(3) == expected[0]).all())
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002
