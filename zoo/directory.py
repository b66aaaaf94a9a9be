"""A model as a directory that is safe to share: weights, settings and a card, and no pickle.

What files there are, `files` tells. Reading them runs nobody's code: the weights are plain tensors,
the JSON files have strict schemas, and classes are chosen from short lists by name. Optimizer state
and replay are not among them: to continue a training run exactly, there is `MuZero.save`.
"""

from __future__ import annotations

import difflib
import inspect
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from muzero_agent.adapters.envs.given import as_env
from muzero_agent.archive import sync
from muzero_agent.checks import check_arguments, check_spaces
from muzero_agent.hyperparams import CLASSES
from muzero_agent.muzero import MuZero
from muzero_agent.outline import outlining
from muzero_agent.policies import MuZeroPolicy
from muzero_agent.turns import DEFAULTS, resolved
from muzero_agent.zoo.cards import FORMAT_VERSION, Card, Config, build_space, describe_space
from muzero_agent.zoo.errors import DamagedModelError, UnsupportedModelError
from muzero_agent.zoo.files import (
    CARD,
    CONFIG,
    MANIFEST,
    MOST_BYTES,
    README,
    WEIGHTS,
    ModelFiles,
    describe,
    make_manifest,
    to_json,
)
from muzero_agent.zoo.readme import readme

TRAINED_BY = {
    "consistency_coef": ("projector.", "predictor."),
    "reconstruction_coef": ("decoder.",),
}
"""Layers that one loss alone uses, which are not needed to play: a model that was trained without
that loss is saved without them, and gets fresh ones if it learns with it."""
VALUE_ERROR = "value_error"  # beside the network's tensors, of which none has a name without a dot

# What training alone needs, or what belongs to one machine.
_LEFT_OUT = {"self", "policy", "env", "policy_kwargs", "device", "tensorboard_log", "verbose"}
_LEFT_OUT |= {"torch_compile", "overlap"}  # what a machine can is its own affair
_LEFT_OUT |= {"_init_setup_model", "stats_window_size", "seed"}
_LEFT_OUT_OF_POLICY = {"optimizer_class", "optimizer_kwargs"}
_LEFT_OUT_OF_POLICY |= {  # what the model's own settings take the place of
    "num_simulations", "search", "discount", "terminal_rewards", "max_num_considered_actions",
    "dirichlet_fraction", "dirichlet_alpha", "env_has_masks",
}  # fmt: skip
MOST_SIMULATIONS = 100_000
"""That a model may ask for."""
MOST_HEADER = 1 << 20
"""Bytes of the header of a file of weights."""


def save(
    model: MuZero, directory: str | Path, card: Card | None = None, dtype: str = "float32"
) -> Path:
    """Write a model as a directory that is safe to share.

    All files are written beside it first and moved into place at the end; a model directory that
    was there is replaced.

    :param card: see `Card`
    :param dtype: of the weights in the file, "float32" or "float16": half the size, and an error of
        at most 1 in 2,000 in each weight but the smallest (below 6e-5)
    :return: the directory
    :raises ValueError: for models of which a directory could not hold everything: of custom
        policies, or behind a VecNormalize
    :raises FileExistsError: if something else stands there
    """
    directory = Path(directory).resolve()  # what a link points to, not the link
    check_card(card)
    if type(model) is not MuZero:
        raise ValueError(f"{type(model).__name__} would be loaded as MuZero: use `MuZero.save`")
    _check_dtype(dtype)
    config = Config(
        format_version=FORMAT_VERSION,
        algorithm="MuZero",
        policy=_alias(model),  # type: ignore[arg-type]
        arguments=_arguments(model),
        policy_kwargs=_policy_kwargs(model),
        observation_space=describe_space(model.observation_space),
        action_space=describe_space(model.action_space),
        num_timesteps=model.num_timesteps,
        dtype=dtype,  # type: ignore[arg-type]
        env_has_masks=model._env_has_masks,
    )
    weights = save_tensors(_weights(model, getattr(torch, dtype)))
    write({WEIGHTS: weights, CONFIG: to_json(config)}, directory, card, partial(_check, model))
    return directory


