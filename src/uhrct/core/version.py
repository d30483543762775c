"""The version of this package, defined here and nowhere else."""

__version__ = "0.3.0.dev0"
