"""Networks on the low-resolution grid."""

from uhrct.networks.dssp import DSSP, from_channels, to_channels

__all__ = ["DSSP", "from_channels", "to_channels"]
