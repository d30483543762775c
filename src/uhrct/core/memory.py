"""How the C library deals with memory that is freed."""

from __future__ import annotations

import ctypes

#: of mallopt(3) in glibc
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors, instead of giving it back to the system each time.

    Networks free and take the same large pieces again and again. On Linux each new piece is filled with zeros, page by
    page, which took a quarter of the time of x2. The setting concerns the whole process. So commands and workers use
    it, and the library leaves it to its user. The peak memory grows by some hundred megabytes.

    Returns
    -------
    bool
        Whether the C library has this setting.

    Example
    -------
    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST_INT))
