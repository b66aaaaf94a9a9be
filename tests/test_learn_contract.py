"""`learn` keeps SB3's contract: callbacks, logs, environments of all kinds, seeds, schedules."""

from __future__ import annotations

import copy
import csv
import io
import json
import pathlib
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import nn

from muzero_agent import MuZero
from muzero_agent.networks import MlpNetwork
from muzero_agent.policies import MlpPolicy

ENV_ID = "CartPole-v1"


class Counting(gym.Env[Any, np.int64]):
    """Observes (episode, step) and pays the step: what is stored can be checked against that.

    :param length: steps of an episode, at the end of which it terminates
    :param kind: "box", "discrete", "dict", "image" (uint8, channels last) or "board" (3x3x2)
    """

    SPACES: dict[str, spaces.Space[Any]] = {  # noqa: RUF012
        "box": spaces.Box(-1, 1e6, (2,)),
        "discrete": spaces.Discrete(100),
        "dict": spaces.Dict({"where": spaces.Box(-1, 1e6, (2,)), "what": spaces.Discrete(3)}),
        "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
        "board": spaces.Box(0, 1, (3, 3, 2)),
    }

    def __init__(self, length: int = 5, kind: str = "box") -> None:
        self.observation_space = self.SPACES[kind]
        self.action_space = spaces.Discrete(3)
        self.length, self.kind = length, kind
        self.episode, self.t, self.resets = -1, 0, 0

    def observe(self) -> Any:
        where = np.array([self.episode, self.t], np.float32)
        if self.kind == "discrete":
            return self.t
        if self.kind == "dict":
            return {"where": where, "what": self.t % 3}
        if self.kind == "image":
            return np.full((8, 8, 3), self.t, np.uint8)
        if self.kind == "board":
            return np.full((3, 3, 2), self.t / self.length, np.float32)
        return where

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        self.episode += 1
        self.t = 0
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observe(), float(self.t), self.t == self.length, False, {}


def make(env: Any = ENV_ID, policy: str = "MlpPolicy", **kwargs: Any) -> MuZero:
    small = {"channels": 4, "num_blocks": 1, "head_width": 4}
    settings: dict[str, Any] = {
        "num_simulations": 2,
        "batch_size": 8,
        "learning_starts": 16,
        "train_freq": 4,
        "gradient_steps": 1,
        "reanalyse_ratio": 3,
        "policy_kwargs": {"net_arch": small if policy == "CnnPolicy" else [16]},
        "seed": 0,
    }
    return MuZero(policy, env, **(settings | kwargs))


def vectorised(*envs: gym.Env[Any, Any]) -> DummyVecEnv:
    return DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]


def check_trajectories(model: MuZero, tolerance: float = 0.0) -> int:
    """States of an episode follow one another, paid by the step; the number of steps stored."""
    replay = model.replay_buffer
    replay.check_valid()
    steps = 0
    for env in range(model.n_envs):
        newest = int(replay.head[env])
        ends = replay.last_row[env, : newest - 1] == np.arange(newest - 1)
        assert isinstance(replay.obs, np.ndarray)
        obs = replay.obs[env, :newest].astype(np.float64)
        moves = (obs[1:] - obs[:-1])[~ends]
        np.testing.assert_allclose(moves, np.broadcast_to([0, 1], moves.shape), atol=tolerance)
        reward = replay.reward[env, : newest - 1][~ends]
        np.testing.assert_allclose(reward, obs[1:, 1][~ends], atol=tolerance)
        assert len(moves) > 0
        steps += newest - int((replay.last_row[env, :newest] == np.arange(newest)).sum())
    return steps


def assert_same(a: MuZero, b: MuZero) -> None:
    """Parameters to the bit, and everything that was played."""
    for x, y in zip(a.policy.parameters(), b.policy.parameters(), strict=True):
        assert bool((x == y).all())
    for name in ("obs", "action", "reward", "policy", "value", "head"):
        np.testing.assert_array_equal(
            getattr(a.replay_buffer, name), getattr(b.replay_buffer, name), err_msg=name
        )


# -- callbacks -------------------------------------------------------------------------------------


def test_eval_callback_keeps_the_best_model_and_stops(tmp_path: pathlib.Path) -> None:
    stop = StopTrainingOnRewardThreshold(reward_threshold=1.0, verbose=0)
    evaluation = EvalCallback(
        Monitor(gym.make(ENV_ID)),
        callback_on_new_best=stop,
        n_eval_episodes=2,
        eval_freq=24,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        verbose=0,
    )
    model = make().learn(200, callback=evaluation)
    assert model.num_timesteps == 24
    assert evaluation.best_mean_reward >= 8
    best = MuZero.load(tmp_path / "best_model")
    assert best.num_timesteps == 24
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [24]


