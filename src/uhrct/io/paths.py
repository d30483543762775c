"""Format of a path, and how names are shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from uhrct.core import arguments
from uhrct.core.errors import InputRefused, UhrctError

#: Known endings. The longest match wins, so `.nii.gz` stands before `.nii`.
FORMATS = {
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".npz": "NPZ",
    ".zarr": "OME-Zarr",
    ".dcm": "DICOM",
}
AnyPath = str | os.PathLike[str]

#: the one format with a suffix that is a folder
ZARR = ".zarr"
KNOWN = "a folder (DICOM series), " + ", ".join(FORMATS)


def known_suffix(path: Path) -> str:
    """The known ending of `path` in lower case, or "" if there is none.

    >>> known_suffix(Path("scan.T1.NII.GZ")), known_suffix(Path("out.foo"))
    ('.nii.gz', '')
    """
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix) and name != suffix), "")


def looks_like_suffix(path: Path) -> bool:
    """Whether the end of the name was meant as a file type.

    Folder names such as `thorax_0.5mm` or `1.2.840.113` have dots too. A file type starts with a letter.

    >>> looks_like_suffix(Path("out.foo")), looks_like_suffix(Path("thorax_0.5mm"))
    (True, False)
    """
    return re.search(r"\.[A-Za-z][A-Za-z0-9]*$", path.name) is not None


def shown(text: str | Path) -> str:
    """A name that can be printed: one line, without control characters and without bytes that are not text.

    >>> shown("a\\nb"), shown("\\udcff.dcm")
    ('a?b', '?.dcm')
    """
    return "".join(c if c.isprintable() else "?" for c in str(text))


def readable(path: Any) -> tuple[Path, str]:
    """An input that exists, and the suffix that selects its reader: "" for DICOM.

    Raises
    ------
    UhrctError
        If it is no path, or there is nothing at it that can be read (`InputRefused`).
    """
    path = arguments.path("path", path)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file or folder" if missing else f"cannot be read ({getattr(error, 'strerror', error)})"
        raise InputRefused(f"{shown(path)}: {reason}") from None
    suffix = known_suffix(path)
    return path, suffix if path.is_dir() == (suffix == ZARR) else ""


def located(path: Path, suffix: str, error: UhrctError, kept: tuple[type[UhrctError], ...]) -> UhrctError:
    """The error with `path` in front, as `InputRefused` unless it is of a class to keep.

    Readers name slices of a series; the name of a single file appears once.
    """
    text = shown(str(error))
    if path.is_file():
        text = text.removeprefix(shown(path.name)).lstrip(" :")
        if not suffix and looks_like_suffix(path) and path.suffix.lower() != ".zip":
            text += f" (suffix {shown(path.suffix)} is unknown; known are {KNOWN})"
    kind = next((k for k in kept if isinstance(error, k)), InputRefused)
    return kind(f"{shown(path)}: {text}")


def output_suffix(path: Path) -> str:
    """The known ending of an output, "" for a DICOM folder.

    Raises
    ------
    UhrctError
        If the suffix is unknown, or `path` is a folder where a file is needed, or the reverse.
    """
    suffix = known_suffix(path)
    if path.is_dir():
        if suffix:
            raise UhrctError(f"{path}: is a folder, cannot be replaced by a {suffix} file; choose another name")
        return ""
    if not suffix and looks_like_suffix(path):
        raise UhrctError(f"{path}: unknown suffix {path.suffix}; known are {KNOWN}")
    if not suffix and path.exists():
        raise UhrctError(f"{path}: is a file, cannot become a DICOM folder; choose another name or a suffix")
    return suffix


def is_dicom(suffix: str) -> bool:
    """Whether a suffix of `readable` or `output_suffix` stands for DICOM."""
    return suffix in ("", ".dcm")
