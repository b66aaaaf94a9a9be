"""The loss: which terms it has, how they are weighted, and where gradients flow."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muzero_agent.losses import Losses, Targets, muzero_loss, scale_gradient, unroll
from muzero_agent.networks import MlpNetwork, MuZeroNetwork, Obs
from muzero_agent.resnet import ResNet

BATCH, STEPS, ACTIONS, FEATURES = 4, 3, 2, 5


class Additive(MuZeroNetwork):
    """Scalar latents: h(o) = w o, g(s, a) = s + c, with logits that are the latent itself."""

    def __init__(self) -> None:
        super().__init__(ACTIONS, support_bound=2.0, support_size=3)
        self.w = nn.Parameter(torch.tensor(1.0))
        self.c = nn.Parameter(torch.tensor(0.0))

    def representation(self, obs: Any) -> Tensor:
        latent: Tensor = self.w * obs
        return latent

    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        latent = latent + self.c
        return latent, latent.expand(-1, 3) * torch.tensor([0.0, 0.0, 1.0])

    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        policy = latent.expand(-1, ACTIONS) * torch.tensor([0.0, 1.0])
        return policy, latent.expand(-1, 3) * torch.tensor([0.0, 0.0, 1.0])


def mlp() -> MlpNetwork:
    torch.manual_seed(0)
    network = MlpNetwork(
        nn.Identity(),
        FEATURES,
        ACTIONS,
        representation=[8],
        dynamics=[8],
        prediction=[8],
        latent_size=8,
        support_size=5,
    )
    for parameter in network.parameters():  # heads start at zero, where gradients vanish
        nn.init.normal_(parameter, std=0.5)
    return network


def targets(**change: Tensor) -> Targets:
    generator = torch.Generator().manual_seed(1)
    base = Targets(
        actions=torch.randint(ACTIONS, (BATCH, STEPS), generator=generator),
        rewards=torch.rand(BATCH, STEPS, generator=generator),
        values=torch.rand(BATCH, STEPS + 1, generator=generator) * 5,
        policies=torch.full((BATCH, STEPS + 1, ACTIONS), 1 / ACTIONS),
        reward_mask=torch.ones(BATCH, STEPS),
        value_mask=torch.ones(BATCH, STEPS + 1),
        policy_mask=torch.ones(BATCH, STEPS + 1),
        consistency_mask=torch.ones(BATCH, STEPS),
        weights=torch.ones(BATCH),
    )
    return base._replace(**change)


def loss_of(network: MuZeroNetwork, wanted: Targets, *, consistency: float = 0.0) -> Losses:
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(BATCH, FEATURES, generator=generator)
    following = torch.randn(STEPS * BATCH, FEATURES, generator=generator)
    return muzero_loss(
        network,
        first,
        following if consistency else None,
        wanted,
        value_coef=1.0,
        consistency_coef=consistency,
    )


def test_scale_gradient_is_the_identity_with_a_smaller_gradient() -> None:
    x = torch.tensor([1.5, -2.0], requires_grad=True)
    y = scale_gradient(x, 0.5)
    assert (y == x).all()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_only_the_latent_that_enters_g_has_its_gradient_scaled(scale: float) -> None:
    """d s_k / d s_0 is scale^k, yet g's own step sends its gradient back whole: a hook on the
    latent that leaves g would give c 1/2 at the first step."""
    network = Additive()
    latents, rewards = unroll(
        network, network.representation(torch.ones(1, 1)), torch.zeros(1, 3), scale
    )
    for k in range(4):
        (gradient,) = torch.autograd.grad(latents[k].sum(), network.w, retain_graph=True)
        assert gradient.item() == pytest.approx(scale**k)
    for k in range(1, 4):
        (gradient,) = torch.autograd.grad(latents[k].sum(), network.c, retain_graph=True)
        assert gradient.item() == pytest.approx(sum(scale**i for i in range(k)))
        (gradient,) = torch.autograd.grad(rewards[k - 1].sum(), network.c, retain_graph=True)
        assert gradient.item() == pytest.approx(sum(scale**i for i in range(k)))


def test_the_first_step_has_weight_one_and_unrolled_steps_one_kth() -> None:
    """A network of constant output: every term is log(size), so the sums show the weights."""
    network = mlp()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    losses = loss_of(network, targets())
    assert losses.policy.item() == pytest.approx(2 * math.log(ACTIONS), rel=1e-5)
    assert losses.value.item() == pytest.approx(2 * math.log(5), rel=1e-5)
    assert losses.reward.item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize("name", ["policy", "value", "reward", "consistency"])
def test_masked_entries_do_not_count(name: str) -> None:
    network = mlp()
    mask = getattr(targets(), f"{name}_mask")
    full = loss_of(network, targets(), consistency=1.0)
    none = loss_of(network, targets(**{f"{name}_mask": mask * 0}), consistency=1.0)
    assert getattr(none, name).item() == 0
    assert getattr(full, name).item() > 0
    rest = [field for field in ("policy", "value", "reward", "consistency") if field != name]
    assert all(getattr(none, f).item() == getattr(full, f).item() for f in rest)


def test_absorbing_states_train_value_and_reward_but_no_policy() -> None:
    """Past a termination the latents must still get gradients from value and reward."""
    network = mlp()
    wanted = targets(
        policy_mask=torch.tensor([[1.0, 0, 0, 0]]).expand(BATCH, -1),
        values=torch.zeros(BATCH, STEPS + 1),
        rewards=torch.zeros(BATCH, STEPS),
    )
    loss_of(network, wanted).total.backward()
    gradient = network.transition_in.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_importance_weights_scale_their_rows() -> None:
    network = mlp()
    whole = loss_of(network, targets()).total
    zero = loss_of(network, targets(weights=torch.zeros(BATCH))).total
    rows = [
        loss_of(network, targets(weights=torch.eye(BATCH)[i])).total.item() for i in range(BATCH)
    ]
    assert zero.item() == 0
    assert sum(rows) == pytest.approx(whole.item(), rel=1e-5)


def test_consistency_sends_no_gradient_through_the_observed_side() -> None:
    """Representations of the next observations are targets: they must not drift to the model's."""
    network = mlp()
    first = torch.randn(BATCH, FEATURES)
    following = torch.randn(STEPS * BATCH, FEATURES, requires_grad=True)
    losses = muzero_loss(network, first, following, targets(), value_coef=0.0, consistency_coef=1.0)
    losses.total.backward()
    assert following.grad is None
    assert network.transition_in.weight.grad is not None


