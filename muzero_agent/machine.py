"""What a measurement was made with: hardware, versions of libraries, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "muzero-agent", "torch", "numpy", "numba", "gymnasium", "stable-baselines3", "sb3-contrib",
)  # fmt: skip


def machine() -> dict[str, str]:
    """Hardware, versions and commit."""
    facts = {
        "commit": commit(),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    return facts | versions(LIBRARIES)


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """Of each library, "" where it is not installed."""
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = ""
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of a clone, with a mark if something is not committed; "" if installed."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:  # perhaps somebody else's repository
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") or "") + "-dirty" * bool(changed)
