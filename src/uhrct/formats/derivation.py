"""How an output came about: what a derived DICOM series says of itself."""

from __future__ import annotations

from dataclasses import dataclass

Code = tuple[str, str, str]
"""(value, scheme, meaning) of a DICOM coded concept."""

SPATIAL_RESAMPLING: Code = ("113085", "DCM", "Spatial resampling")


@dataclass(frozen=True)
class Derivation:
    """What was done to the source.

    Parameters
    ----------
    description : str
        For DerivationDescription: method, version, weights hash, scale, seed, steps (at most 1024 letters).
    key : str
        Everything that decides the voxels besides the source (weights hash, configuration, seed). Source and
        key make the new UIDs, so a re-run gives the same series and another configuration gives another one.
    suffix : str
        Appended to SeriesDescription.
    codes : tuple of (value, scheme, meaning)
        For DerivationCodeSequence.
    series_number_offset : int
        Added to the source's SeriesNumber.

    Example
    -------
    >>> Derivation("uhrct 0.1, x2 in plane, seed 0", key="4f2a:x2:seed0").suffix
    'SR'
    """

    description: str
    key: str
    suffix: str = "SR"
    codes: tuple[Code, ...] = (SPATIAL_RESAMPLING,)
    series_number_offset: int = 1000
