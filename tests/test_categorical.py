"""The h-transform, its exact inverse, two-hot distributions, and what these stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muzero_agent.categorical import EPSILON, MEANS, Support, h, h_inverse

scalars = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(scalars)
def test_h_inverse_undoes_h(x: float) -> None:
    tensor = torch.tensor(x, dtype=torch.float32)
    assert h_inverse(h(tensor)).item() == pytest.approx(x, rel=2e-5, abs=1e-5)


@given(scalars)
def test_h_undoes_its_inverse_in_double(y: float) -> None:
    tensor = torch.tensor(y, dtype=torch.float64)
    assert h(h_inverse(tensor)).item() == pytest.approx(y, rel=1e-9, abs=1e-9)


@given(scalars)
def test_h_is_odd_and_matches_its_formula(x: float) -> None:
    tensor = torch.tensor(x, dtype=torch.float64)
    assert h(-tensor).item() == -h(tensor).item()
    formula = ((abs(x) + 1) ** 0.5 - 1 + EPSILON * abs(x)) * (1 if x >= 0 else -1)
    assert h(tensor).item() == pytest.approx(formula, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("mean", MEANS)
@given(x=st.floats(-880, 880, width=32))
def test_two_hot_keeps_the_scalar(mean: str, x: float) -> None:
    support = Support(30.0, 61, mean)
    target = support.two_hot(torch.tensor([x]))
    assert target.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (target > 0).sum().item() <= 2
    assert support.scalar(target.log()).item() == pytest.approx(x, rel=1e-4, abs=1e-3)
    adjacent = target.nonzero()[:, 1]
    assert adjacent.max() - adjacent.min() <= 1


@pytest.mark.parametrize("mean", MEANS)
def test_scalars_beyond_the_support_are_clipped(mean: str) -> None:
    support = Support(2.0, 5, mean)
    assert support.two_hot(torch.tensor([1e9]))[0].tolist() == [0, 0, 0, 0, 1]
    assert support.two_hot(torch.tensor([-1e9]))[0].tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("mean", MEANS)
def test_two_hot_logits_stand_for_their_scalar(mean: str) -> None:
    support = Support(mean=mean)
    x = torch.tensor([[-500.0, -1.0, 0.0], [0.3, 17.0, 800.0]])
    logits = support.two_hot(x).log()
    torch.testing.assert_close(support.scalar(logits), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mean", MEANS)
def test_zero_logits_stand_for_zero(mean: str) -> None:
    assert Support(mean=mean).scalar(torch.zeros(61)).abs().item() < 1e-4


@given(st.floats(-800, 800), st.floats(-800, 800), st.floats(0, 1))
def test_a_mixture_stands_for_its_expectation(one: float, other: float, share: float) -> None:
    """What may be one scalar or another is worth their mean, by their odds."""
    support = Support(mean="scalars")
    target = share * support.two_hot(torch.tensor(one)) + (1 - share) * support.two_hot(
        torch.tensor(other)
    )
    expected = share * one + (1 - share) * other
    assert support.scalar(target.log()).item() == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_transformed_means_shrink_what_is_unsure() -> None:
    """As MuZero has them: of -100 or 0 at even odds it makes the scalar whose h is half h(-100)."""
    support = Support(mean="transformed")
    target = (support.two_hot(torch.tensor(-100.0)) + support.two_hot(torch.tensor(0.0))) / 2
    expected = h_inverse(h(torch.tensor(-100.0)) / 2).item()
    assert expected == pytest.approx(-29.7, abs=0.1)
    assert support.scalar(target.log()).item() == pytest.approx(expected, rel=1e-4)


def test_means_are_of_what_is_known() -> None:
    with pytest.raises(ValueError, match="support_mean='values': choose one of"):
        Support(mean="values")


def test_cross_entropy_is_least_at_the_target() -> None:
    """Its gradient vanishes where the softmax equals the two-hot target, and only there."""
    support = Support(bound=3.0, size=7)
    x = torch.tensor([1.7])
    logits = (support.two_hot(x) + 1e-9).log().requires_grad_()
    support.cross_entropy(logits, x).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    other = torch.zeros(1, 7, requires_grad=True)
    support.cross_entropy(other, x).sum().backward()
    assert other.grad is not None
    assert other.grad.abs().max() > 0.1


@pytest.mark.parametrize("size", [2, 4, 60])
def test_support_must_be_odd(size: int) -> None:
    with pytest.raises(ValueError, match="odd number of atoms"):
        Support(size=size)


def test_support_must_have_a_positive_bound() -> None:
    with pytest.raises(ValueError, match="positive bound"):
        Support(bound=0.0)


@pytest.mark.parametrize("smoothing", [0.5, 0.75])
def test_smoothed_targets_nearly_keep_the_mean_of_scalars(smoothing: float) -> None:
    support = Support(30.0, 61, "scalars")
    support.smoothing = smoothing
    x = torch.tensor([-300.0, -20.0, -1.0, 0.0, 0.5, 5.0, 100.0])
    told = support.gaussian(x) @ support.coordinates
    torch.testing.assert_close(told, x, rtol=0.01, atol=0.15)


@pytest.mark.parametrize("smoothing", [0.5, 0.75, 2.0])
def test_smoothed_targets_keep_the_mean(smoothing: float) -> None:
    """Away from the bounds; and the mass is that of a normal distribution between the atoms."""
    support = Support(10.0, 41)
    support.smoothing = smoothing
    x = h_inverse(torch.tensor([0.0, 0.3, -2.7, 4.25]))
    target = support.gaussian(x)
    assert torch.allclose(target.sum(-1), torch.ones(4))
    assert torch.allclose(target @ support.atoms, h(x), atol=1e-3)
    normal = torch.distributions.Normal(20.0, smoothing)
    wanted = normal.cdf(torch.tensor(22.5)) - normal.cdf(torch.tensor(21.5))
    assert target[0, 22] == pytest.approx(float(wanted), abs=1e-6)
    logits = torch.randn(4, 41)
    by_hand = -(target * torch.log_softmax(logits, -1)).sum(-1)
    assert torch.allclose(support.cross_entropy(logits, x), by_hand)
    assert float(support.gaussian(torch.tensor(1e6)).argmax()) == 40


def test_little_smoothing_is_none() -> None:
    support = Support(10.0, 41)
    x = h_inverse(support.atoms)  # on the atoms
    support.smoothing = 1e-3
    assert torch.allclose(support.gaussian(x), support.two_hot(x), atol=1e-5)
