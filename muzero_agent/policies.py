"""The SB3 policies: networks, and a search over them that picks actions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import (
    maybe_transpose,
    preprocess_obs,
)
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
)
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import is_vectorized_observation
from torch import Tensor, nn

from muzero_agent import actions
from muzero_agent.architectures import channels_come_last, make_mlp, make_resnet
from muzero_agent.masks import has_mask, network_space, warn_of_missing_masks
from muzero_agent.networks import MuZeroNetwork, Obs
from muzero_agent.planner import SEARCHES, LatentPlanner, Plan
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.tracing import Function, Traced
from muzero_agent.types import MASK_KEY, Observation, RootOutput

MOST_Q_RANGE = 0.5
"""In games, whose values are from -1 to 1, differences of Q values beyond it are taken in earnest
whatever the error of values: results are noisy, values by far not as much. Of 400 solved positions
of Connect Four (64 simulations by the rules, the model in the package), 98.2% of the moves were
exact at 0.5, 97.5% at 1.5."""


class MuZeroPolicy(BasePolicy):
    """Networks and search settings: all that is needed to play.

    `network` is trained; `target_network`, its moving average, is what searches.

    :param observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of these
    :param action_space: Discrete, MultiDiscrete or MultiBinary; see `actions`
    :param lr_schedule: learning rate; its value at 1 is the optimizer's first
    :param net_arch: widths of the hidden layers of h, g and f alike, or a dict of other keyword
        arguments of the network: of `networks.MlpNetwork`, for instance
        `dict(representation=[256], dynamics=[256, 256], prediction=[64], latent_size=256)`, or of
        `resnet.ResNet` (`channels`, `num_blocks`, `head_width`, `decoded_planes`).
    :param activation_fn: between the layers of an MLP
    :param features_extractor_class: SB3 features extractor in front of an MLP; "CnnPolicy" has a
        ResNet instead unless one is given.
    :param features_extractor_kwargs: its keyword arguments
    :param normalize_images: divide images by 255
    :param optimizer_class: of the networks
    :param optimizer_kwargs: its keyword arguments besides the learning rate
    :param support_bound: see `categorical.Support`
    :param support_size: see `categorical.Support`
    :param support_mean: see `categorical.Support`; "scalars" is what `MuZero` gives
    :param normalize_observations: scale the features of an extractor without parameters, and each
        pixel of images that a ResNet reduces, by the mean and variance of all that were collected
    :param num_simulations: network calls per move
    :param search: "gumbel" or "puct"
    :param discount: factor on the next value; negative where two players alternate
    :param terminal_rewards: see `LatentPlanner.plan`
    :param max_num_considered_actions: actions that Gumbel's root considers
    :param dirichlet_fraction: share of noise in PUCT's root prior
    :param dirichlet_alpha: of that noise
    :param env_has_masks: whether masks came from a method of the environment where the model
        learned; see `warn_of_missing_masks`
    """

    default_extractor: type[BaseFeaturesExtractor] | None = FlattenExtractor

    value_error: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, Any] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        support_bound: float = 30.0,
        support_size: int = 61,
        support_mean: str = "transformed",
        normalize_observations: bool = True,
        num_simulations: int = 16,
        search: str = "gumbel",
        discount: float = 0.997,
        terminal_rewards: bool = False,
        max_num_considered_actions: int = 16,
        dirichlet_fraction: float = 0.25,
        dirichlet_alpha: float = 0.3,
        env_has_masks: bool = False,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if optimizer_class is torch.optim.AdamW:
            # Weight decay as in MuZero's appendix G; fused, since the tensors are small and many.
            self.optimizer_kwargs = {
                "weight_decay": 1e-4,
                "fused": True,
                **self.optimizer_kwargs,
            }
        self.net_arch = net_arch
        self.activation_fn = activation_fn
        self.given_extractor_class = features_extractor_class
        self.support_bound = support_bound
        self.support_size = support_size
        self.support_mean = support_mean
        self.normalize_observations = normalize_observations
        self.network_space = network_space(observation_space)
        self.num_simulations = num_simulations
        self.search = search
        self.discount = discount
        self.terminal_rewards = terminal_rewards
        self.max_num_considered_actions = max_num_considered_actions
        # Typical |value - target|, told by training. Part of the state, for the search needs it.
        self.register_buffer("value_error", torch.zeros(()))
        self.dirichlet_fraction = dirichlet_fraction
        self.dirichlet_alpha = dirichlet_alpha
        self.env_has_masks = env_has_masks
        self.rng = np.random.default_rng()
        self.channels_come_last = False

        self.network = self._make_network()
        self.target_network = copy.deepcopy(self.network).requires_grad_(False)
        self.planner = LatentPlanner(self.target_network)
        self._first = Traced(_First, flag="traceable_representation")
        self._first_learning_rate = lr_schedule(1)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:  # type: ignore[override]
        """Of `network`; made when it is first asked for, since play needs none, and with the first
        one torch imports its compiler, which takes a second or two."""
        return self.optimizer_class(
            self.network.parameters(),
            lr=self._first_learning_rate,  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _make_network(self) -> MuZeroNetwork:
        size = actions.num_actions(self.action_space)
        support: dict[str, Any] = {
            "support_bound": self.support_bound,
            "support_size": self.support_size,
            "support_mean": self.support_mean,
        }
        extractor_class = self.given_extractor_class or self.default_extractor
        if extractor_class is None:
            network = make_resnet(
                self.network_space,
                size,
                self.net_arch,
                normalize_observations=self.normalize_observations,
                **support,
            )
            self.channels_come_last = channels_come_last(self.network_space)
            return network
        return make_mlp(
            self.network_space,
            size,
            self.net_arch,
            extractor_class=extractor_class,
            extractor_kwargs=self.features_extractor_kwargs,
            activation=self.activation_fn,
            normalize_images=self.normalize_images,
            normalize_observations=self.normalize_observations,
            **support,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "features_extractor_class": self.given_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            "support_bound": self.support_bound,
            "support_size": self.support_size,
            "support_mean": self.support_mean,
            "normalize_observations": self.normalize_observations,
            "num_simulations": self.num_simulations,
            "search": self.search,
            "discount": self.discount,
            "terminal_rewards": self.terminal_rewards,
            "max_num_considered_actions": self.max_num_considered_actions,
            "dirichlet_fraction": self.dirichlet_fraction,
            "dirichlet_alpha": self.dirichlet_alpha,
            "env_has_masks": self.env_has_masks,
            "lr_schedule": self._dummy_schedule,
        }

    def set_training_mode(self, mode: bool) -> None:
        """The network that searches stays in evaluation mode."""
        self.network.train(mode)
        self.target_network.train(False)
        self.training = mode

    def preprocess(self, obs: Obs) -> Obs:
        """What `network.representation` takes: floats, one-hot where discrete, images in [0, 1],
        and for a ResNet channels first.

        :param obs: observations as tensors [B, ...] on the policy's device
        """
        if isinstance(obs, dict) and not isinstance(self.network_space, spaces.Dict):
            obs = obs["observation"]
        obs = preprocess_obs(obs, self.network_space, normalize_images=self.normalize_images)
        if self.channels_come_last:
            assert isinstance(obs, Tensor)
            return obs.permute(0, 3, 1, 2)
        return obs

    @np.errstate(under="ignore")  # exp of logits far apart is 0, whatever users set for theirs
    def plan(
        self,
        obs: Observation,
        *,
        legal_actions: NDArray[np.bool_] | None = None,
        noise: float | NDArray[np.float32] = 0.0,
        temperature: float | NDArray[np.float32] = 1.0,
        rng: np.random.Generator | None = None,
        variations: bool = False,
    ) -> Plan:
        """Search from a batch of observations [B, ...]; see `LatentPlanner.plan`."""
        self._check_search()
        return self.planner.plan(
            self.network_input(obs),
            discount=self.discount,
            terminal_rewards=self.terminal_rewards,
            rng=self.rng if rng is None else rng,
            legal_actions=legal_actions,
            noise=noise,
            temperature=temperature,
            variations=variations,
            **self._search_settings(),
        )

    def plan_by_rules(
        self,
        states: Sequence[Any],
        planner: RulesPlanner[Any],
        *,
        noise: float = 0.0,
        temperature: float = 1.0,
        rng: np.random.Generator | None = None,
        variations: bool = False,
    ) -> Plan:
        """Search from B states by the rules of `planner`, which evaluates them by the network."""
        self._check_search()
        return planner.plan(
            states,
            self.evaluate,
            rng=self.rng if rng is None else rng,
            noise=noise,
            temperature=temperature,
            variations=variations,
            **self._search_settings(),
        )

    @torch.inference_mode()
    def evaluate(self, obs: Observation) -> RootOutput:
        """What the network says without a search.

        :param obs: observations [B, ...]; a mask may be missing
        :return: policy logits [B, A], illegal actions included, and values [B]
        """
        given = self.network_input(obs)
        if isinstance(given, dict):
            first: Function = _First(self.target_network)
        else:
            first = self._first.of(self.target_network, given, lambda: (given,))
        policy_logits, scalars = first(given)
        return RootOutput(
            policy_logits.float().cpu().numpy(),
            scalars[0].float().cpu().numpy(),
        )

    @property
    def min_q_range(self) -> float:
        """Difference of Q values that the search takes in earnest: the error of two values, in
        games at most `MOST_Q_RANGE`."""
        error = 2.0 * float(self.value_error)
        from_1_to_1 = self.terminal_rewards and self.discount < 0
        return min(error, MOST_Q_RANGE) if from_1_to_1 else error

    @property
    def latent_bytes(self) -> int:
        """Memory that a latent takes."""
        shape = (1, *(self.network_space.shape or ()))
        with torch.inference_mode():
            obs = self.network_input(np.zeros(shape, self.network_space.dtype))
            latent = self.target_network.representation(obs)
        return latent[0].numel() * latent.element_size()

    def network_input(self, obs: Observation) -> Obs:
        """Observations [B, ...], preprocessed, as tensors where the network is."""
        tensors: Obs = (
            {key: torch.as_tensor(part, device=self.device) for key, part in obs.items()}
            if isinstance(obs, dict)
            else torch.as_tensor(obs, device=self.device)
        )
        return self.preprocess(tensors)

    def _search_settings(self) -> dict[str, Any]:
        return {
            "num_simulations": self.num_simulations,
            "search": self.search,
            "max_num_considered_actions": self.max_num_considered_actions,
            "min_q_range": self.min_q_range,
            "dirichlet_fraction": self.dirichlet_fraction,
            "dirichlet_alpha": self.dirichlet_alpha,
        }

    def _check_search(self) -> None:
        if self.search not in SEARCHES:
            raise ValueError(f"search={self.search!r}: choose one of {list(SEARCHES)}")
        if self.num_simulations < 1:
            raise ValueError(
                f"num_simulations={self.num_simulations}: a search needs at least 1, "
                "and 16 is a good start"
            )

    def batched(self, observation: Any) -> tuple[Observation, bool]:
        """(observations [B, ...], whether a batch was given); images in the network's order."""
        space = self.observation_space
        if isinstance(observation, tuple):
            raise ValueError(
                "a tuple was observed: `reset` of a gymnasium environment returns (observation, "
                "info), so write `obs, info = env.reset()`; a VecEnv returns observations alone"
            )
        if not isinstance(space, spaces.Dict):
            if isinstance(observation, dict):
                raise ValueError(f"a dict was observed, but the observation space is {space}")
            return _batched_part(observation, space)
        if not isinstance(observation, dict) or set(observation) != set(space.spaces):
            got = sorted(observation) if isinstance(observation, dict) else "none"
            raise ValueError(f"observed were the keys {got}; give a dict of {sorted(space.spaces)}")
        parts = {key: _batched_part(part, space[key]) for key, part in observation.items()}
        sizes = {key: len(part) if is_batch else None for key, (part, is_batch) in parts.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the parts of the observation have different batch sizes: {sizes}")
        return {key: part for key, (part, _) in parts.items()}, any(b for _, b in parts.values())

    def predict(
        self,
        observation: Observation,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...] | None]:
        """Search, and return the action to play.

        :param observation: one observation, or n of them
        :param deterministic: search without noise and take the best action
        :param action_masks: [A] or [n, A], nonzero where legal; without it, the `action_mask` of a
            Dict observation counts. See `actions.legal_actions` for several components.
        :return: actions, of the action space's shape () for one observation and [n, ...] for n, and
            `state` as given
        """
        self.warn_of_missing_masks(action_masks)
        self.set_training_mode(False)
        obs, is_batch = self.batched(observation)
        plan = self.plan(
            obs,
            legal_actions=self.legal_actions(obs, action_masks),
            noise=0.0 if deterministic else 1.0,
            temperature=0.0 if deterministic else 1.0,
        )
        chosen = actions.to_space(self.action_space, plan.action)
        return (chosen if is_batch else chosen[0, ...]), state

    def legal_actions(
        self, obs: Observation, action_masks: NDArray[Any] | None
    ) -> NDArray[np.bool_] | None:
        """bool [B, A] from the argument or from the observation; None if neither has a mask."""
        if action_masks is None and isinstance(obs, dict):
            action_masks = obs.get(MASK_KEY)
        if action_masks is None:
            return None
        batch = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        masks = np.asarray(action_masks)
        sizes = actions.mask_sizes(self.action_space)
        size = masks.shape[-1] if masks.ndim else 0
        if size not in sizes or masks.shape not in [(batch, size), (size,) * (batch == 1)]:
            wanted = " or ".join(str((batch, size)) for size in sizes)
            raise ValueError(
                f"the action masks have the shape {masks.shape}: give {wanted}, a "
                "row for each observation, nonzero where an action is legal"
            )
        return actions.legal_actions(self.action_space, masks.reshape(batch, size))

    def warn_of_missing_masks(self, action_masks: NDArray[Any] | None) -> None:
        """An environment's method is out of reach here: who evaluates has to pass its masks on."""
        if self.env_has_masks and action_masks is None and not has_mask(self.observation_space):
            warn_of_missing_masks()

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """SB3's hook behind `BasePolicy.predict`, for those who call the policy with tensors."""
        if isinstance(observation, dict):
            obs: Observation = {key: part.cpu().numpy() for key, part in observation.items()}
        else:
            obs = observation.cpu().numpy()
        actions, _ = self.predict(obs, deterministic=deterministic)
        return torch.as_tensor(actions, device=self.device)

    def forward(self, obs: Any, deterministic: bool = False) -> Tensor:
        """Actions for a batch of observations."""
        return self._predict(obs, deterministic)


