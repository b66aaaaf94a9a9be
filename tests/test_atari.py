"""Atari with the real emulator: what is skipped, shown, stored and learned from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium.wrappers import AtariPreprocessing, MaxAndSkipObservation
from numpy.typing import NDArray
from stable_baselines3.common import env_util
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from typer.testing import CliRunner, Result

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.atari import (
    ShowActions,
    VecShowActions,
    is_atari,
    make_atari_env,
    make_atari_vector_env,
    warn_of_compounded_skips,
)
from muzero_agent.adapters.envs.gymnasium import GymnasiumVecEnv
from muzero_agent.batch import Rows
from muzero_agent.cli import app
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.objective import Objective, shifted

gym.register_envs(ale_py)

TINY: dict[str, Any] = {
    "learning_starts": 16,
    "batch_size": 4,
    "unroll_steps": 2,
    "num_simulations": 2,
    "reanalyse_ratio": 1,
    "gradient_steps": 1,
    "buffer_size": 1000,
    "policy_kwargs": {"net_arch": {"channels": 8, "num_blocks": 1, "head_width": 8}},
    "seed": 0,
}
SHORT: dict[str, Any] = {"max_num_frames_per_episode": 60}


# -- frames per step -------------------------------------------------------------------------------


def frames(env: VecEnv, steps: int = 8) -> set[int]:
    """How many frames the emulator went on in each of some steps, waiting."""
    assert isinstance(env, DummyVecEnv)
    emulator = env.envs[0].unwrapped.ale  # type: ignore[attr-defined]
    env.reset()
    seen = [emulator.getEpisodeFrameNumber()]
    for _ in range(steps):
        env.step(np.zeros(env.num_envs, np.int64))
        seen.append(emulator.getEpisodeFrameNumber())
    return set(np.diff(seen).tolist())


@pytest.mark.parametrize("env_id", ["PongNoFrameskip-v4", "ALE/Pong-v5", "Pong-v4"])
def test_four_frames_a_step_whatever_the_id(env_id: str, recwarn: pytest.WarningsRecorder) -> None:
    assert frames(make_atari_env(env_id)) == {4}
    assert not [w for w in recwarn if "skipped" in str(w.message)]


def test_other_skips_are_once_too() -> None:
    assert frames(make_atari_env("ALE/Pong-v5", wrapper_kwargs={"frame_skip": 3})) == {3}
    settings = {"wrapper_kwargs": {"frame_skip": 1}, "env_kwargs": {"frameskip": 5}}
    assert frames(make_atari_env("ALE/Pong-v5", **settings)) == {5}  # type: ignore[arg-type]


def test_what_sb3_makes_of_an_id_that_skips() -> None:
    assert frames(env_util.make_atari_env("ALE/Pong-v5")) == {16}


def test_four_frames_a_step_in_c() -> None:
    env = make_atari_vector_env("ALE/Pong-v5", 2)
    env.reset()
    steps = [env.step(np.zeros(2, np.int64))[3] for _ in range(5)]
    seen = [[info["episode_frame_number"] for info in infos] for infos in steps]
    assert (np.diff(seen, axis=0) == 4).all()


def by_hand() -> gym.Env[Any, Any]:
    env = AtariPreprocessing(gym.make("PongNoFrameskip-v4"), grayscale_newaxis=True)
    return MaxAndSkipObservation(env, skip=2)


@pytest.mark.parametrize(
    ("make", "skips"),
    [
        (lambda: VecFrameStack(env_util.make_atari_env("ALE/Pong-v5"), 4), "4 and 4"),
        (lambda: env_util.make_atari_env("Pong-v4"), r"\(2, 5\) and 4"),
        (lambda: DummyVecEnv([by_hand]), "2 and 4"),
    ],
)
def test_skipping_twice_is_warned_of(make: Callable[[], VecEnv], skips: str) -> None:
    with pytest.warns(UserWarning, match=rf"twice, {skips}.*frameskip=1"):
        warn_of_compounded_skips(make())


def test_in_processes_of_their_own() -> None:
    env = make_atari_env("ALE/Pong-v5", vec_env_cls=SubprocVecEnv)
    try:
        env.reset()
        first, second = (env.step(np.zeros(1, np.int64))[3][0] for _ in range(2))
        assert second["episode_frame_number"] - first["episode_frame_number"] == 4
        warn_of_compounded_skips(env)  # asks them, and they live on
        env.step(np.zeros(1, np.int64))
    finally:
        env.close()


def test_muzero_warns_of_it() -> None:
    env = MaxAndSkipObservation(gym.make("ALE/Pong-v5", frameskip=3), skip=2)
    with pytest.warns(UserWarning, match="skipped twice, 3 and 2"):
        model = MuZero("MlpPolicy", env, **TINY | {"policy_kwargs": {"net_arch": [2]}})
    with pytest.warns(UserWarning, match="skipped twice"):
        model.set_env(env)


@pytest.mark.parametrize(
    "make",
    [
        lambda: env_util.make_atari_env("PongNoFrameskip-v4"),
        lambda: env_util.make_atari_env("ALE/Pong-v5", env_kwargs={"frameskip": 1}),
        lambda: DummyVecEnv([lambda: gym.make("ALE/Pong-v5")]),
        lambda: DummyVecEnv([lambda: AtariPreprocessing(gym.make("PongNoFrameskip-v4"))]),
        lambda: make_atari_vector_env("ALE/Pong-v5"),
        lambda: env_util.make_vec_env("CartPole-v1"),
    ],
)
def test_skipping_once_is_fine(
    make: Callable[[], VecEnv], recwarn: pytest.WarningsRecorder
) -> None:
    warn_of_compounded_skips(make())
    assert not [w for w in recwarn if "skipped" in str(w.message)]


# -- what is shown ---------------------------------------------------------------------------------


def test_both_ways_show_the_same_frames_but_for_greys_of_overlaps() -> None:
    plain = {"noop_max": 0, "terminal_on_life_loss": False}
    game = "MsPacmanNoFrameskip-v4"  # where nothing is fired at the start
    wrapped = VecFrameStack(make_atari_env(game, wrapper_kwargs=plain), 4)
    in_c = make_atari_vector_env(game, env_kwargs={"noop_max": 0})
    wrapped.reset()
    in_c.reset()
    rng = np.random.default_rng(0)
    paid = 0.0
    for _ in range(120):
        action = rng.integers(9, size=1)
        obs, rewards, *_ = wrapped.step(action)
        obs2, rewards2, *_ = in_c.step(action)
        assert isinstance(obs, np.ndarray)
        assert isinstance(obs2, np.ndarray)
        newest, newest2 = obs[0, ..., -1].astype(int), obs2[0, -1].astype(int)
        assert (newest != newest2).mean() < 0.02  # where sprites flicker over others
        assert np.corrcoef(newest.ravel(), newest2.ravel())[0, 1] > 0.99
        np.testing.assert_array_equal(rewards, rewards2)
        paid += rewards.sum()
    assert paid > 0


def test_rewards_are_clipped_and_scores_are_not() -> None:
    env = make_atari_vector_env(
        "SpaceInvadersNoFrameskip-v4", 2, 0, env_kwargs={"max_num_frames_per_episode": 1200}
    )
    env.reset()
    rng = np.random.default_rng(0)
    scores, clipped = [], np.zeros(2)
    for _ in range(300):
        _, rewards, dones, infos = env.step(rng.integers(6, size=2))
        assert set(rewards.tolist()) <= {-1.0, 0.0, 1.0}
        clipped += rewards
        scores += [info["episode"]["r"] for info in infos if "episode" in info]
        if dones.all():
            break
    assert len(scores) == 2
    assert sum(scores) >= 5 * clipped.sum() > 0  # an invader is 5 to 30 points


def test_actions_are_shown_below_the_pictures_that_they_led_to() -> None:
    """All else is as without them; pictures are stacked with theirs, and final ones have them."""
    plain = VecFrameStack(make_atari_env("PongNoFrameskip-v4", 2, seed=0, env_kwargs=SHORT), 2)
    env = VecFrameStack(
        make_atari_env("PongNoFrameskip-v4", 2, seed=0, env_kwargs=SHORT, show_actions=True), 2
    )
    assert env.observation_space.shape == (86, 84, 2)
    assert env.observation_space.dtype == np.uint8
    obs: Any = env.reset()
    expected: Any = plain.reset()
    np.testing.assert_array_equal(obs[:, :84], expected)
    assert not obs[:, 84:].any()
    rng = np.random.default_rng(0)
    before = np.full(2, -1)  # none
    ends = 0
    for _ in range(40):
        actions = rng.integers(6, size=2)
        obs, rewards, dones, infos = env.step(actions)
        expected, others, _, other_infos = plain.step(actions)
        np.testing.assert_array_equal(obs[:, :84], expected)
        np.testing.assert_array_equal(rewards, others)
        for i in range(2):
            shown = infos[i]["terminal_observation"] if dones[i] else obs[i]
            if dones[i]:
                ends += 1
                np.testing.assert_array_equal(shown[:84], other_infos[i]["terminal_observation"])
                assert not obs[i, 84:].any()
            rows = np.moveaxis(shown[84:], -1, 0)
            np.testing.assert_array_equal(rows, lit(np.stack((before[i], actions[i]))))
        before = np.where(dones, -1, actions)
    assert ends >= 4


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: gym.make("CartPole-v1"), r"needs pictures \[H, W, C\] of uint8"),
        (lambda: gym.make("CarRacing-v3", continuous=True), "need a Discrete space of at most 96,"),
    ],
)
def test_actions_that_cannot_be_shown(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ShowActions(make())


def test_actions_are_shown_below_the_pictures_of_c() -> None:
    """As in `make_atari_env`'s stacks; and where an episode begins those before it show none, be it
    in the midst of another."""
    plain = make_atari_vector_env("ALE/Pong-v5", 2, 0, SHORT)
    env = make_atari_vector_env("ALE/Pong-v5", 2, 0, SHORT, show_actions=True)
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 86, 84), np.uint8)
    obs: Any = env.reset()
    expected: Any = plain.reset()
    rng = np.random.default_rng(0)
    led = np.full((2, 4), -1)  # to each of the stacked pictures
    ends = 0
    for step in range(40):
        if step == 20:
            obs, expected = env.reset(), plain.reset()
            led[:] = -1
        np.testing.assert_array_equal(obs[:, :, :84], expected)
        np.testing.assert_array_equal(obs[:, :, 84:], lit(led))
        actions = rng.integers(6, size=2)
        obs, rewards, dones, infos = env.step(actions)
        expected, others, _, other_infos = plain.step(actions)
        np.testing.assert_array_equal(rewards, others)
        led = np.column_stack((led[:, 1:], actions))
        for i in np.flatnonzero(dones):
            ends += 1
            final = infos[i]["terminal_observation"]
            np.testing.assert_array_equal(final[:, :84], other_infos[i]["terminal_observation"])
            np.testing.assert_array_equal(final[:, 84:], lit(led[i]))
            led[i] = -1
    assert ends >= 4
    assert env.has_attr("action_rows")
    assert env.get_attr("action_rows", [1]) == [2]
    assert not env.has_attr("action_masks")


@pytest.mark.parametrize("first", [0, 3])
def test_what_else_is_asked_of_them_and_numbers_of_actions(first: int) -> None:
    class Pictures(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(0, 255, (2, 12, 12), np.uint8)
        action_space = gym.spaces.Discrete(6, start=first)
        speed = 5

        def reset(self, **kwargs: Any) -> Any:
            super().reset(seed=kwargs.get("seed"))
            return np.ones((2, 12, 12), np.uint8), {}

        def step(self, action: Any) -> Any:
            return np.ones((2, 12, 12), np.uint8), 0.0, False, False, {}

    env = VecShowActions(DummyVecEnv([Pictures]))
    env.reset()
    obs: Any = env.step(np.array([first + 5]))[0]
    assert np.flatnonzero(obs[0, 1, -1]).tolist() == [10, 11]
    assert env.has_attr("speed")
    assert env.get_attr("speed") == [5]
    turned = gym.wrappers.TransformObservation(
        Pictures(),
        lambda obs: obs.transpose(1, 2, 0),
        gym.spaces.Box(0, 255, (12, 12, 2), np.uint8),
    )
    shown = ShowActions(turned)
    shown.reset()
    assert np.flatnonzero(shown.step(first + 5)[0][-1, :, 1]).tolist() == [10, 11]


def test_a_lost_life_ends_what_is_shown() -> None:
    lives = {"life_loss_info": True}
    env = make_atari_vector_env("ALE/Breakout-v5", 1, 3, lives, show_actions=True)
    obs: Any = env.reset()
    for _ in range(200):
        obs, _, dones, infos = env.step(np.array([1]))
        if dones[0]:
            break
    assert infos[0]["lives"] == 4
    columns = np.arange(84) // 21 == 1  # of 4 actions
    final = infos[0]["terminal_observation"]
    np.testing.assert_array_equal(final[:, 84:], np.tile(255 * columns, (4, 2, 1)))
    np.testing.assert_array_equal(obs[0, :, :84], final[:, :84])  # the game goes on
    assert not obs[0, :, 84:].any()


def lit(actions: NDArray[Any]) -> NDArray[np.uint8]:
    """Rows [..., 2, 84] that show some of 6 actions [...]; -1 is none."""
    columns = np.arange(84) // 14 == actions[..., None]
    return np.repeat(255 * columns[..., None, :].astype(np.uint8), 2, axis=-2)


def test_stacks_that_cannot_show_actions() -> None:
    with pytest.raises(ValueError, match=r"VecShowActions needs pictures \[F, H, W\] of uint8"):
        make_atari_vector_env("ALE/Pong-v5", env_kwargs={"grayscale": False}, show_actions=True)
    stacked = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4"), 4)
    with pytest.raises(ValueError, match=r"has \[H, W, F\]: show actions by ShowActions"):
        VecShowActions(stacked)
    narrow = {"img_width": 5, "img_height": 5}
    with pytest.raises(ValueError, match="need a Discrete space of at most 5,"):
        make_atari_vector_env("ALE/Pong-v5", env_kwargs=narrow, show_actions=True)


def framed(shown: bool) -> VecEnv:
    return VecFrameStack(make_atari_env("ALE/Pong-v5", show_actions=shown), 2)


def in_c(shown: bool) -> VecEnv:
    return make_atari_vector_env("ALE/Pong-v5", show_actions=shown)


@pytest.mark.parametrize("make", [framed, in_c])
@pytest.mark.parametrize(("shown", "read"), [(True, 0), (False, 2), (True, 1)])
def test_rows_that_are_shown_and_read_belong_together(
    make: Callable[[bool], VecEnv], shown: bool, read: int
) -> None:
    env = make(shown)
    arch = {"channels": 4} | ({"action_rows": read} if read else {})
    tiny = TINY | {"policy_kwargs": {"net_arch": arch}}
    with pytest.warns(UserWarning, match=rf"have {2 * shown} rows .* last {read} .*ShowActions"):
        MuZero("CnnPolicy", env, **tiny)


def test_many_actions_in_processes_of_their_own(recwarn: pytest.WarningsRecorder) -> None:
    env = make_atari_env(
        "MsPacmanNoFrameskip-v4", vec_env_cls=SubprocVecEnv, show_actions=True,
        env_kwargs={"full_action_space": True},
    )  # fmt: skip
    try:
        env.reset()
        obs: Any = env.step(np.array([17]))[0]
        assert np.flatnonzero(obs[0, -1, :, 0]).tolist() == [68, 69, 70, 71]  # of 84 // 18 columns
        arch = {"channels": 4, "action_rows": 2}
        MuZero("CnnPolicy", env, **TINY | {"policy_kwargs": {"net_arch": arch}})
        assert not [w for w in recwarn if "rows" in str(w.message)]
    finally:
        env.close()


@pytest.mark.parametrize("life_loss_info", [False, True])
def test_final_observations_are_what_the_game_showed(life_loss_info: bool) -> None:
    """Against one that resets in the next step, and shows the final observation as any other."""
    settings: dict[str, Any] = {"life_loss_info": True} if life_loss_info else SHORT
    same = GymnasiumVecEnv(AtariVectorEnv("breakout", 1, autoreset_mode="SameStep", **settings))
    following = AtariVectorEnv("breakout", 1, **settings)
    same.seed(3)
    first = same.reset()
    np.testing.assert_array_equal(first, following.reset(seed=3)[0])
    for _ in range(100):
        obs, _, dones, infos = same.step(np.array([0]))
        shown, _, terminated, truncated, _ = following.step(np.array([0]))
        if dones[0]:
            break
        np.testing.assert_array_equal(obs, shown)
    assert dones.tolist() == (terminated | truncated).tolist() == [True]
    np.testing.assert_array_equal(infos[0]["terminal_observation"], shown[0])
    assert infos[0]["TimeLimit.truncated"] is not life_loss_info
    assert isinstance(obs, np.ndarray)
    assert np.array_equal(obs, shown) == life_loss_info  # then the game goes on
    if life_loss_info:
        assert infos[0]["lives"] == 4


# -- learning --------------------------------------------------------------------------------------


class Watch(BaseCallback):
    """Keeps all that the environments showed."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[list[Any]] = []  # of each environment
        self.losses: list[float] = []

    def _on_training_start(self) -> None:
        first = self.model._last_obs
        assert isinstance(first, np.ndarray)
        self.shown = [[obs.copy()] for obs in first]

    def _on_step(self) -> bool:
        for i, info in enumerate(self.locals["infos"]):
            if self.locals["dones"][i]:
                self.shown[i].append(info["terminal_observation"].copy())
            self.shown[i].append(self.locals["new_obs"][i].copy())
        return True

    def _on_rollout_start(self) -> None:
        loss = self.logger.name_to_value.get("train/loss")
        if loss is not None:
            self.losses.append(loss)


