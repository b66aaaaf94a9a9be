"""The binary form of a PGN file: a directory of plain columns, which are mapped, never loaded.

Reading PGN costs some 0.2 ms a move, a row of these columns a memory access. Nothing in them is
code, and what does not fit the description beside them is refused.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from muzero_agent.datasets.pgn import CANDIDATES, Game, open_pgn, parse_game, split_games
from muzero_agent.processes import end_with_parent

VERSION = 1
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "frames": ("<u8", (13,)),
    "state": ("|u1", ()),
    "clock": ("|u1", ()),
    "action": ("<i2", ()),
    "candidates": ("<i2", (CANDIDATES,)),
    "scores": ("<i2", (CANDIDATES,)),
    "evaluation": ("<i2", ()),
    "game": ("<u4", ()),  # number of the row's game
}
"""Of each row: dtype and shape; see `pgn.Game`."""
GAME_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "first_row": ("<i8", ()),
    "result": ("|i1", ()),
    "terminated": ("|b1", ()),
}
"""Of each game."""
_META = "store.json"
_AT_ONCE = 64  # games that a process parses before it answers


class GameStore:
    """The rows of all games of a PGN file; see `pgn.Game` for what a row holds.

    :param directory: what `convert` wrote
    :raises ValueError: if it is no such directory, or is damaged
    """

    frames: NDArray[np.uint64]
    state: NDArray[np.uint8]
    clock: NDArray[np.uint8]
    action: NDArray[np.int16]
    candidates: NDArray[np.int16]
    scores: NDArray[np.int16]
    evaluation: NDArray[np.int16]
    game: NDArray[np.uint32]
    first_row: NDArray[np.int64]
    result: NDArray[np.int8]
    terminated: NDArray[np.bool_]

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            meta = json.loads((self.directory / _META).read_text(encoding="utf-8"))
            version, rows, games = (int(meta[key]) for key in ("version", "rows", "games"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory} is no store of games: {error}") from None
        if version != VERSION:
            raise ValueError(
                f"{directory} is a store of version {version}, and this package reads {VERSION}: "
                "delete it, and it is made anew from the PGN file"
            )
        self.num_rows, self.num_games, self.skipped = rows, games, int(meta.get("skipped", 0))
        for columns, length in ((COLUMNS, rows), (GAME_COLUMNS, games)):
            for name, (dtype, shape) in columns.items():
                path, full = self.directory / f"{name}.bin", (length, *shape)
                wanted = int(np.prod(full)) * np.dtype(dtype).itemsize
                if not path.is_file() or path.stat().st_size != wanted:
                    raise ValueError(
                        f"{path} does not have the {wanted:,} bytes that {_META} tells of: delete "
                        f"{directory}, and it is made anew from the PGN file"
                    )
                setattr(self, name, np.memmap(path, np.dtype(dtype), "r", shape=full))

    @property
    def num_moves(self) -> int:
        """Positions in which a move was played."""
        return self.num_rows - self.num_games


def cached_store(
    path: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    workers: int = 1,
    progress_bar: bool = False,
) -> GameStore:
    """The binary form of a PGN file, made when the file is first seen.

    :param path: of a .pgn or .pgn.zst file, or of a directory that `convert` wrote
    :param cache_dir: where it is kept; None: `MUZERO_AGENT_CACHE`, or muzero-agent in
        `XDG_CACHE_HOME` or ~/.cache
    :param workers: processes that read
    """
    path = Path(path)
    if path.is_dir():
        return GameStore(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of games")
    root = Path(cache_dir) if cache_dir is not None else default_cache() / "games"
    about = path.stat()
    known = f"{path.resolve()}\n{about.st_size}\n{about.st_mtime_ns}\n{VERSION}"
    directory = root / f"{path.name}-{hashlib.sha256(known.encode()).hexdigest()[:16]}"
    if not (directory / _META).is_file():
        convert(path, directory, workers=workers, progress_bar=progress_bar)
    return GameStore(directory)


def default_cache() -> Path:
    """The directory of what can be made anew."""
    told = os.environ.get("MUZERO_AGENT_CACHE")
    if told:
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muzero-agent"


def convert(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress_bar: bool = False,
) -> None:
    """Write the binary form of a PGN file; games that cannot be read are counted and left out.

    The directory appears when it is complete. Whatever the file's size, a few hundred games are in
    memory.

    :raises ValueError: if the file holds no game of chess
    """
    path, directory = Path(path), Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        with ExitStack() as stack:
            files = {
                name: stack.enter_context((unfinished / f"{name}.bin").open("wb"))
                for name in (*COLUMNS, *GAME_COLUMNS)
            }
            text, raw = stack.enter_context(open_pgn(path))
            bar = stack.enter_context(
                tqdm(
                    total=path.stat().st_size,
                    unit="B",
                    unit_scale=True,
                    desc=path.name,
                    disable=not progress_bar,
                )
            )
            pool = None
            if workers > 1:
                context = multiprocessing.get_context("spawn")
                pool = stack.enter_context(
                    ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
                )
            rows = games = skipped = 0
            for game in _parsed(split_games(text), pool, workers):
                bar.update(raw.tell() - bar.n)
                if game is None:
                    skipped += 1
                    continue
                _append(files, game, games, rows)
                rows += len(game.action)
                games += 1
        unread = f"{skipped:,} of another kind of chess, or with illegal or no moves"
        if not games:
            raise ValueError(
                f"{path} holds no game of chess that can be read" + f": {unread}" * (skipped > 0)
            )
        if skipped:
            warnings.warn(f"{path}: of {games + skipped:,} games, left out {unread}", stacklevel=2)
        meta = {"version": VERSION, "rows": rows, "games": games, "skipped": skipped}
        (unfinished / _META).write_text(json.dumps(meta | {"source": path.name}), encoding="utf-8")
        try:
            unfinished.rename(directory)
        except OSError:
            if not (directory / _META).is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _parsed(texts: Iterator[str], pool: Executor | None, workers: int) -> Iterator[Game | None]:
    """The games of texts in their order; `pool` has a few of them in work."""
    chunks = iter(lambda: list(islice(texts, _AT_ONCE)), [])
    if pool is None:
        for chunk in chunks:
            yield from map(parse_game, chunk)
        return
    waiting: list[Future[list[Game | None]]] = []
    for chunk in chunks:
        waiting.append(pool.submit(_parse_all, chunk))
        if len(waiting) > 2 * workers:
            yield from waiting.pop(0).result()
    for future in waiting:
        yield from future.result()


def _parse_all(texts: list[str]) -> list[Game | None]:
    return [parse_game(text) for text in texts]


def _append(files: Mapping[str, BinaryIO], game: Game, number: int, row: int) -> None:
    columns: dict[str, Any] = {
        **game._asdict(),
        "game": np.full(len(game.action), number),
        "first_row": row,
    }
    for name, (dtype, _) in {**COLUMNS, **GAME_COLUMNS}.items():
        files[name].write(np.ascontiguousarray(columns[name], np.dtype(dtype)).tobytes())
