"""The file of tuned settings: what it holds works, and what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent import MuZero
from muzero_agent.adapters.envs.atari import is_atari
from muzero_agent.adapters.envs.names import GAMES
from muzero_agent.hyperparams import (
    OWN_FILE,
    Hyperparams,
    from_section,
    load_hyperparams,
    make_env,
)

SECTIONS = sorted(yaml.safe_load(OWN_FILE.read_text(encoding="utf-8")))


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_cartpole_has_the_constructors_defaults() -> None:
    assert load_hyperparams("CartPole-v1") == Hyperparams(10_000, 1, "MlpPolicy", {})


def test_unknown_environment_has_the_default() -> None:
    assert load_hyperparams("Nowhere-v7") == load_hyperparams("default")


@pytest.mark.parametrize("section", SECTIONS)
def test_all_that_is_in_the_file_can_be_built(section: str) -> None:
    params = load_hyperparams(section)._replace(n_envs=1)
    env_id = "ALE/Pong-v5" if section == "atari" else "CartPole-v1"
    if section in GAMES or section.startswith("MinAtar/"):
        env_id = section
    MuZero(params.policy, params.make_env(env_id), **params.kwargs)


def test_preprocessing_is_what_the_file_says(tmp_path: Path) -> None:
    lines = "{n_timesteps: 9, n_envs: 2, policy: MlpPolicy, frame_stack: 3}"
    path = written(tmp_path, f"CartPole-v1: {lines}\natari: {lines}\n")
    for env_id in ("CartPole-v1", "PongNoFrameskip-v4"):
        assert load_hyperparams(env_id, path) == Hyperparams(9, 2, "MlpPolicy", {}, 3, False)
    env = load_hyperparams("CartPole-v1", path).make_env("CartPole-v1", seed=0)
    assert (env.num_envs, env.observation_space.shape) == (2, (12,))


@pytest.mark.parametrize("listed", [False, True])
def test_ataris_wrapper_is_known_by_its_name(listed: bool, tmp_path: Path) -> None:
    name = "[stable_baselines3.common.atari_wrappers.AtariWrapper]"
    line = f"n_timesteps: 9, policy: CnnPolicy, env_wrapper: {name if listed else name[1:-1]}"
    params = load_hyperparams("X-v0", written(tmp_path, f"default: {{{line}}}"))
    assert (params.atari, params.show_actions) == (True, False)


def test_what_shows_actions_is_known_around_ataris_wrapper(tmp_path: Path) -> None:
    atari = "stable_baselines3.common.atari_wrappers.AtariWrapper"
    shown = "muzero_agent.adapters.envs.atari.ShowActions"
    line = "n_timesteps: 9, policy: CnnPolicy, frame_stack: 2, env_wrapper: "
    path = written(tmp_path, f"default: {{{line}[{atari}, {shown}]}}")
    params = load_hyperparams("PongNoFrameskip-v4", path)
    assert (params.atari, params.show_actions) == (True, True)
    env = params.make_env("PongNoFrameskip-v4")
    assert env.observation_space.shape == (86, 84, 2)
    with pytest.raises(ValueError, match="show_actions is of Atari's preprocessing"):
        make_env("CartPole-v1", show_actions=True)
    for wrong in (f"[{shown}, {atari}]", shown):
        path = written(tmp_path, f"default: {{{line}{wrong}}}")
        with pytest.raises(ValueError, match="the only ones that are known"):
            load_hyperparams("PongNoFrameskip-v4", path)


def test_values_arrive_as_the_constructor_wants_them(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        CartPole-v1:
          n_timesteps: !!float 2e3
          n_envs: 4
          policy: MlpPolicy
          learning_rate: lin_0.002
          train_freq: [1, episode]
          num_simulations: 8
          policy_kwargs: {net_arch: [32, 32]}
        """,
    )
    params = load_hyperparams("CartPole-v1", path)
    assert params[:3] == (2000, 4, "MlpPolicy")
    assert isinstance(params.n_timesteps, int)
    schedule = params.kwargs.pop("learning_rate")
    assert isinstance(schedule, LinearSchedule)
    assert [schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == [0.002, 0.001, 0.0]
    assert params.kwargs == {
        "train_freq": (1, "episode"),
        "num_simulations": 8,
        "policy_kwargs": {"net_arch": [32, 32]},
    }


@pytest.mark.parametrize("algorithm", [MuZero, PPO])
def test_classes_are_known_by_their_names(algorithm: type[BaseAlgorithm]) -> None:
    names = {"activation_fn": "Tanh", "features_extractor_class": "FlattenExtractor"}
    names |= {"optimizer_class": "Adam"}
    section = {"n_timesteps": 1, "policy": "MlpPolicy", "policy_kwargs": names}
    kwargs = from_section(section, "here", algorithm).kwargs
    assert kwargs["policy_kwargs"] == {
        "activation_fn": torch.nn.Tanh,
        "features_extractor_class": FlattenExtractor,
        "optimizer_class": torch.optim.Adam,
    }
    policy: Any = algorithm("MlpPolicy", "CartPole-v1", **kwargs).policy
    assert policy.activation_fn is torch.nn.Tanh
    assert type(policy.optimizer) is torch.optim.Adam
    assert section["policy_kwargs"]["activation_fn"] == "Tanh"  # type: ignore[index]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("n_timesteps: many", r"CartPole-v1, n_timesteps: 'many' is not a positive whole number"),
        ("n_timesteps: 0", "n_timesteps: 0 is not"),
        ("n_timesteps: true", "n_timesteps: True is not"),
        ("n_timesteps: .inf", "n_timesteps: inf is not"),
        ("n_envs: 1.5", "n_envs: 1.5 is not"),
        ("frame_stack: 0", "CartPole-v1, frame_stack: 0 is not"),
        (
            "env_wrapper: os.system",
            "env_wrapper: 'os.system' is not .*AtariWrapper, nor .*the only",
        ),
        ("env_wrapper: [{a.B: {c: 1}}]", "nothing is imported that a file names"),
        ("policy: TablePolicy", "'TablePolicy' is none of .*MlpPolicy"),
        ("num_simulation: 8", "not an argument of MuZero; did you mean num_simulations"),
        ("env: CartPole-v1", "env is not an argument"),
        ("5: 8", "5 is not an argument"),
        ("learning_rate: 1e-3", r"YAML takes 1e-3 for text: write 0.001"),
        ("learning_rate: lin_fast", "'lin_fast' is neither a number nor lin_<number>"),
        ("learning_rate: true", "True is neither"),
        ("policy: [MlpPolicy]", "is none of .*MlpPolicy"),
        ("policy_kwargs: dict(net_arch=[64])", "text is not evaluated; write a mapping"),
        ("policy_kwargs: null", "policy_kwargs: text is not evaluated; write a mapping"),
        ("policy_kwargs: {net_arhc: [64]}", "net_arhc is not an argument of MlpPolicy; did you"),
        ("policy_kwargs: {foo: 1}", "foo is not an argument of MlpPolicy: there are .*net_arch"),
        ("policy_kwargs: {lr_schedule: 1}", "lr_schedule is not an argument"),
        ("policy_kwargs: {activation_fn: tanh}", "activation_fn: 'tanh' is none of .*'Tanh'"),
        ("policy_kwargs: {activation_fn: [Tanh]}", r"\['Tanh'\] is none of"),
        ("policy_kwargs: {optimizer_class: os.system}", "'os.system' is none of .*'AdamW'"),
        ("policy_kwargs: {normalize_images: perhaps}", "'perhaps' is neither true nor false"),
    ],
)
def test_what_is_wrong_is_named(lines: str, complaint: str, tmp_path: Path) -> None:
    given = {"n_timesteps": "1000", "policy": "MlpPolicy"}
    key, _, value = lines.partition(": ")
    given[key] = value
    section = "".join(f"  {key}: {value}\n" for key, value in given.items())
    path = written(tmp_path, f"CartPole-v1:\n{section}")
    with pytest.raises(ValueError, match=complaint):
        load_hyperparams("CartPole-v1", path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("CartPole-v1: [", "not valid YAML"),
        ("CartPole-v1: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("", "expected a section per environment"),
        ("- CartPole-v1", "expected a section per environment"),
        ("Acrobot-v1: {}", "no settings for CartPole-v1: add a section"),
        ("CartPole-v1: 10000", "expected `key: value` lines"),
        ("CartPole-v1: {n_envs: 2}", "n_timesteps and policy missing"),
    ],
)
def test_a_file_of_another_kind_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_hyperparams("CartPole-v1", written(tmp_path, text))


