"""A model is saved, loaded, changed while loading, and learned on with."""

from __future__ import annotations

import base64
import copy
import inspect
import io
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from muzero_agent import MuZero
from muzero_agent.policies import CnnPolicy, MlpPolicy, MuZeroPolicy

ENV_ID = "CartPole-v1"
SMALL: dict[str, Any] = {
    "num_simulations": 3,
    "batch_size": 8,
    "learning_starts": 16,
    "gradient_steps": 2,
    "reanalyse_ratio": 3,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 0,
}
# No value is the constructor's default, so that whatever is not kept shows.
OTHER: dict[str, Any] = {
    "learning_rate": 5e-3,
    "buffer_size": 1234,
    "learning_starts": 17,
    "batch_size": 9,
    "gamma": 0.9,
    "train_freq": (3, "step"),
    "gradient_steps": 4,
    "num_simulations": 5,
    "search": "puct",
    "unroll_steps": 3,
    "td_steps": 7,
    "td_lambda": 0.5,
    "regret_tolerance": 3.0,
    "reanalyse_ratio": 2,
    "exploration_rate": 0.1,
    "exploration_length": 3,
    "opening_actions": 2,
    "temperature": 0.5,
    "temperature_moves": 4,
    "compared_steps": 2,
    "augment": False,
    "value_coef": 0.7,
    "consistency_coef": 0.3,
    "target_decay": 0.8,
    "gradient_scale": 0.7,
    "priority_exponent": 0.6,
    "max_grad_norm": 2.0,
    "max_num_considered_actions": 2,
    "dirichlet_fraction": 0.1,
    "dirichlet_alpha": 0.7,
    "torch_compile": True,
    "overlap": True,
    "stats_window_size": 12,
    "policy_kwargs": {
        "net_arch": {"representation": [8], "latent_size": 24},
        "activation_fn": nn.Tanh,
        "support_bound": 20.0,
        "support_size": 41,
        "support_mean": "transformed",
        "normalize_observations": False,
        "optimizer_class": torch.optim.Adam,
        "optimizer_kwargs": {"eps": 1e-5},
    },
    "verbose": 0,
    "seed": 3,
}

ATTRIBUTES = {"stats_window_size": "_stats_window_size"}  # SB3's names, where they differ


def learned(steps: int = 40, **kwargs: Any) -> MuZero:
    return MuZero("MlpPolicy", ENV_ID, **(SMALL | kwargs)).learn(steps)


@pytest.fixture(scope="module")
def model() -> MuZero:
    return learned()


@pytest.fixture(scope="module")
def observations() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)


def saved(model: MuZero) -> io.BytesIO:
    file = io.BytesIO()
    model.save(file)
    return file


def assert_same_play(a: Any, b: Any, observations: NDArray[np.float32]) -> None:
    """Greedy actions, and whatever else the searches find."""
    np.testing.assert_array_equal(
        a.predict(observations, deterministic=True)[0],
        b.predict(observations, deterministic=True)[0],
    )
    plan_a, plan_b = a.plan(observations), b.plan(observations)
    for field in ("policy", "prior", "visit_counts", "q_values", "value", "mixed_value"):
        np.testing.assert_array_equal(getattr(plan_a, field), getattr(plan_b, field))


def plain(setting: Any) -> Any:
    """To compare settings that SB3 turns into tuples or enumerations."""
    return (setting[0], setting[1].value) if type(setting).__name__ == "TrainFreq" else setting


@pytest.mark.parametrize(
    "target",
    [
        lambda folder: str(folder / "model"),
        lambda folder: folder / "model",
        lambda folder: folder / "some.zip",
        lambda folder: folder / "new" / "folder" / "model",
        lambda folder: io.BytesIO(),
    ],
    ids=["str", "path", "suffix", "new folder", "file object"],
)
def test_round_trip(
    target: Callable[[pathlib.Path], Any],
    tmp_path: pathlib.Path,
    model: MuZero,
    observations: NDArray[np.float32],
    recwarn: pytest.WarningsRecorder,  # SB3 warns when it makes a folder
) -> None:
    path = target(tmp_path)
    model.save(path)
    again = MuZero.load(path)
    assert_same_play(model, again, observations)
    for name, part in model.policy.state_dict().items():  # the averaged network is among them
        assert bool((again.policy.state_dict()[name] == part).all()), name
    before, after = (m.policy.optimizer.state_dict()["state"] for m in (model, again))
    assert before.keys() == after.keys() != set()
    assert all(bool((before[i]["exp_avg"] == after[i]["exp_avg"]).all()) for i in before)
    assert (again.num_timesteps, again._n_updates) == (model.num_timesteps, model._n_updates)


