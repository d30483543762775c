"""The version of this package, defined here and nowhere else."""

__version__ = "0.2.0"