def check_card(card: object) -> None:
    """Raise TypeError for what is no card."""
    if card is not None and not isinstance(card, Card):
        raise TypeError(f"card={card!r}: give a zoo.Card(name=..., env=..., ...), or None")


def check_target(directory: Path) -> None:
    """Raise FileExistsError where something stands that no model directory may replace."""
    if directory.exists() and not _may_be_replaced(directory):
        raise FileExistsError(
            f"{directory} is not a model directory: move it away, or give a new or an empty one"
        )


def write(
    files: dict[str, bytes],
    directory: Path,
    card: Card | None,
    check: Callable[[Path], None] = lambda directory: None,
) -> None:
    """Put files into place as a model directory, all of them or none. In a crash between two
    renamings, what was there is left beside it, in .NAME.*/old.

    :param files: weights and configuration, by name
    :param card: from which the others are made
    :param check: of the directory beside, before it is moved; an error keeps what was there
    :raises FileExistsError: if something else stands there
    """
    check_target(directory)
    files = dict(files)
    if card is not None:
        files[CARD] = to_json(card)
        files[README] = readme(card, sum(map(len, files.values()))).encode()
    files[MANIFEST] = to_json(make_manifest(files))
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    fresh, old = beside / "new", beside / "old"
    fresh.mkdir()
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
            sync(fresh / name)
        sync(fresh)
        check(fresh)
        if directory.exists():
            directory.rename(old)
        try:
            fresh.rename(directory)
        except BaseException:
            if old.exists():
                old.rename(directory)
            raise
        sync(directory.parent)
    finally:
        if directory.exists() or not old.exists():  # else the old model lies there and nowhere else
            shutil.rmtree(beside, ignore_errors=True)


def load_files(
    files: ModelFiles,
    env: GymEnv | str | None = None,
    device: torch.device | str = "auto",
    **overrides: Any,
) -> MuZero:
    """Build a model from its files; no code in them is run, whoever wrote them.

    :param env: to learn on in; to play, none is needed
    :param overrides: arguments of `MuZero` that take the place of those saved
    :raises ModelNotFoundError: if a file is missing
    :raises ModelError: if a file is damaged, of another format or another version
    """
    config = read_config(files)
    content = files.read(WEIGHTS)
    if config.sha256 is not None and describe(content).sha256 != config.sha256:
        raise DamagedModelError(
            f"{files.path(WEIGHTS)} is not the file that {CONFIG} describes: its hash differs; it "
            "is damaged or incomplete, so fetch it again"
        )
    tensors = _tensors(content, files.path(WEIGHTS))
    check_overrides(overrides)
    if env is not None:
        env = MuZero._wrap_env(maybe_make_env(as_env(env), verbose=0), verbose=0)
    n_envs = 1 if env is None else env.num_envs
    found = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
    try:
        model = _outline(config, device, overrides, n_envs)
        expected = _expected(model, getattr(torch, config.dtype))
        for layers in TRAINED_BY.values():
            if not any(name.startswith(layers) for name in found):
                expected = {name: x for name, x in expected.items() if not name.startswith(layers)}
        if found == expected:
            model._setup_model()
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise DamagedModelError(
            f"{files.path(CONFIG)}: no model can be built from it: {error}"
        ) from error
    if found != expected:
        raise DamagedModelError(
            f"{files.path(WEIGHTS)} does not hold the weights of the network that {CONFIG} "
            "describes: the two belong to different models"
        )
    policy = model.policy
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    value_error = tensors.pop(VALUE_ERROR)
    if not 0 <= float(value_error) < math.inf:
        raise DamagedModelError(f"{files.path(WEIGHTS)}: {VALUE_ERROR} is {float(value_error)}")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise DamagedModelError(f"{files.path(WEIGHTS)} holds weights that are not finite")
    if any(bool((x < 0).any()) for name, x in tensors.items() if name.endswith("norm.var")):
        raise DamagedModelError(f"{files.path(WEIGHTS)} holds a variance below 0")
    weights = policy.network.state_dict() | tensors
    policy.network.load_state_dict(weights)
    policy.target_network.load_state_dict(weights)
    policy.value_error.copy_(value_error)
    model.num_timesteps = config.num_timesteps
    if env is not None:
        model.set_env(env)
    return model


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuse arguments that `MuZero` does not have, or that cannot work.

    :raises TypeError: naming those that are not known
    :raises ValueError: for a value that cannot be
    """
    known = inspect.signature(MuZero.__init__).parameters
    allowed = known.keys() - {"self", "policy", "env", "_init_setup_model"}
    for name in sorted(overrides.keys() - allowed):
        close = difflib.get_close_matches(name, allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"load() knows no {name!r}{hint}: give arguments of MuZero")
    defaults = {name: parameter.default for name, parameter in known.items()}
    defaults |= {name: resolved(1, name, None) for name in DEFAULTS[1]} | {"num_players": 1}
    resolves = {name for name, default in defaults.items() if default is None} | {*DEFAULTS[1]}
    resolves.add("num_players")
    for name, value in overrides.items():
        if value is None and name not in resolves:
            raise ValueError(f"{name}=None: give a value, or leave it out")
    given = {name: value for name, value in overrides.items() if value is not None}
    check_arguments(defaults | given)


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Of a file of weights.

    :raises DamagedModelError: if it is none
    """
    told = int.from_bytes(content[:8], "little")
    if len(content) < 8 or told > min(MOST_HEADER, len(content)):
        raise DamagedModelError(
            f"{path} is no safetensors file: its header is told to have {told:,} bytes"
        )
    try:
        return load_tensors(content)
    except Exception as error:  # the library's own, and KeyError for types that torch has not
        raise DamagedModelError(f"{path} is no safetensors file: {error!r}") from error