def test_every_setting_is_kept(observations: NDArray[np.float32]) -> None:
    parameters = inspect.signature(MuZero.__init__).parameters
    tunable = parameters.keys() - {"self", "policy", "env", "tensorboard_log", "device"}
    # See boards/test_turn_based.py, boards/test_reconstruction.py and test_atari.py
    not_here = {"num_players", "terminal_rewards", "reconstruction_coef", "random_shift"}
    assert tunable - {"_init_setup_model"} - not_here == OTHER.keys()
    assert all(OTHER[n] != parameters[n].default for n in OTHER.keys() - {"verbose"})
    model = learned(**OTHER | {"torch_compile": False})  # which would take a minute here
    model.torch_compile = True
    again = MuZero.load(saved(model))
    for name, setting in OTHER.items():
        assert plain(getattr(again, ATTRIBUTES.get(name, name))) == setting, name
    assert again.replay_buffer_kwargs == model.replay_buffer_kwargs
    assert again.policy._get_constructor_parameters() == model.policy._get_constructor_parameters()
    assert again.lr_schedule(0.5) == 5e-3
    assert_same_play(model, again, observations)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(OTHER.keys() - {"policy_kwargs", "torch_compile"}),
        pytest.param("torch_compile", marks=pytest.mark.slow),  # which takes a minute
    ],
)
def test_any_setting_can_be_changed_while_loading(name: str, model: MuZero) -> None:
    again = MuZero.load(saved(model), env=gym.make(ENV_ID), **{name: OTHER[name]})
    assert plain(getattr(again, ATTRIBUTES.get(name, name))) == OTHER[name]
    for kept in ("num_simulations", "batch_size", "search", "td_steps"):
        if kept != name:
            assert getattr(again, kept) == getattr(model, kept)
    again.learn(24, reset_num_timesteps=False)
    assert again._n_updates > model._n_updates
    for target in ("unroll_steps", "td_steps", "td_lambda", "gamma", "priority_exponent"):
        assert getattr(again.replay_buffer, target) == getattr(again, target)


@pytest.mark.parametrize(
    ("policy", "env", "policy_kwargs"),
    [
        ("MlpPolicy", ENV_ID, {"net_arch": [8]}),
        ("MlpPolicy", ENV_ID, {"net_arch": [8], "activation_fn": nn.Tanh}),
        ("MlpPolicy", ENV_ID, {"net_arch": [8], "support_mean": "transformed"}),
        ("CnnPolicy", FakeImageEnv(), {"net_arch": {"channels": 2}}),
    ],
)
def test_the_policys_arguments_may_be_given_again(
    policy: str, env: Any, policy_kwargs: dict[str, Any]
) -> None:
    """As SB3's algorithms take them, though `MuZero` completes them."""
    coef = 1.0 if policy == "CnnPolicy" else None  # it adds to the network what tells pictures
    model = MuZero(policy, env, policy_kwargs=policy_kwargs, reconstruction_coef=coef)
    again = MuZero.load(saved(model), policy_kwargs=policy_kwargs)
    assert again.policy_kwargs == model.policy_kwargs
    with pytest.raises(ValueError, match="do not equal the stored policy kwargs"):
        MuZero.load(saved(model), policy_kwargs=policy_kwargs | {"support_bound": 7.0})


def test_what_is_no_setting_cannot_be_changed_while_loading(model: MuZero) -> None:
    changes: dict[str, Any] = {"policy": "CnnPolicy", "_init_setup_model": False}
    for name, value in changes.items():
        with pytest.raises(TypeError, match=rf"load\(\) knows no \['{name}'\]"):
            MuZero.load(saved(model), **{name: value})


