"""Write a volume slab by slab. Memory does not grow, and a killed run leaves no half file."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.files import reason
from uhrct.core.volume import Grid
from uhrct.core.workspace import Workspace
from uhrct.io.ownership import foreign_entry


class SlabWriter(ABC):
    """Context manager that takes slabs (k, y, x) in ascending z. `uhrct.io.open_writer` makes it.

    Everything is written into a private temporary folder beside the target and renamed at the end, when all slices are
    there. Subclasses turn slabs into bytes.
    """

    def __init__(self, path: Path, grid: Grid, dtype: np.dtype, overwrite: bool) -> None:
        if dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise UhrctError(f"{path}: HU are written as int16 or float32, not {dtype}")
        self.path = path
        self.grid = grid
        self.dtype = dtype
        self.overwrite = overwrite
        self.stored_dtype = dtype.newbyteorder("<")
        self.written = 0
        self._stack = contextlib.ExitStack()
        self._work = Workspace(path)

    @property
    def tmp(self) -> Path:
        """The temporary folder, in which the output is made under its final name."""
        return self._work.new

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of a DICOM output, else ""."""
        return ""

    @property
    def instance_uids(self) -> tuple[str, ...]:
        """SOPInstanceUIDs of the files of a DICOM output, in their order."""
        return ()

    @abstractmethod
    def _start(self) -> None:
        """Open files below `self.tmp`. Things to close go onto `self._stack`."""

    @abstractmethod
    def _append(self, slab: np.ndarray) -> None:
        """Store a C-contiguous little-endian slab; `self.written` is the index of its first slice."""

    def _publish(self) -> None:
        """Give the complete output its final name. All things on `self._stack` are closed."""
        if self.overwrite and self.path.is_dir() and foreign_entry(self.path):
            raise UhrctError(f"{self.path}: cannot be written (another program has put files into it meanwhile)")
        self._work.publish(overwrite=self.overwrite)

    def __enter__(self) -> SlabWriter:
        with self._readable_errors():
            self._work.__enter__()
        try:
            with self._readable_errors():
                self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, slab: np.ndarray) -> None:
        """Append `slab`, shape (k, y, x), of the dtype the writer was opened with.

        Raises
        ------
        UhrctError
            If it does not fit the grid, holds NaN or infinite values, or the disk refuses.
        """
        nz, ny, nx = self.grid.shape
        if slab.ndim != 3 or slab.shape[1:] != (ny, nx) or slab.dtype != self.dtype:
            got = f"{slab.dtype} slab of shape {slab.shape}"
            raise UhrctError(f"{self.path}: {got} does not fit {self.dtype} slices of shape {(ny, nx)}")
        if self.written + len(slab) > nz:
            raise UhrctError(f"{self.path}: more slices written than the {nz} of the grid")
        if slab.dtype.kind == "f" and not np.isfinite(slab).all():
            raise UhrctError(f"{self.path}: result holds NaN or infinite voxels near slice {self.written}")
        with self._readable_errors():
            self._append(np.ascontiguousarray(slab, dtype=self.stored_dtype))
        self.written += len(slab)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._readable_errors(), contextlib.ExitStack() as last:
            last.push(self._work)
            if kind is not None:
                # report the first error; closing a half-written zip may fail too
                with contextlib.suppress(OSError, ValueError):
                    self._stack.__exit__(kind, error, traceback)
                return
            self._stack.close()
            if self.written != self.grid.shape[0]:
                raise UhrctError(f"{self.path}: {self.written} of {self.grid.shape[0]} slices written")
            self._publish()

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UhrctError(f"{self.path}: cannot be written ({reason(error)})") from error
        except UhrctError as error:  # encoders do not know the file
            named = str(error).startswith(str(self.path))
            raise error if named else UhrctError(f"{self.path}: {error}") from None
