"""The one exception that users are meant to read."""

from __future__ import annotations


class UhrctError(Exception):
    """A problem that the user can act on, in one line: which file, what is wrong, what to do.

    The command line prints it without a traceback and exits with code 2; library users catch it.

    Example
    -------
    >>> raise UhrctError("scan.nii: 4 dimensions, need 3; split the phases into one file each")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: scan.nii: 4 dimensions, need 3; split the phases into one file each
    """
