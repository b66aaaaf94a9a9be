"""`keep_freed_memory`: what was freed is used again, unless the user has said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from muzero_agent.allocator import keep_freed_memory

if sys.argv[1:]:
    keep_freed_memory()

def use() -> None:
    # Two blocks, of 24 MB, which glibc takes from the system anew as often as they are freed.
    pair = np.ones(3 << 20), np.ones(3 << 20)

use()
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **variables: str) -> int:
    """How many pages the system filled for five times the same temporaries."""
    command = [sys.executable, "-c", FAULTS, *arguments]
    others = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env=others | variables
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_filled_once() -> None:
    assert faults() > 1_000
    assert faults("keep") < 100
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="100000") > 1_000
