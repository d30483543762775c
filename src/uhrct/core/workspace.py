"""A private folder beside an output. Complete files move from it to their final names.

    .uhrct-a1b2c3d4.tmp/
        lock      name of the output; locked by the operating system as long as the process lives
        new/      the output that is being made
        parts/    complete data files of an output that has a header of its own (.mhd)
        old/      what the output replaces

A killed process leaves this folder behind. The next run that writes beside it finds that nobody holds the lock. It
undoes or finishes what had begun, and removes the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed runs stay
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".uhrct-", ".tmp"
LOCK, NEW, PARTS, OLD, TRASH = "lock", "new", "parts", "old", "trash"


class Workspace:
    """Context manager. Make `new / path.name`, then call `publish`. Without it, nothing changes beside the folder.

    Raises
    ------
    OSError
        If the file system refuses.

    Example
    -------
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with Workspace(target) as work:
    ...     _ = (work.new / "a.txt").write_text("complete")
    ...     work.publish()
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('complete', 1)
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._obsolete: list[Path] = []

    def __enter__(self) -> Workspace:
        remove_leftovers(self.path.parent)
        self.folder, self._lock = _locked_folder(self.path)
        try:
            for name in (NEW, PARTS, OLD):
                (self.folder / name).mkdir()
        except OSError:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def new(self) -> Path:
        """The folder for the output in progress."""
        return self.folder / NEW

    def place_part(self, made: Path) -> None:
        """Give a complete data file its final name, that of `made`. The header follows with `publish`.

        Raises
        ------
        FileExistsError
            If something has this name.
        """
        part = self.folder / PARTS / made.name
        os.rename(made, part)
        try:
            _move_without_replacing(part, self.path.parent / made.name, keep=True)
        except FileExistsError:
            os.rename(part, made)
            raise

    def remove_after_publishing(self, name: str) -> None:
        """Remove the file `name` beside the output as soon as the new output does not need it."""
        with contextlib.suppress(OSError):  # no hard links here: a kill may leave the file
            os.link(self.path.parent / name, self.folder / OLD / name)
        self._obsolete.append(self.path.parent / name)

    def publish(self, *, overwrite: bool = False) -> None:
        """Give the output its final name.

        Raises
        ------
        OSError
            If something has this name and `overwrite` is not set, or the file system refuses. An empty folder is
            always replaced by a folder.
        """
        made = self.new / self.path.name
        if made.is_dir():
            self._publish_folder(made, overwrite)
        elif overwrite:
            os.replace(made, self.path)
        else:
            _move_without_replacing(made, self.path)
        for file in self._obsolete:
            file.unlink(missing_ok=True)

    def _publish_folder(self, made: Path, overwrite: bool) -> None:
        try:
            os.rename(made, self.path)
        except OSError:
            if not overwrite or not self.path.is_dir() or self.path.is_symlink():
                raise
            # No system call replaces a full folder. If the process is killed between the two renames, the next run
            # brings the old folder back.
            os.rename(self.path, self.folder / OLD / self.path.name)
            os.rename(made, self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _settle(self.folder)
            _remove(self.folder)
        finally:
            os.close(self._lock)


def remove_leftovers(parent: Path) -> None:
    """Undo or finish what killed runs had begun in `parent`, and remove their folders.

    Folders of runs that are alive, of other users, and without a lock file stay.
    """
    for folder in _workspaces(parent):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            # killed before the lock file was made; a living process that is about to make it tries again
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        except OSError:
            continue
        try:
            if _lock(lock):
                _settle(folder)
                _remove(folder)
        except BlockingIOError:
            pass  # its run is alive
        finally:
            os.close(lock)


def _workspaces(parent: Path) -> Iterator[Path]:
    pattern = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}" + re.escape(SUFFIX))
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False) and _is_mine(entry):
                yield Path(entry.path)


def _is_mine(entry: os.DirEntry[str]) -> bool:
    return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder beside `path`, and the lock that shows that this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=PREFIX, suffix=SUFFIX))
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue  # another process took the empty folder for a leftover
        except OSError:
            folder.rmdir()
            raise
        try:
            _lock(lock)
            os.write(lock, os.fsencode(path.name))
            if os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
                return folder, lock
        except (BlockingIOError, FileNotFoundError):
            pass  # another process took the folder for a leftover before it was locked
        except OSError:
            _remove(folder)
            os.close(lock)
            raise
        os.close(lock)


def _lock(file: int) -> bool:
    """Lock an open file; False if the file system has no locks. Then nobody removes a leftover.

    Raises
    ------
    BlockingIOError
        If another process, or another workspace of this process, holds the lock.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _settle(folder: Path) -> None:
    """Bring the files beside `folder` into a complete state: before or after the publication of its output."""
    parent = folder.parent
    name = os.fsdecode((folder / LOCK).read_bytes())
    head = folder / NEW / name
    published = not os.path.lexists(head) or _same_file(head, parent / name)
    for part in _entries(folder / PARTS):
        if not published and _same_file(part, parent / part.name):
            (parent / part.name).unlink()
    for old in _entries(folder / OLD):
        beside = parent / old.name
        if old.is_dir():
            if not os.path.lexists(beside):
                os.rename(old, beside)
        elif published and _same_file(old, beside):
            beside.unlink()


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _remove(folder: Path) -> None:
    """Remove a workspace. The lock file goes last: without it, the rest would not be known as a leftover."""
    if (folder / OLD).exists():
        # a folder that is removed halfway must not be brought back
        os.rename(folder / OLD, folder / TRASH)
    for entry in _entries(folder):
        if entry.name != LOCK:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / LOCK).unlink()
        folder.rmdir()


def _move_without_replacing(made: Path, final: Path, *, keep: bool = False) -> None:
    """Rename a file, unless something has the new name. With `keep`, `made` stays as a second name of the file."""
    try:
        os.link(made, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        os.rename(made, final)
    else:
        if not keep:
            made.unlink()