def read_config(files: ModelFiles) -> Config:
    """What the model is built of.

    :raises ModelError: also where the configuration and the manifest are of different versions
    """
    config = files.parse(Config, CONFIG)
    if (files.manifest is None) != (config.format_version == 1):
        raise UnsupportedModelError(
            f"{files.path(CONFIG)} has format version {config.format_version}, which "
            f"{'has no' if files.manifest else 'needs a'} {MANIFEST}: fetch the model again"
        )
    return config


# -- writing ---------------------------------------------------------------------------------------


def _weights(model: MuZero, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is learned in the given type; statistics of observations stay float32."""
    network = model.policy.target_network
    learned = {name for name, _ in network.named_parameters()}
    unused = tuple(
        layer
        for coef, layers in TRAINED_BY.items()
        for layer in layers
        if getattr(model, coef) == 0
    )
    tensors = {
        name: (tensor.to(dtype) if name in learned else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith(unused)
    }
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"the weights are not finite in {dtype}: save them as 'float32'")
    return tensors | {VALUE_ERROR: model.policy.value_error.cpu().clone()}


def convert(weights: bytes, model: MuZero, dtype: str) -> bytes:
    """The content of a file of weights in another type; see `save`.

    :param weights: of `model`
    """
    _check_dtype(dtype)
    learned = {name for name, _ in model.policy.target_network.named_parameters()}
    tensors = {
        name: tensor.to(getattr(torch, dtype)) if name in learned else tensor
        for name, tensor in load_tensors(weights).items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"the weights are not finite in {dtype}: keep them as they are")
    return save_tensors(tensors)


def _check_dtype(dtype: str) -> None:
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r}: choose 'float32' or 'float16'")


def _may_be_replaced(directory: Path) -> bool:
    """Is it empty, or a model directory of this package's?"""
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir()}
    if not names:
        return True
    try:
        return names <= MOST_BYTES.keys() and bool(read_config(ModelFiles(directory)))
    except (OSError, ValueError):
        return False


