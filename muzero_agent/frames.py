"""Where the replay keeps observations: a ring of rows for each environment, every frame once.

A stack of four frames repeats three of the state before it. `PlaneStore` keeps each plane (a frame,
or a channel of one) in one place and, for each row, the numbers of its planes, so that a step costs
what is new in it. What it gives back is bit for bit what it was given, whatever that was.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from muzero_agent.types import Observation

SMALLEST_PLANE = 64
"""Bytes of a plane from which on its number and the count of its rows, 8 bytes, are worth it."""


class Store(Protocol):
    """Observations by environment and slot; slots that were never written hold zeros."""

    def put(self, env: int, slot: int, obs: Observation) -> None:
        """Write one observation, in place of what was there."""
        ...

    def get(self, env: Any, slot: Any) -> Observation:
        """Observations at indices of any shape, [*shape, ...], or slices."""
        ...

    def check_valid(self) -> None:
        """Raise ValueError if the bookkeeping is inconsistent."""
        ...


def observation_store(space: spaces.Space[Any], n_envs: int, rows: int) -> Store:
    """A store for observations of `space`; of a Dict each part is kept in its own way.

    :param rows: slots of each environment
    """
    if isinstance(space, spaces.Dict):
        return DictStore({k: observation_store(s, n_envs, rows) for k, s in space.spaces.items()})
    shape, dtype = space.shape or (), np.dtype(space.dtype)
    stacked = isinstance(space, spaces.Box) and len(shape) >= 3 and shape[0] > 1
    if stacked and math.prod(shape[1:]) * dtype.itemsize >= SMALLEST_PLANE:
        return PlaneStore(shape, dtype, n_envs, rows)
    return PlainStore(shape, dtype, n_envs, rows)


class DictStore:
    """A store for each part of a Dict."""

    def __init__(self, parts: dict[str, Store]) -> None:
        self.parts = parts

    def put(self, env: int, slot: int, obs: Observation) -> None:
        assert isinstance(obs, dict)
        for key, part in self.parts.items():
            part.put(env, slot, obs[key])

    def get(self, env: Any, slot: Any) -> Observation:
        found: dict[str, Any] = {key: part.get(env, slot) for key, part in self.parts.items()}
        return found

    def check_valid(self) -> None:
        for part in self.parts.values():
            part.check_valid()


class PlainStore:
    """Whole observations, one after the other."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, n_envs: int, rows: int) -> None:
        self.array = np.zeros((n_envs, rows, *shape), dtype)
        self.used = 0  # slots, from the first on, that any environment has written

    def put(self, env: int, slot: int, obs: Observation) -> None:
        assert not isinstance(obs, dict)
        self.array[env, slot] = obs
        self.used = max(self.used, slot + 1)

    def get(self, env: Any, slot: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.array[env, slot]
        return found

    def check_valid(self) -> None:
        """There is no bookkeeping."""

    def __getstate__(self) -> dict[str, Any]:
        """Slots that were never written stay out of files."""
        return {"held": self.array[:, : self.used], "rows": self.array.shape[1]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        held, rows = state["held"], state["rows"]
        self.array = _extended(held, (len(held), rows, *held.shape[2:]))
        self.used = held.shape[1]


class PlaneStore:
    """Planes of all environments, each once, and for each row the numbers of its planes.

    A plane is looked up among those of the row that its environment wrote before, and stays until
    the last row that shows it is overwritten. Every row is held, whatever it shows: at first there
    is room for one new plane a row, which takes memory only as it is written, and where more are
    new, it grows by an eighth, in place.

    :param shape: of an observation, [C, ...]: C planes
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, n_envs: int, rows: int) -> None:
        self.shape = shape
        self.index = np.zeros((n_envs, rows, shape[0]), np.int32)  # numbers of a row's planes
        self.planes = np.zeros((self._expected(), *shape[1:]), dtype)
        self.references = np.zeros(len(self.planes), np.int32)  # rows that show a plane
        self.free: list[int] = []  # planes written once that no row shows any more
        self.used = 1  # planes, from the first on, that were ever written
        # Plane 0 is zero for ever, since frame stacks are padded with it. All rows show it yet.
        self.references[0] = n_envs * rows + 1
        self.zero = self.planes[0].tobytes()
        self.newest = [{self.zero: 0} for _ in range(n_envs)]  # planes of the row written last

    def put(self, env: int, slot: int, obs: Observation) -> None:
        assert not isinstance(obs, dict)
        incoming = np.empty(self.shape, self.planes.dtype)
        incoming[...] = obs  # converts as any assignment does
        before = self.newest[env]
        here = {self.zero: 0}
        numbers = []
        for plane in incoming:
            content = plane.tobytes()
            number = here.get(content, before.get(content))
            if number is None:
                number = self._write(plane)
            here[content] = number
            numbers.append(number)
        forgotten = set(self.index[env, slot].tolist())
        self.index[env, slot] = numbers
        self.newest[env] = here
        for number in set(numbers):
            self.references[number] += 1
        for number in forgotten:  # last, since this row may show them, too
            self.references[number] -= 1
            if not self.references[number]:
                self.free.append(number)

    def _write(self, plane: NDArray[Any]) -> int:
        if self.free:
            number = self.free.pop()
        else:
            number = self.used
            self.used += 1
            if number == len(self.planes):
                self._grow()
        self.planes[number] = plane
        return number

    def _grow(self) -> None:
        n_envs, rows, channels = self.index.shape
        most = 1 + (n_envs * rows + 1) * channels  # where nothing repeats, and a row is written
        room = min(len(self.planes) * 9 // 8 + 1, most)
        # No view of these is ever handed out, so they may move; most systems need not copy them.
        self.planes.resize((room, *self.shape[1:]), refcheck=False)
        self.references.resize(room, refcheck=False)

    def _expected(self) -> int:
        """Planes if each row brings one new one."""
        n_envs, rows, channels = self.index.shape
        return 1 + n_envs * (rows + channels)

    def get(self, env: Any, slot: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.planes.take(self.index[env, slot], axis=0)
        return found

    def check_valid(self) -> None:
        numbers = np.sort(self.index, axis=-1)
        first = np.ones(numbers.shape, np.bool_)
        first[..., 1:] = numbers[..., 1:] != numbers[..., :-1]
        if not 0 <= numbers.min() <= numbers.max() < self.used <= len(self.planes):
            raise ValueError("the replay's rows show image planes that are not there")
        counts = np.bincount(numbers[first], minlength=self.used)
        counts[0] += 1
        unused = np.flatnonzero(counts == 0)
        if (counts != self.references[: self.used]).any() or set(self.free) != set(unused.tolist()):
            raise ValueError("the replay's counts of image planes are inconsistent with its rows")

    def __getstate__(self) -> dict[str, Any]:
        """Planes that were never written stay out of files."""
        held = {name: getattr(self, name)[: self.used] for name in ("planes", "references")}
        return vars(self) | held

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        room = max(self._expected(), self.used)
        self.planes = _extended(self.planes, (room, *self.shape[1:]))
        self.references = _extended(self.references, (room,))


def _extended(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array as the first part of a larger one, whose rest is zero and takes no memory yet."""
    larger = np.zeros(shape, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger
