"""h, g and f of every architecture: shapes, ranges, and the same answer alone and in a batch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from muzero_agent.categorical import MEANS
from muzero_agent.networks import (
    MlpNetwork,
    MuZeroNetwork,
    RunningNorm,
    SimNorm,
    scale_min_max,
)
from muzero_agent.policies import CnnPolicy
from muzero_agent.resnet import ENCODERS, ResNet

ACTIONS = 5


def build(kind: str, support_mean: str = "scalars") -> tuple[MuZeroNetwork, tuple[int, ...]]:
    """A network with random heads, and the shape of one observation."""
    torch.manual_seed(0)
    network: MuZeroNetwork
    if kind.startswith("mlp"):
        shape: tuple[int, ...] = (7,)
        network = MlpNetwork(
            nn.Identity(),
            7,
            ACTIONS,
            representation=[16],
            dynamics=[16, 12],
            prediction=[16],
            latent_size=24,
            latent_norm=kind.removeprefix("mlp-"),
            support_mean=support_mean,
        )
    else:
        shape = (2, 6, 7) if kind == "board" else (3, 96, 96)
        network = ResNet(
            (shape[0], shape[1], shape[2]),
            ACTIONS,
            channels=8,
            downsample=kind != "board",
            encoder="strided" if kind == "pixels-strided" else "residual",
            head_width=8,
            support_mean=support_mean,
        )
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    return network.eval(), shape


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("side", [1, 16, 17, 50, 84, 96, 97])
def test_latents_of_pixels_are_as_large_as_they_are_taken_to_be(side: int, encoder: str) -> None:
    network = ResNet(
        (1, side, 33), ACTIONS, channels=2, downsample=True, encoder=encoder, head_width=2,
        decoded_planes=1,
    )  # fmt: skip
    obs = torch.zeros(3, 1, side, 33)
    latent = network.representation(obs)
    assert latent.shape[2:] == network.action_plane.shape[2:]
    assert network.reconstruction_errors(latent, network.seen(obs)).shape == (3,)


@pytest.mark.parametrize("normalize", [True, False])
def test_pixels_are_told_as_h_sees_them(normalize: bool) -> None:
    """The newest of the planes: decoded as they are seen, without an error, and one pixel off."""
    torch.manual_seed(0)
    network = ResNet(
        (3, 20, 24), ACTIONS, channels=4, downsample=True, head_width=4, decoded_planes=2,
        normalize_pixels=normalize,
    )  # fmt: skip
    obs = torch.rand(5, 3, 20, 24)
    network.observe(obs)
    seen = network.seen(obs)
    assert normalize != torch.equal(seen, obs)
    assert torch.equal(network.encode(seen), network.representation(obs))
    assert torch.equal(network.decoded_part(seen), seen[:, 1:])
    told = functional.pad(seen[:, 1:], (0, 8, 0, 12))  # cells are 16 pixels wide, and these are cut
    told[:, :, 20:] = told[..., 24:] = 7.0
    told[2, 0, 3, 3] += 2.0
    network.decoder = _Constant(told)
    errors = network.reconstruction_errors(network.representation(obs), seen)
    torch.testing.assert_close(errors, torch.tensor([0, 0, 4 / (2 * 20 * 24), 0, 0]))


@pytest.mark.parametrize("normalize", [True, False])
def test_pictures_are_moved_as_h_sees_them(normalize: bool) -> None:
    """Down and to the right; edges are repeated; and only what differs from the mean picture."""
    torch.manual_seed(0)
    network = ResNet(
        (2, 33, 40), ACTIONS, channels=4, downsample=True, head_width=4, normalize_pixels=normalize
    )
    obs = torch.rand(200, 2, 33, 40)
    network.observe(obs)
    before = network.seen(obs[:3])
    after = network.shifted(before, torch.tensor([[0, 0], [2, -3], [-4, 1]]))
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1, :, 2:, :-3], before[1, :, :-2, 3:])
    assert torch.equal(after[2, :, :-4, 1:], before[2, :, 4:, :-1])
    assert torch.equal(after[1, :, :2], after[1, :, 2:3].expand(-1, 2, -1))
    assert torch.equal(after[2, :, -5:, 0], before[2, :, -1:, 0].expand(-1, 5))
    if normalize:  # the mean picture is the same, moved or not
        assert network.running_norm is not None
        mean = network.seen(network.running_norm.mean)
        assert not mean.any()
        assert not network.shifted(mean, torch.tensor([[3, 3]])).any()


def test_what_never_changed_may_come_in() -> None:
    """A ball that moves where none ever was, over a pixel without any variance."""
    network = ResNet((1, 33, 33), ACTIONS, channels=4, downsample=True, normalize_pixels=True)
    obs = torch.full((100, 1, 33, 33), 0.3)
    obs[::2, 0, 10, 10] = 0.8
    network.observe(obs)
    assert network.running_norm is not None
    moved = network.shifted(network.seen(obs[:1]), torch.tensor([[0, 4]]))
    assert moved[0, 0, 10, 14].item() == pytest.approx(1.0, abs=0.01)
    assert moved.abs().sum().item() == pytest.approx(1.0, abs=0.01)


def test_more_is_told_of_a_rare_pixel_than_h_looks_at() -> None:
    """A ball of one pixel lies tens of deviations off: h sees 5 of them, and decoders tell 30."""
    torch.manual_seed(0)
    network = ResNet(
        (1, 33, 33), ACTIONS, channels=4, downsample=True, decoded_planes=1, normalize_pixels=True
    )
    obs = torch.zeros(1000, 1, 33, 33)
    obs[0, 0, 10, 10] = 1.0
    obs[:40, 0, 20, 20] = 1.0  # not so rare: 4.9
    network.observe(obs)
    rare = network.seen(obs[:1])
    assert rare[0, 0, 10, 10].item() == 30.0
    assert rare[0, 0, 20, 20].item() == pytest.approx(4.9, abs=0.01)
    latents = network.encode(torch.cat((rare, rare.clamp(-5, 5), rare.clamp(-4, 4))))
    torch.testing.assert_close(latents[0], latents[1])
    assert not torch.allclose(latents[0], latents[2])
    without = rare.clone()
    without[0, 0, 10, 10] = 0.0
    latent = torch.zeros(1, 4, 3, 3)
    left_out = network.reconstruction_errors(latent, rare) - network.reconstruction_errors(
        latent, without
    )
    assert left_out.item() * 33 * 33 > 0.7 * 30**2


def test_boards_are_seen_as_they_are() -> None:
    """Planes that are not scaled, counts say, are not clipped either."""
    network = ResNet((2, 4, 4), ACTIONS, channels=4)
    seen = torch.full((1, 2, 4, 4), 3.0)
    seen[0, 0, 1, 1] = 6.0
    assert not torch.allclose(network.encode(seen), network.encode(seen.clamp(-5, 5)))


def test_other_networks_move_nothing() -> None:
    for kind in ("mlp-simnorm", "board"):
        network, shape = build(kind)
        assert not network.shifts
        with pytest.raises(RuntimeError, match="no pictures"):
            network.shifted(torch.zeros(2, *shape), torch.zeros(2, 2, dtype=torch.int64))


class _Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, latent: Tensor) -> Tensor:
        return self.value


def test_pictures_can_be_told_from_latents() -> None:
    """Where a square of 4 x 4 pixels lies: after 400 updates a third of the error is left."""
    torch.manual_seed(0)
    network = ResNet(
        (1, 32, 32), ACTIONS, channels=16, downsample=True, encoder="strided", head_width=4,
        decoded_planes=1, normalize_pixels=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def pictures(num: int) -> Tensor:
        obs = torch.zeros(num, 1, 32, 32)
        for picture, (row, column) in zip(obs, rng.integers(29, size=(num, 2)), strict=True):
            picture[0, row : row + 4, column : column + 4] = 1.0
        return obs

    network.observe(pictures(2000))
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    for _ in range(400):
        obs = pictures(32)
        loss = network.reconstruction_errors(network.representation(obs), network.seen(obs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    obs = pictures(256)
    with torch.no_grad():
        seen = network.seen(obs)
        told = network.reconstruction_errors(network.encode(seen), seen).mean()
        nothing = seen.square().mean()
    assert told < 0.5 * nothing, (told, nothing)


KINDS = ["mlp-simnorm", "mlp-minmax", "board", "pixels", "pixels-strided"]


@pytest.mark.parametrize("support_mean", MEANS)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_ranges(kind: str, support_mean: str) -> None:
    network, shape = build(kind, support_mean)
    obs = torch.rand(4, *shape)
    latent = network.representation(obs)
    assert latent.min() >= 0
    assert latent.max() <= 1
    following, reward_logits = network.dynamics(latent, torch.arange(4))
    assert following.shape == latent.shape
    assert following.min() >= 0
    assert following.max() <= 1
    policy_logits, value_logits = network.prediction(following)
    assert policy_logits.shape == (4, ACTIONS)
    assert reward_logits.shape == value_logits.shape == (4, network.support.size)
    inference = network.recurrent_inference(latent, torch.arange(4))
    assert inference.scalars.shape == (2, 4)
    torch.testing.assert_close(inference.scalars[0], network.support.scalar(value_logits))
    torch.testing.assert_close(inference.scalars[1], network.support.scalar(reward_logits))
    assert network.initial_inference(obs).scalars[1].abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    network, shape = build(kind)
    obs = torch.rand(6, *shape)
    batch = network.initial_inference(obs)
    alone = network.initial_inference(obs[2:3])
    torch.testing.assert_close(batch.policy_logits[2:3], alone.policy_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batch.scalars[:, 2:3], alone.scalars, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_lead_to_different_latents(kind: str) -> None:
    network, shape = build(kind)
    latent = network.representation(torch.rand(1, *shape)).expand(ACTIONS, *[-1] * (len(shape)))
    following, _ = network.dynamics(latent, torch.arange(ACTIONS))
    distance = torch.cdist(following.flatten(1), following.flatten(1))
    assert (distance + torch.eye(ACTIONS)).min() > 1e-4


def test_a_new_network_knows_nothing() -> None:
    """Uniform policy, value and reward 0: what a search starts from must not be an accident."""
    for network in (
        MlpNetwork(nn.Identity(), 4, 3, representation=[8], dynamics=[8], prediction=[8]),
        ResNet((2, 3, 3), 3, channels=8, head_width=8),
    ):
        obs = torch.rand(2, 4) if isinstance(network, MlpNetwork) else torch.rand(2, 2, 3, 3)
        latent = network.representation(obs)
        step = network.recurrent_inference(latent, torch.tensor([0, 1]))
        assert step.policy_logits.abs().max() == 0
        assert step.scalars.abs().max() < 1e-5


def test_actions_shown_below_pictures_are_seen_and_neither_moved_nor_told() -> None:
    torch.manual_seed(0)
    actions, planes = 3, 2
    network = ResNet(
        (planes, 36, 32), actions, channels=8, downsample=True, encoder="strided", action_rows=4,
        decoded_planes=1,
    )  # fmt: skip
    obs = torch.rand(1, planes, 36, 32).repeat(actions**planes, 1, 1, 1)
    obs[:, :, 32:] = 0.0
    for row, pair in enumerate(itertools.product(range(actions), repeat=planes)):
        for plane, action in enumerate(pair):
            obs[row, plane, 32:, 10 * action : 10 * (action + 1)] = 1.0
    latents = network.representation(obs)
    assert latents.shape[2:] == network.action_plane.shape[2:] == (2, 2)
    distance = torch.cdist(latents.flatten(1), latents.flatten(1))
    assert (distance + torch.eye(len(obs))).min() > 1e-4  # each pair of actions is seen
    pictures_alone = torch.cat((torch.rand(1, planes, 32, 32), obs[:1, :, 32:]), 2)
    assert (network.representation(pictures_alone) - latents[:1]).abs().max() > 1e-4
    assert network.decoded_part(obs).shape == (len(obs), 1, 32, 32)
    assert network.reconstruction_errors(latents, obs).shape == (len(obs),)
    offsets = torch.tensor([[3, -2]]).expand(len(obs), -1)
    moved = network.shifted(obs, offsets)
    assert torch.equal(moved[:, :, 32:], obs[:, :, 32:])
    assert torch.equal(moved[:, :, 3:32, :30], obs[:, :, :29, 2:])
    part = network.decoded_part(obs)
    assert torch.equal(network.shifted(part, offsets), network.decoded_part(moved))


@pytest.mark.parametrize(
    ("shape", "num_actions", "arch"),
    [
        ((1, 36, 32), 40, {"downsample": True, "action_rows": 4}),  # too narrow
        ((1, 36, 32), 3, {"downsample": True, "action_rows": 36}),
        ((1, 36, 32), 3, {"downsample": True, "action_rows": -1}),
        ((1, 6, 7), 3, {"action_rows": 2}),  # a board
    ],
)
def test_rows_that_cannot_show_actions(
    shape: tuple[int, int, int], num_actions: int, arch: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"net_arch: action_rows=.*ShowActions"):
        ResNet(shape, num_actions, **arch)


def test_pixels_are_reduced_to_six_by_six() -> None:
    network, _ = build("pixels")
    assert network.representation(torch.rand(1, 3, 96, 96)).shape[2:] == (6, 6)
    atari = ResNet((4, 84, 84), 6, channels=8, downsample=True, head_width=8)
    assert atari.representation(torch.rand(1, 4, 84, 84)).shape[2:] == (6, 6)


def test_simnorm_sums_to_one_in_every_group() -> None:
    out = SimNorm(group=8)(torch.randn(3, 32))
    groups = out.unflatten(-1, (8, -1)).sum(-2)
    torch.testing.assert_close(groups, torch.ones_like(groups))


def test_min_max_reaches_both_ends_and_survives_a_constant() -> None:
    scaled = scale_min_max(torch.randn(3, 2, 4))
    assert scaled.flatten(1).amin(1).tolist() == [0, 0, 0]
    torch.testing.assert_close(scaled.flatten(1).amax(1), torch.ones(3))
    assert scale_min_max(torch.full((1, 5), 3.0)).isfinite().all()


def test_running_norm_has_the_statistics_of_all_batches_together() -> None:
    norm = RunningNorm(3)
    batches = [torch.randn(n, 3) * 4 + 7 for n in (1, 5, 40)]
    for batch in batches:
        norm.update(batch)
    everything = torch.cat(batches)
    torch.testing.assert_close(norm.mean, everything.mean(0))
    torch.testing.assert_close(norm.var, everything.var(0, correction=0))
    assert norm(everything).abs().max() <= 10


def test_running_norm_of_images_keeps_each_pixel_apart() -> None:
    norm = RunningNorm(2, 3, 3)
    images = torch.rand(50, 2, 3, 3)
    norm.update(images)
    torch.testing.assert_close(norm.mean, images.mean(0))
    torch.testing.assert_close(norm(images).mean(0), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)


def test_running_norm_leaves_data_as_they_are_before_it_saw_any() -> None:
    x = torch.rand(2, 3)
    torch.testing.assert_close(RunningNorm(3)(x), x)


def test_state_dicts_hold_floating_tensors_only() -> None:
    for kind in KINDS:
        network, _ = build(kind)
        assert all(tensor.is_floating_point() for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_norm": "l2"}, "latent_norm='l2'"),
        ({"latent_size": 20}, "multiple of 8"),
        ({"dynamics": []}, "at least one hidden layer"),
        ({"support_size": 10}, "odd number"),
    ],
)
def test_bad_architectures_are_named(change: dict[str, object], message: str) -> None:
    arch: dict[str, object] = {"representation": [8], "dynamics": [8], "prediction": [8]}
    with pytest.raises(ValueError, match=message):
        MlpNetwork(nn.Identity(), 4, 3, **(arch | change))  # type: ignore[arg-type]


def test_gradients_reach_every_parameter() -> None:
    for kind in KINDS:
        network, shape = build(kind)
        latent = network.representation(torch.rand(2, *shape))
        following, reward = network.dynamics(latent, torch.tensor([0, 1]))
        policy, value = network.prediction(following)
        projected: Tensor = network.predict_projection(network.project(following))
        total = reward.sum() + policy.square().sum() + value.square().sum()
        (total + projected.square().sum()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((10, 10, 4), -1),  # MinAtar
        ((8, 8, 111), -1),  # chess
        ((6, 7, 2), -1),  # Connect Four
        ((4, 84, 84), 0),
        ((3, 210, 160), 0),
        ((111, 8, 8), 0),
        ((2, 6, 7), 0),
    ],
)
def test_a_board_may_have_its_channels_first_or_last(
    shape: tuple[int, int, int], channels: int
) -> None:
    """The network is the same for both orders."""

    def policy(shape: tuple[int, ...]) -> CnnPolicy:
        torch.manual_seed(0)
        arch = {"channels": 4, "num_blocks": 1, "head_width": 8}
        space = spaces.Box(-1, 1, shape)
        return CnnPolicy(space, spaces.Discrete(3), lambda _: 0.0, net_arch=arch)

    other = (*shape[1:], shape[0]) if channels == 0 else (shape[2], *shape[:2])
    obs = torch.rand(2, *shape)
    moved = obs.movedim(1, -1) if channels == 0 else obs.movedim(-1, 1)
    ours, theirs = policy(shape), policy(other)
    assert ours.channels_come_last is (channels == -1)
    assert theirs.channels_come_last is (channels == 0)
    latents = (p.network.representation(p.preprocess(x)) for p, x in ((ours, obs), (theirs, moved)))
    torch.testing.assert_close(*latents)


def test_channels_come_first_where_nothing_tells() -> None:
    """Connect Four with a history: its last dimension is not the shortest."""
    space = spaces.Box(-1, 1, (12, 6, 7))
    policy = CnnPolicy(space, spaces.Discrete(7), lambda _: 0.0, net_arch={"channels": 4})
    assert not policy.channels_come_last