def test_consistency_is_least_when_prediction_and_observation_agree() -> None:
    network = Additive()  # s_k = s_0: the right next observation is the first one
    first = torch.ones(BATCH, 1)
    same = first.repeat(STEPS, 1)
    agree = muzero_loss(network, first, same, targets(), value_coef=0, consistency_coef=1)
    differ = muzero_loss(network, first, -same, targets(), value_coef=0, consistency_coef=1)
    assert agree.consistency.item() == pytest.approx(0.0, abs=1e-6)
    assert differ.consistency.item() == pytest.approx(2.0, abs=1e-6)


def test_latents_are_measured_against_what_was_represented() -> None:
    """s_k = s_0 + k c lies apart from s_0 by k c. Its square, 1/K of each step, counts in variances
    of s_0, and no gradient flows through what was represented."""
    network = Additive()
    network.c.data.fill_(0.5)
    first = torch.tensor([[-1.0], [0.0], [1.0], [4.0]])
    following = first.repeat(STEPS, 1).requires_grad_()

    def loss(wanted: Targets) -> Losses:
        return muzero_loss(
            network, first, following, wanted,
            value_coef=0.0, consistency_coef=0.0, latent_coef=3.0,
        )  # fmt: skip

    losses = loss(targets())
    squares = torch.tensor([1.0, 4.0, 9.0]) * 0.5**2
    assert losses.latent.item() == pytest.approx(squares.mean().item() / first.var().item())
    rest = losses.policy + losses.reward
    assert losses.total.item() == pytest.approx((rest + 3.0 * losses.latent).item())
    losses.total.backward()
    assert following.grad is None
    half = targets(consistency_mask=torch.ones(BATCH, STEPS) * torch.tensor([1.0, 1.0, 0.0]))
    assert loss(half).latent.item() == pytest.approx(
        squares[:2].sum().item() / 3 / first.var().item()
    )


