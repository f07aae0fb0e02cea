"""The memory allocator of glibc, tuned for arrays.

By default glibc gives every large block back to the system when it is freed and asks for it again a moment later, and
the system clears each page anew. A PyTorch network spends up to half of its time on that.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def tune_allocator() -> bool:
    """Makes glibc keep freed memory for the next array, in this process and from now on.

    It is for programs, not for libraries: the process keeps the most memory that it ever used. Nothing happens with
    other allocators.

    Returns:
        Whether the allocator is glibc's and took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
