"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_NEVER = -1
_LARGEST_KEPT = (1 << 30, 32 << 20)  # bytes; some versions of glibc refuse more than the second


def keep_freed_memory() -> None:
    """Let this process keep the memory that it has freed, for what it allocates next.

    glibc gives blocks such as those of an update's temporaries back to the system once they are
    freed, and takes them anew, which the system fills with zeros page by page: part of the time of
    learning (docs/speed.md). What is kept is about as much as was once in use. Blocks of 1 GB and
    more are given back. Other C libraries are left as they are, and so is what the user has said by
    variables `MALLOC_...`.

    It is for programs, which own their process; what is imported does not call it.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError, AttributeError):  # another C library
        set_option = ctypes.CDLL(None).mallopt
        any(set_option(_M_MMAP_THRESHOLD, size) for size in _LARGEST_KEPT)
        set_option(_M_TRIM_THRESHOLD, _NEVER)
