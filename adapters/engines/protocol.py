"""What engines have in common, whatever they play and whatever they speak.

Lines come in by one thread, and go out by one writer, each whole and at once. A search runs in a
thread of its own, one at a time, and is told to stop by an event. Nothing heavy is imported here,
since hosts wait for the first answer.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

QUIT_SECONDS = 2.0
"""How long the end waits for a search that was told to stop."""


class Writer:
    """Writes whole lines, from any thread; what cannot be written any more is dropped.

    :param stream: text or its bytes; lines end in a line feed alone, on every system
    """

    def __init__(self, stream: IO[Any] | None = None) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream
        self._lock = threading.Lock()
        self.log = Log()

    def __call__(self, *lines: str) -> None:
        """Write lines that belong together."""
        text = "".join(line + "\n" for line in lines)
        with self._lock:
            self.log.note("<", lines)
            with suppress(BrokenPipeError, ValueError, OSError):  # nobody listens any more
                self._stream.write(text.encode())
                self._stream.flush()


class Log:
    """What was said, in a file, if one is named."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def open(self, path: str) -> None:
        """Go on in this file; an empty path closes it.

        :raises OSError: if it cannot be written
        """
        before = self._file
        new = Path(path).open("a", encoding="utf-8", buffering=1) if path else None  # noqa: SIM115 - kept
        self._file = new
        if before is not None:
            before.close()

    def note(self, direction: str, lines: Iterable[str]) -> None:
        """Take note of lines, if a file is open."""
        file = self._file  # another thread may open another one meanwhile
        if file is not None:
            stamp = time.strftime("%H:%M:%S")
            with suppress(OSError, ValueError):
                file.writelines(f"{stamp} {direction} {line}\n" for line in lines)


@dataclass
class Limits:
    """How long a search may take. What is None does not limit it."""

    nodes: int | None = None
    depth: int | None = None
    mate: int | None = None  # moves; or as many seconds
    movetime: float | None = None  # seconds, as all times
    clock: float | None = None  # that the mover has left
    increment: float = 0.0
    moves_to_go: int | None = None
    infinite: bool = False  # until told to stop
    ponder: bool = False  # the clock starts when told
    most_nodes: int | None = None  # that it never goes beyond, however long it thinks
    allowed: list[Any] = field(default_factory=list)  # moves to choose among; empty: all

    @property
    def timed(self) -> bool:
        """Whether the mover's own clock runs."""
        return self.clock is not None and self.movetime is None


@dataclass
class Budget:
    """Seconds for a move: `soft` are meant to be used, `hard` are not to be passed."""

    soft: float
    hard: float


def budget_of(limits: Limits, overhead: float) -> Budget | None:
    """What a move may take by clock or move time; None: as long as it likes.

    :param overhead: seconds that a move costs on its way to the host
    """
    if limits.movetime is not None:
        seconds = max(limits.movetime - overhead, limits.movetime / 2, 0.0)
        return Budget(seconds, seconds)
    if limits.clock is None:
        return None
    left = max(limits.clock - overhead, 0.0)
    moves = limits.moves_to_go or 0
    if moves:
        soft = left / (moves + 0.3) + 0.5 * limits.increment
        share = 0.8 if moves == 1 else 0.4
    else:  # as if the game lasted so many moves more
        soft = left / 28 + 0.7 * limits.increment
        share = 0.3
    hard = min(3 * soft, share * left)
    return Budget(min(soft, hard), hard)


class Stop:
    """One search's end: told to stop, and, while it ponders, that its clock has started."""

    def __init__(self, pondering: bool) -> None:
        self.stopped = threading.Event()
        self.pondering = pondering
        self.started = time.monotonic()

    def stop(self) -> None:
        """Come to an end."""
        self.stopped.set()

    def ponderhit(self) -> None:
        """The expected move was played: the clock runs from now on."""
        if self.pondering:
            self.started = time.monotonic()
            self.pondering = False

    def elapsed(self) -> float:
        """Seconds on the clock."""
        return time.monotonic() - self.started


class Engine(ABC):
    """Reads commands until the end, and runs one search at a time.

    :param write: what is said
    """

    def __init__(self, write: Writer) -> None:
        self.write = write
        self._thread: threading.Thread | None = None
        self.stop: Stop | None = None

    @abstractmethod
    def command(self, line: str) -> bool:
        """Obey a line; False ends the engine."""

    def run(self, lines: Iterable[bytes]) -> None:
        """Read lines until one ends the engine, or there is none any more."""
        try:
            for raw in lines:
                line = raw.decode("utf-8", "replace").strip("\r\n")
                self.write.log.note(">", [line])
                if not self.command(line):
                    break
        finally:
            self.interrupt(QUIT_SECONDS)

    def start(self, search: Callable[[Stop], None], pondering: bool = False) -> None:
        """Run a search in its thread, after the one before has come to its end."""
        self.interrupt()
        self.stop = Stop(pondering)
        self._thread = threading.Thread(target=search, args=(self.stop,), daemon=True)
        self._thread.start()

    def interrupt(self, seconds: float | None = None) -> None:
        """Stop the search, if there is one, and wait until it has said its move."""
        if self._thread is not None and self.stop is not None:
            self.stop.stop()
            self._thread.join(seconds)
            self._thread = None

    @property
    def searching(self) -> bool:
        """Whether a search runs."""
        return self._thread is not None and self._thread.is_alive()
