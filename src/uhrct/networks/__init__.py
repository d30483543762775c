"""Networks on the low-resolution grid."""

from uhrct.networks.dssp import DSSP, from_channels, to_channels
from uhrct.networks.estimator import ScanEstimator, pieces
from uhrct.networks.tiling import run_tiled

__all__ = ["DSSP", "ScanEstimator", "from_channels", "pieces", "run_tiled", "to_channels"]
