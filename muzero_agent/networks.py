"""The three functions of MuZero: representation h, dynamics g, prediction f.

Every architecture subclasses `MuZeroNetwork` and gives `representation`, `dynamics` and
`prediction`; whatever else uses a network uses those three, so that search, losses and policies do
not know what a latent looks like.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from muzero_agent.categorical import Support

Obs = Tensor | dict[str, Tensor]
"""Preprocessed observations [B, ...]."""


class Inference(NamedTuple):
    """What a network call gives to a search."""

    latent: Tensor  # [B, *latent]
    policy_logits: Tensor  # [B, A]
    scalars: Tensor  # [2, B], value and reward


class MuZeroNetwork(nn.Module):
    """Base of all architectures (MuZero, section 3 and appendix F).

    :param num_actions: A
    :param support_bound: see `Support`; one support serves rewards and values.
    :param support_size: see `Support`
    :param support_mean: see `Support`
    """

    traceable: ClassVar[bool] = False
    """Whether `recurrent_inference` is the same operations whatever its inputs: then searches
    record them once (`torch.jit.trace`) and do not come back to Python for each. Not inherited: a
    subclass says it for itself. Hooks registered after the first searches are not called in them.
    """

    traceable_representation: ClassVar[bool] = False
    """The same of `initial_inference`, of which extractors of features may be a part that others
    wrote.
    """

    def __init__(
        self,
        num_actions: int,
        support_bound: float,
        support_size: int,
        support_mean: str = "transformed",
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.support = Support(support_bound, support_size, support_mean)

    @abstractmethod
    def representation(self, obs: Obs) -> Tensor:
        """h: preprocessed observations [B, ...] -> latents [B, *latent]."""

    @abstractmethod
    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """g: latents [B, *latent], actions int64 [B] -> next latents, reward logits [B, S]."""

    @abstractmethod
    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """f: latents [B, *latent] -> policy logits [B, A], value logits [B, S]."""

    def seen(self, obs: Obs) -> Obs:
        """What h takes preprocessed observations [B, ...] for: pixels, where they are scaled."""
        return obs

    def encode(self, seen: Obs) -> Tensor:
        """The rest of h: what is `seen` of observations [B, ...] -> latents [B, *latent]."""
        return self.representation(seen)

    def project(self, latent: Tensor) -> Tensor:
        """Latents [B, *latent] -> [B, P], between which the consistency loss is measured."""
        return latent.flatten(1)

    def predict_projection(self, projection: Tensor) -> Tensor:
        """SimSiam's predictor (EfficientZero, section 4.1): [B, P] -> [B, P]."""
        return projection

    decodes: bool = False
    """Whether `decode` tells what was observed."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latents [B, *latent] -> logits of what was observed, preprocessed [B, ...], 0 to 1, or of
        as many of its first planes as there are."""
        raise RuntimeError(f"{type(self).__name__} has no decoder")

    def decoded_part(self, seen: Tensor) -> Tensor:
        """The part that `decode` tells of what is `seen` [B, ...]; of such a part all of it."""
        return seen

    def reconstruction_errors(self, latent: Tensor, seen: Tensor) -> Tensor:
        """How far what latents [B, *latent] tell is from what is `seen` [B, ...], or from its
        `decoded_part`: the cross entropy of each entry, averaged over those that are told: [B]."""
        told, seen = self.decode(latent).flatten(1), self.decoded_part(seen).flatten(1)
        return functional.binary_cross_entropy_with_logits(told, seen, reduction="none").mean(1)

    action_rows: int = 0
    """How many of the last rows of pictures it takes for such as show actions."""

    shifts: bool = False
    """Whether `shifted` moves what was observed, as it does pictures."""

    def shifted(self, seen: Tensor, offsets: Tensor) -> Tensor:
        """Pictures [B, C, H, W], as they are `seen`, each moved by as many pixels as the offsets
        int64 [B, 2] say, down and to the right; what comes in at an edge repeats the edge."""
        raise RuntimeError(f"{type(self).__name__} sees no pictures that can be moved")

    def observe(self, obs: Obs) -> None:
        """Take statistics of observations newly collected [B, ...], where a network keeps any."""

    def initial_inference(self, obs: Obs) -> Inference:
        """h, then f; the reward is 0."""
        latent = self.representation(obs)
        policy_logits, value_logits = self.prediction(latent)
        value = self.support.scalar(value_logits)
        return Inference(latent, policy_logits, torch.stack((value, torch.zeros_like(value))))

    def recurrent_inference(self, latent: Tensor, action: Tensor) -> Inference:
        """g, then f."""
        latent, reward_logits = self.dynamics(latent, action)
        policy_logits, value_logits = self.prediction(latent)
        # One pass for both: at the batch sizes of a search the number of operations is the cost.
        scalars = self.support.scalar(torch.stack((value_logits, reward_logits)))
        return Inference(latent, policy_logits, scalars)


