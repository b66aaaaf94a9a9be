"""Scripts as in the examples of SB3's documentation run when `DQN` in them becomes `MuZero`.

Each is run with both: what DQN does not take would say nothing of MuZero. Only settings that make
them small differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import HParam, configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from torch import nn

from muzero_agent import MuZero

SMALL: dict[str, Any] = {"learning_starts": 16, "batch_size": 8, "buffer_size": 300, "seed": 0}
TINY: dict[Any, dict[str, Any]] = {
    stable_baselines3.DQN: SMALL,
    MuZero: SMALL | {"num_simulations": 2, "reanalyse_ratio": 3, "gradient_steps": 1},
}
SNIPPETS: list[Callable[[Any], None]] = []


def snippet(function: Callable[[Any], None]) -> Callable[[Any], None]:
    SNIPPETS.append(function)
    return function


@pytest.fixture
def registered() -> Iterator[None]:
    gym.register("Corridor-v0", Corridor, max_episode_steps=20)  # type: ignore[arg-type]
    yield
    gym.registry.pop("Corridor-v0")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("algorithm", TINY, ids=lambda algorithm: algorithm.__name__)
@pytest.mark.parametrize("run", SNIPPETS, ids=lambda run: run.__name__)
def test_snippets_of_the_documentation(
    run: Callable[[Any], None], algorithm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rich is experimental")
        run(algorithm)


# -- the snippets ----------------------------------------------------------------------------------


@snippet
def basic_usage(DQN: Any) -> None:
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    model = DQN("MlpPolicy", env, verbose=1, **TINY[DQN])
    model.learn(total_timesteps=int(4e1), progress_bar=True)
    model.save("dqn_cartpole")
    del model

    model = DQN.load("dqn_cartpole", env=env)
    result: Any = evaluate_policy(model, model.get_env(), n_eval_episodes=2)
    mean_reward, std_reward = result
    assert mean_reward >= 8
    assert std_reward >= 0
    vec_env = model.get_env()
    obs = vec_env.reset()
    for _ in range(12):
        action, _states = model.predict(obs, deterministic=True)
        obs, rewards, _dones, info = vec_env.step(action)
        assert rewards.shape == (1,)
        assert "TimeLimit.truncated" in info[0]
    assert vec_env.render("rgb_array").ndim == 3


@snippet
def a_loop_of_gymnasium(DQN: Any) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", **TINY[DQN]).learn(24, log_interval=None)
    env = gym.make("CartPole-v1")
    obs, _info = env.reset(seed=1)
    for _ in range(20):
        action, _states = model.predict(obs)
        obs, _reward, terminated, truncated, _info = env.step(action)
        if terminated or truncated:
            obs, _info = env.reset()


@snippet
def multiprocessing(DQN: Any) -> None:
    def make_env(env_id: str, rank: int, seed: int = 0) -> Callable[[], gym.Env[Any, Any]]:
        def _init() -> gym.Env[Any, Any]:
            env = gym.make(env_id)
            env.reset(seed=seed + rank)
            return env

        set_random_seed(seed)
        return _init

    envs = [make_env("CartPole-v1", i) for i in range(2)]
    vec_env = VecMonitor(SubprocVecEnv(envs, start_method="fork"))
    try:
        model = DQN("MlpPolicy", vec_env, train_freq=1, **(TINY[DQN] | {"gradient_steps": -1}))
        model.learn(total_timesteps=40)
        obs = vec_env.reset()
        action, _ = model.predict(obs)
        assert action.shape == (2,)
        assert vec_env.get_attr("spec")[0].id == "CartPole-v1"
    finally:
        vec_env.close()


@snippet
def dict_observations(DQN: Any) -> None:
    env = SimpleMultiObsEnv(random_start=False)
    model = DQN("MultiInputPolicy", env, **TINY[DQN])
    model.learn(total_timesteps=24)
    obs, _ = env.reset()
    assert env.action_space.contains(model.predict(obs)[0])


@snippet
def the_best_of_the_training_rewards(DQN: Any) -> None:
    class SaveOnBestTrainingRewardCallback(BaseCallback):
        def __init__(self, check_freq: int, log_dir: str, verbose: int = 1) -> None:
            super().__init__(verbose)
            self.check_freq, self.log_dir = check_freq, log_dir
            self.best_mean_reward = -float("inf")

        def _on_step(self) -> bool:
            if self.n_calls % self.check_freq == 0:
                # there by load_results(), which needs pandas
                rows = Path(self.log_dir, "monitor.csv").read_text().splitlines()[2:]
                y = [float(row.split(",")[0]) for row in rows]
                if len(y) > 0 and np.mean(y[-100:]) > self.best_mean_reward:
                    self.best_mean_reward = float(np.mean(y[-100:]))
                    self.model.save(Path(self.log_dir) / "best_model")
            return True

    Path("log").mkdir()
    env = Monitor(gym.make("CartPole-v1"), "log")
    callback = SaveOnBestTrainingRewardCallback(30, "log")
    DQN("MlpPolicy", env, **TINY[DQN]).learn(90, callback=callback)
    assert callback.best_mean_reward >= 8
    assert DQN.load("log/best_model").num_timesteps in (30, 60, 90)


@snippet
def callbacks(DQN: Any) -> None:
    eval_env = Monitor(gym.make("CartPole-v1"))
    best = StopTrainingOnRewardThreshold(reward_threshold=1e6)
    callback = CallbackList(
        [
            CheckpointCallback(save_freq=20, save_path="./logs/"),
            EvalCallback(
                eval_env,
                callback_on_new_best=best,
                best_model_save_path="./logs/best_model",
                log_path="./logs/results",
                eval_freq=20,
                n_eval_episodes=1,
            ),
            EveryNTimesteps(n_steps=25, callback=CheckpointCallback(1, "./logs", "every")),
        ]
    )
    DQN("MlpPolicy", "CartPole-v1", **TINY[DQN]).learn(40, callback=callback)
    assert {path.name for path in Path("logs").iterdir()} == {
        "rl_model_20_steps.zip",
        "rl_model_40_steps.zip",
        "every_25_steps.zip",
        "best_model",
        "results",
    }


@snippet
def atari_like(DQN: Any) -> None:
    vec_env = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(4, 44, 44)] * 2), n_stack=4)
    model = DQN("CnnPolicy", vec_env, verbose=1, **TINY[DQN])
    model.learn(total_timesteps=24)
    obs: Any = vec_env.reset()
    assert obs.shape == (2, 44, 44, 4)
    action, _states = model.predict(obs, deterministic=False)
    assert vec_env.step(action)[1].shape == (2,)


@snippet
def vec_normalize(DQN: Any) -> None:
    vec_env = VecNormalize(
        make_vec_env("CartPole-v1", n_envs=1), norm_obs=True, norm_reward=False, clip_obs=10.0
    )
    model = DQN("MlpPolicy", vec_env, **TINY[DQN])
    model.learn(total_timesteps=40)
    model.save("dqn")
    vec_env.save("vec_normalize.pkl")
    del model, vec_env

    loaded = VecNormalize.load("vec_normalize.pkl", make_vec_env("CartPole-v1", n_envs=1))
    loaded.training = False
    loaded.norm_reward = False
    model = DQN.load("dqn", env=loaded)
    result: Any = evaluate_policy(model, loaded, n_eval_episodes=1)
    assert result[0] >= 8


@snippet
def learning_rate_schedule(DQN: Any) -> None:
    def linear_schedule(initial_value: float) -> Callable[[float], float]:
        def func(progress_remaining: float) -> float:
            return progress_remaining * initial_value

        return func

    model = DQN("MlpPolicy", "CartPole-v1", learning_rate=linear_schedule(0.001), **TINY[DQN])
    model.learn(total_timesteps=32)
    model.learn(total_timesteps=32, reset_num_timesteps=False, tb_log_name="second")
    model.save("schedule")
    again = DQN.load("schedule", custom_objects={"learning_rate": 0.0, "lr_schedule": lambda _: 0})
    assert again.learning_rate == 0.0


@snippet
def advanced_saving_and_loading(DQN: Any) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", **TINY[DQN])
    model.learn(40)
    model.save("dqn")
    loaded_model = DQN.load("dqn")
    assert loaded_model.replay_buffer.size() == 0
    model.save_replay_buffer("dqn_replay_buffer")
    loaded_model.load_replay_buffer("dqn_replay_buffer")
    assert loaded_model.replay_buffer.size() >= 40
    loaded_model.set_env(model.get_env())
    loaded_model.learn(20, reset_num_timesteps=False)

    policy = model.policy
    policy.save("dqn_policy")
    saved_policy = type(policy).load("dqn_policy")
    result: Any = evaluate_policy(saved_policy, Monitor(gym.make("CartPole-v1")), 1)
    assert result[0] >= 8


@snippet
def modifying_parameters(DQN: Any) -> None:
    def mutate(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: param + 0.1 * torch.randn_like(param) for name, param in params.items()}

    model = DQN("MlpPolicy", "CartPole-v1", **TINY[DQN])
    mean_params = model.policy.state_dict()
    population = [mutate(mean_params) for _ in range(3)]
    fitnesses: list[Any] = []
    for candidate in population:
        model.policy.load_state_dict(candidate, strict=False)
        fitnesses.append(evaluate_policy(model, model.get_env(), n_eval_episodes=1, warn=False)[0])
    assert min(fitnesses) >= 8
    parameters = model.get_parameters()
    parameters["policy"] = population[0]
    model.set_parameters(parameters, exact_match=True)
    model.set_parameters({"policy": population[1]}, exact_match=False)
    vector = model.policy.parameters_to_vector()
    model.policy.load_from_vector(vector)
    model.learn(24)


@snippet
def logger(DQN: Any) -> None:
    class HParamCallback(BaseCallback):
        def _on_training_start(self) -> None:
            chosen = {
                "algorithm": self.model.__class__.__name__,
                "learning rate": self.model.learning_rate,
                "gamma": self.model.gamma,  # type: ignore[attr-defined]
            }
            self.logger.record(
                "hparams",
                HParam(chosen, {"train/loss": 0.0}),
                exclude=("stdout", "log", "json", "csv"),
            )

        def _on_step(self) -> bool:
            self.logger.record("random_value", np.random.random())  # noqa: NPY002
            self.logger.record("rewards", self.locals["rewards"].mean())
            return True

    new_logger = configure("sb3_log", ["stdout", "csv", "tensorboard"])
    model = DQN("MlpPolicy", "CartPole-v1", learning_rate=1e-3, verbose=1, **TINY[DQN])
    model.set_logger(new_logger)
    model.learn(60, log_interval=1, callback=HParamCallback())
    new_logger.close()
    header = Path("sb3_log", "progress.csv").read_text().splitlines()[0].split(",")
    assert {"random_value", "train/loss", "rollout/ep_rew_mean"} <= set(header)


class Corridor(gym.Env[Any, np.int64]):
    """The custom environment of the documentation: go left to the end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, grid_size: int = 6, render_mode: str = "rgb_array") -> None:
        self.grid_size, self.render_mode = grid_size, render_mode
        self.agent_pos = grid_size - 1
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0, grid_size, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.agent_pos = self.grid_size - 1
        return np.array([self.agent_pos]).astype(np.float32), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.agent_pos = int(
            np.clip(self.agent_pos + (-1 if action == 0 else 1), 0, self.grid_size)
        )
        terminated = bool(self.agent_pos == 0)
        obs = np.array([self.agent_pos]).astype(np.float32)
        return obs, float(terminated), terminated, False, {"is_success": terminated}

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


