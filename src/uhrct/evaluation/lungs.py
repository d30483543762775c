"""Lung mask by thresholds and morphology: vessel metrics are computed inside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.hu import PADDING_HU
from uhrct.core.progress import track

SMOOTH_MM = 1.0  # noise of 100 HU must not perforate the mask
LUNG_BELOW_HU = -400.0  # midway between lung and soft tissue
TISSUE_FROM_HU = -300.0  # skin and chest wall; blankets and table foam lie below
GAS_BELOW_HU = -940.0  # trachea, bowel and the room; inflated lung stays above
AIRWAY_CM2 = 8.0  # a tracheal section has up to 5 cm²
AIRWAY_RADIUS_MM = 3.0  # thinner bronchi stay in the lung
CLOSE_MM = 6.0  # closes vessels and nodules at the pleura
HOLE_CM2 = 8.0  # a nodule of 3 cm is filled, the dome of the liver is not
SMALLEST_CM2 = 0.5
SMALLEST_SHARE = 0.02  # of the volume of the largest piece: smaller pieces are stool or gas


def lung_mask(hu: ArrayLike, spacing_mm: tuple[float, ...], *, quiet: bool = True) -> np.ndarray:
    """The lungs with their vessels, without trachea, main bronchi, bowel gas and the air of the room.

    In each slice the body is the largest piece of tissue. Air that reaches the edge of the slice, or padding, belongs
    to the room, except where it is as dense as lung and touches little of the edge, or where the slice shows no room
    (a detail of a chest). The rest below -400 HU is lung if it is no homogeneous gas. Small pieces of a volume are
    dropped. Holes up to 8 cm² and notches up to 12 mm (vessels, nodules) belong to the lung. Metrics compute the mask
    on the reference alone, so that all tests share it.

    Parameters
    ----------
    hu : array_like, (y, x) or (z, y, x), HU
        Padding (-1500 and below) and NaN count as air outside.
    spacing_mm : tuple of float
        (y, x) or (z, y, x).
    quiet : bool
        False shows progress.

    Returns
    -------
    ndarray of bool, shaped like `hu`
        All False where no lung was found.

    Raises
    ------
    UhrctError
        On another number of dimensions, or a spacing that does not fit.

    Notes
    -----
    Limits: a lung filled with fluid or tumour is not found. A pneumothorax counts as gas. Air cells of a skull count as
    lung: the mask is made for the chest.

    Example
    -------
    >>> y, x = np.mgrid[:100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 45, 40.0, -1000.0)
    >>> chest[np.hypot(y - 50, x - 35) < 12] = -850  # a lung
    >>> chest[np.hypot(y - 50, x - 65) < 6] = -1000  # a trachea
    >>> mask = lung_mask(chest, (2.0, 2.0))
    >>> bool(mask[50, 35]), bool(mask[50, 65]), bool(mask[0, 0])
    (True, False, False)
    """
    image = np.asarray(hu)
    if image.ndim not in (2, 3) or image.size == 0:
        raise UhrctError(f"lung mask of shape {image.shape}: need (y, x) or (z, y, x)")
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != image.ndim or not all(0 < s < float("inf") for s in spacing):
        raise UhrctError(f"spacing_mm is {spacing} for an image of {image.ndim} dimensions")
    slices, in_plane = image.reshape(-1, *image.shape[-2:]), (spacing[-2], spacing[-1])
    lungs = np.zeros(slices.shape, bool)
    never = np.zeros(slices.shape, bool)
    for k, one in enumerate(track(slices, "lungs", quiet=quiet, total=len(slices))):
        lungs[k], never[k] = _low_attenuation(one, in_plane)
    _drop_small_pieces(lungs, in_plane[0] * in_plane[1])
    for k in range(len(lungs)):
        lungs[k] = _closed_in(lungs[k], never[k], in_plane)
    return lungs.reshape(image.shape)


def _low_attenuation(hu: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(lung by its HU in one slice, voxels that cannot be lung: airways, room, padding)."""
    from scipy import ndimage  # evaluation extra

    smooth, padding = _smoothed(hu, spacing_mm)
    inside = _body(smooth, padding, spacing_mm)
    low = inside & (smooth < LUNG_BELOW_HU)
    airways = np.zeros_like(low)
    voxel_cm2 = spacing_mm[0] * spacing_mm[1] / 100
    cores, _ = ndimage.label(_open(low & (smooth < GAS_BELOW_HU), AIRWAY_RADIUS_MM, spacing_mm))
    for k in range(1, cores.max() + 1):
        core = cores == k
        wall = _dilate(core, 4.0, spacing_mm) & ~_dilate(core, 1.5, spacing_mm)
        if core.sum() * voxel_cm2 < AIRWAY_CM2 and np.mean(smooth[wall] > -700) > 0.5:  # dark lung has no wall
            airways |= _dilate(core, 2.5, spacing_mm)  # includes the partial volume of the wall
    pieces, _ = ndimage.label(low & ~airways)
    for k, where in enumerate(ndimage.find_objects(pieces), 1):
        piece = pieces[where] == k
        if piece.sum() * voxel_cm2 < SMALLEST_CM2 or _is_gas(piece, smooth[where], spacing_mm):
            low[where] &= ~piece
    return low & ~airways, airways | ~inside


