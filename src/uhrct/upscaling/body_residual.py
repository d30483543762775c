"""How far a result is from the scan inside the body, for a comparison with the noise of the body."""

from __future__ import annotations

import numpy as np
import torch

from uhrct.core.hu import FLOOR_HU
from uhrct.core.volume import Volume
from uhrct.physics.field_of_view import outside_view
from uhrct.upscaling.plan import Plan
from uhrct.upscaling.scan_facts import BODY_HU
from uhrct.upscaling.slabs import Slab, repeated

#: share of padding in what A makes a voxel of
MIXED = 1e-4


class BodyResidual:
    """Mean absolute A y - x over the voxels of the body: y is the result, x the scan, A the scanner model.

    The mean over all voxels counts air, where scan and result agree because both are clipped. Where nothing can be
    measured (slices overlap, the PSF is unknown, the result was resampled) the mean is None.

    Parameters
    ----------
    plan : Plan;  volume : the scan
    """

    def __init__(self, plan: Plan, volume: Volume) -> None:
        self._plan, self._volume = plan, volume
        self._possible = plan.acquisition.slice_by_slice and plan.scan.psf_known and not plan.resampled
        self._sum_hu, self._voxels = 0.0, 0

    def feed(self, slab: Slab) -> None:
        """Count the slices of a slab of the result."""
        if not self._possible:
            return
        sz = self._plan.model.config.scale[0]
        first = slab.first // sz
        measured = self._volume.hu[first : first + len(slab.hu) // sz].astype(np.float32)
        fine = torch.from_numpy(slab.hu.astype(np.float32)).clamp(min=FLOOR_HU).unflatten(0, (-1, sz))
        acquisition = self._plan.acquisition
        again = acquisition.forward(fine)[:, 0].numpy()
        # where A mixes the body with padding outside the field of view, the difference says nothing
        padding = repeated(outside_view(torch.from_numpy(measured))[:, None], self._plan.model)
        mixed = acquisition.forward(padding.float())[:, 0].numpy() > MIXED
        body = (measured > BODY_HU) & ~mixed
        self._sum_hu += float(np.abs(again - measured)[body].sum(dtype=np.float64))
        self._voxels += int(body.sum())

    @property
    def mean_hu(self) -> float | None:
        """The mean, or None if nothing was measured."""
        return self._sum_hu / self._voxels if self._voxels else None