@snippet
def a_custom_environment(DQN: Any) -> None:
    check_env(Corridor(), warn=True)
    vec_env = make_vec_env("Corridor-v0", n_envs=2, env_kwargs={"grid_size": 5})
    model = DQN("MlpPolicy", "Corridor-v0", **TINY[DQN]).learn(60)
    assert len(model.ep_success_buffer) > 0
    model = DQN("MlpPolicy", vec_env, **TINY[DQN]).learn(60)
    model.set_env(make_vec_env(Corridor, n_envs=2, env_kwargs={"grid_size": 5}))
    model.learn(10, reset_num_timesteps=False)


@snippet
def a_custom_extractor(DQN: Any) -> None:
    class CustomCombinedExtractor(BaseFeaturesExtractor):
        def __init__(self, observation_space: spaces.Dict) -> None:
            super().__init__(observation_space, features_dim=1)
            extractors: dict[str, nn.Module] = {}
            for key, part in observation_space.spaces.items():
                size = int(np.prod(part.shape or ()))
                extractors[key] = nn.Sequential(nn.Flatten(), nn.Linear(size, 4))
            self.extractors = nn.ModuleDict(extractors)
            self._features_dim = 4 * len(extractors)

        def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
            encoded = [layer(observations[key]) for key, layer in self.extractors.items()]
            return torch.cat(encoded, dim=1)

    policy_kwargs = {
        "features_extractor_class": CustomCombinedExtractor,
        "activation_fn": nn.ReLU,
        "net_arch": [32, 32],
        "optimizer_class": torch.optim.RMSprop,
        "optimizer_kwargs": {"alpha": 0.95},
    }
    env = SimpleMultiObsEnv(random_start=False)
    DQN("MultiInputPolicy", env, policy_kwargs=policy_kwargs, **TINY[DQN]).learn(24)


