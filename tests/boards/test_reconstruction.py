"""Latents of games are taught to tell the board, along lines that were not played, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv as FrozenLake
from gymnasium.wrappers import FlattenObservation
from pettingzoo.classic import connect_four_v3, tictactoe_v3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from typer.testing import CliRunner

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.games import TicTacToe
from muzero_agent.cli import app


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_it_is_the_default_in_games(policy: str) -> None:
    arch = {"net_arch": {"channels": 4, "head_width": 8}} if policy == "CnnPolicy" else {}
    model = MuZero(policy, connect_four_v3.env, policy_kwargs=arch)
    assert model.reconstruction_coef == 10.0
    latent = model.policy.network.representation(torch.zeros(3, *model_shape(model)))
    assert model.policy.network.decode(latent).shape in [(3, 84), (3, 2, 6, 7)]
    assert MuZero(policy, connect_four_v3.env, reconstruction_coef=0.0).reconstruction_coef == 0


def test_it_may_be_of_the_first_planes_alone() -> None:
    def model(env: Any, **arch: int) -> MuZero:
        kwargs = {"net_arch": {"channels": 4, "head_width": 8, **arch}}
        return MuZero("CnnPolicy", env, policy_kwargs=kwargs, learning_starts=16)

    of_mine = model(connect_four_v3.env, decoded_planes=1)
    latent = of_mine.policy.network.representation(torch.zeros(3, *model_shape(of_mine)))
    assert of_mine.policy.network.decode(latent).shape == (3, 1, 6, 7)
    of_mine.learn(24)
    with pytest.raises(ValueError, match="decoded_planes=3: there are 2"):
        model(connect_four_v3.env, decoded_planes=3)
    with pytest.raises(ValueError, match="not from 0 to 1"):
        model(Signed(), decoded_planes=1)


class Signed(gym.Env[Any, Any]):
    """A board whose squares are from -1 to 1."""

    observation_space = spaces.Box(-1, 1, (2, 6, 7), np.float32)
    action_space = spaces.Discrete(2)


def model_shape(model: MuZero) -> tuple[int, ...]:
    """Of an observation, preprocessed."""
    space = model.policy.network_space
    assert isinstance(space, spaces.Box)
    height, width, planes = space.shape
    return (planes, height, width) if model.policy.channels_come_last else space.shape


def test_elsewhere_it_is_not() -> None:
    assert MuZero("MlpPolicy", "CartPole-v1").reconstruction_coef == 0
    with pytest.raises(ValueError, match=r"reconstruction_coef=1.0: .* give 0"):
        MuZero("MlpPolicy", "CartPole-v1", reconstruction_coef=1.0)


def test_it_is_kept(tmp_path: Path) -> None:
    model = MuZero("MlpPolicy", tictactoe_v3.env, reconstruction_coef=2.0)
    model.save(tmp_path / "model")
    zoo.save(model, tmp_path / "directory")
    assert MuZero.load(tmp_path / "model").reconstruction_coef == 2.0
    assert MuZero.load(tmp_path / "model", reconstruction_coef=0.0).reconstruction_coef == 0.0
    assert zoo.load(tmp_path / "directory").reconstruction_coef == 2.0


def test_a_run_may_add_it_to_a_model_that_told_other_planes(tmp_path: Path) -> None:
    arch = {"channels": 4, "head_width": 8}
    kwargs = {"net_arch": arch | {"decoded_planes": 1}}
    source = zoo.save(
        MuZero("CnnPolicy", connect_four_v3.env, reconstruction_coef=0.0, policy_kwargs=kwargs),
        tmp_path / "source",
    )
    out = tmp_path / "run"
    changes = [f"policy_kwargs={{net_arch: {arch | {'decoded_planes': 2}}}}".replace("'", "")]
    changes += ["reconstruction_coef=10", "learning_starts=100"]  # no update
    done = CliRunner().invoke(
        app,
        ["train", "connect_four", "--start-from", str(source), "--steps", "10", "--out", str(out)]
        + ["--no-progress"]
        + [part for change in changes for part in ("--set", change)],
    )
    assert done.exit_code == 0, done.output
    before, after = (zoo.load(path).policy.network.state_dict() for path in (source, out / "model"))
    assert before.keys() == after.keys()
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ >= {"decoder.weight"}
    assert all(name.startswith(("decoder.", "projector.", "predictor.")) for name in differ)
    assert after["decoder.weight"].shape[0] == 2


def test_normalised_observations_are_no_such() -> None:
    env = DummyVecEnv([lambda: FlattenObservation(FrozenLake())])
    settings: dict[str, Any] = {"reconstruction_coef": 1.0, "learning_starts": 10}
    MuZero("MlpPolicy", env, **settings).learn(24)
    model = MuZero("MlpPolicy", VecNormalize(env, norm_reward=False), **settings)
    with pytest.raises(ValueError, match="or reconstruction_coef=0"):
        model.learn(24)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_the_model_learns_what_moves_do_to_the_board(policy: str) -> None:
    """All nine first moves, and all 72 pairs."""
    settings: dict[str, Any] = {"train_freq": 1, "gradient_steps": 6, "learning_rate": 3e-3}
    settings |= {"num_simulations": 2, "reanalyse_ratio": 0, "consistency_coef": 0.0}
    if policy == "CnnPolicy":
        arch = {"channels": 16, "head_width": 8}
        settings |= {"policy_kwargs": {"net_arch": arch}, "gradient_steps": 3}
    model = MuZero(
        policy, [tictactoe_v3.env] * 8, seed=0, learning_starts=400, unroll_steps=2, **settings
    )
    assert told(model) == 0
    model.learn(1400)
    assert told(model) > 0.9


@torch.no_grad()
def told(model: MuZero) -> float:
    """Share of boards that are told right, behind one and two moves in the learned model."""
    rules, network = TicTacToe(), model.policy.target_network
    lines = [(a,) for a in range(9)] + [(a, b) for a in range(9) for b in range(9) if a != b]
    right = 0
    for line in lines:
        state = rules.initial()
        obs = model.policy.network_input(rules.observe(state)[None])
        latent = network.representation(obs)
        for action in line:
            state = rules.play(state, action)
            latent, _ = network.dynamics(latent, torch.tensor([action]))
        wanted = model.policy.network_input(rules.observe(state)[None])
        assert isinstance(wanted, torch.Tensor)
        seen = network.decode(latent).flatten() > 0
        right += int((seen == (wanted.flatten() > 0.5)).all())
    return right / len(lines)