def test_a_file_without_some_settings_is_still_known(model: MuZero) -> None:
    file = io.BytesIO()
    model.save(file, exclude=["num_simulations", "unroll_steps"])
    assert MuZero.load(file).num_simulations == MuZero("MlpPolicy", ENV_ID).num_simulations


def test_more_simulations_are_used_at_once(
    model: MuZero, observations: NDArray[np.float32]
) -> None:
    again = MuZero.load(saved(model), num_simulations=11)
    assert (again.plan(observations).visit_counts.sum(-1) == 11).all()
    assert again.policy.num_simulations == 11
    assert (model.plan(observations).visit_counts.sum(-1) == 3).all()


def test_the_default_learning_rate_is_still_a_schedule() -> None:
    model = learned(24)
    again = MuZero.load(saved(model))
    rates = [model.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)]
    assert [again.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)] == rates
    assert len(set(rates)) == 3


def test_what_is_left_out_is_the_constructors_default() -> None:
    model = learned(24, learning_rate=5e-3)
    file = io.BytesIO()
    model.save(file, exclude=["num_simulations", "learning_rate", "lr_schedule"])
    again = MuZero.load(file)
    assert again.num_simulations == 16
    assert again.lr_schedule(0.5) == pytest.approx(5.5e-4)
    assert again.batch_size == model.batch_size


def test_what_is_included_comes_back() -> None:
    model = learned(40)
    file = io.BytesIO()
    model.save(file, include=["replay_buffer", "env"])
    again = MuZero.load(file)
    assert again.get_env() is not None
    assert again.replay_buffer.size() == model.replay_buffer.size() > 0
    again.learn(16, reset_num_timesteps=False)
    assert again.replay_buffer.size() > model.replay_buffer.size()
    again.replay_buffer.check_valid()


def test_objects_given_take_the_place_of_those_saved(model: MuZero) -> None:
    """As for files whose pickles no longer load; names that are not in the file do not matter."""
    rate = LinearSchedule(1.0, 0.5, 1.0)
    given = {"learning_rate": rate, "lr_schedule": None, "clip_range": 0.2}
    again = MuZero.load(saved(model), custom_objects=given)
    assert again.learning_rate is rate
    assert again.lr_schedule(0.0) == 0.5


# -- what the file holds ---------------------------------------------------------------------------


def pickled(model: Any) -> dict[str, bytes]:
    """The entries of the file's settings that are not plain JSON."""
    file = io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        data = json.loads(archive.read("data"))
    return {
        name: base64.b64decode(entry[":serialized:"])
        for name, entry in data.items()
        if isinstance(entry, dict) and ":serialized:" in entry
    }


def test_settings_are_json_where_they_are_in_dqn(model: MuZero) -> None:
    """Pickles are what keeps old files from loading: no more of them than SB3's own."""
    dqn = DQN("MlpPolicy", ENV_ID, learning_starts=8, buffer_size=50).learn(20)
    entries = pickled(model)
    assert "policy_class" in entries  # that such entries are seen at all
    assert entries.keys() <= pickled(dqn).keys() | {"learning_rate"}  # by default a schedule
    assert "learning_rate" not in pickled(learned(20, learning_rate=1e-3))


def test_no_lambda_is_saved(model: MuZero) -> None:
    assert b"<lambda>" in pickled(learned(20, learning_rate=lambda progress: 1e-3))["learning_rate"]
    assert not [name for name, code in pickled(model).items() if b"<lambda>" in code]


def test_neither_replay_nor_environment_is_saved(model: MuZero) -> None:
    size = sum(part.nbytes for part in model.policy.state_dict().values())
    assert len(saved(model).getvalue()) < 4 * size + 50_000  # weights, and two moments of half
    again = MuZero.load(saved(model))
    assert again.env is None
    assert again.replay_buffer.size() == 0
    assert model.replay_buffer.size() > 0