MAKERS: dict[str, Callable[[], Any]] = {
    "ALE/Pong-v5": lambda: VecFrameStack(
        make_atari_env("ALE/Pong-v5", n_envs=2, env_kwargs=SHORT), 4
    ),
    "AtariVectorEnv": lambda: AtariVectorEnv("pong", 2, autoreset_mode="SameStep", **SHORT),
    "actions shown": lambda: make_atari_vector_env(
        "ALE/Pong-v5", 2, env_kwargs=SHORT, show_actions=True
    ),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_learns_plays_and_is_kept(
    make: Callable[[], Any], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    env = make()
    rows = 2 * isinstance(env, VecShowActions)
    arch = TINY["policy_kwargs"]["net_arch"] | ({"action_rows": rows} if rows else {})
    model = MuZero("CnnPolicy", env, **TINY | {"policy_kwargs": {"net_arch": arch}})
    assert not [w for w in recwarn if "rows" in str(w.message)]
    before = {name: x.clone() for name, x in model.policy.network.state_dict().items()}
    watch = Watch()
    model.learn(64, callback=watch)

    assert model._n_updates >= 3
    assert len(watch.losses) >= 2
    assert np.isfinite(watch.losses).all()
    after = model.policy.network.state_dict()
    changed = [name for name, x in before.items() if not torch.equal(x, after[name])]
    assert any(name.startswith("encoder") for name in changed)
    assert all(torch.isfinite(x).all() for x in after.values())

    replay = model.replay_buffer
    replay.check_valid()
    for number, shown in enumerate(watch.shown):
        assert len(shown) > 32 + 1  # final observations are among them
        steps = np.arange(len(shown) - 1)
        stored = replay.observations_at(Rows(np.full_like(steps, number), steps))
        np.testing.assert_array_equal(stored, np.stack(shown[:-1]))

    env = model.get_env()
    assert env is not None
    returns, lengths = evaluate_policy(model, env, 2, return_episode_rewards=True)
    assert lengths in ([15, 15], [60, 60])  # decisions, or frames, as Monitor counts them
    assert set(returns) <= {-1.0, 0.0, 1.0}  # type: ignore[arg-type]
    obs = env.reset()
    assert isinstance(obs, np.ndarray)
    assert obs.shape == (2, 4, 84 + rows, 84)
    actions, _ = model.predict(obs, deterministic=True)
    model.save(tmp_path / "model")
    zoo.save(model, tmp_path / "directory")
    for loaded in (MuZero.load(tmp_path / "model"), zoo.load(tmp_path / "directory")):
        assert loaded.get_env() is None
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], actions)


