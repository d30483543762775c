"""Vessels or airways of a whole scan by a mask network, restricted to places where they can be."""

from __future__ import annotations

import numpy as np

from uhrct.core.errors import InputRefused
from uhrct.core.upright import Upright
from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import lungs_of
from uhrct.tasks.boxes import box_of
from uhrct.tasks.mask_network import MaskNetwork
from uhrct.tasks.vessels import without_rim

#: a voxel is marked where its probability is at least this
MARKED_FROM = 0.5
#: airways are looked for this far outside the box around the lungs, and in all slices, since the trachea starts above
MARGIN_MM = 20.0


def learned_mask(volume: Volume, network: MaskNetwork, *, quiet: bool = True) -> np.ndarray:
    """Voxels that the network marks: vessels inside the lungs without their rim, or the largest connected tree of air.

    Parameters
    ----------
    volume : Volume
    network : MaskNetwork
    quiet : bool
        False shows progress.

    Returns
    -------
    bool array (z, y, x)

    Raises
    ------
    InputRefused
        If there are no lungs.

    Example
    -------
    >>> from uhrct.tasks.mask_network import MaskNetworkConfig
    >>> y, x = np.mgrid[:64, :64]
    >>> chest = np.where(np.hypot(y - 32, x - 32) < 30, 40, -1000)
    >>> chest[(np.hypot(y - 32, x - 18) < 9) | (np.hypot(y - 32, x - 46) < 9)] = -850
    >>> network = MaskNetwork(MaskNetworkConfig(task="vessels", width=1)).eval()
    >>> mask = learned_mask(Volume(chest[None].repeat(8, 0).astype(np.int16), (2.0, 3.0, 3.0)), network)
    >>> mask.shape, bool(mask[:, chest > 0].any())
    ((8, 64, 64), False)
    """
    lungs = lungs_of(volume.hu, volume.spacing_mm, volume.direction, quiet=quiet)
    if not lungs.any():
        raise InputRefused(f"no lungs found; {network.config.task} need a CT of the chest")
    axes = Upright.of(volume.direction).axes  # the networks know axial slices
    hu, lungs = volume.hu.transpose(axes), lungs.transpose(axes)
    z_mm, y_mm, x_mm = (volume.spacing_mm[axis] for axis in axes)
    _, rows, columns = box_of(lungs, (0, round(MARGIN_MM / y_mm), round(MARGIN_MM / x_mm)))
    box = (slice(0, len(lungs)), rows, columns)
    marked = network.probability(np.ascontiguousarray(hu[box]), quiet=quiet) >= MARKED_FROM
    mask = np.zeros(hu.shape, bool)
    if network.config.task == "vessels":
        mask[box] = marked & without_rim(lungs[box], (z_mm, y_mm, x_mm))
    else:
        mask[box] = largest_piece(marked)
    return mask.transpose(np.argsort(axes))


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest 26-connected piece of a mask (z, y, x).

    Example
    -------
    >>> largest_piece(np.array([[[1, 0, 1, 1]]], bool)).astype(int).tolist()
    [[[0, 0, 1, 1]]]
    """
    from scipy import ndimage  # evaluation extra

    pieces, n = ndimage.label(mask, np.ones((3, 3, 3)))
    if n < 2:
        return mask
    size = np.bincount(pieces.ravel())
    size[0] = 0
    return np.asarray(pieces == size.argmax())
