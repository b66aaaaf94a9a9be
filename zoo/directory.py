"""A model as a directory that is safe to share: weights, settings and a card, and no pickle.

    model.safetensors   the weights of the network that searches, and the error of its values
    config.json         constructor arguments, spaces, and the hash of the weights
    card.json           where it comes from, and how good it is (optional)

Reading one runs nobody's code: the weights are plain tensors, the JSON files have strict schemas,
and classes are chosen from short lists by name. Optimizer state and replay are not in it: to
continue a training run exactly, there is `MuZero.save`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn

from muzero_agent.checks import check_spaces
from muzero_agent.muzero import MuZero
from muzero_agent.policies import MuZeroPolicy
from muzero_agent.zoo.cards import FORMAT_VERSION, Card, Config, build_space, describe_space

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.json"
MOST_BYTES = {WEIGHTS: 2 << 30, CONFIG: 1 << 20, CARD: 1 << 20}
"""More is refused before it is read."""

ACTIVATIONS: dict[str, type[Any]] = {
    layer.__name__: layer
    for layer in (nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Mish)
}
EXTRACTORS: dict[str, type[Any]] = {
    extractor.__name__: extractor
    for extractor in (
        torch_layers.FlattenExtractor,
        torch_layers.CombinedExtractor,
        torch_layers.NatureCNN,
    )
}
_CLASSES = {
    "activation_fn": ACTIVATIONS,
    "features_extractor_class": EXTRACTORS,
}
# What training alone needs, or what belongs to one machine.
_LEFT_OUT = {"self", "policy", "env", "policy_kwargs", "device", "tensorboard_log", "verbose"}
_LEFT_OUT |= {"_init_setup_model", "stats_window_size", "seed"}
_LEFT_OUT_OF_POLICY = {"optimizer_class", "optimizer_kwargs"}

_File = TypeVar("_File", bound=BaseModel)


def save(
    model: MuZero, directory: str | Path, card: Card | None = None, dtype: str = "float32"
) -> Path:
    """Write a model as a directory that is safe to share.

    All files are written beside it first and moved into place at the end; a model directory that
    was there is replaced.

    :param card: see `Card`
    :param dtype: of the weights in the file, "float32" or "float16": half the size, and an error of
        1 in 2,000 in each weight
    :return: the directory
    :raises ValueError: for models of which a directory could not hold everything: of custom
        policies, or behind a VecNormalize
    :raises FileExistsError: if something else stands there
    """
    directory = Path(directory)
    if directory.exists() and any(path.name not in MOST_BYTES for path in directory.iterdir()):
        raise FileExistsError(f"{directory} holds other files than a model's: give an empty one")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r}: choose 'float32' or 'float16'")
    weights = save_tensors(_weights(model, getattr(torch, dtype)))
    config = Config(
        format_version=FORMAT_VERSION,
        algorithm="MuZero",
        policy=_alias(model),  # type: ignore[arg-type]
        arguments=_arguments(model),
        policy_kwargs=_policy_kwargs(model),
        observation_space=describe_space(model.observation_space),
        action_space=describe_space(model.action_space),
        num_timesteps=model.num_timesteps,
        sha256=hashlib.sha256(weights).hexdigest(),
        dtype=dtype,  # type: ignore[arg-type]
    )
    files = {WEIGHTS: weights, CONFIG: _json(config)}
    if card is not None:
        files[CARD] = _json(card)

    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, content in files.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        load(fresh, device="cpu")  # what cannot be read again is not put into place
        fresh.chmod(0o755)
        if directory.exists():
            directory.rename(fresh.with_suffix(".old"))
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)
    return directory


def load(
    directory: str | Path,
    env: GymEnv | str | None = None,
    device: torch.device | str = "auto",
    **overrides: Any,
) -> MuZero:
    """Read a model that `save` wrote; no code in it is run, whoever wrote it.

    :param env: to learn on in; to play, none is needed
    :param overrides: arguments of `MuZero` that take the place of those saved, for instance
        `num_simulations=200`
    :raises FileNotFoundError: if there is no such directory, or a file is missing
    :raises ValueError: if a file is damaged, of another format or another version
    """
    directory = Path(directory)
    config = _parse(Config, directory / CONFIG)
    content = _read(directory / WEIGHTS)
    if hashlib.sha256(content).hexdigest() != config.sha256:
        raise ValueError(
            f"{directory / WEIGHTS} is not the file that {CONFIG} describes: its hash differs; it "
            "is damaged or incomplete, so fetch it again"
        )
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise ValueError(f"{directory / WEIGHTS} is no safetensors file: {error}") from error
    if env is not None:
        env = MuZero._wrap_env(maybe_make_env(env, verbose=0), verbose=0)
    n_envs = 1 if env is None else env.num_envs
    value_error = tensors.pop("value_error", torch.full((), math.nan))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        model = _outline(config, device, overrides, n_envs)
        expected = _shapes(model)
        if shapes == expected:
            model._setup_model()
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{directory / CONFIG}: no model can be built from it: {error}") from error
    if shapes != expected:
        raise ValueError(
            f"{directory / WEIGHTS} does not hold the weights of the network that {CONFIG} "
            "describes: the two belong to different models"
        )
    policy = model.policy
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"{directory / WEIGHTS} holds weights that are not finite")
    policy.network.load_state_dict(tensors)
    policy.target_network.load_state_dict(tensors)
    policy.value_error.copy_(value_error)
    model.num_timesteps = config.num_timesteps
    if env is not None:
        model.set_env(env)
    return model


def read_card(directory: str | Path) -> Card:
    """The card of a model directory.

    :raises FileNotFoundError: if it has none
    :raises ValueError: if it does not keep to the schema
    """
    return _parse(Card, Path(directory) / CARD)


# -- writing ---------------------------------------------------------------------------------------


def _weights(model: MuZero, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.policy.target_network.state_dict().items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"the weights are not finite in {dtype}: save them as 'float32'")
    return tensors | {"value_error": model.policy.value_error.cpu().clone()}


def _alias(model: MuZero) -> str:
    normalize = model.get_vec_normalize_env()
    if normalize is not None and normalize.norm_obs:
        raise ValueError(
            "the model sees what VecNormalize makes of observations, and a model directory cannot "
            "hold its statistics: use `MuZero.save` and `VecNormalize.save`; MuZero's policies "
            "normalise observations by themselves"
        )
    for alias, policy_class in model.policy_aliases.items():
        if type(model.policy) is policy_class:
            return alias
    raise ValueError(
        f"the policy {type(model.policy).__name__} is not the package's own, so others could not "
        "load it without running its code: use `MuZero.save`"
    )


def _arguments(model: MuZero) -> dict[str, Any]:
    """The constructor's arguments that are plain values; schedules stay with training."""
    arguments = {}
    for name in inspect.signature(MuZero.__init__).parameters.keys() - _LEFT_OUT:
        value = getattr(model, name)
        if name == "train_freq":
            value = [value.frequency, value.unit.value] if not isinstance(value, int) else value
        if name == "learning_rate" and callable(value):
            continue
        arguments[name] = _plain(value)
    return dict(sorted(arguments.items()))