def test_what_is_seen_is_told_where_it_is_reconstructed() -> None:
    """By a network that tells nothing else: without reconstruction it has no decoder."""
    env = VecFrameStack(make_atari_env("ALE/Pong-v5", n_envs=2, seed=0), 4)
    small = TINY | {"policy_kwargs": {"net_arch": {"channels": 8, "head_width": 8}}}
    assert not MuZero("CnnPolicy", env, **small).policy.network.decodes
    model = MuZero("CnnPolicy", env, **small, reconstruction_coef=10.0, consistency_coef=0.0)
    network = model.policy.network
    before = {name: part.clone() for name, part in network.named_parameters()}
    latent = model.policy.network.representation(torch.zeros(3, 4, 84, 84))
    assert model.policy.network.decode(latent).shape == (3, 1, 96, 96)  # of which 84 x 84 count
    model.learn(40)
    after = dict(network.named_parameters())
    learned = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert {"encoder", "transition", "decoder"} <= learned
    assert not {"projector", "predictor"} & learned
    two = small | {"policy_kwargs": {"net_arch": {"channels": 8, "decoded_planes": 2}}}
    told = MuZero("CnnPolicy", env, **two, reconstruction_coef=1.0).policy.network
    assert told.decode(told.representation(torch.zeros(1, 4, 84, 84))).shape[1] == 2