@pytest.mark.parametrize("deterministic", [False, True])
def test_evaluation_in_between_changes_nothing(deterministic: bool) -> None:
    """Not even what is stored of the step at which it happens."""
    evaluation = EvalCallback(
        Monitor(gym.make(ENV_ID)),
        n_eval_episodes=1,
        eval_freq=7,
        deterministic=deterministic,
        verbose=0,
    )
    evaluation.evaluations_results = []
    watched = make().learn(60, callback=evaluation)
    assert evaluation.n_calls == 60
    assert_same(watched, make().learn(60))


def test_an_evaluation_sees_the_statistics_of_the_run() -> None:
    """EvalCallback hands those of the training's VecNormalize over to the evaluation's."""
    env = VecNormalize(vectorised(Counting(), Counting()), norm_reward=False)
    judge = VecNormalize(vectorised(Monitor(Counting())), training=False, norm_reward=False)
    evaluation = EvalCallback(judge, n_eval_episodes=1, eval_freq=24, verbose=0)
    make(env).learn(48, callback=evaluation)
    known: Any = env.obs_rms
    handed_over: Any = judge.obs_rms
    assert handed_over.count == known.count > 48
    assert np.array_equal(handed_over.mean, known.mean)
    assert evaluation.last_mean_reward == evaluate_policy(evaluation.model, judge, 1)[0]


def test_checkpoints_hold_model_replay_and_normalisation(tmp_path: pathlib.Path) -> None:
    env = VecNormalize(vectorised(Counting(), Counting()), norm_reward=False)
    checkpoints = CheckpointCallback(
        12, str(tmp_path), "x", save_replay_buffer=True, save_vecnormalize=True
    )
    model = make(env).learn(48, callback=checkpoints)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"x_{what}{steps}_steps.{suffix}"
        for steps in (24, 48)
        for what, suffix in (("", "zip"), ("replay_buffer_", "pkl"), ("vecnormalize_", "pkl"))
    }
    again = MuZero.load(tmp_path / "x_24_steps", env=model.get_env())
    again.load_replay_buffer(tmp_path / "x_replay_buffer_24_steps.pkl")
    assert again.replay_buffer.size() == 2 * 11 + 2 * 2  # without the step that was just made
    again.learn(16, reset_num_timesteps=False)
    assert again.num_timesteps == 40
    check_trajectories(again, 1e-3)


def test_every_n_timesteps_and_lists_of_callbacks() -> None:
    seen: dict[str, list[int]] = {"often": [], "rare": []}

    def note(name: str) -> Any:
        return lambda local, _: seen[name].append(local["self"].num_timesteps)

    class Noting(BaseCallback):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def _on_step(self) -> bool:
            seen[self.name].append(self.model.num_timesteps)
            return True

    every = EveryNTimesteps(10, Noting("rare"))
    make(vectorised(Counting(), Counting())).learn(32, callback=[every, Noting("often")])
    assert seen["rare"] == [10, 20, 30]
    assert seen["often"] == list(range(2, 33, 2))
    make(Counting()).learn(8, callback=CallbackList([Noting("often")]))
    assert seen["often"][-8:] == list(range(1, 9))


