"""What all tests share: one thread each, and a record of what the slow ones said."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

# Before anything imports torch: its threads slow each other down once workers share the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Some tests interrupt a program; a shell that runs the tests in the background has it ignore that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STARTED = pytest.StashKey[float]()
COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal so wide that complaints which hold long paths are not wrapped."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """files_of_at_most(size): within, writing more fails in the midst of it, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """program(name): where a program of Debian is. Without it the test is skipped, or fails where
    MUZERO_REQUIRE_PROGRAMS is set."""

    def find(name: str) -> str:
        # games are not in every PATH
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/games")
        if found is None and os.environ.get("MUZERO_REQUIRE_PROGRAMS"):
            pytest.fail(f"{name} is not installed: apt install {name}")
        if found is None:
            pytest.skip(f"{name} is not installed: apt install {name}")
        return found

    return find


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-results",
        metavar="FILE",
        help="write date, machine, command and the outcome of each test to FILE (Markdown)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    target = config.getoption("--record-results")
    if target and any(terminalreporter.stats.get(outcome) for outcome in COUNTED):
        seconds = time.monotonic() - config.stash[STARTED]
        Path(target).write_text(record(terminalreporter, seconds), encoding="utf-8")


def record(reporter: pytest.TerminalReporter, seconds: float) -> str:
    """The outcome of a run as a page of Markdown."""
    counts = ", ".join(
        f"{len(reporter.stats[outcome])} {outcome}"
        for outcome in COUNTED
        if reporter.stats.get(outcome)
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    facts = {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        "command": f"`make test-slow` (`pytest {shlex.join(sys.argv[1:])}`)",
        "commit": commit or "none",
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "software": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "numba")),
        "outcome": f"{counts}, in {seconds:.0f} s",
    }
    rows = [
        (test.nodeid.partition("@")[0], outcome, test.duration)  # without the group's name
        for outcome in COUNTED
        for test in reporter.stats.get(outcome, [])
    ]
    return "\n".join(
        [
            "# The slow tests' last run",
            "",
            *(f"- {name}: {fact}" for name, fact in facts.items()),
            "",
            "| test | outcome | seconds |",
            "| --- | --- | ---: |",
            *(f"| `{name}` | {outcome} | {took:.1f} |" for name, outcome, took in sorted(rows)),
            "",
        ]
    )


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