def _plain(value: Any) -> Any:
    """A number of Python's for one of numpy's; infinity, which JSON has not, as a word."""
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _policy_kwargs(model: MuZero) -> dict[str, Any]:
    described = {}
    given: dict[str, Any] = model.policy_kwargs or {}
    for name, value in given.items():
        if name in _LEFT_OUT_OF_POLICY or value is None:
            continue
        if name in _CLASSES:
            known = _CLASSES[name]
            if value not in known.values():
                raise ValueError(
                    f"policy_kwargs: {name}={value.__name__} is none of {sorted(known)}, so others "
                    "could not load it without running its code: use `MuZero.save`"
                )
            value = value.__name__
        described[name] = list(value) if isinstance(value, tuple) else value
    return described


def _json(content: BaseModel) -> bytes:
    return (content.model_dump_json(indent=2) + "\n").encode()


# -- reading ---------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: give a directory that `zoo.save` wrote"
        )
    if path.stat().st_size > MOST_BYTES[path.name]:
        raise ValueError(f"{path} is larger than {MOST_BYTES[path.name]:,} bytes")
    return path.read_bytes()


def _parse(schema: type[_File], path: Path) -> _File:
    content = _read(path)
    try:
        version = json.loads(content).get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version}, and this release reads {FORMAT_VERSION}: "
                "install a newer release of muzero-agent"
            )
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}") from error
    except (UnicodeDecodeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON object: {error}") from error


def _outline(
    config: Config, device: torch.device | str, overrides: dict[str, Any], n_envs: int
) -> MuZero:
    """A model without networks, as `BaseAlgorithm.load` makes it: spaces are set by hand."""
    policy_kwargs: dict[str, Any] = dict(config.policy_kwargs)
    for name, known in _CLASSES.items():
        if name in policy_kwargs:
            if policy_kwargs[name] not in known:
                raise ValueError(
                    f"policy_kwargs.{name}: {policy_kwargs[name]!r} is none of {sorted(known)}"
                )
            policy_kwargs[name] = known[policy_kwargs[name]]
    arguments: dict[str, Any] = {
        name: float(value) if value in ("inf", "-inf") else value
        for name, value in config.arguments.items()
    }
    if isinstance(arguments.get("train_freq"), list):
        arguments["train_freq"] = tuple(arguments["train_freq"])
    known_arguments = inspect.signature(MuZero.__init__).parameters.keys() - {"self", "policy"}
    arguments |= overrides
    if unknown := arguments.keys() - known_arguments:
        raise ValueError(f"MuZero knows no {sorted(unknown)}")
    arguments = {"policy_kwargs": policy_kwargs, "device": device} | arguments
    model = MuZero(config.policy, None, _init_setup_model=False, **arguments)
    model.observation_space = build_space(config.observation_space)
    model.action_space = build_space(config.action_space)
    check_spaces(model.observation_space, model.action_space)
    model.n_envs = n_envs
    return model


def _shapes(model: MuZero) -> dict[str, tuple[int, ...]]:
    """What the network that searches will consist of; takes no memory, however large it is."""
    with torch.device("meta"):
        policy = model.policy_class(
            model.observation_space,
            model.action_space,
            lambda _: 0.0,
            **model.policy_kwargs | {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}},
        )
    assert isinstance(policy, MuZeroPolicy)
    return {name: tuple(x.shape) for name, x in policy.target_network.state_dict().items()}
