"""The three functions of MuZero: representation h, dynamics g, prediction f.

Every architecture subclasses `MuZeroNetwork` and gives `representation`, `dynamics` and
`prediction`; whatever else uses a network uses those three, so that search, losses and policies do
not know what a latent looks like.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from muzero_agent.categorical import Support


class Inference(NamedTuple):
    """What a network call gives to a search, in units of reward and return."""

    latent: Tensor  # [B, *latent]
    policy_logits: Tensor  # [B, A]
    value: Tensor  # [B]
    reward: Tensor  # [B]; zeros at the root


class MuZeroNetwork(nn.Module):
    """Base of all architectures (MuZero, section 3 and appendix F).

    :param num_actions: A
    :param support_bound: see `Support`; one support serves rewards and values.
    :param support_size: see `Support`
    """

    def __init__(self, num_actions: int, support_bound: float, support_size: int) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.support = Support(support_bound, support_size)

    @abstractmethod
    def representation(self, features: Tensor) -> Tensor:
        """h: features of observations [B, *features] -> latents [B, *latent]."""

    @abstractmethod
    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """g: latents [B, *latent], actions int64 [B] -> next latents, reward logits [B, S]."""

    @abstractmethod
    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """f: latents [B, *latent] -> policy logits [B, A], value logits [B, S]."""

    @abstractmethod
    def project(self, latent: Tensor) -> Tensor:
        """Latents [B, *latent] -> projections [B, P], compared by the consistency loss."""

    @abstractmethod
    def predict_projection(self, projection: Tensor) -> Tensor:
        """SimSiam's predictor (EfficientZero, section 4.1): [B, P] -> [B, P]."""

    def initial_inference(self, features: Tensor) -> Inference:
        """h, then f."""
        latent = self.representation(features)
        policy_logits, value_logits = self.prediction(latent)
        value = self.support.expectation(value_logits)
        return Inference(latent, policy_logits, value, torch.zeros_like(value))

    def recurrent_inference(self, latent: Tensor, action: Tensor) -> Inference:
        """g, then f."""
        latent, reward_logits = self.dynamics(latent, action)
        policy_logits, value_logits = self.prediction(latent)
        # One pass for both: at the batch sizes of a search the number of operations is the cost.
        value, reward = self.support.expectation(torch.stack((value_logits, reward_logits)))
        return Inference(latent, policy_logits, value, reward)


class RunningNorm(nn.Module):
    """Scale features to mean 0 and variance 1 by the statistics of all data seen so far."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in a batch [B, size] (Chan et al. 1979, parallel variance)."""
        total = self.count + len(x)
        delta = x.mean(0) - self.mean
        share = len(x) / total
        var = x.var(0, correction=0)
        self.var.copy_(
            self.var * (1 - share) + var * share + delta.square() * share * (1 - share)
        )
        self.mean.add_(delta * share)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * torch.rsqrt(self.var + 1e-8)).clamp(-self.clip, self.clip)


class SimNorm(nn.Module):
    """Simplicial normalisation: a softmax within each group of features (TD-MPC2, section 3.1).

    Keeps latents bounded, as MuZero's min-max scaling to [0, 1] does, but is smooth and keeps no
    single feature at the extremes, which makes long unrolls steadier.

    :param group: features per group; the last dimension is a multiple of it.
    """

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Groups are strided, not contiguous: torch vectorises a softmax over any dimension but a
        # short last one.
        return torch.softmax(x.view(*shape[:-1], self.group, -1), -2).view(shape)


def scale_min_max(latent: Tensor) -> Tensor:
    """Scale each state's latent to [0, 1] (MuZero, appendix G), over all but the first dimension."""
    flat = latent.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = (flat.amax(1, keepdim=True) - low).clamp_min(1e-5)
    return ((flat - low) / span).view_as(latent)


class MinMax(nn.Module):
    """`scale_min_max` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return scale_min_max(x)


LATENT_NORMS: dict[str, type[nn.Module]] = {"simnorm": SimNorm, "minmax": MinMax}


def _mlp(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    """Linear, LayerNorm, activation for each pair of sizes."""
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(size_in, size_out), nn.LayerNorm(size_out), activation()]
    return nn.Sequential(*layers)


def zero_linear(size_in: int, size_out: int) -> nn.Linear:
    """An output layer that starts at zero: a uniform policy, value and reward 0."""
    layer = nn.Linear(size_in, size_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MlpNetwork(MuZeroNetwork):
    """Fully connected h, g and f for feature vectors.

    :param num_features: size of the feature vectors
    :param num_actions: A
    :param representation: widths of the hidden layers of h
    :param dynamics: widths of the hidden layers of g, at least one
    :param prediction: widths of the hidden layers of f, at least one
    :param latent_size: size of a latent, a multiple of 8 for "simnorm"
    :param latent_norm: "simnorm" or "minmax"
    """

    def __init__(
        self,
        features_extractor: nn.Module,
        num_actions: int,
        *,
        normalize_features: bool = True,
        representation: list[int],
        dynamics: list[int],
        prediction: list[int],
        latent_size: int = 128,
        latent_norm: str = "simnorm",
        activation: type[nn.Module] = nn.ReLU,
        support_bound: float = 30.0,
        support_size: int = 61,
    ) -> None:
        super().__init__(num_actions, support_bound, support_size)
        size = self.support.size
        self.latent_norm = LATENT_NORMS[latent_norm]()
        num_features = features_extractor.features_dim
        self.features_extractor = features_extractor
        self.normalize = RunningNorm(num_features) if normalize_features else nn.Identity()
        self.encoder = nn.Sequential(
            _mlp([num_features, *representation], activation),
            nn.Linear([num_features, *representation][-1], latent_size),
        )
        # The first layer of g on (latent, one-hot action) is a linear map of the latent plus a row
        # of a table: an embedding is that row without the concatenation.
        self.action_embedding = nn.Embedding(num_actions, dynamics[0])
        self.transition_in = nn.Linear(latent_size, dynamics[0])
        self.transition = nn.Sequential(
            nn.LayerNorm(dynamics[0]), activation(), _mlp(dynamics, activation)
        )
        self.next_latent = nn.Linear(dynamics[-1], latent_size)
        self.reward_head = zero_linear(dynamics[-1], size)
        self.trunk = _mlp([latent_size, *prediction], activation)
        self.policy_head = zero_linear(prediction[-1], num_actions)
        self.value_head = zero_linear(prediction[-1], size)
        self.projector = nn.Sequential(
            _mlp([latent_size, latent_size], activation), nn.Linear(latent_size, latent_size)
        )
        self.predictor = nn.Sequential(
            _mlp([latent_size, latent_size // 2], activation),
            nn.Linear(latent_size // 2, latent_size),
        )

    def representation(self, features: Tensor) -> Tensor:
        return self.latent_norm(self.encoder(self.normalize(self.features_extractor(features))))  # type: ignore[no-any-return]

    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.transition(self.transition_in(latent) + self.action_embedding(action))
        return self.latent_norm(self.next_latent(hidden)), self.reward_head(hidden)

    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(latent)
        return self.policy_head(hidden), self.value_head(hidden)

    def project(self, latent: Tensor) -> Tensor:
        return self.projector(latent)  # type: ignore[no-any-return]

    def predict_projection(self, projection: Tensor) -> Tensor:
        return self.predictor(projection)  # type: ignore[no-any-return]