def test_pictures_are_moved_a_window_as_a_whole(tmp_path: Path) -> None:
    """By all offsets, each window by its own."""
    env = VecFrameStack(make_atari_env("ALE/Pong-v5", n_envs=2, seed=0), 4)
    still, model = (MuZero("CnnPolicy", env, **TINY, random_shift=n).learn(40) for n in (None, 2))
    assert model._n_updates == still._n_updates > 0
    pairs = zip(model.policy.parameters(), still.policy.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    stored = model.replay_buffer.observations_at(Rows(np.zeros(1, np.int64), np.full(1, 20)))
    picture = model.policy.network.seen(model.policy.preprocess(torch.as_tensor(stored)))
    assert isinstance(picture, torch.Tensor)
    rng = np.random.default_rng(0)
    obs, next_obs = shifted(
        model.policy.network, picture.repeat(400, 1, 1, 1), picture.repeat(800, 1, 1, 1), 2, rng
    )
    assert next_obs is not None
    assert torch.equal(obs, next_obs[:400])
    assert torch.equal(obs, next_obs[400:])
    assert len(obs.unique(dim=0)) == 25
    up_or_down, _ = shifted(model.policy.network, picture.repeat(200, 1, 1, 1), None, [2, 0], rng)
    assert torch.equal(up_or_down[..., 2:-2, :].unique(dim=0), moved_up_or_down(picture, 2))
    with pytest.raises(ValueError, match=r"random_shift=42: .* less than half a side"):
        MuZero("CnnPolicy", env, **TINY, random_shift=42)
    model.random_shift = [2, 0]  # a tuple comes back as a list
    model.learn(20, reset_num_timesteps=False)
    model.save(tmp_path / "model")
    assert MuZero.load(tmp_path / "model").random_shift == [2, 0]
    zoo.save(model, tmp_path / "directory")
    assert zoo.load(tmp_path / "directory").random_shift == (2, 0)
    assert MuZero.load(tmp_path / "model", random_shift=None).random_shift is None


def moved_up_or_down(picture: torch.Tensor, most: int) -> torch.Tensor:
    """All that may be seen of it but for the edges, in the order of `unique`."""
    rows = picture.shape[2]
    moved = [picture[:, :, most + n : rows - most + n] for n in range(-most, most + 1)]
    distinct: torch.Tensor = torch.cat(moved).unique(dim=0)
    return distinct


def test_what_is_not_told_need_not_be_moved() -> None:
    """With the loss of reconstruction alone the newest plane is all that is compared."""
    env = VecFrameStack(make_atari_env("ALE/Pong-v5", n_envs=2, seed=0), 4)
    settings = TINY | {"policy_kwargs": {"net_arch": {"channels": 8, "decoded_planes": 2}}}
    model = MuZero("CnnPolicy", env, **settings, reconstruction_coef=1.0).learn(40)
    batch = model.replay_buffer.sample(16)
    part, whole = (
        Objective(
            value_coef=1.0, consistency_coef=coef, reconstruction_coef=1.0, latent_coef=0.0,
            compared_steps=1, random_shift=3, gradient_scale=0.5, compiled=False,
        ).loss(model.policy, batch, np.random.default_rng(1))
        for coef in (0.0, 1.0)
    )  # fmt: skip
    assert whole.consistency != 0 == part.consistency
    assert part.reconstruction == whole.reconstruction > 0
    assert part.value == whole.value


def spread(model: MuZero) -> float:
    """How much the latents of stored frames differ: 1 if they have nothing in common."""
    obs = model.policy.preprocess(model.replay_buffer.sample(64).split_observations()[0])
    with torch.no_grad():
        latents = model.policy.network.representation(obs).flatten(1)
    return float((latents - latents.mean(0)).square().mean().sqrt() / latents.std())


def test_latents_tell_frames_apart() -> None:
    """A ball and two paddles are a hundredth of the picture: without its pixels' statistics an
    untrained network sees the same one everywhere, and learns nothing in 100,000 decisions."""
    spreads = []
    for normalize in (True, False):
        net_arch = {"channels": 16, "num_blocks": 1}
        model = MuZero(
            "CnnPolicy",
            VecFrameStack(make_atari_env("ALE/Pong-v5", n_envs=2, seed=0), 4),
            learning_starts=10_000,
            buffer_size=1_000,
            policy_kwargs={"net_arch": net_arch, "normalize_observations": normalize},
            seed=0,
        )
        model.learn(600)
        spreads.append(spread(model))
    assert spreads[0] > 0.3 > 0.1 > spreads[1]


# -- settings and the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    "env_id",
    ["PongNoFrameskip-v4", "ALE/Pong-v5", "Pong-v4", "ALE/Tetris-v5", "ale_py:ALE/Pong-v5"],
)
def test_games_have_the_settings_of_atari(env_id: str) -> None:
    assert is_atari(env_id)
    params = load_hyperparams(env_id)
    assert params == load_hyperparams("atari")
    assert (params.policy, params.frame_stack) == ("CnnPolicy", 4)
    assert params.atari
    assert params.show_actions
    assert params.kwargs["gamma"] == pytest.approx(0.997**4, abs=1e-6)
    env = params._replace(n_envs=1).make_env(env_id, seed=0)
    assert env.observation_space.shape == (86, 84, 4)


