"""Value targets: one formula, of which every familiar return is a case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muzero_agent.targets import lambda_returns

Array = NDArray[np.float32]


def window(seed: int, batch: int = 3, steps: int = 8) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(batch, steps + 1)).astype(np.float32)
    rewards = rng.normal(size=(batch, steps)).astype(np.float32)
    discounts = rng.choice([0.9, -0.9, 1.0, 0.0], p=[0.4, 0.3, 0.2, 0.1], size=(batch, steps))
    return values, rewards, discounts.astype(np.float32)


def n_step(values: Array, rewards: Array, discounts: Array, t: int, n: int) -> float:
    """The n-step return of one row from state t, by its definition."""
    total, factor = 0.0, 1.0
    for i in range(t, min(t + n, len(rewards))):
        total += factor * rewards[i]
        factor *= discounts[i]
    return float(total + factor * values[min(t + n, len(rewards))])


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), num_targets=st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_lambda_one_is_the_n_step_return(seed: int, n: int, num_targets: int) -> None:
    values, rewards, discounts = window(seed)
    targets = lambda_returns(
        values, rewards, discounts, num_targets=num_targets, td_steps=n, td_lambda=1.0
    )
    expected = [
        [n_step(v, r, d, t, n) for t in range(num_targets)]
        for v, r, d in zip(values, rewards, discounts, strict=True)
    ]
    np.testing.assert_allclose(targets, expected, atol=2e-5)


@given(seed=st.integers(0, 10_000), td_lambda=st.floats(0, 0.99))
@settings(deadline=None, max_examples=60)
def test_lambda_return_is_the_weighted_average_of_n_step_returns(
    seed: int, td_lambda: float
) -> None:
    """(1 - lambda) sum of lambda^(n-1) G^n, the rest of the weight on the full return."""
    values, rewards, discounts = window(seed)
    steps = rewards.shape[1]
    targets = lambda_returns(
        values, rewards, discounts, num_targets=1, td_steps=steps, td_lambda=td_lambda
    )[:, 0]
    for row, target in enumerate(targets):
        returns = [
            n_step(values[row], rewards[row], discounts[row], 0, n) for n in range(1, steps + 1)
        ]
        weights = (1 - td_lambda) * td_lambda ** np.arange(steps)
        weights[-1] = td_lambda ** (steps - 1)
        assert target == pytest.approx(float(np.dot(weights, returns)), abs=2e-5)


def test_lambda_zero_is_the_one_step_target() -> None:
    values, rewards, discounts = window(0)
    kwargs: dict[str, Any] = {"num_targets": 4}
    one_step = lambda_returns(values, rewards, discounts, td_steps=1, td_lambda=1.0, **kwargs)
    td_zero = lambda_returns(values, rewards, discounts, td_steps=6, td_lambda=0.0, **kwargs)
    np.testing.assert_allclose(td_zero, one_step, atol=1e-6)


def test_monte_carlo_needs_no_values_when_the_episode_terminates() -> None:
    rewards = np.array([[1, 2, 3]], np.float32)
    discounts = np.array([[0.5, 0.5, 0.0]], np.float32)
    for junk in (0.0, 100.0):
        values = np.full((1, 4), junk, np.float32)
        targets = lambda_returns(
            values, rewards, discounts, num_targets=3, td_steps=99, td_lambda=1.0
        )
        np.testing.assert_allclose(targets, [[2.75, 3.5, 3.0]])


def test_truncation_bootstraps_and_termination_does_not() -> None:
    values = np.array([[0, 0, 10]], np.float32)
    rewards = np.ones((1, 2), np.float32)
    kwargs: dict[str, Any] = {"num_targets": 1, "td_steps": 5, "td_lambda": 1.0}
    truncated = np.array([[0.9, 0.9]], np.float32)
    terminated = np.array([[0.9, 0.0]], np.float32)
    assert lambda_returns(values, rewards, truncated, **kwargs)[0, 0] == pytest.approx(10.0)
    assert lambda_returns(values, rewards, terminated, **kwargs)[0, 0] == pytest.approx(1.9)


def test_a_state_without_an_estimate_hands_its_weight_on() -> None:
    """With lambda 0 everywhere else, the target bootstraps from the next state that has one."""
    values, rewards, discounts = window(5)
    values[:, [1, 2, 5]] = np.nan
    targets = lambda_returns(values, rewards, discounts, num_targets=6, td_steps=8, td_lambda=0.0)
    for row in range(len(values)):
        wanted = [
            n_step(values[row], rewards[row], discounts[row], t, n)
            for t, n in enumerate([3, 2, 1, 1, 2, 1])
        ]
        np.testing.assert_allclose(targets[row], wanted, atol=2e-5)


def test_a_sum_that_ends_without_an_estimate_is_no_target() -> None:
    """By the number of steps, by the window's end, or in front of an action off policy."""
    values, rewards, discounts = window(5)
    values[:, [3, 8]] = np.nan
    arrays = values, rewards, discounts
    on_policy = np.ones(rewards.shape, np.bool_)
    on_policy[0, 5] = False
    for n, cut in [(3, None), (8, None), (8, on_policy)]:
        targets = lambda_returns(*arrays, num_targets=8, td_steps=n, td_lambda=1.0, on_policy=cut)
        wanted = [[n_step(*row, t, n) for t in range(8)] for row in zip(*arrays, strict=True)]
        if cut is not None:
            wanted[0][:6] = [
                n_step(values[0], rewards[0], discounts[0], t, 5 - t) for t in range(6)
            ]
        assert 0 < np.isnan(wanted).sum() < 24 or n == 8
        np.testing.assert_allclose(targets, wanted, atol=2e-5)


def test_sums_stop_in_front_of_an_action_off_policy() -> None:
    values, rewards, discounts = window(3)
    on_policy = np.ones(rewards.shape, np.bool_)
    on_policy[:, 4] = False
    cut = lambda_returns(
        values,
        rewards,
        discounts,
        num_targets=5,
        td_steps=8,
        td_lambda=1.0,
        on_policy=on_policy,
    )
    for row in range(len(values)):
        wanted = [
            n_step(values[row], rewards[row], discounts[row], t, 4 - t) if t < 4 else values[row, 4]
            for t in range(5)
        ]
        np.testing.assert_allclose(cut[row], wanted, atol=2e-5)


def test_states_past_the_data_keep_their_own_value() -> None:
    values, rewards, discounts = window(1, steps=2)
    targets = lambda_returns(values, rewards, discounts, num_targets=3, td_steps=5, td_lambda=1.0)
    np.testing.assert_allclose(targets[:, 2], values[:, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"td_steps": 0}, "td_steps=0"), ({"td_lambda": 1.5}, "td_lambda=1.5")],
)
def test_bad_settings_are_named(change: dict[str, float], message: str) -> None:
    values, rewards, discounts = window(0)
    settings_: dict[str, float] = {"num_targets": 1, "td_steps": 1, "td_lambda": 1.0} | change
    with pytest.raises(ValueError, match=message):
        lambda_returns(values, rewards, discounts, **settings_)  # type: ignore[arg-type]


def test_wrong_shapes_are_named() -> None:
    values, rewards, discounts = window(0)
    with pytest.raises(ValueError, match="T \\+ 1 values"):
        lambda_returns(values[:, 1:], rewards, discounts, num_targets=1, td_steps=1, td_lambda=1.0)