def test_a_stop_without_improvement_keeps_the_best_model(tmp_path: pathlib.Path) -> None:
    evaluation = EvalCallback(
        Monitor(Counting()),  # where every episode pays the same
        callback_after_eval=StopTrainingOnNoModelImprovement(1, min_evals=1),
        n_eval_episodes=1,
        eval_freq=8,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    assert make(Counting()).learn(200, callback=evaluation).num_timesteps == 3 * 8
    assert MuZero.load(tmp_path / "best_model").num_timesteps == 8


def test_a_stop_after_so_many_episodes() -> None:
    env = vectorised(Counting(length=4), Counting(length=8))
    model = make(env).learn(200, callback=StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps == 2 * 16  # 4 and 2 episodes


def test_a_function_and_a_bar_watch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm says that its rich bar is experimental
        bar = ProgressBarCallback()
        make(Counting()).learn(12, callback=bar)
    assert bar.pbar.n == 12
    model = make(Counting())
    model.learn(50, callback=lambda local, _: bool(local["self"].num_timesteps < 5))
    assert model.num_timesteps == 5


@pytest.mark.parametrize("at", [3, 5, 6, 23, 25, 26], ids=str)
def test_a_stop_is_at_once_and_the_next_run_starts_from_a_reset(at: int) -> None:
    """In the warm-up and after it; in an episode, at its end and at the next one's start."""
    env = Counting()
    model = make(env)

    def stop(local: dict[str, Any], _: dict[str, Any]) -> bool:
        return bool(local["self"].num_timesteps < at)

    model.learn(100, callback=stop)
    assert model.num_timesteps == at
    resets = env.resets
    model.learn(40, reset_num_timesteps=False)
    assert env.resets >= resets + 40 // 5
    assert model.num_timesteps == at + 40
    stored = check_trajectories(model)
    # Lost are the step at which it stopped, and the state before it, unless that began an episode.
    assert stored in (at + 40 - 2, at + 40 - 1)


def test_locals_show_the_step_that_was_just_made() -> None:
    env = vectorised(Counting(length=3), Counting(length=4))
    rows = []

    class Watching(BaseCallback):
        def _on_step(self) -> bool:
            names = ("new_obs", "rewards", "dones", "infos")
            rows.append([self.locals[name] for name in names])
            return True

    make(env).learn(12, callback=Watching())
    assert len(rows) == 8  # in two rollouts
    assert [obs[0][1] for obs, *_ in rows][:6] == [1, 2, 0, 1, 2, 0]  # after a reset, the new state
    assert [rewards.tolist() for _, rewards, *_ in rows][2:4] == [[3, 3], [1, 4]]
    assert [dones.tolist() for *_, dones, _ in rows][2:4] == [[True, False], [False, True]]
    assert rows[2][3][0]["terminal_observation"].tolist() == [0, 3]


# -- runs ------------------------------------------------------------------------------------------


def test_learn_returns_the_model_and_counts_steps() -> None:
    env = vectorised(Counting(), Counting(), Counting())
    model = make(env)
    assert model.learn(20) is model
    assert model.num_timesteps == 24  # whole rollouts: 4 steps of 3 environments
    model.learn(12, reset_num_timesteps=False)
    assert model.num_timesteps == 36
    model.learn(12)
    assert model.num_timesteps == 12


@pytest.mark.parametrize("reset", [False, True])
def test_a_second_run_goes_on_or_resets(reset: bool) -> None:
    env = Counting(length=7)
    model = make(env).learn(4)
    assert env.t == 4
    model.learn(20, reset_num_timesteps=reset)
    replay = model.replay_buffer
    first_end = int(replay.last_row[0, 0])
    assert first_end == (3 if reset else 7)  # cut off at the last state stored, or at its own end
    assert bool(replay.terminated[0, first_end]) is not reset
    assert check_trajectories(model) == (23 if reset else 24)  # the state before a cut has no next


def test_truncation_is_told_from_termination() -> None:
    model = make(vectorised(TimeLimit(Counting(length=9), 4), Counting(length=4))).learn(64)
    replay = model.replay_buffer
    ends = replay.last_row[:, :35] == np.arange(35)
    assert ends.sum(-1).tolist() == [7, 7]
    assert not replay.terminated[0, :35][ends[0]].any()
    assert replay.terminated[1, :35][ends[1]].all()
    assert (replay.value[1, :35][ends[1]] == 0).all()
    check_trajectories(model)


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"train_freq": 4, "gradient_steps": 3}, 3 * 10),  # at 24, 28 .. 60
        ({"train_freq": (4, "step"), "gradient_steps": -1}, 4 * 10),
        ({"train_freq": (1, "episode"), "gradient_steps": 2}, 2 * 8),  # at 25, 30 .. 60
        ({"train_freq": (1, "episode"), "gradient_steps": -1}, 5 * 8),
        ({"train_freq": (2, "episode"), "gradient_steps": 1}, 4),
        ({"train_freq": 4, "gradient_steps": 0}, 0),
        ({"learning_starts": 0, "train_freq": 1, "gradient_steps": 1}, 59),
        ({"learning_starts": 60}, 0),
    ],
    ids=str,
)
def test_updates_come_as_often_as_they_were_ordered(settings: Any, updates: int) -> None:
    """The first step of all leaves nothing to learn from."""
    model = make(Counting(), **({"learning_starts": 20} | settings)).learn(60)
    assert model._n_updates == updates
    assert model.num_timesteps == 60


