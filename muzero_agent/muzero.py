"""The SB3 algorithm."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent.losses import Targets, muzero_loss
from muzero_agent.policies import MuZeroPolicy
from muzero_agent.reanalyse import Sweep
from muzero_agent.replay import TrajectoryReplayBuffer


class MuZero(OffPolicyAlgorithm):
    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": MuZeroPolicy}

    def __init__(
        self,
        policy,
        env,
        learning_rate=None,
        buffer_size: int = 100_000,
        learning_starts: int = 200,
        batch_size: int = 128,
        gamma: float | None = None,
        train_freq=8,
        gradient_steps: int = 4,
        num_simulations: int = 16,
        search: str = "gumbel",
        unroll_steps: int = 5,
        td_steps: int = 50,
        td_lambda: float = 0.95,
        reanalyse_ratio: int = 31,
        value_coef: float = 0.5,
        consistency_coef: float = 1.0,
        target_decay: float = 0.99,
        priority_exponent: float = 0.0,
        bootstrap: str = "improved",
        max_grad_norm: float = 5.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if learning_rate is None:
            learning_rate = LinearSchedule(3e-3, 3e-4, 1.0)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            gamma=0.997 if gamma is None else gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=TrajectoryReplayBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
            support_multi_env=True,
        )
        self.num_simulations = num_simulations
        self.search = search
        self.unroll_steps = unroll_steps
        self.td_steps = td_steps
        self.td_lambda = td_lambda
        self.reanalyse_ratio = reanalyse_ratio
        self.value_coef = value_coef
        self.consistency_coef = consistency_coef
        self.target_decay = target_decay
        self.priority_exponent = priority_exponent
        self.bootstrap = bootstrap
        self.max_grad_norm = max_grad_norm
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.replay_buffer_kwargs = dict(
            unroll_steps=self.unroll_steps,
            td_steps=self.td_steps,
            td_lambda=self.td_lambda,
            gamma=self.gamma,
            priority_exponent=self.priority_exponent,
            seed=self.seed,
        )
        super()._setup_model()
        self.policy.num_simulations = self.num_simulations
        self.policy.search = self.search
        self.policy.planner.discount = self.gamma
        self._rng = np.random.default_rng(self.seed)
        self.policy.rng = np.random.default_rng(self.seed)
        self._sweep = Sweep()

    def _sample_action(self, learning_starts, action_noise=None, n_envs=1):
        obs = self._last_obs
        if self.num_timesteps < learning_starts:
            self._found = None
            a = self._rng.integers(self.action_space.n, size=n_envs)
            return a, a
        replay = self.replay_buffer
        rows = self._sweep.rows(replay, self.reanalyse_ratio * n_envs) if self.reanalyse_ratio else None
        batch = obs
        noise = np.ones(n_envs, np.float32)
        if rows is not None:
            old = replay.observations_at(rows)
            batch = np.concatenate([obs, old])
            noise = np.concatenate([noise, np.zeros(len(old), np.float32)])
        out = self.policy.plan(torch.as_tensor(batch), noise=noise, rng=self._rng)
        value = out.improved_value if self.bootstrap == "improved" else out.value
        if rows is not None:
            replay.update_search(rows, out.action_weights[n_envs:], value[n_envs:])
        self._found = (out.action_weights[:n_envs], value[:n_envs])
        a = out.action[:n_envs].astype(np.int64)
        return a, a

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos):
        uniform = np.full(self.action_space.n, 1 / self.action_space.n, np.float32)
        for i in range(self.n_envs):
            policy, value = (uniform, 0.0) if self._found is None else (self._found[0][i], self._found[1][i])
            replay_buffer.add_step(i, self._last_obs[i], buffer_action[i], reward[i], policy, value, None, searched=self._found is not None)
            if dones[i]:
                term = not infos[i].get("TimeLimit.truncated", False)
                last = infos[i]["terminal_observation"]
                v = 0.0
                if not term:
                    with torch.no_grad():
                        v = float(self.policy.target_network.initial_inference(self.policy.preprocess(torch.as_tensor(last[None]))).value[0])
                replay_buffer.end_episode(i, last, v, terminated=term)
        if hasattr(self.policy.network.normalize, "update"):
            self.policy.network.normalize.update(torch.as_tensor(self._last_obs))
        self._last_obs = new_obs

    def train(self, gradient_steps: int, batch_size: int) -> None:
        policy = self.policy
        net, target = policy.network, policy.target_network
        net.train()
        self._update_learning_rate(policy.optimizer)
        logs = []
        for _ in range(gradient_steps):
            b = self.replay_buffer.sample(batch_size)
            obs = b.observations
            feats = policy.preprocess(obs[:, 0])
            nxt = policy.preprocess(obs[:, 1:].transpose(0, 1).flatten(0, 1)) if self.consistency_coef else None
            loss = muzero_loss(
                net, feats, nxt,
                Targets(b.actions, b.rewards, b.values, b.policies, b.reward_mask, b.value_mask, b.policy_mask, b.consistency_mask, b.weights),
                value_coef=self.value_coef, consistency_coef=self.consistency_coef,
            )
            policy.optimizer.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), self.max_grad_norm)
            policy.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(target.parameters()), list(net.parameters()), 1 - self.target_decay)
                for x, y in zip(target.buffers(), net.buffers(), strict=True):
                    x.copy_(y)
            if self.priority_exponent:
                self.replay_buffer.update_priorities(b.rows, (loss.root_value - b.values[:, 0]).abs().numpy() + 1e-3)
            self._n_updates += 1
        for k in ("total", "policy", "value", "reward", "consistency"):
            self.logger.record(f"train/{k}_loss", float(getattr(loss, k)))
        self.logger.record("train/n_updates", self._n_updates)
