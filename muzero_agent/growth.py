"""Weights of a network for a larger one, which then computes the same (Net2Net, arXiv 1511.05641).

Further inputs of convolutions begin with weights of 0, further residual blocks add 0, and whatever
else is new is left as it begins: such parts begin without effect, as queries of 0 do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LAST_SCALE = ".residual.4.weight"  # of a `resnet.ResidualBlock`


def grown(larger: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network, by name, after those of a smaller one.

    :param larger: the weights it has now
    :param known: of the smaller one
    :raises ValueError: for a weight that it lacks, or has in another shape than of more inputs
    """
    lost = sorted(known.keys() - larger.keys())
    if lost:
        raise ValueError(f"the larger network has no {lost[0]}: it can have more, never less")
    found: dict[str, Tensor] = {}
    for name, weight in larger.items():
        if name not in known:
            found[name] = torch.zeros_like(weight) if name.endswith(LAST_SCALE) else weight
            continue
        old = known[name]
        more = weight.shape[1] - old.shape[1] if weight.ndim == old.ndim == 4 else 0
        if more > 0:
            old = torch.cat((old, old.new_zeros(old.shape[0], more, *old.shape[2:])), 1)
        if old.shape != weight.shape:
            raise ValueError(
                f"{name} of {[*known[name].shape]} does not grow to {[*weight.shape]}: a network "
                "can have more blocks and see more planes, but not have other channels"
            )
        found[name] = old
    return found