def test_a_model_saved_before_means_were_a_choice_predicts_as_it_did(
    observations: NDArray[np.float32],
) -> None:
    """It has no `support_mean`, and its predictions are means of transformed scalars."""
    kwargs = SMALL.get("policy_kwargs", {})
    model = learned(policy_kwargs=kwargs | {"support_mean": "transformed"})
    del model.policy_kwargs["support_mean"]
    again = MuZero.load(saved(model))
    assert not again.policy.network.support.of_scalars
    assert_same_play(model, again, observations)
    assert MuZero("MlpPolicy", ENV_ID, **SMALL).policy.network.support.of_scalars


# -- parts of a model ------------------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [False, True], ids=["path", "file object"])
def test_the_policy_alone(
    model: MuZero, observations: NDArray[np.float32], tmp_path: pathlib.Path, as_file: bool
) -> None:
    path: Any = io.BytesIO() if as_file else str(tmp_path / "policy.pt")
    model.policy.save(path)
    for policy_class in (MlpPolicy, MuZeroPolicy):
        if as_file:
            path.seek(0)
        policy = policy_class.load(path)
        assert_same_play(model, policy, observations)
        assert (policy.plan(observations).visit_counts.sum(-1) == 3).all()


def test_a_policy_that_was_never_used_has_the_settings_of_its_model(tmp_path: pathlib.Path) -> None:
    model = MuZero("MlpPolicy", ENV_ID, **OTHER)
    path = str(tmp_path / "policy.pt")
    model.policy.save(path)
    policy = MlpPolicy.load(path)
    names = ("num_simulations", "search", "max_num_considered_actions")
    for name in (*names, "dirichlet_fraction", "dirichlet_alpha"):
        assert getattr(policy, name) == OTHER[name], name
    assert policy.discount == OTHER["gamma"]


def test_the_policy_of_a_board_alone(tmp_path: pathlib.Path) -> None:
    space = spaces.Box(0, 1, (2, 3, 3))
    arch = {"channels": 4, "num_blocks": 1, "head_width": 4}
    policy = CnnPolicy(space, spaces.Discrete(9), lambda progress: 1e-3, net_arch=arch)
    path = str(tmp_path / "policy.pt")
    policy.save(path)
    boards = np.random.default_rng(0).random((8, 2, 3, 3), np.float32)
    assert_same_play(policy, CnnPolicy.load(path), boards)


def test_a_copy_of_the_policy_stands_by_itself(
    model: MuZero, observations: NDArray[np.float32]
) -> None:
    clone = copy.deepcopy(model.policy)
    assert_same_play(model.policy, clone, observations)
    with torch.no_grad():
        for part in clone.parameters():
            part.zero_()
    assert clone.planner.network is clone.target_network
    assert any(bool(part.any()) for part in model.policy.parameters())
    assert (clone.plan(observations).prior == 0.5).all()


def test_parameters_are_got_and_set(model: MuZero, observations: NDArray[np.float32]) -> None:
    parameters: Any = copy.deepcopy(model.get_parameters())
    assert parameters.keys() == {"policy", "policy.optimizer"}
    other = learned(24, seed=1)
    assert (other.plan(observations).value != model.plan(observations).value).any()
    other.set_parameters(parameters)
    assert_same_play(model, other, observations)


def test_parameters_of_the_policy_alone(model: MuZero, observations: NDArray[np.float32]) -> None:
    parameters: Any = {"policy": model.get_parameters()["policy"]}
    other = learned(24, seed=1)
    moments = copy.deepcopy(other.policy.optimizer.state_dict()["state"])
    with pytest.raises(ValueError, match="Names of parameters"):
        other.set_parameters(parameters)
    other.set_parameters(parameters, exact_match=False)
    assert_same_play(model, other, observations)
    after = other.policy.optimizer.state_dict()["state"]
    assert all(bool((moments[i]["exp_avg"] == after[i]["exp_avg"]).all()) for i in moments)


