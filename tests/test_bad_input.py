"""What is wrong is refused by name, and nothing that was learned or collected gets lost."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecNormalize,
)
from stable_baselines3.dqn.policies import DQNPolicy

from muzero_agent import MuZero, zoo

BOX = spaces.Box(-1e6, 1e6, (2,))


class Broken(Exception):
    """What the environments below raise."""


class Faulty(gym.Env[Any, np.int64]):
    """Observes (episode, step), pays the step, and at one of its steps does what it is told to.

    :param fault: "observation", "terminal", "reward", "raise", "reset", or "" for none
    :param at: number of the step, counted over all episodes, from 1
    """

    def __init__(
        self,
        fault: str = "",
        at: int = 0,
        *,
        bad: float = np.nan,
        length: int = 5,
        space: spaces.Space[Any] = BOX,
        actions: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2) if actions is None else actions
        self.fault, self.at, self.bad, self.length = fault, at, bad, length
        self.episode, self.step_in_episode, self.steps = -1, 0, 0

    def observe(self) -> Any:
        obs = np.array([self.episode, self.step_in_episode], np.float32)
        if self.fault in ("observation", "terminal") and self.steps == self.at:
            obs[1] = self.bad
        return obs

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.step_in_episode = 0
        if self.fault == "terminal" and self.steps == self.at:
            return np.array([self.episode, 0], np.float32), {}  # the reset state itself is sound
        if self.fault == "reset":
            return np.array([self.bad, 0], np.float32), {}
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.step_in_episode += 1
        failing = self.steps == self.at
        if failing and self.fault == "raise":
            raise Broken(f"at step {self.steps}")
        reward = self.bad if failing and self.fault == "reward" else float(self.step_in_episode)
        terminated = self.step_in_episode == self.length
        return self.observe(), reward, terminated, False, {}


class Masked(gym.Env[Any, np.int64]):
    """Tells legal actions by its method or in its observation; from some step on there is none."""

    def __init__(self, at: int, *, in_observation: bool) -> None:
        self.action_space = spaces.Discrete(3)
        self.in_observation = in_observation
        both = spaces.Dict({"observation": BOX, "action_mask": spaces.MultiBinary(3)})
        self.observation_space = both if in_observation else BOX
        if not in_observation:
            self.action_masks = self.legal
        self.at, self.steps = at, 0

    def legal(self) -> NDArray[np.int8]:
        return np.array([0, 1, 1], np.int8) * (self.steps != self.at)

    def observe(self) -> Any:
        obs = np.array([self.steps, 0], np.float32)
        return {"observation": obs, "action_mask": self.legal()} if self.in_observation else obs

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), 0.0, False, False, {}


def make(env: Any, policy: str = "MlpPolicy", **kwargs: Any) -> MuZero:
    settings: dict[str, Any] = {
        "num_simulations": 2,
        "batch_size": 8,
        "learning_starts": 16,
        "gradient_steps": 1,
        "reanalyse_ratio": 3,
        "policy_kwargs": {"net_arch": [16]} if policy != "CnnPolicy" else None,
        "seed": 0,
    }
    return MuZero(policy, env, **(settings | kwargs))


def vectorised(*envs: gym.Env[Any, Any]) -> DummyVecEnv:
    return DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]


class StoredBefore(BaseCallback):
    """Notes what the replay held when the newest step was made but not yet stored."""

    def _on_step(self) -> bool:
        self.size = self.model.replay_buffer.size()  # type: ignore[attr-defined]
        return True


def check_trajectories(model: MuZero) -> None:
    """States of an episode follow one another; each reward is the step that it was paid for."""
    replay = model.replay_buffer
    replay.check_valid()
    assert not isinstance(replay.obs, dict)
    transitions = 0
    for env in range(model.n_envs):
        rows = np.arange(replay.head[env] - 1)
        ends = replay.last_row[env, rows] == rows
        obs = replay.obs[env, : replay.head[env]].astype(np.float64)
        moves = (obs[1:] - obs[:-1])[~ends]
        # VecNormalize hands last observations over normalised: undoing that rounds
        np.testing.assert_allclose(moves, np.broadcast_to([0, 1], moves.shape), atol=1e-4)
        np.testing.assert_allclose(replay.reward[env, rows][~ends], obs[1:, 1][~ends], atol=1e-4)
        transitions += len(moves)
    assert transitions > 0


def check_usable(model: MuZero, mend: Callable[[], None]) -> None:
    """It predicts, is saved and loaded, and after mending learns on from sound trajectories."""
    obs = np.array([1, 2], np.float32)
    action, _ = model.predict(obs, deterministic=True)
    file = io.BytesIO()
    model.save(file)
    assert MuZero.load(file).predict(obs, deterministic=True)[0] == action
    model.replay_buffer.check_valid()
    mend()
    steps, updates = model.num_timesteps, model._n_updates
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps >= steps + 40
    assert model._n_updates > updates
    assert all(bool(part.isfinite().all()) for part in model.policy.parameters())
    check_trajectories(model)


# -- environments that go wrong --------------------------------------------------------------------


@pytest.mark.parametrize("at", [5, 15], ids=["warm-up", "search"])
@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("fault", ["observation", "terminal", "reward"])
def test_what_is_not_finite_names_environment_and_step(fault: str, bad: float, at: int) -> None:
    env = Faulty(fault, at if fault != "observation" else at + 1, bad=bad)
    model = make(vectorised(Faulty(), env))
    stored = StoredBefore()
    what = "reward" if fault == "reward" else "observation"
    with pytest.raises(ValueError, match=rf"environment 1 .*{what} .*step {2 * env.at}\b"):
        model.learn(60, callback=stored)
    assert model.replay_buffer.size() == stored.size  # nothing of that step
    check_usable(model, lambda: setattr(env, "fault", ""))


def test_a_first_observation_that_is_not_finite() -> None:
    env = Faulty("reset")
    model = make(vectorised(Faulty(), env))
    with pytest.raises(ValueError, match=r"environment 1 .*observation"):
        model.learn(60)
    assert model.replay_buffer.size() == 0
    check_usable(model, lambda: setattr(env, "fault", ""))


@pytest.mark.parametrize("norm_obs", [True, False])
def test_under_vecnormalize_the_error_tells_what_to_do_about_its_statistics(norm_obs: bool) -> None:
    env = VecNormalize(vectorised(Faulty("observation", 7)), norm_obs=norm_obs, norm_reward=False)
    with pytest.raises(ValueError, match=r"environment 0 .*VecCheckNan"):
        make(env).learn(60)


def test_vecnormalize_inside_of_a_frame_stack_is_refused() -> None:
    env = VecFrameStack(VecNormalize(vectorised(Faulty()), norm_reward=False), 3)
    with pytest.raises(ValueError, match=r"VecNormalize\(VecFrameStack\(env, 4\)\)"):
        make(env).learn(20)
    make(VecNormalize(VecFrameStack(vectorised(Faulty()), 3), norm_reward=False)).learn(40)


def test_a_gradient_that_is_not_finite_is_not_applied() -> None:
    model = make(Faulty()).learn(40)
    before = {name: x.clone() for name, x in model.policy.state_dict().items()}
    model.value_coef = 1e38
    with pytest.raises(FloatingPointError, match=r"update \d+ .*learning_rate"):
        model.learn(40)
    network = {name: x for name, x in model.policy.state_dict().items() if "running" not in name}
    assert all(torch.equal(x, before[name]) for name, x in network.items())
    model.value_coef = 0.5
    check_usable(model, lambda: None)


def test_infinity_that_vecnormalize_clips_is_found() -> None:
    env = VecNormalize(
        vectorised(Faulty("observation", 7, bad=np.inf)), training=False, norm_reward=False
    )
    model = make(env)
    with pytest.raises(ValueError, match=r"environment 0 .*step 7\b"):
        model.learn(60)
    stored = model.replay_buffer.obs
    assert isinstance(stored, np.ndarray)
    assert np.isfinite(stored.astype(np.float64)).all()


def test_the_check_that_is_advised_under_vecnormalize_keeps_its_statistics() -> None:
    env = Faulty("observation", 7)
    inner = VecCheckNan(vectorised(env), raise_exception=True)
    normalised = VecNormalize(inner, norm_reward=False)
    model = make(normalised)
    with pytest.raises(ValueError, match="nan"):
        model.learn(60)
    check_usable(model, lambda: setattr(env, "fault", ""))
    statistics: Any = normalised.obs_rms
    assert np.isfinite(statistics.mean).all()


@pytest.mark.parametrize("at", [7, 15], ids=["warm-up", "search"])
def test_an_exception_of_an_environment_passes_unchanged(at: int) -> None:
    env = Faulty("raise", at)
    model = make(vectorised(Faulty(length=4), env))
    with pytest.raises(Broken, match=f"at step {at}"):
        model.learn(60)
    assert model.replay_buffer.size() > 0
    check_usable(model, lambda: setattr(env, "fault", ""))


class Interrupting(BaseCallback):
    """Ctrl-C in one of the hooks, in those of the rollout once `at` steps have been made."""

    def __init__(self, hook: str, at: int) -> None:
        super().__init__()
        self.hook, self.at = hook, at

    def interrupt(self, hook: str) -> None:
        starting = hook in ("init", "training_start")
        if hook == self.hook and (starting or self.model.num_timesteps >= self.at):
            raise KeyboardInterrupt

    def _init_callback(self) -> None:
        self.interrupt("init")

    def _on_training_start(self) -> None:
        self.interrupt("training_start")

    def _on_rollout_start(self) -> None:
        self.interrupt("rollout_start")

    def _on_step(self) -> bool:
        self.interrupt("step")
        return True

    def _on_rollout_end(self) -> None:
        self.interrupt("rollout_end")


@pytest.mark.parametrize("hook", ["init", "training_start", "rollout_start", "step", "rollout_end"])
def test_an_interrupt_in_a_callback_loses_nothing(hook: str) -> None:
    model = make(Faulty()).learn(18)  # ends in the middle of an episode
    with pytest.raises(KeyboardInterrupt):
        model.learn(60, callback=Interrupting(hook, 23), reset_num_timesteps=False)
    check_usable(model, lambda: None)


@pytest.mark.parametrize("in_observation", [True, False], ids=["observation", "method"])
@pytest.mark.parametrize("at", [6, 14], ids=["warm-up", "search"])
def test_no_legal_action_names_the_environment(in_observation: bool, at: int) -> None:
    envs = [Masked(-1, in_observation=in_observation), Masked(at, in_observation=in_observation)]
    model = make(vectorised(*envs))
    with pytest.raises(ValueError, match=rf"environment 1 has no legal action at step {2 * at}\b"):
        model.learn(60)
    model.replay_buffer.check_valid()
    envs[1].at = -1
    model.learn(40, reset_num_timesteps=False)
    assert (model.replay_buffer.action[:, : model.replay_buffer.head[0] - 1] > 0).all()


def test_a_mask_that_would_be_normalised_is_refused() -> None:
    parts: dict[str, spaces.Space[Any]] = {
        "observation": BOX,
        "action_mask": spaces.Box(0, 1, (2,), np.int8),
    }

    class Boxed(Faulty):
        def observe(self) -> Any:
            return {"observation": super().observe(), "action_mask": np.ones(2, np.int8)}

    def env() -> VecEnv:
        return vectorised(Boxed(space=spaces.Dict(parts)))

    with pytest.raises(ValueError, match="norm_obs_keys"):
        make(VecNormalize(env(), norm_reward=False)).learn(20)
    sound = VecNormalize(env(), norm_reward=False, norm_obs_keys=["observation"])
    assert make(sound).learn(20)._n_updates > 0


# -- spaces and arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,)),
        spaces.MultiDiscrete(np.full((2, 2), 3)),
        spaces.MultiDiscrete([2, 2], start=[0, 1]),
        spaces.MultiDiscrete([200, 200]),
        spaces.MultiBinary([2, 2]),
        spaces.MultiBinary(15),
        spaces.MultiBinary(15_000),
        spaces.Discrete(2, start=1),
    ],
    ids=str,
)
def test_action_spaces_that_are_not_supported(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"action space (?s:.*)TransformAction"):
        make(Faulty(actions=space))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Sequence(BOX),
        spaces.Graph(BOX, None),
        spaces.Tuple([BOX, BOX]),
        spaces.Dict({"a": spaces.Dict({"b": BOX})}),
        spaces.Dict({"a": BOX, "b": spaces.Tuple([BOX])}),
        spaces.Box(-1, 1, ()),
        spaces.Discrete(4, start=1),
        spaces.MultiDiscrete([2, 3], start=[0, 1]),
        spaces.MultiDiscrete(np.full((2, 2), 3)),
        spaces.Dict({"observation": BOX, "action_mask": spaces.MultiBinary(3)}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_observation_spaces_that_are_not_supported(space: spaces.Space[Any]) -> None:
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    with pytest.raises(ValueError, match=r"observation space(?s:.*)(gymnasium\.wrappers|give)"):
        make(Faulty(space=space), policy)


@pytest.mark.parametrize(
    ("policy", "space", "match"),
    [
        ("CnnPolicy", BOX, "CnnPolicy needs observations .*use MlpPolicy"),
        ("MlpPolicy", spaces.Dict({"a": BOX, "b": BOX}), "MultiInputPolicy"),
        ("NoPolicy", BOX, "NoPolicy"),
        (DQNPolicy, BOX, "DQNPolicy.*none of MuZero's.*MlpPolicy"),
    ],
)
def test_a_policy_that_does_not_fit(policy: Any, space: spaces.Space[Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(Faulty(space=space), policy)


def test_no_environment() -> None:
    with pytest.raises(ValueError, match="give an environment"):
        make(None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_simulations", 0),
        ("num_simulations", 2.5),
        ("num_simulations", "4"),
        ("search", "x"),
        ("learning_rate", "abc"),
        ("learning_rate", -1),
        ("learning_rate", np.inf),
        ("temperature", np.inf),
        ("temperature", 3e38),
        ("gamma", 2),
        ("gamma", np.nan),
        ("td_lambda", -1),
        ("td_steps", 0),
        ("unroll_steps", 0),
        ("batch_size", 0),
        ("buffer_size", 0),
        ("buffer_size", 1),
        ("learning_starts", -1),
        ("train_freq", 0),
        ("train_freq", (1,)),
        ("stats_window_size", 0),
        ("stats_window_size", "abc"),
        ("train_freq", (0, "episode")),
        ("train_freq", (1, "epoch")),
        ("gradient_steps", -2),
        ("gradient_steps", 0.5),
        ("reanalyse_ratio", -1),
        ("reanalyse_ratio", 0.5),
        ("regret_tolerance", -1),
        ("regret_tolerance", np.nan),
        ("exploration_rate", 1.5),
        ("exploration_rate", "x"),
        ("exploration_length", 0),
        ("torch_compile", "no"),
        ("overlap", 1),
        ("temperature", -1),
        ("value_coef", -1),
        ("consistency_coef", np.nan),
        ("compared_steps", 0),
        ("random_shift", -1),
        ("random_shift", "4"),
        ("random_shift", (4, -1)),
        ("random_shift", (4, 0, 4)),
        ("random_shift", (0, 2)),
        ("random_shift", 2),  # there are no pictures
        ("target_decay", 1.5),
        ("gradient_scale", -0.1),
        ("priority_exponent", -0.5),
        ("max_grad_norm", 0),
        ("max_num_considered_actions", 0),
        ("dirichlet_fraction", 2),
        ("dirichlet_alpha", 0),
    ],
)
def test_an_argument_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        make(Faulty(), **{name: value})
    model = make(Faulty())
    setattr(model, {"stats_window_size": "_stats_window_size"}.get(name, name), value)
    with pytest.raises(ValueError, match=name):
        model.learn(20)


@pytest.mark.parametrize(
    "net_arch",
    [64, "64", [], [0], [-3], [16.5], [None], {"pi": [16]}, {"dynamics": 16}, {"latent_size": 0}],
    ids=str,
)
def test_a_net_arch_that_makes_no_network(net_arch: Any) -> None:
    with pytest.raises(ValueError, match="net_arch"):
        make(Faulty(), policy_kwargs={"net_arch": net_arch})


@pytest.mark.parametrize(
    "net_arch",
    [
        [64],
        {"pi": 3},
        {"channels": 0},
        {"channels": "many"},
        {"encoder": "wide", "downsample": True},
    ],
)
def test_a_net_arch_that_makes_no_resnet(net_arch: Any) -> None:
    env = Faulty(space=spaces.Box(0, 1, (2, 3, 3)))
    with pytest.raises(ValueError, match="net_arch"):
        make(env, "CnnPolicy", policy_kwargs={"net_arch": net_arch})


@pytest.mark.parametrize(
    ("name", "own"), [("num_simulations", "num_simulations"), ("discount", "gamma")]
)
def test_a_setting_of_the_search_among_those_of_the_networks(name: str, own: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} would have no effect.* MuZero\({own}="):
        make(Faulty(), policy_kwargs={name: 3})


@pytest.mark.parametrize(("name", "value"), [("num_simulations", 0), ("search", "x")])
def test_a_search_setting_set_later_is_checked_at_the_search(name: str, value: Any) -> None:
    model = make(Faulty())
    before = getattr(model, name)
    setattr(model, name, value)
    with pytest.raises(ValueError, match=name):
        model.predict(np.zeros(2))
    with pytest.raises(ValueError, match=name):
        model.plan(np.zeros(2))
    setattr(model, name, before)
    assert model.predict(np.zeros(2))[0] in (0, 1)


# -- observations and masks given to predict -------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "masks", "match"),
    [
        (np.zeros(3), None, r"shape \(3,\)"),
        (np.zeros((2, 2, 2)), None, "shape"),
        ((np.zeros(2), {}), None, "obs, info = env.reset"),
        ({"a": np.zeros(2)}, None, "dict"),
        (np.array([0, np.nan]), None, "not finite"),
        (np.array([[0, 0], [np.inf, 0]]), None, r"observations \[1\] are not finite"),
        (np.zeros(2), np.ones(3), r"masks .*shape \(3,\).*give \(1, 2\)"),
        (np.zeros((2, 2)), np.ones(2), r"masks .*shape \(2,\).*give \(2, 2\)"),
        (np.zeros(2), np.ones(4), "masks"),
        (np.zeros((3, 2)), [[1, 0], [0, 0], [1, 1]], r"no action is legal in rows \[1\]"),
    ],
)
def test_predict_says_what_it_cannot_take(observation: Any, masks: Any, match: str) -> None:
    model = make(Faulty())
    for predict in (model.predict, model.policy.predict, model.plan):
        with pytest.raises(ValueError, match=match):
            predict(observation, action_masks=masks)


@pytest.mark.parametrize(
    ("observation", "match"),
    [
        (np.zeros(2), "dict"),
        ({"observation": np.zeros(2)}, "action_mask"),
        ({"observation": np.zeros(2), "action_mask": np.ones(3), "x": 0}, "'x'"),
        ({"observation": np.zeros(4), "action_mask": np.ones(3)}, r"shape \(4,\)"),
        ({"observation": np.zeros((2, 2)), "action_mask": np.ones(3)}, "batch sizes"),
        ({"observation": np.zeros((2, 2)), "action_mask": np.ones((3, 3))}, "batch sizes"),
    ],
)
def test_predict_says_what_it_cannot_take_of_a_dict(observation: Any, match: str) -> None:
    model = make(Masked(-1, in_observation=True))
    with pytest.raises(ValueError, match=match):
        model.predict(observation)


# -- environments for a model that exists ----------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The file of a small model that learned a little, with its replay beside it."""
    path = tmp_path_factory.mktemp("model") / "model.zip"
    model = make(Faulty()).learn(24)
    model.save(path)
    model.save_replay_buffer(path.with_suffix(".pkl"))
    model.policy.save(str(path.with_suffix(".pt")))
    return path