def test_others_have_not() -> None:
    assert not is_atari("CartPole-v1")
    assert not is_atari("Nowhere-v7")
    assert not load_hyperparams("Nowhere-v7").atari


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_train_resume_and_eval(tmp_path: Path) -> None:
    out, result = tmp_path / "run", tmp_path / "result.json"
    small = [
        f"{key}={value}" for key, value in TINY.items() if key not in ("seed", "policy_kwargs")
    ]
    small += [
        "policy_kwargs={net_arch: {channels: 8, head_width: 8, action_rows: 2}}",
        "frame_stack=3",
    ]
    options = [part for setting in small for part in ("--set", setting)]
    common: list[str | Path] = ["train", "ALE/Breakout-v5", "--out", out, "--no-progress"]
    done = run(*common, "--steps", "32", "--n-envs", "1", *options)
    assert done.exit_code == 0, done.output
    config = json.loads((out / "run.json").read_text())
    assert (config["frame_stack"], config["atari"], config["show_actions"]) == (3, True, True)
    done = run(*common, "--steps", "40", "--resume")
    assert done.exit_code == 0, done.output
    done = run("eval", out / "model", "--episodes", "1", "--simulations", "1", "--json", result)
    assert done.exit_code == 0, done.output
    assert json.loads(result.read_text())["env"] == "ALE/Breakout-v5"
    assert zoo.load(out / "model").observation_space.shape == (3, 86, 84)
    old = tmp_path / "old"  # a run from before actions were shown, that has no checkpoint yet
    old.mkdir()
    (old / "run.json").write_text(json.dumps(config | {"show_actions": False}))
    done = run("train", "ALE/Breakout-v5", "--out", old, "--no-progress", "--resume")
    assert done.exit_code == 2
    assert "begin it anew in another directory" in done.output.replace("\n", " ")
    done = run("eval", out / "model", "--env", "CartPole-v1")
    assert done.exit_code == 2
    assert "CartPole-v1 is not among ale-py's" in done.output


