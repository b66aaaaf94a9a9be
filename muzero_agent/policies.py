"""The SB3 policies: networks, and a search over them that picks actions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from muzero_agent.networks import MlpNetwork, MuZeroNetwork
from muzero_agent.planner import LatentPlanner

if TYPE_CHECKING:
    from muzero_agent.search import SearchOutput


class MuZeroPolicy(BasePolicy):
    """Networks and search settings of an agent; enough to play without the algorithm.

    `network` is trained; `target_network`, its exponential moving average, is what searches.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, Any] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        latent_size: int = 128,
        latent_norm: str = "simnorm",
        support_bound: float = 30.0,
        support_size: int = 61,
        normalize_observations: bool = True,
        num_simulations: int = 16,
        search: str = "gumbel",
        discount: float = 0.997,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.net_arch = [128] if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.latent_size = latent_size
        self.latent_norm = latent_norm
        self.support_bound = support_bound
        self.support_size = support_size
        self.normalize_observations = normalize_observations
        self.num_simulations = num_simulations
        self.search = search
        self.discount = discount
        self.rng = np.random.default_rng()
        self.network = self._make_network()
        self.target_network = copy.deepcopy(self.network).requires_grad_(False)
        self.target_network.train(False)
        self.planner = LatentPlanner(self.target_network, discount)
        self.optimizer = self.optimizer_class(
            self.network.parameters(),
            lr=lr_schedule(1),
            **self.optimizer_kwargs,
        )

    def _make_network(self) -> MuZeroNetwork:
        extractor = self.make_features_extractor()
        arch = self.net_arch
        widths = arch if isinstance(arch, dict) else dict.fromkeys(
            ("representation", "dynamics", "prediction"), arch
        )
        return MlpNetwork(
            extractor,
            int(self.action_space.n),
            representation=widths["representation"],
            dynamics=widths["dynamics"],
            prediction=widths["prediction"],
            latent_size=self.latent_size,
            latent_norm=self.latent_norm,
            activation=self.activation_fn,
            support_bound=self.support_bound,
            support_size=self.support_size,
            normalize_features=self.normalize_observations,
        )

    def preprocess(self, obs: PyTorchObs) -> PyTorchObs:
        """What `network.representation` takes: floats, one-hot where discrete, images in [0, 1]."""
        return preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images)

    def plan(
        self,
        obs: PyTorchObs,
        *,
        noise: float | NDArray[np.float32] = 0.0,
        temperature: float = 1.0,
        invalid_actions: NDArray[np.bool_] | None = None,
        rng: np.random.Generator | None = None,
    ) -> SearchOutput:
        return self.planner.plan(
            self.preprocess(obs),
            num_simulations=self.num_simulations,
            search=self.search,
            rng=self.rng if rng is None else rng,
            invalid_actions=invalid_actions,
            noise=noise,
            temperature=temperature,
        )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        out = self.plan(
            observation,
            noise=0.0 if deterministic else 1.0,
            temperature=0.0 if deterministic else 1.0,
        )
        return torch.as_tensor(out.action)