class RunningNorm(nn.Module):
    """Scale features to mean 0 and variance 1 by the statistics of all data seen so far.

    :param shape: of the features
    :param clip: largest size of what comes out
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, *shape: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in a batch [B, *shape] (Chan et al. 1979, parallel variance)."""
        total = self.count.clamp_min(0) + len(x)
        delta = x.mean(0) - self.mean
        share = len(x) / total
        var = x.var(0, correction=0)
        self.var.copy_(self.var * (1 - share) + var * share + delta.square() * share * (1 - share))
        self.mean.add_(delta * share)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        # Whoever adds noise to a state dict adds it to variances, too.
        scaled = (x - self.mean).mul_(torch.rsqrt(self.var.clamp_min(0) + 1e-8))
        return scaled.clamp_(-self.clip, self.clip)


class SimNorm(nn.Module):
    """Simplicial normalisation: a softmax within each group of features (TD-MPC2, section 3.1).

    Keeps latents bounded, as MuZero's min-max scaling to [0, 1] does, but is smooth, which makes
    long unrolls steadier.

    :param group: features per group; the size of the last dimension is a multiple of it.
    """

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        # A group is strided, so that the softmax runs along memory.
        return torch.softmax(x.unflatten(-1, (self.group, -1)), -2).flatten(-2)


def scale_min_max(latent: Tensor) -> Tensor:
    """Scale each state's latent [B, ...] to [0, 1] (MuZero, appendix G)."""
    flat = latent.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = (flat.amax(1, keepdim=True) - low).clamp_min(1e-5)
    return ((flat - low) / span).view_as(latent)