# -- what cannot work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "complaint"),
    [
        ("ALE/Pongg-v5", r"such as .*ALE/Pong-v5"),
        ("BreakoutNoFrameskip-v5", r"such as .*BreakoutNoFrameskip-v4"),
        ("CartPole-v1", r"such as ALE/Pong-v5"),
    ],
)
@pytest.mark.parametrize("make", [make_atari_env, make_atari_vector_env])
def test_unknown_games(make: Callable[[str], VecEnv], env_id: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"{env_id} is not among ale-py's \d+ games, {complaint}"):
        make(env_id)


@pytest.mark.parametrize("library", ["ale_py", "cv2"])
def test_missing_libraries(library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert is_atari("ALE/Unheard-v5")  # by its form
    for make in (make_atari_env, make_atari_vector_env):
        with pytest.raises(ImportError, match=r"pip install 'muzero-agent\[atari\]'"):
            make("ALE/Pong-v5")
    done = run("train", "ALE/Pong-v5", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "pip install 'muzero-agent[atari]'" in done.output


def test_frames_skipped_twice_on_purpose() -> None:
    with pytest.raises(ValueError, match=r"frameskip=4 .*wrapper_kwargs=dict\(frame_skip=\.\.\.\)"):
        make_atari_env("ALE/Pong-v5", env_kwargs={"frameskip": 4})


def test_vector_environments_of_other_kinds() -> None:
    with pytest.raises(ValueError, match=r"mode NextStep.*AtariVectorEnv\(\"pong\", 8, autoreset"):
        MuZero("CnnPolicy", AtariVectorEnv("pong", 2), **TINY)
    part = AtariVectorEnv("pong", 4, batch_size=2, autoreset_mode="SameStep")
    with pytest.raises(ValueError, match=r"steps 2 of its 4 .* leave out `batch_size`"):
        MuZero("CnnPolicy", part, **TINY)