def test_the_frequency_of_updates_can_be_changed_between_two_runs() -> None:
    model = make(Counting(), learning_starts=20).learn(20)
    model.train_freq = 1
    model.gradient_steps = 2
    model.learn(10, reset_num_timesteps=False)
    assert model._n_updates == 20


def test_updates_of_several_environments() -> None:
    env = vectorised(Counting(), Counting(), Counting())
    model = make(env, learning_starts=24, gradient_steps=-1).learn(60)
    assert model._n_updates == 12 * 3  # as many as steps, after 36, 48 and 60


@pytest.mark.parametrize(
    "settings",
    [
        {"search": "puct"},
        {"priority_exponent": 0.7},
        {"reanalyse_ratio": 0},
        {"consistency_coef": 0.0},
        {"compared_steps": 1},
        {"td_lambda": 1.0, "td_steps": 3},
        {"unroll_steps": 1, "td_steps": 1},
        {"unroll_steps": 12},  # longer than an episode
        {"buffer_size": 14},  # wraps many times
        {"buffer_size": 20, "priority_exponent": 1.0, "search": "puct"},
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"num_simulations": 1, "max_num_considered_actions": 1},
        {"batch_size": 1},
    ],
    ids=str,
)
def test_settings_learn(settings: Any) -> None:
    model = make(vectorised(Counting(), Counting(length=8)), **settings).learn(64)
    assert model._n_updates > 0
    assert all(bool(part.isfinite().all()) for part in model.policy.parameters())
    before = make(vectorised(Counting(), Counting()), **settings)
    moved = [
        bool((a != b).any())
        for a, b in zip(model.policy.parameters(), before.policy.parameters(), strict=True)
    ]
    assert any(moved)
    model.replay_buffer.check_valid()


def test_priorities_follow_what_was_learned() -> None:
    model = make(Counting(), priority_exponent=1.0).learn(60)
    replay = model.replay_buffer
    newest = int(replay.head[0]) - 1
    priorities = replay.priorities.get(np.arange(newest))
    ends = replay.last_row[0, :newest] == np.arange(newest)
    assert (priorities[ends] == 0).all()
    assert (priorities[~ends] > 0).all()
    assert len(np.unique(priorities[~ends])) > 5


@pytest.mark.parametrize("search", ["gumbel", "puct"])
@pytest.mark.parametrize("sure", [False, True], ids=["unsure", "sure"])
def test_numpy_may_raise_on_everything(search: str, sure: bool) -> None:
    """As users set it to find their own faults; also with a policy of logits far apart."""
    with np.errstate(all="raise"):
        env = Counting(length=60 if sure else 5)
        model = make(
            env, search=search, priority_exponent=0.5, num_simulations=6, gamma=0.1, td_lambda=1.0,
            exploration_rate=0.0 if sure else 0.05,
        )  # fmt: skip
        if sure:
            with torch.no_grad():
                heads: Any = [
                    network.get_submodule("heads")
                    for network in (model.policy.network, model.policy.target_network)
                ]
                for head in heads:
                    head.bias[:3] = torch.tensor([0.0, 120.0, -3000.0])
        model.learn(48)
        for deterministic in (False, True):
            model.plan(np.array([[0, 1], [5, 3]]), deterministic=deterministic)
    assert model._n_updates > 0
    if sure:
        assert (model.replay_buffer.action[0, 20:40] == 1).mean() > 0.8


class Sparse(Counting):
    """Pays at the end of an episode alone."""

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, over, truncated, info = super().step(action)
        return obs, float(over), over, truncated, info


def test_numpy_may_raise_on_rewards_far_away() -> None:
    """Discounted over 50 steps, this one is less than any float32 above 0."""
    with np.errstate(all="raise"):
        model = make(Sparse(50), gamma=0.1, td_lambda=1.0, learning_starts=103, reanalyse_ratio=0)
        assert model.learn(108)._n_updates > 0
    assert np.isnan(model.replay_buffer.value[0, :50]).all()  # not searched


