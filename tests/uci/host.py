"""A host that talks to the engine line by line, and waits for what it expects."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from muzero_agent.adapters.engines.protocol import Writer
from muzero_agent.adapters.engines.uci import UciEngine


class Lines:
    """Bytes that the engine writes, as lines with the time at which they came."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.times: list[float] = []
        self.more = threading.Condition()

    def write(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert b"\r" not in data
        with self.more:
            for line in data.decode().splitlines():
                self.lines.append(line)
                self.times.append(time.monotonic())
            self.more.notify_all()

    def flush(self) -> None:
        pass


class Host:
    """Talks to an engine that runs in this process: `with Host(model) as host:`."""

    def __init__(self, model: Path) -> None:
        self.out = Lines()
        self.engine = UciEngine(Writer(self.out), model)  # type: ignore[arg-type]
        self._said: queue.Queue[bytes | None] = queue.Queue()
        self._read = 0  # lines that were expected already
        self._thread = threading.Thread(target=self.engine.run, args=(self._lines(),), daemon=True)

    def _lines(self) -> Iterator[bytes]:
        while (line := self._said.get()) is not None:
            yield line

    def __enter__(self) -> Host:
        self._thread.start()
        self.say("uci")
        self.expect("uciok")
        self.say("isready")
        self.expect("readyok", seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._said.put(None)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def say(self, *lines: str) -> None:
        for line in lines:
            self._said.put(line.encode() + b"\n")

    def expect(self, pattern: str, seconds: float = 15.0) -> list[str]:
        """Lines up to the first that matches all of the pattern; they are taken."""
        deadline = time.monotonic() + seconds
        with self.out.more:
            while True:
                for at in range(self._read, len(self.out.lines)):
                    if re.fullmatch(pattern, self.out.lines[at]):
                        found = self.out.lines[self._read : at + 1]
                        self._read = at + 1
                        return found
                left = deadline - time.monotonic()
                if left <= 0 or not self.out.more.wait(left):
                    raise AssertionError(
                        f"no {pattern!r} within {seconds} s, but {self.out.lines[self._read :]}"
                    )

    def quiet(self, seconds: float) -> list[str]:
        """What comes within this time; it is not taken."""
        time.sleep(seconds)
        return self.out.lines[self._read :]

    def go(self, arguments: str, position: str | None = None) -> tuple[str, list[str]]:
        """Search: the best move, and all that was said."""
        if position is not None:
            self.say(f"position {position}")
        self.say(f"go {arguments}".strip())
        lines = self.expect(r"bestmove .*")
        return lines[-1].split()[1], lines