@pytest.mark.parametrize("exact_match", [True, False])
@pytest.mark.parametrize("name", ["model.zip", "model"])
def test_parameters_from_a_file(
    model: MuZero,
    observations: NDArray[np.float32],
    tmp_path: pathlib.Path,
    name: str,
    exact_match: bool,
) -> None:
    model.save(tmp_path / "model.zip")
    other = MuZero("MlpPolicy", ENV_ID, **(SMALL | {"seed": 1}))
    other.set_parameters(str(tmp_path / name), exact_match=exact_match)
    assert_same_play(model, other, observations)
    assert other.policy.optimizer.state_dict()["state"]


@pytest.mark.parametrize("said", [True, False], ids=["said", "saved before it was a choice"])
def test_parameters_from_a_file_whose_predictions_are_read_otherwise(
    model: MuZero, tmp_path: pathlib.Path, said: bool
) -> None:
    path = str(tmp_path / "model.zip")
    source = learned(
        24, policy_kwargs=SMALL.get("policy_kwargs", {}) | {"support_mean": "transformed"}
    )
    if not said:
        del source.policy_kwargs["support_mean"]
    source.save(path)
    other = learned(24, seed=1)
    before = copy.deepcopy(other.get_parameters()["policy"])
    with pytest.raises(ValueError, match=r"of 'transformed'.*make it with"):
        other.set_parameters(path)
    assert all(bool((before[key] == part).all()) for key, part in other.policy.state_dict().items())
    source.save(path, exclude=["policy_kwargs"])  # then nobody can know
    other.set_parameters(path)


def test_each_parameter_may_be_disturbed(model: MuZero, observations: NDArray[np.float32]) -> None:
    """Population-based methods add noise to whatever a state dict holds: floats alone."""
    parameters: Any = copy.deepcopy(model.get_parameters())
    assert {part.dtype for part in parameters["policy"].values()} == {torch.float32}
    noise = torch.Generator().manual_seed(0)
    for part in parameters["policy"].values():
        part.add_(torch.randn(part.shape, generator=noise))
    assert any((part < 0).any() for name, part in parameters["policy"].items() if "var" in name)
    other = learned(24)
    other.set_parameters(parameters)
    assert np.isfinite(other.plan(observations).value).all()


# -- learning on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 2])
def test_learning_on_after_loading(n_envs: int, model: MuZero) -> None:
    again = MuZero.load(saved(model), env=make_vec_env(ENV_ID, n_envs))
    steps, updates = again.num_timesteps, again._n_updates
    again.learn(32, reset_num_timesteps=False)
    assert again.num_timesteps == steps + 32
    assert again._n_updates > updates
    assert again.replay_buffer.searched.any()  # no second warm-up
    again.replay_buffer.check_valid()


def test_learning_anew_after_loading_counts_from_zero(model: MuZero) -> None:
    again = MuZero.load(saved(model), env=ENV_ID).learn(24)
    assert again.num_timesteps == 24


def test_an_environment_set_after_loading(model: MuZero) -> None:
    again = MuZero.load(saved(model))
    with pytest.raises(ValueError, match="call `set_env` first"):
        again.learn(8)
    again.set_env(gym.make(ENV_ID))
    again.learn(24, reset_num_timesteps=False)
    assert again.num_timesteps == model.num_timesteps + 24


@pytest.mark.parametrize("force_reset", [True, False])
def test_the_same_environment_set_again(force_reset: bool) -> None:
    """Where it is not reset, the open episode goes on."""
    env = make_vec_env(ENV_ID, 1, seed=0)
    model = MuZero("MlpPolicy", env, **SMALL).learn(8)
    model.set_env(env, force_reset=force_reset)
    assert model.get_env() is env
    model.learn(16, reset_num_timesteps=False)
    replay = model.replay_buffer
    replay.check_valid()
    assert bool(replay.last_row[0, 0] == 7) is force_reset  # else its own end, or still open


def test_normalisation_is_found_after_loading(model: MuZero) -> None:
    assert model.get_vec_normalize_env() is None
    env = VecNormalize(make_vec_env(ENV_ID, 2), norm_reward=False)
    again = MuZero.load(saved(model), env=env)
    assert again.get_env() is env
    assert again.get_vec_normalize_env() is env
    again.learn(24, reset_num_timesteps=False)
    assert again.replay_buffer.sample(4, env=env).rewards.shape == (4, 5)


