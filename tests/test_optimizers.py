"""Muon for kernels and AdamW for all else: closed forms, state, and that it learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pettingzoo.classic import tictactoe_v3
from torch import nn

from muzero_agent import MuZero
from muzero_agent.optimizers import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrices)
    values = torch.linalg.svdvals(found)
    assert ((values > 0.3) & (values < 1.3)).all()
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    seen = left.mT @ found @ right.mT  # the directions stay
    diagonal = torch.diag_embed(seen.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(seen, diagonal, atol=1e-4, rtol=0)
    assert (seen.diagonal(dim1=1, dim2=2) > 0.3).all()
    assert torch.allclose(orthogonalized(1e-3 * matrices), found, atol=1e-4)
    assert (orthogonalized(torch.zeros(shape)) == 0).all()


def test_an_update_of_a_kernel_by_hand() -> None:
    kernel = nn.Parameter(torch.randn(4, 2, 3, 3).contiguous(memory_format=torch.channels_last))
    before, gradient = kernel.detach().clone(), torch.randn(4, 2, 3, 3)
    optimizer = Muon([kernel], lr=0.1, update_rms=0.5, weight_decay=0.2)
    momentum = torch.zeros(4, 18)
    for _ in range(2):
        kernel.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient.flatten(1)
        ahead = 0.05 * gradient.flatten(1) + 0.95 * momentum
        update = 0.1 * 0.5 * 18**0.5 * orthogonalized(ahead).view(4, 2, 3, 3)
        before = before * (1 - 0.1 * 0.2) - update
    torch.testing.assert_close(kernel.detach(), before)


def test_all_else_is_learned_by_adamw() -> None:
    """Vectors, matrices and 1 x 1 kernels."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5))
    twin = copy.deepcopy(layers)
    ours = Muon(layers.parameters(), lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(4):
        x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(step))
        for network, optimizer in ((layers, ours), (twin, theirs)):
            optimizer.zero_grad()
            (network(x) * torch.arange(5)).square().sum().backward()
            optimizer.step()
    for mine, other in zip(layers.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_a_run_goes_on_from_its_state() -> None:
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.LazyLinear(1))
    x = torch.randn(4, 2, 5, 5)
    layers(x)
    optimizer = Muon(layers.parameters(), lr=0.01)
    twin, copied = layers, optimizer
    for step in range(4):
        if step == 2:
            twin = copy.deepcopy(layers)
            copied = Muon(twin.parameters(), lr=0.5)
            copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for network, its in [(layers, optimizer)] + [(twin, copied)] * (step >= 2):
            its.zero_grad()
            network(x).square().sum().backward()
            its.step()
    for mine, other in zip(layers.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_settings_that_cannot_be() -> None:
    weight = [nn.Parameter(torch.zeros(2))]
    many: list[dict[str, Any]] = [
        {"lr": -1.0}, {"momentum": 1.0}, {"update_rms": -0.1}, {"weight_decay": -1.0},
    ]  # fmt: skip
    for wrong in many:
        with pytest.raises(ValueError, match="give numbers"):
            Muon(weight, **wrong)


def test_a_policy_that_learns_by_it() -> None:
    """It is an `optimizer_class` like any other."""
    model = MuZero(
        "CnnPolicy",
        tictactoe_v3.env(),
        policy_kwargs={"optimizer_class": Muon, "net_arch": {"channels": 8, "head_width": 8}},
        learning_starts=20,
        batch_size=8,
        train_freq=8,
        num_simulations=2,
        seed=0,
    )
    before = [p.detach().clone() for p in model.policy.network.parameters()]
    model.learn(40)
    after = list(model.policy.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(torch.isfinite(p).all() for p in after)
