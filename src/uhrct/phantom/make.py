"""`uhrct phantom`: write a chest CT with its masks and its exact truth into a folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.progress import track
from uhrct.core.volume import Grid
from uhrct.io.outputs import check_files
from uhrct.io.ownership import own_data_file
from uhrct.io.paths import output_suffix
from uhrct.phantom.anatomy import Anatomy, Plane
from uhrct.phantom.families import Draw
from uhrct.phantom.scene import FIELD_MM, Imager, Scene, Slab, View, make_scene
from uhrct.phantom.tomography import BEAMS, KERNELS, scan
from uhrct.phantom.truth import MASKS, describe, write_truth
from uhrct.physics.kernel_names import parse_kernel
from uhrct.physics.kernels import SHARP, STANDARD, Kernel

IMAGING = ("model", "projections")
#: kernels of imaging "model" that have a name of their own
NAMED = {"standard": STANDARD, "sharp": SHARP}
SLAB = 16  # slices in memory at once
LOWEST_HU, HIGHEST_HU = -1024, 3071


def make_view(
    shape: tuple[int, ...] | None,
    spacing_mm: tuple[float, ...] | None,
    psf_fwhm_mm: float | None = None,
    centre_mm: tuple[float, ...] | None = None,
) -> View:
    """The grid of the image. Without shape and spacing it has 512 x 512 x 512 voxels; one of both gives the other.

    Raises
    ------
    UhrctError
        If a value is out of range, or the grid has too many voxels.

    Example
    -------
    >>> make_view(None, None).shape, make_view((64, 80, 80), None).spacing_mm
    ((512, 512, 512), (5.0, 5.0, 5.0))
    """
    if spacing_mm is not None and (len(spacing_mm) != 3 or not all(0.05 <= s <= 20 for s in spacing_mm)):
        raise UhrctError(f"`spacing_mm` {_text(spacing_mm)}: give three numbers Z,Y,X from 0.05 to 20 mm")
    if shape is not None and (len(shape) != 3 or not all(8 <= n <= 4096 and n == int(n) for n in shape)):
        raise UhrctError(f"`shape` {_text(shape)}: give three whole numbers Z,Y,X from 8 to 4096")
    if psf_fwhm_mm is not None and not 0 <= psf_fwhm_mm <= 20:
        raise UhrctError(f"`psf_fwhm_mm` {psf_fwhm_mm}: give a number from 0 to 20")
    if centre_mm is not None and (len(centre_mm) != 3 or not all(abs(c) <= 200 for c in centre_mm)):
        raise UhrctError(f"`centre_mm` {_text(centre_mm)}: give three numbers Z,Y,X from -200 to 200 mm")
    if shape is None:
        shape = (
            (512, 512, 512)
            if spacing_mm is None
            else tuple(max(8, round(f / s)) for f, s in zip(FIELD_MM, spacing_mm, strict=True))
        )
    if spacing_mm is None:
        spacing_mm = tuple(f / n for f, n in zip(FIELD_MM, shape, strict=True))
    nz, ny, nx = (int(n) for n in shape)
    if nz * ny * nx > 2**31:
        raise UhrctError(f"{nz} x {ny} x {nx} voxels: too many; give a smaller `shape` or a coarser `spacing_mm`")
    z, y, x = spacing_mm
    c = (0.0, 0.0, 0.0) if centre_mm is None else (centre_mm[0], centre_mm[1], centre_mm[2])
    return View((nz, ny, nx), (z, y, x), psf_fwhm_mm, c)


def phantom_folder(
    out: Path,
    *,
    seed: int = 0,
    family: str = "train",
    shape: tuple[int, ...] | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    centre_mm: tuple[float, ...] | None = None,
    dose: float | None = 1.0,
    imaging: str = "model",
    kernel: str = "standard",
    beam: str = "fan",
    psf_fwhm_mm: float | None = None,
    name: str = "ct.nii.gz",
    overwrite: bool = False,
    quiet: bool = False,
    density: float = 1.0,
) -> None:
    """Write the phantom of a seed into the folder `out`, which appears when it is complete.

    Parameters
    ----------
    out : a new or empty folder
    seed, family : which chest
    shape, spacing_mm, centre_mm : its grid (see `make_view`)
    dose : 1 is a usual chest scan; noise falls with its root; None or 0 gives no noise (imaging "model" only)
    imaging : model or projections
    kernel : standard or sharp; imaging "model" also takes what `uhrct.physics.kernel_names.parse_kernel` takes. It
        shapes the noise; the PSF blurs
    beam : of the projections: fan or parallel
    name : of the image file; its suffix gives the format
    overwrite : replace a folder that holds nothing but files with the names of this phantom
    density : share of the full number of vessel tips, for quick tests

    Raises
    ------
    UhrctError
        On wrong arguments, an output folder that is not empty, or without scipy.
    """
    view = make_view(shape, spacing_mm, psf_fwhm_mm, centre_mm)
    if dose is not None and not 0 <= dose <= 1e6:
        raise UhrctError(f"`dose` {dose}: give a number from 0 (no noise); 1 is a usual chest scan")
    if imaging not in IMAGING:
        raise UhrctError(f"`imaging` {imaging!r}: choose from {', '.join(IMAGING)}")
    if beam not in BEAMS:
        raise UhrctError(f"`beam` {beam!r}: choose from {', '.join(BEAMS)}")
    if imaging == "model" and beam != BEAMS[0]:
        raise UhrctError(f"`beam` {beam} belongs to a scanner: add `imaging=projections`")
    if imaging == "projections" and kernel not in KERNELS:
        raise UhrctError(f"`kernel` {kernel!r}: back-projection knows {', '.join(KERNELS)}")
    noise_kernel = NAMED[kernel] if kernel in NAMED else parse_kernel(kernel)
    if imaging == "projections":
        _check_projections(view, dose)
    if Path(name).name != name or name.lower().split(".")[0] in ("truth", *MASKS):
        raise UhrctError(f"`name` {name!r}: give a file name of its own, such as ct.nii.gz")
    out = Path(out)
    if out.is_file():
        raise UhrctError(f"{out}: is a file; choose a new folder")
    check_files([], [out], overwrite, lambda folder: _foreign_entry(folder, name))
    output_suffix(out / name)
    _check_in_view(Draw(family, seed), view)
    begin = time.monotonic()
    if not quiet:
        print(f"growing the chest of seed {seed} ({family})", file=sys.stderr, flush=True)
    scene = make_scene(family, seed, density=density)
    how: dict[str, Any] = {"kind": imaging, "dose": dose, "psf_fwhm_mm": view.psf_mm, "kernel": kernel}
    if imaging == "projections":
        how |= {"beam": beam}
    with atomic(out, overwrite=overwrite) as tmp:
        folder = tmp / out.name
        folder.mkdir()
        _image(scene, view, folder, name, how, noise_kernel, quiet)
    if not quiet:
        print(
            f"{out}: {'x'.join(map(str, view.shape))} voxels of {' x '.join(f'{s:.3f}' for s in view.spacing_mm)} mm "
            f"(z, y, x) in {time.monotonic() - begin:.1f} s",
            file=sys.stderr,
        )


def _foreign_entry(folder: Path, name: str) -> Path | None:
    """The first entry that is no file of a phantom with an image called `name`."""
    ours = {name, "truth.json", "truth.npz", *(f"{kind}.nii.gz" for kind in MASKS), own_data_file(folder / name)}
    return next((e for e in sorted(folder.iterdir()) if e.name not in ours or e.is_symlink() or not e.is_file()), None)


def _check_projections(view: View, dose: float | None) -> None:
    if not dose:
        raise UhrctError("`imaging=projections` counts photons: give a `dose` above 0")
    if abs(view.spacing_mm[1] / view.spacing_mm[2] - 1) > 1e-6:
        raise UhrctError("`imaging=projections` needs square pixels: give `spacing_mm` with Y equal to X")
    if any(n * s < f * 0.99 for n, s, f in list(zip(view.shape, view.spacing_mm, FIELD_MM, strict=True))[1:]):
        raise UhrctError(
            f"`imaging=projections` must see the whole body: give a `shape` and `spacing_mm` of "
            f"{FIELD_MM[1]:.0f} x {FIELD_MM[2]:.0f} mm in plane"
        )


def _check_in_view(draw: Draw, view: View) -> None:
    """Refuse a grid outside the body. 16 points along each axis are checked."""
    if all(abs(c) <= n * s / 2 for c, n, s in zip(view.centre_mm, view.shape, view.spacing_mm, strict=True)):
        return  # the middle of the chest is inside
    anatomy = Anatomy(draw)
    z, y, x = (np.linspace(line[0], line[-1], 16) for line in map(view.axis_mm, range(3)))
    plane = Plane(y[:, None], x[None])
    if not any((anatomy.radial("body", plane, at) < 0).any() for at in z):
        raise UhrctError("the grid holds nothing of the body; give a `centre_mm` nearer to 0,0,0 or a larger `shape`")


def _image(scene: Scene, view: View, folder: Path, name: str, how: dict[str, Any], kernel: Kernel, quiet: bool) -> None:
    grid = _grid(view)
    tree_masks = {kind: np.zeros(view.shape, bool) for kind in scene.trees}
    seed = scene.anatomy.draw.seed
    with ExitStack() as stack:
        image = stack.enter_context(io.open_writer(folder / name, grid, dtype=np.int16))
        masks = {
            kind: stack.enter_context(io.open_writer(folder / f"{kind}.nii.gz", grid, dtype=np.int16)) for kind in MASKS
        }
        starts = range(0, view.shape[0], SLAB)
        slabs = _slabs(scene, view, how, kernel, seed)
        for first, (slab, hu) in zip(starts, track(slabs, "phantom", quiet=quiet, total=len(starts)), strict=True):
            image.write(np.rint(np.clip(hu, LOWEST_HU, HIGHEST_HU)).astype(np.int16))
            last = first + len(hu)
            for kind, mask in slab.masks.items():
                tree_masks[kind][first:last] = mask
            lungs = np.where(slab.lobes == 0, 0, np.where(slab.lobes < 4, 1, 2))
            vessels = np.where(slab.masks["artery"], 1, np.where(slab.masks["vein"], 2, 0))
            labels = {
                "lungs": lungs,
                "lobes": slab.lobes,
                "vessels": vessels,
                "airways": slab.masks["airway"],
                "nodules": slab.nodules,
            }
            for kind, label in labels.items():
                masks[kind].write(label.astype(np.int16))
    write_truth(folder, scene, describe(scene, view, tree_masks, how))


def _slabs(
    scene: Scene, view: View, how: dict[str, Any], kernel: Kernel, seed: int
) -> Iterator[tuple[Slab, np.ndarray]]:
    """Slabs in order, computed in threads. Neither order nor noise depends on the number of threads."""
    imager = Imager(scene, view)

    def one(first: int) -> tuple[Slab, np.ndarray]:
        slab = imager.slab(first, min(first + SLAB, view.shape[0]))
        hu = slab.hu
        if how["kind"] == "projections":
            return slab, scan(hu, view.spacing_mm, how["dose"], seed, first, kernel=how["kernel"], beam=how["beam"])
        if how["dose"]:
            from uhrct.phantom.imaging import add_noise

            hu = add_noise(hu, view, how["dose"], seed, first, kernel)
        return slab, hu

    workers = max(1, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    starts = list(range(0, view.shape[0], SLAB))
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, first) for first in starts[:workers]]
        for k in range(len(starts)):
            yield waiting.pop(0).result()
            if k + workers < len(starts):
                waiting.append(pool.submit(one, starts[k + workers]))


def _grid(view: View) -> Grid:
    origin = [float(view.axis_mm(axis)[0]) for axis in (2, 1, 0)]  # (L, P, S), the axes of the chest
    return Grid(view.shape, view.spacing_mm, (origin[0], origin[1], origin[2]))


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{v:g}" for v in values)