def body_mask(hu: ArrayLike, spacing_mm: tuple[float, float], *, depth_mm: float = 0.0) -> np.ndarray:
    """The body in one slice, with lungs and all that it encloses, without room, table, clothes and padding.

    Parameters
    ----------
    hu : array_like, (y, x), HU
    spacing_mm : (y, x)
    depth_mm : float
        Leave out what lies less deep below the skin or beside padding. The edge of the image is no skin.

    Returns
    -------
    ndarray of bool, shaped like `hu`
        All False where no body was found.

    Example
    -------
    >>> y, x = np.mgrid[:100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 30, 40.0, -1000.0)
    >>> chest[90:92] = 100  # a table
    >>> mask = body_mask(chest, (1.0, 1.0), depth_mm=10)
    >>> bool(mask[50, 50]), bool(mask[50, 25]), bool(mask[91, 50])
    (True, False, False)
    """
    inside = _body(*_smoothed(np.asarray(hu), spacing_mm), spacing_mm)
    return _erode(inside, depth_mm, spacing_mm) if depth_mm > 0 else inside


def _smoothed(hu: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(slice without noise, where it is padding)."""
    from scipy import ndimage

    finite = np.where(np.isfinite(hu), hu, PADDING_HU).astype(np.float32)
    padding = finite <= PADDING_HU
    return ndimage.gaussian_filter(finite.clip(-1024, 200), [SMOOTH_MM / s for s in spacing_mm]), padding


def _body(smooth: np.ndarray, padding: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """The body with everything that it encloses: all but the air of the room and padding."""
    from scipy import ndimage

    tissue = _open(smooth >= TISSUE_FROM_HU, 2.0, spacing_mm)
    pieces, n = ndimage.label(tissue)
    if n == 0:
        return np.zeros_like(tissue)
    body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    body = _erode(_dilate(body, 2.0, spacing_mm), 2.0, spacing_mm)  # the wall between two ribs can be thin
    around, n = ndimage.label(~body & ~padding)  # the field of view can cut the chest wall
    edge = ndimage.binary_dilation(padding)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    at_edge = [k for k in np.unique(around[edge]) if k]
    room = {k: bool(np.median(smooth[around == k]) < GAS_BELOW_HU) for k in at_edge}
    whole = padding.any() or any(room.values())  # else this is a detail of a chest
    outside = np.zeros(n + 1, bool)
    for k in at_edge:
        outside[k] = room[k] or (whole and _contact(around == k, edge) > 0.4)  # table foam has 0.5, a cut lung 0.1
    return ~outside[around] & ~padding


def _contact(piece: np.ndarray, edge: np.ndarray) -> float:
    """Share of a piece's rim that lies at the end of the imaged region."""
    from scipy import ndimage

    rim = piece & ~ndimage.binary_erosion(piece)
    return float((rim & edge).sum() / rim.sum())


def _is_gas(piece: np.ndarray, smooth: np.ndarray, spacing_mm: tuple[float, float]) -> bool:
    """Whether a piece is air with nothing inside (trachea, bowel). Lungs of a phantom are air too, but with vessels."""
    from scipy import ndimage

    core = _erode(ndimage.binary_fill_holes(np.pad(piece, 1)), 2.0, spacing_mm)[1:-1, 1:-1]
    if not core.any():
        core = piece
    return bool(np.median(smooth[core]) < GAS_BELOW_HU and np.mean(smooth[core] > -700) < 0.005)


def _drop_small_pieces(lungs: np.ndarray, voxel_mm2: float) -> None:
    from scipy import ndimage

    pieces, n = ndimage.label(lungs)
    if n < 2:
        return
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    lungs &= (sizes >= SMALLEST_SHARE * sizes.max())[pieces]


def _closed_in(lungs: np.ndarray, never: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Close vessels and nodules in a lung and on its rim. Each lung is closed alone, so that two do not merge."""
    from scipy import ndimage

    closed = np.zeros_like(lungs)
    pieces, _ = ndimage.label(lungs)
    margin = [int(np.ceil(CLOSE_MM / s)) + 1 for s in spacing_mm]
    for k, where in enumerate(ndimage.find_objects(pieces), 1):
        around = tuple(
            slice(max(w.start - m, 0), min(w.stop + m, n)) for w, m, n in zip(where, margin, lungs.shape, strict=True)
        )
        piece = _erode(_dilate(pieces[around] == k, CLOSE_MM, spacing_mm), CLOSE_MM, spacing_mm)
        closed[around] |= piece
    closed &= ~never
    holes, _ = ndimage.label(ndimage.binary_fill_holes(closed) & ~closed)
    small = np.bincount(holes.ravel()) * spacing_mm[0] * spacing_mm[1] / 100 < HOLE_CM2
    small[0] = False
    return closed | small[holes]


def _dilate(mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    from scipy import ndimage

    if not mask.any():
        return mask.copy()
    return ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= radius_mm


def _open(mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    return _dilate(_erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def _erode(mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """The edge of the image does not erode, because the region beyond it is unknown."""
    from scipy import ndimage

    if mask.all():
        return mask.copy()
    return ndimage.distance_transform_edt(mask, sampling=spacing_mm) > radius_mm
