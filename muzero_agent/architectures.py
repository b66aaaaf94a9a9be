"""Which network a policy has: by its observations, and by what users say of its layers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import nn

from muzero_agent.networks import MlpNetwork, MuZeroNetwork
from muzero_agent.resnet import ResNet

LARGEST_BOARD = 32
"""Side of the planes that are not reduced unless told so."""

NetArch = list[int] | dict[str, Any] | None
"""See `policies.MuZeroPolicy`."""
_NOT_OF_NET_ARCH = (
    "activation", "normalize_features", "normalize_pixels", "decoded_size", "support_bound",
    "support_size", "support_mean",
)  # fmt: skip


def make_mlp(
    space: spaces.Space[Any],
    num_actions: int,
    net_arch: NetArch,
    *,
    extractor_class: type[BaseFeaturesExtractor],
    extractor_kwargs: Mapping[str, Any],
    activation: type[nn.Module],
    normalize_images: bool,
    normalize_observations: bool,
    **support: Any,
) -> MlpNetwork:
    """Fully connected functions behind a features extractor; see `policies.MuZeroPolicy`.

    :param space: of what the network sees
    :param support: `support_bound`, `support_size` and `support_mean`
    :raises ValueError: if they do not go together
    """
    if not isinstance(space, spaces.Dict):
        if extractor_class is CombinedExtractor:  # of an observation and its mask, or of a Box
            extractor_class = FlattenExtractor
    elif extractor_class is FlattenExtractor:
        raise ValueError(f"observation space {space}: use MultiInputPolicy")
    kwargs = dict(extractor_kwargs)
    if not normalize_images and issubclass(extractor_class, NatureCNN | CombinedExtractor):
        kwargs |= {"normalized_image": True}  # as SB3's policies tell them
    extractor = extractor_class(space, **kwargs)
    _check_net_arch(net_arch, MlpNetwork)
    widths: dict[str, Any] = {
        "representation": [128],
        "dynamics": [128],
        "prediction": [128],
    }
    if isinstance(net_arch, dict):
        widths |= net_arch
    elif net_arch is not None:
        widths = {key: list(net_arch) for key in widths}
    learns = any(True for _ in extractor.parameters())
    return MlpNetwork(
        extractor,
        extractor.features_dim,
        num_actions,
        activation=activation,
        normalize_features=normalize_observations and not learns,
        decoded_size=_decoded_size(space) if extractor_class is FlattenExtractor else None,
        **support,
        **widths,
    )


def make_resnet(
    space: spaces.Space[Any],
    num_actions: int,
    net_arch: NetArch,
    *,
    normalize_observations: bool,
    **support: Any,
) -> ResNet:
    """Convolutional functions: of a board, or of pixels, which are reduced (`LARGEST_BOARD`).

    :param space: of what the network sees
    :param support: `support_bound`, `support_size` and `support_mean`
    :raises ValueError: if these are neither images nor planes, or for an unknown `net_arch`
    """
    shape = space.shape
    if shape is None or len(shape) != 3:
        raise ValueError(
            f"CnnPolicy needs observations of three dimensions, images or planes, got "
            f"{space}: use MlpPolicy, or MultiInputPolicy for a Dict"
        )
    if net_arch is not None and not isinstance(net_arch, dict):
        raise ValueError(
            f"net_arch={net_arch}: CnnPolicy takes a dict with any of channels, "
            "num_blocks, downsample, encoder, action_rows, head_width, decoded_planes"
        )
    _check_net_arch(net_arch, ResNet)
    first, second, third = shape
    planes = (third, first, second) if channels_come_last(space) else (first, second, third)
    arch: dict[str, Any] = {"downsample": _are_pixels(space)} | (net_arch or {})
    told = not arch["downsample"] and _decoded_size(space) is not None
    arch.setdefault("decoded_planes", planes[0] if told else 0)
    if arch["decoded_planes"] and not (told or arch["downsample"]):
        raise ValueError(f"net_arch={net_arch}: entries of {space} are not from 0 to 1")
    return ResNet(
        planes,
        num_actions,
        normalize_pixels=normalize_observations and arch["downsample"],
        **support,
        **arch,
    )


def telling_pixels(policy_kwargs: dict[str, Any], space: spaces.Space[Any]) -> dict[str, Any]:
    """These arguments of CnnPolicy, with a network that tells the newest plane where it reduces
    pixels, unless they say how many it tells: what reconstruction needs, and nothing else does.

    :param space: of what the network sees
    """
    net_arch = policy_kwargs.get("net_arch") or {}
    if not isinstance(net_arch, dict) or space.shape is None or len(space.shape) != 3:
        return policy_kwargs  # refused later
    if not net_arch.get("downsample", _are_pixels(space)):
        return policy_kwargs
    return {**policy_kwargs, "net_arch": {"decoded_planes": 1, **net_arch}}


def _are_pixels(space: spaces.Space[Any]) -> bool:
    """Whether images are reduced: by size alone, since pixels may come as floats, by VecNormalize
    or from Gymnasium's wrappers."""
    assert space.shape is not None
    sides = space.shape[:2] if channels_come_last(space) else space.shape[1:]
    return min(sides) > LARGEST_BOARD


def channels_come_last(space: spaces.Space[Any]) -> bool:
    """Whether a board or an image is [height, width, channels]."""
    assert space.shape is not None
    first, second, third = space.shape
    if (first == second) != (second == third):
        return bool(first == second)
    return bool(third < min(first, second))


def _decoded_size(space: spaces.Space[Any]) -> int | None:
    """Entries of an observation if all are from 0 to 1, else None."""
    if not isinstance(space, spaces.Box) or (space.low < 0).any() or (space.high > 1).any():
        return None
    return int(np.prod(space.shape))


def _check_net_arch(
    net_arch: list[int] | dict[str, Any] | None, network: type[MuZeroNetwork]
) -> None:
    """Refuse names and widths that the network cannot take, of which PyTorch speaks obscurely."""
    known = {
        name: parameter.annotation
        for name, parameter in inspect.signature(network.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in _NOT_OF_NET_ARCH
    }
    if net_arch is None:
        return
    parts = net_arch if isinstance(net_arch, dict) else {"net_arch": net_arch}
    if isinstance(net_arch, dict) and not net_arch.keys() <= known.keys():
        raise ValueError(
            f"net_arch={net_arch}: {network.__name__} knows no "
            f"{sorted(net_arch.keys() - known.keys())}; choose among {sorted(known)}"
        )
    for name, part in parts.items():
        if known.get(name, "list[int]") == "list[int]":
            fits = isinstance(part, list | tuple) and all(_is_width(width) for width in part)
            wanted = "a list of widths of at least 1"
        else:
            fits = known[name] != "int" or _is_width(part)
            wanted = "a whole number of at least 1"
        if not fits:
            raise ValueError(f"net_arch={net_arch}: {name} has to be {wanted}")


def _is_width(width: object) -> bool:
    return isinstance(width, int | np.integer) and bool(width >= 1)
