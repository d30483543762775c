"""Hounsfield units: what values mean, and the windows in which they are measured and shown."""

from __future__ import annotations

import numpy as np

#: HU at or below this are not attenuation but scanner padding outside the field of view (-2000 or -3024 in GE
#: series). Air itself is -1000, and noisy air rarely goes below -1200.
PADDING_HU = -1500.0

#: The lowest HU that networks, operators and metrics see. Padding counts as this value.
FLOOR_HU = -1024.0

#: Range of a 16-bit voxel.
INT16 = np.iinfo(np.int16)

#: Windows (low, high) in HU for metrics. "wide" is the headline.
METRIC_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "wide": (-1000, 600),  # the headline: from air to the onset of dense bone; the D1 data are clipped to it
    "lung": (-1350, 150),  # level -600, width 1500
    "mediastinum": (-160, 240),  # level 40, width 400
}

#: Windows (low, high) in HU for pictures. "paper" is the window of the figures of MICCAI 2023.
DISPLAY_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "paper": (-600.0, 400.0),
    "lung": (-1000.0, 200.0),
    "bone": (-500.0, 1500.0),
    "wide": (-1000.0, 600.0),
}