# -- schedules and logs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (LinearSchedule(1e-2, 0.0, 1.0), lambda progress: 1e-2 * progress),
        (lambda progress: 1e-3 + progress, lambda progress: 1e-3 + progress),
        (3e-4, lambda progress: 3e-4),
        (
            LinearSchedule(1e-2, 1e-3, 0.5),
            lambda progress: max(1e-3, 1e-2 - 0.018 * (1 - progress)),
        ),
        (ConstantSchedule(3e-4), lambda progress: 3e-4),
        (FloatSchedule(lambda progress: 1e-3 * progress**2), lambda progress: 1e-3 * progress**2),
    ],
    ids=["linear", "function", "number", "half", "constant", "float of a function"],
)
def test_the_learning_rate_follows_its_schedule(rate: Any, expected: Any) -> None:
    seen: list[tuple[int, float, set[float]]] = []

    class Watching(BaseCallback):
        def _on_rollout_start(self) -> None:
            if model._n_updates:
                logged = self.logger.name_to_value["train/learning_rate"]
                groups = {group["lr"] for group in model.policy.optimizer.param_groups}
                seen.append((self.num_timesteps, logged, groups))

        def _on_step(self) -> bool:
            return True

    model = make(Counting(length=100), learning_rate=rate)
    assert model.policy.optimizer.param_groups[0]["lr"] == expected(1)
    model.learn(40, callback=Watching())
    assert [steps for steps, *_ in seen] == [20, 24, 28, 32, 36]
    for steps, logged, groups in seen:
        assert logged == pytest.approx(expected(1 - steps / 40))
        assert groups == {logged}


KEYS = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "time/episodes",
    "time/total_timesteps",
    "train/loss",
    "train/value_loss",
    "train/policy_loss",
    "train/reward_loss",
    "train/learning_rate",
    "train/n_updates",
}


