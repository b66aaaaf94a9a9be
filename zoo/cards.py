"""What a model directory says of itself: strict schemas, and spaces as JSON.

Everything here comes from files that somebody else may have written: nothing is evaluated, unknown
fields are errors, and names of classes are looked up in short lists.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from gymnasium import spaces
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION: Literal[2] = 2
"""Of what is written; all versions up to it are read."""

MOST_ENTRIES = 10_000_000
"""Of one observation."""

Size = Annotated[int, Field(ge=1, le=MOST_ENTRIES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# -- spaces ----------------------------------------------------------------------------------------

Number = int | float | Literal["inf", "-inf"]  # JSON has no infinity
Bound = Number | list[Number]
DType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"
]


class BoxSpec(_Strict):
    """A Box; a bound is one number for all entries, or one for each in C order."""

    type: Literal["Box"]
    shape: list[int]
    dtype: DType
    low: Bound
    high: Bound


class DiscreteSpec(_Strict):
    type: Literal["Discrete"]
    n: Size


class MultiDiscreteSpec(_Strict):
    type: Literal["MultiDiscrete"]
    nvec: list[Size]
    dtype: DType


class MultiBinarySpec(_Strict):
    type: Literal["MultiBinary"]
    n: Size


class DictSpec(_Strict):
    type: Literal["Dict"]
    spaces: dict[str, SpaceSpec]


SpaceSpec = Annotated[
    BoxSpec | DiscreteSpec | MultiDiscreteSpec | MultiBinarySpec | DictSpec,
    Field(discriminator="type"),
]
DictSpec.model_rebuild()


def describe_space(space: spaces.Space[Any]) -> SpaceSpec:
    """A space as JSON can hold it.

    :raises ValueError: for spaces that `MuZero` does not take
    """
    if isinstance(space, spaces.Box):
        return BoxSpec(
            type="Box",
            shape=list(space.shape),
            dtype=str(space.dtype),  # type: ignore[arg-type]
            low=_bound(space.low),
            high=_bound(space.high),
        )
    if isinstance(space, spaces.Discrete):
        return DiscreteSpec(type="Discrete", n=int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiDiscreteSpec(
            type="MultiDiscrete",
            nvec=space.nvec.tolist(),
            dtype=str(space.dtype),  # type: ignore[arg-type]
        )
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return MultiBinarySpec(type="MultiBinary", n=int(space.shape[0]))
    if isinstance(space, spaces.Dict):
        parts = {key: describe_space(part) for key, part in space.spaces.items()}
        return DictSpec(type="Dict", spaces=parts)
    raise ValueError(f"a model directory cannot describe the space {space}")


def build_space(spec: SpaceSpec) -> spaces.Space[Any]:
    """The space that was described.

    :raises ValueError: if there is none such, or if its observations are larger than any of use
    """
    if _entries(spec) > MOST_ENTRIES:
        raise ValueError(f"observations of more than {MOST_ENTRIES:,} entries")
    if isinstance(spec, BoxSpec):
        dtype, shape = np.dtype(spec.dtype), tuple(spec.shape)
        low, high = (_array(bound, shape, dtype) for bound in (spec.low, spec.high))
        return spaces.Box(low, high, shape, dtype.type)
    if isinstance(spec, DiscreteSpec):
        return spaces.Discrete(spec.n)
    if isinstance(spec, MultiDiscreteSpec):
        return spaces.MultiDiscrete(spec.nvec, np.dtype(spec.dtype).type)
    if isinstance(spec, MultiBinarySpec):
        return spaces.MultiBinary(spec.n)
    if any("." in key for key in spec.spaces):
        raise ValueError("a Dict with a dot in a name, which no network of PyTorch can have")
    return spaces.Dict({key: build_space(part) for key, part in spec.spaces.items()})


def _bound(array: np.ndarray[Any, Any]) -> Any:
    numbers = array.astype(np.int8) if array.dtype == np.bool_ else array
    values = [
        x if np.isfinite(x) else ("inf" if x > 0 else "-inf") for x in numbers.ravel().tolist()
    ]
    return values[0] if len(set(values)) == 1 else values


def _entries(spec: SpaceSpec) -> int:
    """How much an observation holds; a part counts at least 1,000, for what each costs besides."""
    if isinstance(spec, DictSpec):
        return sum(max(_entries(part), 1000) for part in spec.spaces.values())
    if isinstance(spec, BoxSpec):
        if min(spec.shape, default=1) < 1:
            raise ValueError(f"a Box of the shape {spec.shape}")
        return math.prod(spec.shape)
    if isinstance(spec, MultiDiscreteSpec):
        return sum(spec.nvec)
    return spec.n


def _array(bound: Bound, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    values = bound if isinstance(bound, list) else [bound]
    if len(values) not in (1, math.prod(shape)):
        raise ValueError(f"a bound of {len(values)} numbers for a Box of the shape {shape}")
    numbers = [float(x) if isinstance(x, str) else x for x in values]
    exact = np.array(numbers, dtype)  # OverflowError for integers that do not fit
    if dtype.kind in "iub" and any(x != y for x, y in zip(exact.tolist(), numbers, strict=True)):
        raise ValueError(f"a bound that is no {dtype}")
    return np.full(shape, exact[0], dtype) if len(values) == 1 else exact.reshape(shape)


# -- the files -------------------------------------------------------------------------------------

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Literal["model.safetensors", "config.json", "card.json", "README.md"]


def _printable(text: str) -> str:
    """Terminals act on some characters."""
    if not all(character.isprintable() or character == "\n" for character in text):
        raise ValueError("there are control characters in it")
    return text


Text = Annotated[str, Field(max_length=10_000), AfterValidator(_printable)]


class FileEntry(_Strict):
    """A file's hash and its size in bytes."""

    sha256: Digest
    size: Annotated[int, Field(ge=0, le=2 << 30)]