@pytest.mark.parametrize(
    "env",
    [Faulty(space=spaces.Box(-1, 1, (3,))), Faulty(actions=spaces.Discrete(3))],
    ids=["observations", "actions"],
)
def test_an_environment_of_other_spaces(env: Faulty, trained: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="spaces do not match"):
        MuZero.load(trained, env=env)
    model = make(Faulty()).learn(24)
    held = model.replay_buffer.size()
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(env)
    assert model.replay_buffer.size() == held
    check_usable(model, lambda: None)


def test_another_number_of_environments(trained: pathlib.Path) -> None:
    two = vectorised(Faulty(), Faulty())
    model = make(Faulty()).learn(24)
    with pytest.raises(AssertionError, match=r"MuZero.load\(path, env\)"):
        model.set_env(two)
    check_usable(model, lambda: None)
    check_usable(MuZero.load(trained, env=two), lambda: None)  # as that error says


def test_learning_without_an_environment_names_the_fix(trained: pathlib.Path) -> None:
    model = MuZero.load(trained)
    with pytest.raises(ValueError, match="call `set_env` first"):
        model.learn(10)
    model.set_env(Faulty())
    check_usable(model, lambda: None)


# -- files -----------------------------------------------------------------------------------------


def _zip(**members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


def _flipped(data: bytes) -> bytes:
    """A byte changed in the weights, which stand in the middle of the file."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


FOREIGN: dict[str, tuple[Callable[[pathlib.Path], bytes], str]] = {
    "empty": (lambda path: b"", "not a zip archive"),
    "text": (lambda path: b"muzero:\n  num_simulations: 8\n", "not a zip archive"),
    "replay": (lambda path: path.with_suffix(".pkl").read_bytes(), "not a zip archive"),
    "policy": (lambda path: path.with_suffix(".pt").read_bytes(), r"MlpPolicy\.load"),
    "truncated": (lambda path: path.read_bytes()[:-500], "incomplete"),
    "flipped": (lambda path: _flipped(path.read_bytes()), "damaged"),
    "zip": (lambda path: _zip(**{"notes.txt": "hello"}), r"something else.*notes\.txt"),
    "json": (lambda path: _zip(data="[1, 2]"), "another algorithm"),
    "no json": (lambda path: _zip(data="{"), "zip|damaged|incomplete"),
    "no weights": (lambda path: _zip(data='{"num_simulations": 1, "unroll_steps": 1}'), "weights"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_that_are_no_model(kind: str, trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    content, match = FOREIGN[kind]
    path = tmp_path / "some file"
    path.write_bytes(content(trained))
    with pytest.raises(ValueError, match=rf"some file .*{match}.*`save` of a MuZero model"):
        MuZero.load(path)
    with pytest.raises(ValueError, match="`save` of a MuZero model"):
        MuZero.load(str(path))


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_models_of_other_algorithms(algorithm: type[BaseAlgorithm], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "other.zip"
    algorithm("MlpPolicy", Faulty(), **({"buffer_size": 9} if algorithm is DQN else {})).save(path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"another algorithm.*`save` of a MuZero model"):
        MuZero.load(path)


class Trap:
    """Pickled, a request to create a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self.path,)


