"""The exception for problems that a user can solve."""

from __future__ import annotations


class UhrctError(Exception):
    """A problem that the user can act on, in one line: which file, what is wrong, what to do.

    Messages put the names of arguments in backticks. The command line replaces them by its options, prints the message
    without a traceback and exits with code 2.

    Example
    -------
    >>> raise UhrctError("scan.nii: 4 dimensions, need 3; split the phases into one file each")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: scan.nii: 4 dimensions, need 3; split the phases into one file each
    """
