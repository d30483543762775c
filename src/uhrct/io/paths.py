"""Format of a path, and whether an output may be written there."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from uhrct.core.errors import UhrctError

#: Known endings. The longest match wins, so `.nii.gz` stands before `.nii`.
FORMATS = {
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".npz": "NPZ",
    ".dcm": "DICOM",
}
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


def check_outputs(input_path: Path | None, outputs: list[Path]) -> None:
    """See `uhrct.io.check_outputs`."""
    for path in outputs:
        suffix = output_suffix(path)
        if input_path is not None:
            _check_apart(path, input_path)
        if suffix == "" and path.is_dir() and any(path.iterdir()):
            # a reader could not tell two series in one folder apart
            raise UhrctError(f"{path}: folder is not empty; choose another or an empty one for a DICOM series")
        check_parent(path)
    if len({p.resolve() for p in outputs}) < len(outputs):
        raise UhrctError(f"{outputs[0]}: two outputs have the same name; give each its own")
    for path in outputs:
        if any(other.resolve() in path.resolve().parents for other in outputs):
            raise UhrctError(f"{path}: lies inside another output of this run; put it beside")


def _check_apart(path: Path, input_path: Path) -> None:
    out, source = path.resolve(), input_path.resolve()
    if out == source or (out.exists() and source.exists() and out.samefile(source)):
        raise UhrctError(f"{path}: output equals input; choose another output")
    if source in out.parents:
        raise UhrctError(f"{path}: output lies inside the input {input_path}; choose another output")
    if out in source.parents:
        raise UhrctError(f"{path}: output folder contains the input {input_path}; choose another output")


def check_parent(path: Path) -> None:
    """Raise `UhrctError` if nothing can be created next to `path`.

    Only creating something is a reliable test: permission bits do not show a read-only file system.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UhrctError(f"{path}: folder {parent} does not exist; create it first")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".uhrct-", suffix=".tmp"):
            pass
    except OSError as error:
        raise UhrctError(f"{path}: cannot write into {parent} ({error.strerror}); choose another place") from None