def test_the_log_has_the_keys_of_sb3(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make(vectorised(Monitor(Counting())), stats_window_size=3)
    model.set_logger(configure(str(tmp_path), ["csv", "stdout", "log"]))
    model.learn(60, log_interval=2)
    with (tmp_path / "progress.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= KEYS
    assert all(len(key) <= 36 for key in rows[0])  # beyond that, stdout cuts them
    last = rows[-1]
    assert all(last[key] for key in KEYS)
    assert float(last["rollout/ep_rew_mean"]) == 15  # 1 + 2 + .. + 5
    assert float(last["rollout/ep_len_mean"]) == 5
    assert float(last["time/total_timesteps"]) == 60
    assert float(last["time/episodes"]) == 12
    assert 0 < float(last["train/n_updates"]) <= model._n_updates
    assert all(np.isfinite(float(last[key])) for key in KEYS)
    assert len(rows) == 6  # every second episode
    printed = capsys.readouterr().out
    assert all(key.split("/")[1] in printed for key in KEYS)
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) == 3


def test_all_formats_have_the_keys(tmp_path: pathlib.Path) -> None:
    model = make(vectorised(Monitor(Counting())))
    model.set_logger(configure(str(tmp_path), ["json", "csv", "log", "tensorboard"]))
    model.learn(40, callback=LogEveryNTimesteps(20), log_interval=10**6)
    model.logger.close()
    lines = (tmp_path / "progress.json").read_text().splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [row["time/total_timesteps"] for row in rows] == [20, 40]
    assert rows[-1].keys() >= KEYS
    log = (tmp_path / "log.txt").read_text()
    assert all(key.split("/")[1] in log for key in KEYS)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    found = EventAccumulator(str(events)).Reload().Tags()["scalars"]
    own = {"train/n_updates", "time/episodes", "time/total_timesteps"}  # SB3 gives it none of these
    assert set(found) >= KEYS - own


def test_tensorboard_logs_go_where_they_are_wanted(tmp_path: pathlib.Path) -> None:
    model = make(Counting(), tensorboard_log=str(tmp_path))
    model.learn(24).learn(24, tb_log_name="other")
    assert {path.name for path in tmp_path.iterdir()} == {"MuZero_1", "other_1"}


def test_the_progress_bar_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm says that its rich bar is experimental
        model = make(Counting()).learn(40, progress_bar=True)
    assert model.num_timesteps == 40
    shown = capsys.readouterr()
    assert "40" in shown.out + shown.err


# -- environments ----------------------------------------------------------------------------------


def test_several_environments_are_searched_together() -> None:
    envs = [Counting(length=n) for n in (3, 5, 9)]
    model = make(vectorised(*envs)).learn(96)
    assert [env.resets for env in envs] == [32 // 3 + 1, 32 // 5 + 1, 32 // 9 + 1]
    assert check_trajectories(model) == 96
    assert model.predict(np.zeros((3, 2)))[0].shape == (3,)


class Masked(Counting):
    """Where only the step's number, modulo 3, may be played."""

    def action_masks(self) -> Any:
        return np.arange(3) == self.t % 3

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action == self.t % 3
        return super().step(action)


@pytest.mark.parametrize("normalised", [False, True])
def test_a_vecmonitor_in_place_of_monitors(normalised: bool) -> None:
    env: VecEnv = vectorised(Counting(), Counting())
    if normalised:
        env = VecNormalize(env, norm_reward=False)
    model = make(VecMonitor(env)).learn(40)
    assert model.ep_info_buffer is not None
    assert [info["r"] for info in model.ep_info_buffer] == [15] * 8
    assert (model.get_vec_normalize_env() is not None) is normalised
    check_trajectories(model, 1e-3)


@pytest.mark.parametrize("env_class", [Counting, Masked])
def test_environments_in_other_processes(env_class: type[Counting]) -> None:
    env = SubprocVecEnv([lambda: env_class(3), lambda: env_class(4)], start_method="fork")
    try:
        model = make(env).learn(48)
        assert check_trajectories(model) == 48
        assert model._n_updates > 0
        if env_class is Masked:
            assert not model.replay_buffer.legal[:, :10].all()
    finally:
        env.close()


def test_vecnormalize_in_the_replay_and_in_the_batch() -> None:
    env = VecNormalize(vectorised(Counting(), Counting(length=9)), norm_reward=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make(env).learn(80)
    assert check_trajectories(model, 1e-3) == 80  # stored as they were, not normalised
    batch = model.replay_buffer.sample(64, env=env)
    raw: Any = model.replay_buffer.observations_at(batch.rows)
    normalised: Any = env.normalize_obs(raw)
    assert isinstance(batch.observations, torch.Tensor)
    np.testing.assert_allclose(batch.observations[:, 0], normalised, atol=1e-5)
    assert float(batch.observations.abs().max()) <= env.clip_obs
    assert np.abs(normalised - raw).max() > 1
    assert batch.rewards.max() > 1


class Halved(Counting):
    """Observes what a VecNormalize would show that divides by two."""

    def observe(self) -> Any:
        return super().observe() / np.float32(2)


@pytest.mark.parametrize("truncates", [False, True])
def test_learning_sees_what_vecnormalize_shows(truncates: bool) -> None:
    """As if the environment itself gave normalised observations: all that is learned is equal."""

    def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return TimeLimit(env, 4) if truncates else env

    env = VecNormalize(
        vectorised(wrapped(Counting(7)), wrapped(Counting(7))),
        training=False,
        norm_reward=False,
        clip_obs=1e6,
        epsilon=0.0,
    )
    statistics: Any = env.obs_rms
    statistics.var[:] = 4.0
    shown = make(env).learn(80)
    given = make(vectorised(wrapped(Halved(7)), wrapped(Halved(7)))).learn(80)
    assert shown._n_updates > 0
    stored: Any = given.replay_buffer.obs
    np.testing.assert_array_equal(shown.replay_buffer.obs, stored * 2)
    for name, part in given.policy.state_dict().items():  # with the statistics of features
        assert bool((shown.policy.state_dict()[name] == part).all()), name
    np.testing.assert_array_equal(shown.replay_buffer.value, given.replay_buffer.value)


def test_vecnormalize_of_rewards_warns_and_stores_them_as_they_are() -> None:
    env = VecNormalize(vectorised(Counting()), norm_obs=False)
    model = make(env)
    with pytest.warns(UserWarning, match="norm_reward=False"):
        model.learn(48)
    assert check_trajectories(model) == 48
    batch = model.replay_buffer.sample(64, env=env)
    scale = float(np.sqrt(env.ret_rms.var + env.epsilon))
    stored = model.replay_buffer.reward[batch.rows.env, batch.rows.row]
    np.testing.assert_allclose(batch.rewards[:, 0], stored / scale, rtol=1e-4)


def test_stacked_frames() -> None:
    model = make(VecFrameStack(vectorised(Counting(), Counting(length=8)), 3)).learn(64)
    assert model.observation_space.shape == (6,)
    replay = model.replay_buffer
    assert isinstance(replay.obs, np.ndarray)
    stacks = replay.obs[0, : replay.head[0]]
    ends = replay.last_row[0, : replay.head[0] - 1] == np.arange(replay.head[0] - 1)
    assert (stacks[1:, :4][~ends] == stacks[:-1, 2:][~ends]).all()  # shifted by one frame
    assert ends.any()
    assert (stacks[np.flatnonzero(ends), 5] == 5).all()  # also the last stack of an episode


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("MlpPolicy", "box"),
        ("MlpPolicy", "discrete"),
        ("MlpPolicy", "image"),
        ("MlpPolicy", "board"),
        ("MultiInputPolicy", "dict"),
        ("CnnPolicy", "image"),
        ("CnnPolicy", "board"),
    ],
)
def test_kinds_of_observations(policy: str, kind: str) -> None:
    env = Counting(kind=kind)
    model = make(vectorised(env, Counting(kind=kind)), policy)
    before = [part.detach().clone() for part in model.policy.network.parameters()]
    model.learn(32)
    assert model._n_updates > 0
    after = model.policy.network.parameters()
    changed = [bool((a != b).any()) for a, b in zip(after, before, strict=True)]
    assert sum(changed) > len(changed) / 2
    assert model.predict(env.observe())[0] in (0, 1, 2)
    replay: Any = model.replay_buffer
    if kind == "image":
        assert isinstance(model.get_env(), VecTransposeImage)
        assert replay.obs.dtype == np.uint8
        assert replay.obs.shape[2:] == (3, 8, 8)
        assert set(np.unique(replay.obs)) <= set(range(6))
    if kind == "dict":
        where, what = (replay.obs[key][:, : replay.head[0]] for key in ("where", "what"))
        assert (what == where[..., 1] % 3).all()
    replay.check_valid()


# -- networks and policies of one's own ------------------------------------------------------------


class Doubling(BaseFeaturesExtractor):
    """Of a user's own, with parameters."""

    def __init__(self, space: spaces.Space[Any], features_dim: int = 4) -> None:
        super().__init__(space, features_dim)
        size = int(np.prod(space.shape or ()))
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, features_dim))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(obs * 2)
        return features