def test_a_foreign_file_is_refused_before_anything_is_unpickled(tmp_path: pathlib.Path) -> None:
    sprung = tmp_path / "sprung"
    code = base64.b64encode(pickle.dumps(Trap(sprung))).decode()
    data = json.dumps({"policy_class": {":type:": "type", ":serialized:": code}})
    path = tmp_path / "model.zip"
    path.write_bytes(_zip(**{"data": data, "policy.pth": "", "policy.optimizer.pth": ""}))
    with pytest.raises(ValueError, match="another algorithm"):
        MuZero.load(path)
    assert not sprung.exists()
    with contextlib.suppress(Exception):
        DQN.load(path)  # which shows that the trap works where nobody looks
    assert sprung.exists()


def test_the_position_in_a_file_object_is_restored(trained: pathlib.Path) -> None:
    text = io.BytesIO(b"no model at all")
    text.seek(7)
    with pytest.raises(ValueError, match="the file is not a zip archive"):
        MuZero.load(text)
    assert text.tell() == 7
    assert not text.closed
    model = io.BytesIO(trained.read_bytes())
    assert MuZero.load(model).num_timesteps == MuZero.load(model).num_timesteps > 0


def test_a_model_directory_is_not_for_load(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = MuZero.load(trained)
    directory = zoo.save(model, tmp_path / "model")
    for path in (directory, str(directory)):
        for read in (MuZero.load, model.set_parameters):
            with pytest.raises(IsADirectoryError, match=r"`zoo\.load\('.*model'\)` loads"):
                read(path)


def test_a_missing_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.zip"):
        MuZero.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "value"), [("num_simulations", 0), ("search", "x"), ("gamma", 2), ("td_lambda", "x")]
)
def test_load_checks_arguments(name: str, value: Any, trained: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=name):
        MuZero.load(trained, **{name: value})