@snippet
def parts_of_dict_observations(DQN: Any) -> None:
    envs = DummyVecEnv([lambda: SimpleMultiObsEnv(random_start=False)] * 2)
    vec_env = VecMonitor(VecExtractDictObs(envs, key="vec"))
    DQN("MlpPolicy", vec_env, verbose=1, **TINY[DQN]).learn(24)


@snippet
def calls_that_are_rarely_made(DQN: Any) -> None:
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), 1e-3, **TINY[DQN])
    model.learn(total_timesteps=3.2e1)
    updates = model._n_updates
    model.train(gradient_steps=2)
    assert model._n_updates == updates + 2
    model.set_random_seed(3)
    assert model.policy.obs_to_tensor(np.zeros(4))[0].shape == (1, 4)
    assert model.policy._predict(torch.zeros(2, 4), deterministic=True).shape == (2,)
    assert model.env.num_envs == model.n_envs == 1
    assert model.logger is not None
    assert model.observation_space.shape == (4,)
    assert str(model.device) == str(model.policy.device)
    model.policy.set_training_mode(False)
    model.learn(0)


@snippet
def evaluation_in_detail(DQN: Any) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", **TINY[DQN]).learn(24)
    env = make_vec_env("CartPole-v1", 2)
    seen: list[bool] = []
    rewards, lengths = evaluate_policy(
        model,
        env,
        n_eval_episodes=2,
        deterministic=False,
        callback=lambda local, _: seen.append(local["done"]),
        return_episode_rewards=True,
    )
    assert rewards == lengths
    assert sum(seen) == 2
    state = None
    obs, starts = env.reset(), np.ones(2, dtype=bool)
    for _ in range(3):
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        obs, _, starts, _ = env.step(action)