class Narrow(MlpPolicy):
    """A subclass that fixes an argument."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"net_arch": [8]}))


class Picture(Counting):
    """Images large enough for NatureCNN: uint8, or floats in [0, 1]; channels first or last."""

    def __init__(self, dtype: type[np.generic], first: bool) -> None:
        super().__init__()
        shape = (3, 36, 36) if first else (36, 36, 3)
        self.observation_space = spaces.Box(0, 255 if dtype is np.uint8 else 1, shape, dtype)

    def observe(self) -> Any:
        assert isinstance(self.observation_space, spaces.Box)
        space = self.observation_space
        return np.full(space.shape, self.t / self.length * space.high.max(), space.dtype)


RESNET = {"net_arch": {"channels": 4, "num_blocks": 1, "head_width": 4}}
NATURE = {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 8}}
NATURE |= {"net_arch": [8]}
RAW = {"normalize_images": False}


@pytest.mark.parametrize(
    ("policy", "env", "policy_kwargs", "highest"),
    [
        (
            "MlpPolicy",
            Counting(),
            {
                "features_extractor_class": Doubling,
                "features_extractor_kwargs": {"features_dim": 6},
                "activation_fn": nn.Tanh,
                "net_arch": {"dynamics": [8, 8], "latent_size": 24},
            },
            None,
        ),
        (Narrow, Counting(), {}, None),
        ("CnnPolicy", Picture(np.uint8, True), RESNET, 1),
        ("CnnPolicy", Picture(np.uint8, False), RESNET | RAW, 255),
        ("CnnPolicy", Picture(np.float32, True), RESNET | RAW, 1),
        ("CnnPolicy", Picture(np.uint8, False), NATURE, 1),
        ("CnnPolicy", Picture(np.uint8, True), NATURE | RAW, 255),
        ("CnnPolicy", Picture(np.float32, True), NATURE | RAW, 1),
        ("MlpPolicy", Picture(np.uint8, False), {"net_arch": [8]}, 1),
    ],
)
def test_networks_and_policies_of_ones_own(
    policy: Any, env: Counting, policy_kwargs: Any, highest: int | None
) -> None:
    """They learn, and are loaded again as they were."""
    given = copy.deepcopy(policy_kwargs)
    model = make(env, policy, policy_kwargs=policy_kwargs, buffer_size=60).learn(24)
    assert model._n_updates > 0
    assert policy_kwargs == given
    obs = env.observe()
    action, _ = model.predict(obs, deterministic=True)
    files: list[Any] = [io.BytesIO(), io.BytesIO()]
    model.save(files[0])
    model.policy.save(files[1])
    files[1].seek(0)
    for again in (MuZero.load(files[0]), type(model.policy).load(files[1])):
        assert again.predict(obs, deterministic=True)[0] == action
    network = model.policy.network
    if policy is Narrow:
        assert isinstance(network, MlpNetwork)
        assert network.heads.in_features == 8
    if "features_extractor_class" in policy_kwargs:
        assert isinstance(network, MlpNetwork)
        assert isinstance(network.features_extractor, policy_kwargs["features_extractor_class"])
    if highest is not None:
        env.t = env.length
        last = model.policy.obs_to_tensor(env.observe())[0]
        assert float(model.policy.preprocess(last).max()) == highest  # type: ignore[union-attr]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_reduced_whatever_their_numbers(dtype: Any, normalised: bool) -> None:
    """Else the network of an image would be that of a board, a hundred times as large."""
    env: VecEnv = VecTransposeImage(vectorised(Picture(np.uint8, False)))
    if dtype is np.float32:
        env = vectorised(Picture(np.float32, True))
    model = make(VecNormalize(env, norm_reward=False) if normalised else env, "CnnPolicy").learn(24)
    network = model.policy.network
    assert network.representation(torch.zeros(1, 3, 36, 36)).shape == (1, 4, 3, 3)


class Forgetful(VecEnvWrapper):
    """Hands on no last observations."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        kept = [{key: x for key, x in i.items() if key != "terminal_observation"} for i in infos]
        return obs, rewards, dones, kept


