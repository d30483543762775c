"""Check all files of an output before the work starts: the place, the name, and what would be replaced."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from uhrct.core.errors import UhrctError
from uhrct.core.files import reason
from uhrct.core.workspace import Workspace
from uhrct.io.ownership import foreign_entry, own_data_file
from uhrct.io.paths import known_suffix, output_suffix, shown

Identity = tuple[int, int]
"""(device, inode) of a file or folder: equal for all of its names."""
Foreign = Callable[[Path], Path | None]


def check_volumes(inputs: Sequence[Path], outputs: Sequence[Path], files: Sequence[Path], overwrite: bool) -> None:
    """See `uhrct.io.check_outputs`. The suffix of each of the `outputs` selects a format."""
    for path in outputs:
        _check_name(path)
        output_suffix(path)
    for path in files:
        _check_name(path)
        if path.is_dir():
            raise UhrctError(f"{shown(path)}: is a folder; give the name of a file")
    check_files(inputs, [*outputs, *files], overwrite)


def check_files(
    inputs: Sequence[Path], outputs: Sequence[Path], overwrite: bool, foreign: Foreign = foreign_entry
) -> None:
    """As `check_volumes`, for outputs of any format.

    Parameters
    ----------
    foreign : function
        Finds the first entry of an output folder that must not be replaced; None if the folder has no such entry.

    Raises
    ------
    UhrctError
        If an output cannot be written, or writing it would touch a part of an input or something that must stay.
    """
    for path in outputs:
        _check_name(path)
        for source in inputs:
            _check_apart(path, source)
    _check_parts(inputs, outputs)
    for path in outputs:
        _check_existing(path, overwrite, foreign)
    _check_names(outputs)


def _check_name(path: Path) -> None:
    """Refuse names that the operating system does not take, before anything else looks at the path."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError | ValueError) -> UhrctError:
    why = reason(error) if isinstance(error, OSError) else error
    return UhrctError(f"{shown(path)}: this name cannot be used here ({why}); choose another")


def _check_apart(path: Path, source: Path) -> None:
    out, given = path.resolve(), source.resolve()
    if out == given or _identity(path) in {_identity(source)} - {None}:
        raise UhrctError(f"{shown(path)}: output equals input; choose another output")
    if given in out.parents:
        raise UhrctError(f"{shown(path)}: output lies inside the input {shown(source)}; choose another output")
    if out in given.parents:
        raise UhrctError(f"{shown(path)}: output folder contains the input {shown(source)}; choose another output")


def _check_parts(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse outputs that are parts of an input by another name: by links, or as the data file of a header."""
    files, folders = _parts_of(inputs)
    for path in outputs:
        touched = [path, *(path.iterdir() if path.is_dir() else ())]
        data = own_data_file(path)
        if data is not None:
            touched.append(path.parent / data)
        for file in touched:
            if _identity(file) in files | folders:
                raise UhrctError(f"{shown(path)}: {shown(file.name)} is a part of the input; choose another output")
        if any(_identity(parent) in folders for parent in path.absolute().parents):
            raise UhrctError(f"{shown(path)}: lies in a folder that the input links to; choose another output")


def _parts_of(inputs: Iterable[Path]) -> tuple[set[Identity], set[Identity]]:
    """All files and folders that may be read from the inputs."""
    files: set[Identity] = set()
    folders: set[Identity] = set()
    for source in inputs:
        inside = source.parent if source.name.upper() == "DICOMDIR" else source
        if inside.is_dir():
            found_files, found_folders = _tree(inside)
            files |= found_files
            folders |= found_folders if inside == source else set()
        else:
            files |= {i for file in (source, *_data_files(source)) if (i := _identity(file))}
    return files, folders


def _tree(top: Path) -> tuple[set[Identity], set[Identity]]:
    """Files and folders in a folder tree. Links are followed, each folder once."""
    files: set[Identity] = set()
    folders: set[Identity] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        here = _identity(folder)
        if here is None or here in folders:
            continue
        folders.add(here)
        with contextlib.suppress(OSError):
            for entry in folder.iterdir():
                if entry.is_dir():
                    waiting.append(entry)
                elif found := _identity(entry):
                    files.add(found)
    return files, folders


def _data_files(header: Path) -> list[Path]:
    """The file that holds the voxels of an `.mhd` header, whoever wrote it."""
    if known_suffix(header) != ".mhd":
        return []
    try:
        with header.open("rb") as file:
            start = file.read(1 << 20)
    except OSError:  # the reader reports it
        return []
    return [header.parent / os.fsdecode(name.strip()) for name in re.findall(rb"(?m)^ElementDataFile *=(.*)$", start)]


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_existing(path: Path, overwrite: bool, foreign: Foreign) -> None:
    """Refuse to replace what is not a plain file or a series of this program, or anything without `overwrite`."""
    name = shown(path)
    if path.is_symlink():
        raise UhrctError(f"{name}: is a symbolic link; give the path that it leads to, or another name")
    if path.is_dir():
        _check_folder(path, overwrite, foreign)
    elif path.exists():
        if not path.is_file():
            raise UhrctError(f"{name}: is no regular file, and cannot be replaced; choose another name")
        if not overwrite:
            raise UhrctError(f"{name}: exists; choose another name, or add `overwrite=True`")


def _check_folder(path: Path, overwrite: bool, foreign: Foreign) -> None:
    name = shown(path)
    here = Path.cwd()
    if path.resolve() in (here, *here.parents) or os.path.ismount(path):
        raise UhrctError(f"{name}: is in use as current folder or mount point; give the name of a folder inside")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise UhrctError(
            f"{name}: folder is not empty; choose another, or add `overwrite=True` to replace what uhrct wrote"
        )
    stays = foreign(path)
    if stays is not None:
        raise UhrctError(f"{name}: folder holds {shown(stays.name)}, which must stay; choose another folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise UhrctError(f"{name}: folder may not be changed; change its permissions or choose another")


def _check_names(outputs: Sequence[Path]) -> None:
    """Try all names in a temporary folder beside the outputs.

    Only creating something is a reliable test: permission bits do not show a read-only file system, and file systems
    differ in the names that they can hold and distinguish.
    """
    if len({p.resolve() for p in outputs}) < len(outputs):
        raise UhrctError(f"{shown(outputs[0])}: two outputs have the same name; give each its own")
    for path in outputs:
        if any(other.resolve() in path.resolve().parents for other in outputs):
            raise UhrctError(f"{shown(path)}: lies inside another output of this run; put it beside")
    with contextlib.ExitStack() as stack:
        probes: dict[Path, Path] = {}
        for path in outputs:
            parent = path.absolute().parent
            if not parent.is_dir():
                raise UhrctError(f"{shown(path)}: folder {shown(parent)} does not exist; create it first")
            try:
                if parent not in probes:
                    probes[parent] = stack.enter_context(Workspace(path)).new
            except OSError as error:
                where = shown(parent)
                raise UhrctError(
                    f"{shown(path)}: cannot write into {where} ({error.strerror}); choose another place"
                ) from None
            _try_name(probes[parent], path)


def _try_name(folder: Path, path: Path) -> None:
    try:
        (folder / path.name).open("x").close()
    except FileExistsError:  # on this file system the names differ in nothing, for example only in upper and lower case
        raise UhrctError(f"{shown(path)}: two outputs have the same name; give each its own") from None
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
