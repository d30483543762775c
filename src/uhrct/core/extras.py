"""Packages that only some commands need."""

from __future__ import annotations

from importlib.util import find_spec

from uhrct.core.errors import UhrctError


def check_extra(what: str, extra: str, **packages: str) -> None:
    """Say which packages are missing, before the work begins.

    Parameters
    ----------
    what : what needs them, the beginning of the message
    extra : of `pip install 'uhrct[extra]'`
    packages : name of the module -> name of the package

    Raises
    ------
    UhrctError
        If one is not installed.

    Example
    -------
    >>> check_extra("this", "evaluation", no_such_module="somepackage")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: this needs somepackage: pip install 'uhrct[evaluation]'
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise UhrctError(f"{what} needs {' and '.join(missing)}: pip install 'uhrct[{extra}]'")