class MlpPolicy(MuZeroPolicy):
    """Fully connected networks on flattened observations."""


class CnnPolicy(MuZeroPolicy):
    """Residual networks on images and boards, [channels, height, width] or [height, width,
    channels]: if two sides have one length, the third dimension is that of the channels; else they
    come last if that dimension is the shortest, as SB3 takes it."""

    default_extractor = None


class MultiInputPolicy(MuZeroPolicy):
    """Fully connected networks on the parts of a Dict observation."""

    default_extractor = CombinedExtractor


def unmasked_alias(
    policy: str | type[MuZeroPolicy],
    aliases: Mapping[str, type[BasePolicy]],
    space: spaces.Space[Any] | None,
) -> str | type[MuZeroPolicy]:
    """The class behind an alias where SB3 would refuse the alias: "MlpPolicy" and "CnnPolicy" take
    a Dict that is an observation and its mask. Policies of other algorithms are refused."""
    own = isinstance(policy, type) and issubclass(policy, MuZeroPolicy)
    if not isinstance(policy, str) and not own:
        raise ValueError(
            f"policy={policy!r} is none of MuZero's: give one of {list(aliases)}, "
            "or a subclass of muzero_agent.policies.MuZeroPolicy"
        )
    masked = has_mask(space) and not isinstance(network_space(space), spaces.Dict)  # type: ignore[arg-type]
    if isinstance(policy, str) and masked and policy in aliases:
        return aliases[policy]  # type: ignore[return-value]
    return policy


class _First(nn.Module):
    """h and f: policy logits, and values and rewards, of observations."""

    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        inference = self.network.initial_inference(obs)
        return inference.policy_logits, inference.scalars


def _batched_part(observation: Any, space: spaces.Space[Any]) -> tuple[NDArray[Any], bool]:
    """(finite observations [B, ...] of a space other than Dict, whether a batch was given)."""
    array = maybe_transpose(np.array(observation, order="C"), space)  # of any strides, writable
    is_batch = is_vectorized_observation(array, space)
    array = array.reshape(-1, *(space.shape or ()))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(-1)).tolist()
        raise ValueError(f"observations {bad} are not finite: they hold NaN or infinity")
    return array, is_batch