def _check(model: MuZero, directory: Path) -> None:
    """What cannot be read again as it was is not put into place."""
    with torch.random.fork_rng(devices=[]):  # building networks draws from the global generator
        loaded = load_files(ModelFiles(directory), device="cpu")
    for name in ("observation_space", "action_space"):
        before, after = getattr(model, name), getattr(loaded, name)
        if before != after or before.dtype != after.dtype:
            raise ValueError(f"a model directory cannot describe the {name} {before}")


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
            value = (value.frequency, value.unit.value) if not isinstance(value, int) else value
        if name == "random_shift" and isinstance(value, Sequence):
            value = tuple(value)
        if callable(value):  # a schedule
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
        if name in CLASSES:
            known = CLASSES[name]
            if value not in known.values():
                raise ValueError(
                    f"policy_kwargs: {name}={value.__name__} is none of {sorted(known)}, so others "
                    "could not load it without running its code: use `MuZero.save`"
                )
            value = value.__name__
        described[name] = _listed(value)
    return described


def _listed(value: Any) -> Any:
    """Lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else _plain(value)


# -- reading ---------------------------------------------------------------------------------------


def _outline(
    config: Config, device: torch.device | str, overrides: dict[str, Any], n_envs: int
) -> MuZero:
    """A model without networks, as `BaseAlgorithm.load` makes it: spaces are set by hand."""
    policy_kwargs: dict[str, Any] = dict(config.policy_kwargs)
    for name, known in CLASSES.items():
        if name in policy_kwargs:
            if policy_kwargs[name] not in known:
                raise ValueError(
                    f"policy_kwargs.{name}: {policy_kwargs[name]!r} is none of {sorted(known)}"
                )
            policy_kwargs[name] = known[policy_kwargs[name]]
    for name in ("normalize_images", "normalize_observations"):
        if not isinstance(policy_kwargs.get(name, True), bool):
            raise ValueError(f"policy_kwargs.{name}: {policy_kwargs[name]!r} is no bool")
    arguments: dict[str, Any] = {
        name: float(value) if value in ("inf", "-inf") else value
        for name, value in config.arguments.items()
    }
    all_arguments = inspect.signature(MuZero.__init__).parameters.keys()
    # The file has no say in what concerns the one who loads it: generators, devices, paths.
    unknown = arguments.keys() - (all_arguments - _LEFT_OUT) | policy_kwargs.keys() & (
        _LEFT_OUT_OF_POLICY
    )
    if unknown:
        raise ValueError(f"MuZero knows no {sorted(unknown)}")
    if max(arguments.get(name, 0) for name in ("num_simulations", "unroll_steps")) > (
        MOST_SIMULATIONS
    ):
        raise ValueError(f"num_simulations and unroll_steps: {MOST_SIMULATIONS:,} are the most")
    arguments = {"policy_kwargs": policy_kwargs, "device": device} | arguments | overrides
    model = MuZero(config.policy, None, _init_setup_model=False, **arguments)
    model.policy_kwargs = policy_kwargs  # no default that has changed since comes in
    model.observation_space = build_space(config.observation_space)
    model.action_space = build_space(config.action_space)
    model._env_has_masks = config.env_has_masks
    check_spaces(model.observation_space, model.action_space)
    model.n_envs = n_envs
    return model


def _expected(model: MuZero, dtype: torch.dtype) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """What the file should hold; finding out takes no memory, however large the networks are."""
    arch = (model.policy_kwargs or {}).get("net_arch")
    if isinstance(arch, dict) and arch.get("num_blocks", 0) > 1000:
        raise ValueError("net_arch: more than 1,000 blocks")
    with outlining():
        policy = model.policy_class(
            model.observation_space,
            model.action_space,
            lambda _: 0.0,
            **model.policy_kwargs,
        )
    assert isinstance(policy, MuZeroPolicy)
    network = policy.target_network
    learned = {name for name, _ in network.named_parameters()}
    expected = {
        name: (tuple(x.shape), dtype if name in learned else torch.float32)
        for name, x in network.state_dict().items()
    }
    return expected | {VALUE_ERROR: ((), torch.float32)}