def test_load_knows_its_arguments(trained: pathlib.Path) -> None:
    with pytest.raises(TypeError, match=r"'num_simulation'.*'num_simulations'"):
        MuZero.load(trained, num_simulation=50)


def test_load_with_another_network(trained: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="policy kwargs"):
        MuZero.load(trained, policy_kwargs={"net_arch": [32]})


def test_parameters_of_another_network() -> None:
    model, other = make(Faulty()), make(Faulty(), policy_kwargs={"net_arch": [32]})
    before = model.policy.network.state_dict()["encoder.0.weight"].clone()
    parameters: Any = other.get_parameters()
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.set_parameters(parameters)
    del parameters["policy.optimizer"]
    with pytest.raises(ValueError, match="Names of parameters"):
        model.set_parameters(parameters | {"policy": model.policy.state_dict()})
    assert bool((model.policy.network.state_dict()["encoder.0.weight"] == before).all())


# -- replays ---------------------------------------------------------------------------------------


def _replay_of(model: Any) -> bytes:
    file = io.BytesIO()
    model.save_replay_buffer(file)
    return file.getvalue()


def _inconsistent() -> bytes:
    model = make(Faulty()).learn(24)
    model.replay_buffer.last_row[0, 2] = 3
    return _replay_of(model)


REPLAYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"no replay", "cannot be unpickled"),
    "empty": (lambda: b"", "cannot be unpickled"),
    "dict": (lambda: pickle.dumps({"obs": 1}), "holds <class 'dict'>"),
    "DQN": (lambda: _replay_of(DQN("MlpPolicy", Faulty(), buffer_size=9)), "ReplayBuffer"),
    "n_envs": (lambda: _replay_of(make(vectorised(Faulty(), Faulty())).learn(20)), "n_envs=2"),
    "space": (lambda: _replay_of(make(Faulty(space=spaces.Discrete(3)))), "observation_space"),
    "actions": (lambda: _replay_of(make(Faulty(actions=spaces.Discrete(3)))), "action_space"),
    "priorities": (lambda: _replay_of(make(Faulty(), priority_exponent=1.0)), "priority_exponent"),
    "inconsistent": (_inconsistent, "inconsistent"),
}


