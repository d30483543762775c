"""A chest as shapes in mm, and its slices at any resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.phantom.anatomy import Anatomy
from uhrct.phantom.families import Draw
from uhrct.phantom.nodules import CORE_HU, CORE_SHARE, HU, Nodule, place_nodules
from uhrct.phantom.raster import Lattice, draw_capsules
from uhrct.phantom.tissues import MUSCLE, Tissues, TissueSlices, mix
from uhrct.phantom.tree import Tree
from uhrct.phantom.trees import grow_trees
from uhrct.physics.resampling import FWHM_PER_SIGMA

LUMEN_HU, WALL_HU = -995.0, 15.0
#: Region of a scan of the whole chest: (z, y, x) in mm.
FIELD_MM = (320.0, 400.0, 400.0)

#: Great vessels (z, y, x, radius) in mm. They are drawn, but are no part of the trees, because their calibre varies.
GREAT = (
    ((-30, -22, -2, 13), (-5, -26, -12, 15), (20, -27, -17, 15), (45, -20, -13, 14), (56, -6, -3, 13)),
    ((56, -6, -3, 13), (56, 8, 10, 12.5), (50, 22, 19, 12), (35, 28, 21, 12), (-60, 30, 19, 11), (-170, 27, 8, 10)),
    ((-30, -14, -32, 10), (10, -16, -29, 9), (60, -20, -27, 8), (78, -24, -24, 7)),
    ((78, -24, -24, 7), (100, -26, -34, 6), (150, -22, -52, 6)),
    ((78, -24, -24, 7), (82, -36, 0, 5), (98, -30, 30, 6), (150, -22, 54, 6)),
    ((60, -8, -6, 6), (90, -12, -17, 5.5), (150, -14, -27, 4)),
    ((60, 2, 4, 4), (90, -6, 14, 3.8), (150, -8, 24, 3.5)),
    ((58, 12, 12, 5), (90, 8, 24, 4.5), (150, 6, 38, 4)),
    ((-20, 16, -20, 13), (-20, 17, 18, 13)),  # left atrium
    ((-30, -34, 16, 13), (-10, -33, 15, 13), (6, -24, 13, 12), (15, -12, 9, 10)),  # pulmonary trunk
    ((13, -9, 4, 10), (10, -5, -18, 9), (7, -4, -33, 7)),
    ((15, -12, 12, 10), (18, -4, 30, 8)),
)
GULLET = ((170, 26, 3, 6), (60, 24, 5, 7), (0, 30, 2, 7), (-90, 22, 8, 8), (-130, 5, 20, 9))


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything in the chest, in mm from its middle. `Imager` makes slices of it.

    Attributes
    ----------
    anatomy, tissues : surfaces, and the tissues inside
    trees : artery, vein, airway
    nodules : list
    """

    anatomy: Anatomy
    tissues: Tissues
    trees: dict[str, Tree]
    nodules: list[Nodule]


@dataclass(frozen=True, eq=False)
class Slab:
    """Slices of a scene: noiseless HU and masks, all (z, y, x).

    `lobes` holds keys of `LOBES`, `nodules` numbers of the list from 1, `masks` one boolean array per tree.
    """

    hu: np.ndarray
    lobes: np.ndarray
    nodules: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass(frozen=True)