class Manifest(_Strict):
    """manifest.json: what the other files are. Other names than the known ones are an error."""

    format_version: Literal[2]
    files: dict[FileName, FileEntry]


Integer = Annotated[int, Field(ge=-1, le=10**9)]
Scalar = bool | Integer | float | str | None
Width = Annotated[int, Field(ge=1, le=10**6)]
Widths = Annotated[list[Width], Field(max_length=100)]
Pixels = Annotated[int, Field(ge=0, le=10**6)]
Setting = Scalar | Widths | tuple[Pixels, Pixels] | tuple[int, str]


class Config(_Strict):
    """config.json: all that is needed to build the networks and their search again.

    :param arguments: of `MuZero`, by name
    :param policy_kwargs: of `MuZeroPolicy`; classes by name
    :param sha256: of model.safetensors, in version 1, which has no manifest
    :param env_has_masks: whether masks came from the environment's `action_masks()`, which whoever
        plays has to pass on
    """

    format_version: Literal[1, 2]
    algorithm: Literal["MuZero"]
    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"]
    arguments: dict[str, Setting]
    policy_kwargs: dict[str, Setting | dict[str, Setting]]
    observation_space: SpaceSpec
    action_space: SpaceSpec
    num_timesteps: Annotated[int, Field(ge=0)]
    sha256: Digest | None = None
    dtype: Literal["float32", "float16"]
    env_has_masks: bool = False

    @model_validator(mode="after")
    def _hash_in_version_1(self) -> Self:
        if (self.sha256 is None) != (self.format_version > 1):
            raise ValueError("version 1 has `sha256`, and version 2 a manifest in its place")
        return self


class Evaluation(_Strict):
    """A measured result.

    :param metric: what was measured, such as "mean return"
    :param mean: over the episodes
    :param std: standard deviation over the episodes
    :param interval: of the mean, 95%; None: of as many independent episodes
    :param seed: of environments or games; a model's own seed does not matter
    :param opponent: in games of two players
    :param by_rules: whether the search looked ahead by the true rules, not in the learned model
    """

    metric: Text
    mean: float
    std: Annotated[float, Field(ge=0)]
    interval: tuple[float, float] | None = None
    episodes: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0, lt=1 << 32)]
    num_simulations: Annotated[int, Field(ge=1, le=100_000)]
    opponent: Text | None = None
    by_rules: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.interval is not None and not self.interval[0] <= self.mean <= self.interval[1]:
            raise ValueError("the mean is not within its interval")
        return self

    def bounds(self) -> tuple[float, float]:
        """The 95% interval of the mean."""
        if self.interval is not None:
            return self.interval
        half = 1.96 * self.std / math.sqrt(self.episodes)
        return self.mean - half, self.mean + half


NO_LICENCE = "not told"
"""Whose model it is says under which licence others may use it."""


class Card(_Strict):
    """card.json: where a model comes from and how good it is.

    :param env: id of the environment, with its version
    :param env_kwargs: of `gymnasium.make`; numbers alone, since text might name a file
    :param wrappers: around the environment, innermost first
    :param command: that trained the model
    :param versions: of the libraries that trained it
    """

    name: Text
    env: Text
    env_kwargs: dict[Text, bool | int | float] = {}
    wrappers: list[Text] = []
    licence: Text = NO_LICENCE
    training_steps: Annotated[int, Field(ge=0)]
    training_seconds: Annotated[float, Field(ge=0)]
    seed: int | None
    command: Text
    commit: Text | None = None
    hardware: Text | None = None
    versions: dict[Text, Text]
    evaluations: Annotated[list[Evaluation], Field(max_length=100)]
    notes: Text = ""