@pytest.mark.parametrize("kind", REPLAYS)
def test_replays_that_do_not_fit_lose_nothing(kind: str, tmp_path: pathlib.Path) -> None:
    content, match = REPLAYS[kind]
    path = tmp_path / "replay.pkl"
    path.write_bytes(content())
    model = make(Faulty()).learn(24)
    replay, held = model.replay_buffer, model.replay_buffer.size()
    with pytest.raises(ValueError, match=match):
        model.load_replay_buffer(path)
    with pytest.raises(FileNotFoundError):
        model.load_replay_buffer(tmp_path / "nothing")
    assert model.replay_buffer is replay
    assert replay.size() == held
    check_usable(model, lambda: None)


def test_single_transitions_cannot_be_added_to_a_replay() -> None:
    model = make(Faulty())
    row: Any = np.zeros((1, 2))
    with pytest.raises(NotImplementedError, match="add_step"):
        model.replay_buffer.add(row, row, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])


def test_weights_that_are_not_finite_stop_learning_with_a_reason() -> None:
    model = make(Faulty()).learn(24)
    held = model.replay_buffer.size()
    with torch.no_grad():
        next(model.policy.network.parameters()).fill_(np.nan)
    with pytest.raises((FloatingPointError, ValueError), match=r"not finite|NaN"):
        model.learn(20, reset_num_timesteps=False)
    assert model.replay_buffer.size() >= held
    model.replay_buffer.check_valid()