@pytest.mark.parametrize("share", [1, 2, STEPS])
def test_some_steps_stand_for_all(share: int) -> None:
    """Whatever steps are compared, by chance, the losses and gradients are right on average."""
    network = ResNet((2, 5, 5), ACTIONS, channels=4, head_width=8, decoded_planes=2)
    first, following = torch.rand(BATCH, 2, 5, 5), torch.rand(STEPS, BATCH, 2, 5, 5)
    mask = torch.randint(2, (BATCH, STEPS)).float()
    wanted = targets(consistency_mask=mask, weights=torch.rand(BATCH))

    def loss(steps: Tensor | None) -> Losses:
        seen = following if steps is None else following[steps]
        return muzero_loss(
            network, first, seen.flatten(0, 1), wanted,
            value_coef=1.0, consistency_coef=1.0, reconstruction_coef=1.0, latent_coef=1.0,
            compared_steps=steps,
        )  # fmt: skip

    subsets = [torch.tensor(steps) for steps in combinations(range(STEPS), share)]
    drawn = [loss(steps) for steps in subsets]
    whole = loss(None)
    for name in Losses._fields[:-1]:
        mean = torch.stack([getattr(losses, name) for losses in drawn]).mean().item()
        assert mean == pytest.approx(getattr(whole, name).item(), rel=1e-5), name
    mean_gradient = gradient(torch.stack([losses.total for losses in drawn]).mean(), network)
    torch.testing.assert_close(mean_gradient, gradient(whole.total, network), rtol=1e-4, atol=1e-6)


def gradient(loss: Tensor, network: nn.Module) -> Tensor:
    parts = torch.autograd.grad(loss, list(network.parameters()))
    return torch.cat([part.flatten() for part in parts])


class Telling(Additive):
    """Its latent is the logit of the one thing observed."""

    decodes = True

    def decode(self, latent: Tensor) -> Tensor:
        return latent


def test_reconstruction_is_the_cross_entropy_of_what_was_observed() -> None:
    """s_k = s_0 = 1: log(1 + 1/e) where 1 was observed, and 1 more where 0 was."""
    first, following = torch.ones(BATCH, 1), torch.zeros(STEPS * BATCH, 1)
    one = math.log1p(math.exp(-1.0))

    def loss(wanted: Targets) -> Losses:
        return muzero_loss(
            Telling(), first, following, wanted,
            value_coef=0.0, consistency_coef=0.0, reconstruction_coef=2.0,
        )  # fmt: skip

    losses = loss(targets())
    assert losses.reconstruction.item() == pytest.approx(one + (one + 1.0), rel=1e-5)
    assert losses.consistency.item() == 0
    rest = losses.policy + losses.reward
    assert losses.total.item() == pytest.approx((rest + 2.0 * losses.reconstruction).item())
    ended = loss(targets(consistency_mask=torch.zeros(BATCH, STEPS)))  # nothing follows
    assert ended.reconstruction.item() == pytest.approx(one, rel=1e-5)
    assert loss(targets(weights=torch.zeros(BATCH))).reconstruction.item() == 0


def test_reconstruction_is_of_as_much_as_the_network_tells() -> None:
    """Of two planes the first: 1, of which s_k = s_0 = 1 is the logit."""
    first = torch.tensor([[1.0, 0.3]]).repeat(BATCH, 1)

    class FirstAlone(Telling):
        def representation(self, obs: Obs) -> Tensor:
            assert isinstance(obs, Tensor)
            return obs[:, :1]

        def decoded_part(self, seen: Tensor) -> Tensor:
            return seen[:, :1]

    losses = muzero_loss(
        FirstAlone(), first, first.repeat(STEPS, 1), targets(),
        value_coef=0.0, consistency_coef=0.0, reconstruction_coef=1.0,
    )  # fmt: skip
    assert losses.reconstruction.item() == pytest.approx(2 * math.log1p(math.exp(-1.0)))


def test_reconstruction_needs_a_decoder() -> None:
    with pytest.raises(RuntimeError, match="Additive has no decoder"):
        muzero_loss(
            Additive(), torch.ones(BATCH, 1), torch.ones(STEPS * BATCH, 1), targets(),
            value_coef=0.0, consistency_coef=0.0, reconstruction_coef=1.0,
        )  # fmt: skip


def test_the_loss_can_be_driven_to_its_floor() -> None:
    """Fit one batch by heart: what is left is the entropy of the two-hot targets."""
    network = mlp()
    policies = torch.nn.functional.one_hot(torch.arange(BATCH) % ACTIONS, ACTIONS).float()
    wanted = targets(
        rewards=torch.zeros(BATCH, STEPS),
        values=torch.zeros(BATCH, STEPS + 1),
        policies=policies[:, None].expand(-1, STEPS + 1, -1),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(200):
        losses = loss_of(network, wanted)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert loss_of(network, wanted).total.item() < 0.02
