"""Networks for boards: no downsampling, and actions that name a square or a column show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.classic import chess_v6, connect_four_v3, go_v5, tictactoe_v3

from muzero_agent import MuZero
from muzero_agent.action_geometry import action_planes
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.resnet import ResNet


@pytest.mark.parametrize("passes", [0, 1])
def test_an_action_for_each_square(passes: int) -> None:
    planes = action_planes(12 + passes, 3, 4)
    assert planes.shape == (12 + passes, 1, 3, 4)
    for action in range(12):
        assert planes[action, 0].nonzero().tolist() == [list(divmod(action, 4))]
    assert planes[12:].sum() == 0


def test_an_action_for_each_column() -> None:
    planes = action_planes(7, 6, 7)
    for action in range(7):
        assert planes[action, 0].sum(0).tolist() == [6.0 * (c == action) for c in range(7)]


def test_other_actions_are_numbers() -> None:
    planes = action_planes(4, 6, 7)
    assert planes.amin((1, 2, 3)).tolist() == planes.amax((1, 2, 3)).tolist()
    assert planes[:, 0, 0, 0].tolist() == [0.25, 0.5, 0.75, 1.0]


def test_pixels_have_no_squares() -> None:
    """Six actions on a latent of 6 x 6 are no columns."""
    network = ResNet((4, 96, 96), 6, channels=8, downsample=True)
    assert network.action_plane.shape == (6, 1, 6, 6)
    assert network.action_plane[:, 0, 0, 0].tolist() == pytest.approx([i / 6 for i in range(1, 7)])


def test_planes_are_not_part_of_saved_models() -> None:
    assert not any("action_plane" in name for name in ResNet((2, 3, 3), 9, channels=8).state_dict())


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (tictactoe_v3.env, (2, 3, 3)),
        (connect_four_v3.env, (2, 6, 7)),
        (lambda: go_v5.env(board_size=9), (17, 9, 9)),
        (chess_v6.env, (111, 8, 8)),
    ],
    ids=["tictactoe", "connect_four", "go", "chess"],
)
def test_latents_of_all_games_keep_the_board(
    make: Callable[[], Any], size: tuple[int, int, int]
) -> None:
    """And the planes reach the network channels first, as they are."""
    arch = {"net_arch": {"channels": 8, "head_width": 8}}
    model = MuZero("CnnPolicy", make(), policy_kwargs=arch, num_simulations=2, seed=0)
    network = model.policy.network
    assert isinstance(network, ResNet)
    env = TurnBasedEnv(make())
    obs, _ = env.reset(seed=0)
    for action in np.flatnonzero(env.action_masks())[[0, -1]]:
        obs, *_ = env.step(action)
    tensors = {key: torch.as_tensor(part)[None] for key, part in obs.items()}
    planes = model.policy.preprocess(tensors)
    assert isinstance(planes, torch.Tensor)
    assert planes.shape == (1, *size)
    assert np.array_equal(planes[0].numpy(), np.moveaxis(obs["observation"], 2, 0))
    assert network.representation(planes).shape == (1, 8, *size[1:])
    assert model.plan(obs).policy.sum() == pytest.approx(1.0, abs=1e-4)