class View:
    """A grid around the middle of the chest, and the blur of the image.

    Parameters
    ----------
    shape, spacing_mm : of the image, (z, y, x)
    psf_fwhm_mm : in-plane Gaussian point-spread function; None: 0.6 of the pixel, as in `Acquisition`
    centre_mm : middle of the grid
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    psf_fwhm_mm: float | None = None
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def axis_mm(self, axis: int) -> np.ndarray:
        """Voxel centres along an axis."""
        n, step = self.shape[axis], self.spacing_mm[axis]
        return (np.arange(n) - (n - 1) / 2) * step + self.centre_mm[axis]

    @property
    def parts(self) -> int:
        """Number of sub-slices of a slice: odd, and such that sub-voxels are about isotropic, as the ramps assume."""
        z, y, x = self.spacing_mm
        return max(1, 2 * int(z / (y * x) ** 0.5 / 2) + 1) if z > 1.3 * (y * x) ** 0.5 else 1

    @property
    def psf_mm(self) -> float:
        """FWHM of the PSF, mm."""
        return 0.6 * self.spacing_mm[1] if self.psf_fwhm_mm is None else self.psf_fwhm_mm


def make_scene(family: str, seed: int, *, density: float = 1.0) -> Scene:
    """The chest of a seed.

    Parameters
    ----------
    family : train or test (see `families`)
    seed : int from 0
    density : share of the full number of vessel tips, for quick tests

    Raises
    ------
    UhrctError
        On an unknown family or seed, or without scipy.

    Example
    -------
    >>> scene = make_scene("train", 1, density=0.02)
    >>> sorted(scene.trees)
    ['airway', 'artery', 'vein']
    """
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise UhrctError("phantoms need scipy; install uhrct[evaluation]") from None
    anatomy = Anatomy(Draw(family, seed))
    trees = grow_trees(anatomy, density=density)
    return Scene(anatomy, Tissues(anatomy), trees, place_nodules(anatomy, trees))


class Imager:
    """Slices of a scene on a view's grid, slab by slab, without noise.

    The voxel is a box and the PSF an in-plane Gaussian. The ramp at every surface has the variance of both. Sub-slices
    are averaged along z. A PSF that is wide compared with the pixel is applied as a blur.
    """

    def __init__(self, scene: Scene, view: View) -> None:
        self.scene, self.view = scene, view
        z, y, x = view.spacing_mm
        self.fine = replace(
            view, shape=(view.shape[0] * view.parts, *view.shape[1:]), spacing_mm=(z / view.parts, y, x)
        )
        blur = view.psf_mm / float(FWHM_PER_SIGMA)
        narrow = min(blur, 0.3 * y)
        blur_mm = float(np.sqrt(blur**2 - narrow**2))
        self.blur_px = (blur_mm / y, blur_mm / x)
        # A ramp of width w has the variance w^2 / 12, like the box of a voxel. The surfaces of the body are mostly
        # upright. Vessels have all directions, so they use the mean over the axes (without PSF along z).
        upright = (y * y + x * x) / 2 + 12 * narrow**2
        self.width = float(np.sqrt((2 * upright + (z / view.parts) ** 2) / 3))
        self.half_diagonal = float(np.linalg.norm(view.spacing_mm)) / 2
        self.tissues = TissueSlices(scene.tissues, self.fine.axis_mm(1), self.fine.axis_mm(2), self.fine.spacing_mm)
        self.tissues.width = float(np.sqrt(upright))
        sx, sy = scene.anatomy.size
        self.great = _polylines(GREAT, sy, sx)
        self.gullet = _polylines((GULLET,), sy, sx)

    def slab(self, first: int, last: int) -> Slab:
        """Slices `first` to `last` (not included)."""
        k = self.view.parts
        z = self.fine.axis_mm(0)[first * k : last * k]
        shape = (len(z), *self.view.shape[1:])
        hu = np.empty(shape, np.float32)
        lobes = np.empty((last - first, *shape[1:]), np.uint8)
        lung = np.empty(shape, np.float32)
        for i, at in enumerate(z):
            hu[i], lung[i], lobe = self.tissues.slice(float(at))
            if i % k == k // 2:
                lobes[i // k] = lobe
        lattice = Lattice(
            shape,
            self.fine.spacing_mm,
            (float(z[0]), float(self.fine.axis_mm(1)[0]), float(self.fine.axis_mm(2)[0])),
        )
        nodules = self._nodules(hu, lung, lattice)[k // 2 :: k]
        masks = self._trees(hu, lattice, k)
        return Slab(self._measured(hu), lobes, nodules, masks)

    def _nodules(self, hu: np.ndarray, lung: np.ndarray, lattice: Lattice) -> np.ndarray:
        labels = np.zeros(lattice.shape, np.uint8)
        for number, nodule in enumerate(self.scene.nodules, 1):
            reach = nodule.diameter_mm * 0.7 + self.width
            box, axes = [], []
            for axis in range(3):
                line = lattice.first_mm[axis] + np.arange(lattice.shape[axis]) * lattice.spacing_mm[axis]
                some = np.flatnonzero(np.abs(line - nodule.centre_mm[axis]) < reach)
                if not len(some):
                    break
                box.append(slice(some[0], some[-1] + 1))
                axes.append(line[some])
            if len(box) < 3:
                continue
            where = tuple(box)
            z, y, x = np.ix_(*axes)
            d = np.maximum(nodule.distance(z, y, x), lung[where]).astype(np.float32)  # a nodule ends at the pleura
            texture = np.float32(HU[nodule.kind])
            # Ground glass fades out; solid nodules have a sharp edge.
            edge = self.width if nodule.kind == "solid" else self.width + 1.2
            share = np.clip(0.5 - d / edge, 0, 1)
            view = hu[where]
            view += share * np.maximum(texture - view, 0)
            if nodule.kind == "part-solid":
                core = replace(nodule, diameter_mm=nodule.diameter_mm * CORE_SHARE).distance(z, y, x)
                core = np.clip(0.5 - np.maximum(core, lung[where]) / self.width, 0, 1).astype(np.float32)
                view += core * np.maximum(CORE_HU - view, 0)
            labels[where][d <= 0] = number
        return labels

    def _trees(self, hu: np.ndarray, lattice: Lattice, k: int) -> dict[str, np.ndarray]:
        blood = self.scene.tissues.blood
        masks = {}
        share, _ = draw_capsules(*self.gullet, lattice, width_mm=self.width)
        _mix_slab(hu, share, MUSCLE - 12)
        share, _ = draw_capsules(*self.great, lattice, width_mm=self.width)
        _mix_slab(hu, share, blood)
        for kind in ("artery", "vein", "airway"):
            tree = self.scene.trees[kind]
            start, end = tree.position_mm[tree.parent[1:]], tree.position_mm[1:]
            share, mask = draw_capsules(
                start, end, tree.radius_mm[1:], lattice, width_mm=self.width, within_mm=self.half_diagonal
            )
            value: float | np.ndarray = blood
            if kind == "airway":
                # Mix once: air replaces the wall alone, never the lung around it.
                lumen = share
                share, _ = draw_capsules(start, end, tree.outer_mm[1:], lattice, width_mm=self.width)
                value = WALL_HU + (LUMEN_HU - WALL_HU) * np.minimum(lumen / np.maximum(share, 1e-6), 1)
            _mix_slab(hu, share, value)
            assert mask is not None
            masks[kind] = mask[k // 2 :: k]
        return masks

    def _measured(self, hu: np.ndarray) -> np.ndarray:
        """Average the sub-slices, and apply the part of the PSF that the ramps do not contain."""
        import torch

        from uhrct.physics.acquisition import Acquisition
        from uhrct.physics.resampling import apply_in_plane, as_tensor, gaussian_matrix

        image = torch.from_numpy(hu)
        if self.view.parts > 1:
            image = Acquisition((self.view.parts, 1, 1)).forward(image)
        if max(self.blur_px) > 0.1:
            sides = zip(hu.shape[1:], self.blur_px, strict=True)
            rows, columns = (as_tensor(gaussian_matrix(n, round(px, 4)), image) for n, px in sides)
            image = apply_in_plane(image, rows, columns)
        return image.numpy()


def _polylines(
    lines: tuple[tuple[tuple[float, ...], ...], ...], sy: float, sx: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start, end, radius = [], [], []
    for line in lines:
        corners = np.array(line, float) * (1, sy, sx, 1)
        n = 6  # pieces per section, for smooth changes of calibre
        t = np.linspace(0, 1, n + 1)[:, None]
        for a, b in zip(corners[:-1], corners[1:], strict=True):
            p = a + (b - a) * t
            start.append(p[:-1, :3])
            end.append(p[1:, :3])
            radius.append((p[:-1, 3] + p[1:, 3]) / 2)
    return np.concatenate(start), np.concatenate(end), np.concatenate(radius)


def _mix_slab(hu: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    for k, (image, part) in enumerate(zip(hu, share, strict=True)):
        mix(image, part, value[k] if isinstance(value, np.ndarray) else value)
