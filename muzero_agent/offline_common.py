"""What `learn_offline` takes, and what its sources of batches have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from muzero_agent.batch import Batch

if TYPE_CHECKING:
    from muzero_agent.muzero import MuZero

VALUE_TARGETS = ("search", "result", "evaluation")


@dataclass(frozen=True)
class OfflineSettings:
    """What `MuZero.learn_offline` takes; see there."""

    policy_targets: str | Mapping[str, float]
    value_targets: str | Mapping[str, float]
    max_drop: float
    softness: float
    unroll_steps: int
    batch_size: int
    reanalyse_ratio: int | None
    value_smoothing: float
    latent_coef: float
    excursions: float
    bfloat16: bool
    trust: bool

    def check(self) -> None:
        """Raise ValueError for what cannot work."""
        for name, least in (("unroll_steps", 0), ("batch_size", 1), ("reanalyse_ratio", 0)):
            number = getattr(self, name)
            if name == "reanalyse_ratio" and number is None:
                continue
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or number < least:
                raise ValueError(f"{name}={number!r}: give a whole number of at least {least}")
        for name in ("max_drop", "softness"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a positive number")
        if self.latent_coef > 0 and self.batch_size < 2:
            raise ValueError(
                f"latent_coef={self.latent_coef!r}, batch_size={self.batch_size!r}: latents are "
                "measured by their variance in the batch: give a batch_size of at least 2"
            )
        if not 0 <= self.excursions <= 1:
            raise ValueError(f"excursions={self.excursions!r}: give a share, from 0 to 1")
        if self.excursions > 0 and self.unroll_steps < 1:
            raise ValueError(
                f"excursions={self.excursions!r}, unroll_steps={self.unroll_steps!r}: excursions "
                "need unroll_steps of at least 1"
            )
        if self.latent_coef > 0 and self.unroll_steps < 1:
            raise ValueError(
                f"latent_coef={self.latent_coef!r}, unroll_steps={self.unroll_steps!r}: imagined "
                "latents need unroll_steps of at least 1"
            )
        for name in ("value_smoothing", "latent_coef"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a number of at least 0")

    def policy_weights(
        self, auto: Mapping[str, float], known: Sequence[str]
    ) -> Mapping[str, float]:
        """Of policy targets.

        :param auto: what "auto" means
        :param known: those that the dataset has
        """
        return _mixture("policy_targets", self.policy_targets, auto, known)

    def value_weights(self, auto: Mapping[str, float], known: Sequence[str]) -> Mapping[str, float]:
        """Of value targets, likewise."""
        return _mixture("value_targets", self.value_targets, auto, known)


def _mixture(
    name: str,
    given: str | Mapping[str, float],
    auto: Mapping[str, float],
    known: Sequence[str],
) -> Mapping[str, float]:
    """A mixture of targets.

    :raises ValueError: for others than the known ones, and for weights that cannot be
    """
    if given == "auto":
        return auto
    if not isinstance(given, str | Mapping):
        raise ValueError(
            f"{name}={given!r}: choose among {list(known)}, or give a mixture, such as "
            f"{dict.fromkeys(known[:2], 1.0)}"
        )
    weights = {given: 1.0} if isinstance(given, str) else dict(given)
    if not weights.keys() <= {*known}:
        raise ValueError(
            f"{name}={given!r}: choose among {list(known)}, or give a mixture of these"
        )
    sizes = [float(weight) for weight in weights.values()]
    if not all(0 <= size < math.inf for size in sizes) or not sum(sizes) > 0:
        raise ValueError(f"{name}={given!r}: weights are 0 or more, and not all 0")
    return {key: size for key, size in zip(weights, sizes, strict=True) if size > 0}


class Source(Protocol):
    """Where batches come from."""

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch."""
        ...

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        """A batch was learned, whose first values the network told as these, [B]."""
        ...

    def close(self) -> None:
        """Nothing more is needed."""
        ...


def search_noise(model: MuZero) -> float:
    """Of searches for targets, as in `MuZero.learn`."""
    return 0.0 if model.search == "gumbel" else 1.0


def draws_seed(model: MuZero) -> int:
    """Of what is drawn from a dataset: another one for each part of a run."""
    return int(np.random.SeedSequence([model.seed or 0, model.num_timesteps]).generate_state(1)[0])
