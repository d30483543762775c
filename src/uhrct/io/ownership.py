"""What shows that uhrct wrote a file. Only such files may be removed together with an output that is replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from uhrct.io.paths import known_suffix

#: In the file meta information of DICOM. Another program that stores the file again puts its own UID.
IMPLEMENTATION_UID = "2.25.190462523505196994510642967474379690954"
#: In the header of `.mhd`.
COMMENT = "written by uhrct"


def foreign_entry(folder: Path) -> Path | None:
    """The first entry of a DICOM folder that uhrct did not write; None if uhrct wrote all."""
    for entry in sorted(folder.iterdir()):
        if not re.fullmatch(r"\d{5,}\.dcm", entry.name) or entry.is_symlink() or not entry.is_file():
            return entry
        with entry.open("rb") as file:
            start = file.read(1024)
        if start[128:132] != b"DICM" or IMPLEMENTATION_UID.encode() not in start:
            return entry
    return None


def own_data_file(path: Path) -> str | None:
    """Name of the data file of an `.mhd` header that uhrct wrote at `path`; None if there is no such file.

    A data file of another program stays: other headers may refer to it.
    """
    if known_suffix(path) != ".mhd" or not path.is_file():
        return None
    with path.open("rb") as file:
        lines = file.read(4096).decode("ascii", "replace").splitlines()
    fields = dict(line.split(" = ", 1) for line in lines if " = " in line)
    name = fields.get("ElementDataFile", "")
    if fields.get("Comment") != COMMENT or not re.fullmatch(re.escape(_stem(path)) + r"(-[0-9a-f]{8})?\.raw", name):
        return None
    return name if (path.parent / name).is_file() else None


def data_file_names(path: Path) -> Iterator[str]:
    """Possible names for the data file of the `.mhd` header at `path`: a short one, then names with a random part."""
    yield f"{_stem(path)}.raw"
    while True:
        yield f"{_stem(path)}-{token_hex(4)}.raw"


def _stem(path: Path) -> str:
    """The name without suffix, in characters that every reader of MetaImage takes literally."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name[: -len(".mhd")])[:100]
    # ITK takes names that begin so for its key words
    return re.sub(r"(?i)^(list|local)", r"_\1", name)