def test_arguments_of_the_environment(tmp_path: Path) -> None:
    text = "LunarLander-v3: {n_timesteps: 10, policy: MlpPolicy, env_kwargs: %s}"
    path = tmp_path / "mine.yml"
    path.write_text(
        "CartPole-v1: {n_timesteps: 9, policy: MlpPolicy, env_kwargs: {sutton_barto_reward: true}}"
    )
    params = load_hyperparams("CartPole-v1", path)
    assert params.env_kwargs == {"sutton_barto_reward": True}
    env = params.make_env("CartPole-v1", seed=0)
    assert env.get_attr("_sutton_barto_reward") == [True]
    for wrong in ("{xml_file: /etc/passwd}", "[1]", "{3: 4}"):
        path.write_text(text % wrong)
        with pytest.raises(ValueError, match="env_kwargs"):
            load_hyperparams("LunarLander-v3", path)
    for env_id in ("CartPole-v1", "tictactoe", "ALE/Pong-v5"):
        with pytest.raises(ValueError, match=f"{env_id} cannot be made with .*'foo'"):
            make_env(env_id, atari=is_atari(env_id), env_kwargs={"foo": 1})
    assert load_hyperparams("go_9x9").make_env("go_9x9", 0).get_attr("first_pass")[0] == 60