def test_a_last_observation_that_is_missing_is_told() -> None:
    model = make(Forgetful(vectorised(Counting(), Counting())))
    with pytest.raises(ValueError, match="environment 0 ended an episode without"):
        model.learn(24)


def test_set_env_closes_what_was_open() -> None:
    model = make(Counting(length=7)).learn(20)
    other = Counting(length=4)
    model.set_env(other)
    model.learn(20, reset_num_timesteps=False)
    assert other.resets == 6
    assert model.num_timesteps == 40
    check_trajectories(model)


# -- seeds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"search": "puct"}, {"priority_exponent": 0.5, "train_freq": (1, "episode")}],
    ids=str,
)
def test_two_seeded_runs_are_identical(settings: Any) -> None:
    a, b, other = (make(seed=seed, **settings).learn(80) for seed in (4, 4, 5))
    assert_same(a, b)
    assert a.ep_info_buffer is not None
    assert b.ep_info_buffer is not None
    assert [info["r"] for info in a.ep_info_buffer] == [info["r"] for info in b.ep_info_buffer]
    different = [
        bool((x != y).any())
        for x, y in zip(a.policy.parameters(), other.policy.parameters(), strict=True)
    ]
    assert any(different)
    assert (a.replay_buffer.action != other.replay_buffer.action).any()
    a.learn(20, reset_num_timesteps=False)
    b.learn(20, reset_num_timesteps=False)
    assert_same(a, b)


def test_two_seeded_runs_of_several_environments_are_identical() -> None:
    a, b = (make(make_vec_env(ENV_ID, 3, seed=None), seed=4).learn(72) for _ in range(2))
    assert_same(a, b)
    assert isinstance(a.replay_buffer.obs, np.ndarray)
    assert (a.replay_buffer.obs[0, 0] != a.replay_buffer.obs[1, 0]).any()


def test_two_seeded_runs_in_other_processes_are_identical() -> None:
    models = []
    for _ in range(2):
        env = SubprocVecEnv([lambda: gym.make(ENV_ID)] * 2, start_method="fork")
        try:
            models.append(make(env, seed=4).learn(60))
        finally:
            env.close()
    assert_same(*models)
    obs: Any = models[0].replay_buffer.obs
    assert (obs[0, 0] != obs[1, 0]).any()


def test_unseeded_runs_differ() -> None:
    a, b = (make(seed=None).learn(40) for _ in range(2))
    assert (a.replay_buffer.action != b.replay_buffer.action).any()


# -- values that the support does not reach -----------------------------------------------------


class _Rich(gym.Env[Any, Any]):
    """Pays 5,000 a step, ten steps long."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, np.float32), 5000.0, self.steps == 10, False, {}


def test_values_that_are_clipped_are_told_once() -> None:
    few: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "num_simulations": 2, "seed": 0}
    with pytest.warns(UserWarning, match=r"learned as 9\d\d.*support_bound=") as told:
        MuZero("MlpPolicy", _Rich(), **few).learn(48)
    assert len([w for w in told if "support_bound" in str(w.message)]) == 1
    bound = int(str(told[0].message).partition("support_bound=")[2].partition(")")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MuZero("MlpPolicy", _Rich(), policy_kwargs={"support_bound": bound}, **few).learn(48)