def test_setting_up_twice_changes_nothing() -> None:
    once, twice = (MuZero("MlpPolicy", ENV_ID, **SMALL) for _ in range(2))
    twice._setup_model()
    once.learn(32)
    twice.learn(32)
    for a, b in zip(once.policy.parameters(), twice.policy.parameters(), strict=True):
        assert bool((a == b).all())
    np.testing.assert_array_equal(once.replay_buffer.action, twice.replay_buffer.action)


def test_loading_needs_no_memory_for_a_replay(model: MuZero) -> None:
    again = MuZero.load(saved(model), buffer_size=10**10)
    assert again.predict(np.zeros(4))[0] in (0, 1)


# -- the replay ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [lambda f: str(f / "a"), lambda f: f / "b", lambda f: f / "c.pkl"]
)
def test_the_replay_at_a_path(target: Callable[[Any], Any], tmp_path: pathlib.Path) -> None:
    model = learned(32)
    path = target(tmp_path)
    model.save_replay_buffer(path)
    again = MuZero.load(saved(model), env=gym.make(ENV_ID))
    again.load_replay_buffer(path)
    held = model.replay_buffer.size()
    assert again.replay_buffer.size() == held
    again.learn(8, reset_num_timesteps=False)
    assert again.replay_buffer.size() >= held + 8
    assert again.replay_buffer.typical_error != model.replay_buffer.typical_error
    again.replay_buffer.check_valid()


def replay_file(model: MuZero) -> io.BytesIO:
    file = io.BytesIO()
    model.save_replay_buffer(file)
    file.seek(0)
    return file


ARRAYS = ("obs", "action", "reward", "policy", "value", "legal", "searched", "last_row", "head")


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_the_replay_with_an_open_episode(exponent: float) -> None:
    model = learned(60, priority_exponent=exponent)
    replay = model.replay_buffer
    while replay.head[0] == replay.start[0]:  # the last step just ended an episode
        model.learn(1, reset_num_timesteps=False)
    again = MuZero.load(saved(model), env=gym.make(ENV_ID))
    again.load_replay_buffer(replay_file(model), truncate_last_traj=False)
    loaded = again.replay_buffer
    for name in (*ARRAYS, "start", "terminated"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(replay, name))
    np.testing.assert_array_equal(replay.sample_rows(8)[0].row, loaded.sample_rows(8)[0].row)
    newest = int(loaded.head[0])
    again.learn(24, reset_num_timesteps=False)  # from a reset environment: the episode is closed
    assert loaded is again.replay_buffer
    assert loaded.last_row[0, newest - 1] == newest - 1
    assert not loaded.terminated[0, newest - 1]
    loaded.check_valid()


def test_a_replay_taken_back_is_no_part_of_the_present_episode() -> None:
    model = learned(40)
    file = replay_file(model)
    head = int(model.replay_buffer.head[0])
    model.learn(9, reset_num_timesteps=False)
    model.load_replay_buffer(file)
    assert model.replay_buffer.head[0] == head
    assert model.replay_buffer.start[0] == head  # nothing is open
    model.learn(24, reset_num_timesteps=False)
    model.replay_buffer.check_valid()


def test_a_replay_follows_the_settings_of_its_new_model() -> None:
    model = learned(40)
    again = MuZero.load(saved(model), env=gym.make(ENV_ID), td_steps=2, unroll_steps=2, gamma=0.5)
    again.load_replay_buffer(replay_file(model))
    replay = again.replay_buffer
    assert (replay.td_steps, replay.unroll_steps, replay.gamma) == (2, 2, 0.5)
    updates = again._n_updates
    again.learn(8, reset_num_timesteps=False)
    assert again._n_updates == updates + 2
    assert replay.sample(4).actions.shape == (4, 2)


def test_target_settings_changed_between_two_runs_take_effect(model: MuZero) -> None:
    model = learned(24)
    model.td_steps, model.unroll_steps = 3, 2
    model.learn(8, reset_num_timesteps=False)
    assert model.replay_buffer.td_steps == 3
    assert model.replay_buffer.sample(4).rewards.shape == (4, 2)
