"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MOST_MMAPPED = 32 << 20  # glibc refuses larger thresholds
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it has freed, for what it allocates next.

    glibc gives blocks of up to 32 MB, such as those of an update's temporaries, back to the system
    once they are freed, and takes them anew, which the system fills with zeros page by page. That
    is part of learning's time (docs/speed.md), and of QRDQN's on LunarLander, whose temporaries
    have 15 MB, it was 40% (88 and 53 ms, medians of three times 15 updates, an AMD EPYC). What is
    kept is at most what was once in use. Other C libraries are left as they are.

    It is for programs, which own their process; a library that is imported does not call it.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_THRESHOLD, _MOST_MMAPPED)
        set_option(_M_TRIM_THRESHOLD, _NEVER)