class MinMax(nn.Module):
    """`scale_min_max` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return scale_min_max(x)


LATENT_NORMS: dict[str, type[nn.Module]] = {"simnorm": SimNorm, "minmax": MinMax}


class NormedLinear(nn.Linear):
    """Linear, layer normalisation and activation in one module: calls of modules cost, too."""

    def __init__(self, size_in: int, size_out: int, activation: type[nn.Module]) -> None:
        super().__init__(size_in, size_out)
        self.norm_weight = nn.Parameter(torch.ones(size_out))
        self.norm_bias = nn.Parameter(torch.zeros(size_out))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.linear(x, self.weight, self.bias)
        return self.normalize(hidden)

    def normalize(self, hidden: Tensor) -> Tensor:
        """The layer from its normalisation on: [..., size_out] -> [..., size_out]."""
        normed = torch.layer_norm(hidden, hidden.shape[-1:], self.norm_weight, self.norm_bias)
        activated: Tensor = self.activation(normed)
        return activated


def _mlp(sizes: list[int], activation: type[nn.Module]) -> list[nn.Module]:
    """A layer for each pair of sizes."""
    return [NormedLinear(*pair, activation) for pair in itertools.pairwise(sizes)]


def zero_linear(size_in: int, size_out: int) -> nn.Linear:
    """An output layer that starts at zero: a uniform policy, value and reward 0."""
    layer = nn.Linear(size_in, size_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MlpNetwork(MuZeroNetwork):
    """Fully connected h, g and f.

    Heads that read the same features are one linear layer, whose output is split: with networks
    this small, a search waits for the number of operations, not for their size.

    :param features_extractor: observations -> features [B, num_features]
    :param num_features: size of the features
    :param num_actions: A
    :param representation: widths of the hidden layers of h
    :param dynamics: widths of the hidden layers of g, at least one
    :param prediction: widths of the hidden layers of f, at least one
    :param latent_size: size of a latent, a multiple of 8 for "simnorm"
    :param latent_norm: "simnorm" or "minmax"
    :param normalize_features: scale features by the mean and variance of all seen so far
    :param decoded_size: entries of an observation, if `decode` is wanted
    """

    traceable = True

    def __init__(
        self,
        features_extractor: nn.Module,
        num_features: int,
        num_actions: int,
        *,
        representation: list[int],
        dynamics: list[int],
        prediction: list[int],
        latent_size: int = 64,
        latent_norm: str = "simnorm",
        activation: type[nn.Module] = nn.ReLU,
        normalize_features: bool = True,
        decoded_size: int | None = None,
        support_bound: float = 30.0,
        support_size: int = 61,
        support_mean: str = "transformed",
    ) -> None:
        super().__init__(num_actions, support_bound, support_size, support_mean)
        if latent_norm not in LATENT_NORMS:
            raise ValueError(f"latent_norm={latent_norm!r}: choose one of {list(LATENT_NORMS)}")
        if latent_norm == "simnorm" and latent_size % 8:
            raise ValueError(f"latent_size={latent_size}: 'simnorm' needs a multiple of 8")
        if not dynamics or not prediction:
            raise ValueError("net_arch: dynamics and prediction need at least one hidden layer")
        self.features_extractor = features_extractor
        self.running_norm = RunningNorm(num_features) if normalize_features else None
        self.latent_norm = LATENT_NORMS[latent_norm]()
        sizes = [num_features, *representation]
        self.encoder = nn.Sequential(*_mlp(sizes, activation), nn.Linear(sizes[-1], latent_size))
        # The first layer of g on (latent, one-hot action) is a linear map of the latent plus a row
        # of a table: an embedding is that row without the concatenation.
        self.action_embedding = nn.Embedding(num_actions, dynamics[0])
        self.transition_in = NormedLinear(latent_size, dynamics[0], activation)
        self.transition = nn.Sequential(*_mlp(dynamics, activation))
        self.transition_out = nn.Linear(dynamics[-1], latent_size + support_size)
        self.trunk = nn.Sequential(*_mlp([latent_size, *prediction], activation))
        self.heads = zero_linear(prediction[-1], num_actions + support_size)
        self._transition_split = [latent_size, support_size]
        self._heads_split = [num_actions, support_size]
        with torch.no_grad():
            self.transition_out.weight[latent_size:] = 0.0
            self.transition_out.bias[latent_size:] = 0.0
        self.decodes = decoded_size is not None
        self.decoder = None if decoded_size is None else nn.Linear(latent_size, decoded_size)

    def representation(self, obs: Obs) -> Tensor:
        features: Tensor = self.features_extractor(obs)
        if self.running_norm is not None:
            features = self.running_norm(features)
        latent: Tensor = self.latent_norm(self.encoder(features))
        return latent

    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        first = self.transition_in
        hidden = functional.linear(latent, first.weight, first.bias)
        hidden = self.transition(first.normalize(hidden + self.action_embedding(action)))
        latent, reward_logits = self.transition_out(hidden).split(self._transition_split, -1)
        return self.latent_norm(latent), reward_logits

    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        policy_logits, value_logits = self.heads(self.trunk(latent)).split(self._heads_split, -1)
        return policy_logits, value_logits

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(latent) if self.decoder is None else self.decoder(latent)

    @torch.no_grad()
    def observe(self, obs: Obs) -> None:
        if self.running_norm is not None:
            self.running_norm.update(self.features_extractor(obs))
