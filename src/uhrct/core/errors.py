"""Exceptions for problems that a user can solve, by what is wrong: an argument, the input, or nothing at all."""

from __future__ import annotations


class UhrctError(Exception):
    """A problem that the user can act on, in one line: which file, what is wrong, what to do.

    Messages put the names of arguments in backticks. The command line replaces them by its options, prints the message
    without a traceback and exits with the code of the class (`docs/report.md`): 2, unless a subclass says otherwise.

    Example
    -------
    >>> raise UhrctError("scan.nii: 4 dimensions, need 3; split the phases into one file each")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: scan.nii: 4 dimensions, need 3; split the phases into one file each
    """


class InputRefused(UhrctError):
    """The input cannot be read, or cannot be processed. The arguments beside it are not to blame."""


class NothingToDo(UhrctError):
    """There is no work: no image in the folder or zip, or the scan is already as fine as the requested spacing."""


class WrongArgument(UhrctError):
    """An argument beside the input is to blame, although the input was read to find this out.

    Readers raise it. All their other errors become `InputRefused`.
    """
