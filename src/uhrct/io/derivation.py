"""What a derived DICOM series says about its origin, and how it is stored."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from uhrct.core.errors import UhrctError

Code = tuple[str, str, str]
"""(value, scheme, meaning) of a DICOM coded concept."""

SPATIAL_RESAMPLING: Code = ("113085", "DCM", "Spatial resampling")

#: Names of transfer syntaxes that can be written, all of them lossless.
TRANSFER_SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "htj2k": "1.2.840.10008.1.2.4.201",
}


@dataclass(frozen=True)
class Derivation:
    """What was done to the source.

    Parameters
    ----------
    description : str
        For DerivationDescription: method, version, weights hash, scale, seed, steps (at most 1024 characters).
    key : str
        Everything besides the source that determines the voxels (weights hash, configuration, seed). The new UIDs are
        a function of source and key. So a second run gives the same series, and another configuration another one.
    suffix : str
        What the result is, such as ``x2`` or ``degraded 5x1x1``. SeriesDescription holds it after the word RESEARCH.
    codes : tuple of (value, scheme, meaning)
        For DerivationCodeSequence.
    series_number_offset : int
        Added to the source's SeriesNumber.
    reach_mm : float
        How far beyond its own faces an output slice draws on the source. SourceImageSequence names all source slices
        that lie there. A network that sees one neighbour on each side has a reach of one slice distance.

    Example
    -------
    >>> Derivation("uhrct 0.1, x2 in plane, seed 0", key="4f2a:x2:seed0", suffix="x2").series_number_offset
    1000
    """

    description: str
    key: str
    suffix: str = ""
    codes: tuple[Code, ...] = (SPATIAL_RESAMPLING,)
    series_number_offset: int = 1000
    reach_mm: float = 0.0


KEY_LENGTH = 16


@dataclass(frozen=True)
class DicomOptions:
    """How a DICOM output is stored, and what it keeps of its source.

    Parameters
    ----------
    transfer_syntax : str
        ``explicit`` (uncompressed little endian), ``jpegls`` or ``htj2k``; all three are lossless.
    keep_private : bool
        Keep the private elements of the source. They may hold anything, even names.
    anonymize : bool
        Apply the basic profile of PS3.15 annex E to everything taken from the source.
    anonymize_key : str, optional
        Secret text of at least 16 characters. The same text always gives the same new UIDs and pseudonyms. Default:
        a random secret of this object. So outputs that are written with one object stay in one study.

    Raises
    ------
    UhrctError
        If the transfer syntax is unknown, private elements should be kept in an anonymous series, or the key is short
        or without use.

    Example
    -------
    >>> DicomOptions("jpegls").uid
    '1.2.840.10008.1.2.4.80'
    """

    transfer_syntax: str = "explicit"
    keep_private: bool = False
    anonymize: bool = False
    anonymize_key: str | None = field(default=None, repr=False)
    secret: bytes = field(init=False, repr=False, compare=False, default_factory=lambda: secrets.token_bytes(32))

    def __post_init__(self) -> None:
        if self.transfer_syntax not in TRANSFER_SYNTAXES:
            known = ", ".join(TRANSFER_SYNTAXES)
            raise UhrctError(f"transfer syntax {self.transfer_syntax!r} cannot be written; choose one of {known}")
        if self.keep_private and self.anonymize:
            raise UhrctError("private elements may hold the patient's name; choose `keep_private` or `anonymize`")
        if self.anonymize_key is not None:
            if not self.anonymize:
                raise UhrctError("`anonymize_key` is for anonymous outputs: add `anonymize=True`")
            if len(self.anonymize_key) < KEY_LENGTH:
                raise UhrctError(f"`anonymize_key` is short enough to be guessed: give {KEY_LENGTH} characters or more")
            object.__setattr__(self, "secret", self.anonymize_key.encode("utf-8", "surrogateescape"))

    @property
    def uid(self) -> str:
        """UID of the transfer syntax."""
        return TRANSFER_SYNTAXES[self.transfer_syntax]
