"""The kernel that a DICOM header names, as an approximate MTF curve.

Each number has a source, by letter:

    O  Ohkubo et al. 2009, doi 10.1118/1.3123762: measured MTF curves of Philips D, Siemens B40 and B70, as tabulated
       in the open code CortidQCT
    F  stated in the phantom scripts of the FDA's DIDSR group for Siemens kernels B30 and D45
    N  this project's fit to the noise spectra of public series (`kernel_from_noise`); the MTF of the noise is that of
       the kernel without focal spot and detector aperture, so it may be 5 to 10 % too sharp
    S  Solomon, Christianson, Samei 2012, doi 10.1118/1.4752209: GE kernels with the noise spectrum of a Siemens kernel
    E  10 % point of GE EDGE on a Discovery CT750 HD at the isocentre, 14.4 lp/cm ("Improvement in CT image resolution
       due to the use of focal spot deflection and increased sampling", J. Appl. Clin. Med. Phys.); 50 % interpolated
    I  interpolated between neighbours of the same maker, by the makers' order from soft to sharp

Scanner models differ by about 10 % under one name, and the resolution falls towards the edge of the field of view.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.physics.kernels import Kernel

Row = tuple[float, float, float, str]  # 50 % and 10 % point in lp/cm, overshoot, source

#: Siemens, number of a kernel such as B30f, B31s or I30f; letters after the number tell the speed of the rotation.
SIEMENS: dict[int, Row] = {
    10: (2.3, 4.0, 0.0, "I"),
    20: (2.8, 4.8, 0.0, "N"),
    30: (3.5, 5.9, 0.0, "F"),
    31: (4.0, 7.0, 0.0, "N"),
    40: (4.4, 7.2, 0.0, "O"),
    41: (4.3, 7.5, 0.0, "N"),
    45: (5.6, 9.0, 0.15, "F"),
    50: (6.3, 9.4, 0.2, "N"),
    60: (8.5, 11.5, 0.3, "N"),  # of a Volume Zoom; sharper than the B70 of another scanner
    70: (7.5, 9.45, 0.41, "O"),
    80: (9.0, 11.5, 0.4, "I"),
    90: (10.0, 12.5, 0.4, "I"),
}
#: Siemens since 2013 (Br40, Bv40, Hr40, Qr40): the number is a resolution index. At 40, and growth per step (I).
SIEMENS_INDEXED: Row = (4.2, 7.0, 0.0, "N")
GROWTH_PER_INDEX = 1.03

GE: dict[str, Row] = {
    "SOFT": (3.3, 5.8, 0.0, "N"),
    "STANDARD": (4.2, 7.2, 0.0, "N"),
    "CHEST": (4.3, 7.5, 0.0, "S"),
    "DETAIL": (5.0, 8.2, 0.05, "I"),
    "LUNG": (7.4, 9.6, 0.4, "N"),
    "BONE": (8.5, 11.5, 0.3, "N"),
    "BONEPLUS": (9.0, 12.5, 0.3, "I"),
    "ULTRA": (9.5, 13.5, 0.3, "I"),
    "EDGE": (10.5, 14.4, 0.4, "E"),
}
PHILIPS: dict[str, Row] = {
    "A": (2.8, 4.9, 0.0, "I"),
    "B": (3.4, 5.9, 0.0, "N"),
    "C": (4.8, 8.4, 0.0, "N"),
    "D": (5.0, 8.95, 0.0, "O"),
    "E": (6.5, 9.5, 0.2, "I"),
    "F": (6.0, 9.2, 0.1, "I"),
    "L": (6.5, 9.0, 0.35, "I"),
    "YA": (6.5, 8.7, 0.35, "I"),
    "YB": (6.9, 8.9, 0.4, "N"),
    "YC": (7.4, 9.6, 0.4, "I"),
    "YD": (8.0, 10.5, 0.4, "I"),
    "UA": (2.6, 4.5, 0.0, "I"),
    "UB": (3.0, 5.2, 0.0, "I"),
    "UC": (4.0, 6.8, 0.0, "I"),
}
#: Toshiba and Canon, number of an FC kernel: 1-5 body with beam-hardening correction, 11-15 body, 20s head, 30s bone,
#: 50s lung, 80s high resolution; within each group from soft to sharp.
TOSHIBA: dict[int, Row] = {
    1: (2.8, 4.9, 0.0, "I"),
    2: (3.2, 5.5, 0.0, "I"),
    3: (3.7, 6.3, 0.0, "I"),
    4: (4.3, 7.2, 0.0, "I"),
    5: (5.0, 8.2, 0.0, "I"),
    8: (4.3, 7.2, 0.0, "I"),
    10: (2.5, 4.4, 0.0, "I"),
    11: (2.8, 4.9, 0.0, "I"),
    12: (3.2, 5.5, 0.0, "I"),
    13: (3.7, 6.3, 0.0, "I"),
    14: (4.3, 7.2, 0.0, "I"),
    15: (5.0, 8.2, 0.0, "I"),
    18: (4.3, 7.2, 0.0, "I"),
    21: (2.8, 4.9, 0.0, "I"),
    23: (3.7, 6.3, 0.0, "I"),
    26: (4.3, 7.2, 0.0, "I"),
    30: (7.0, 10.0, 0.2, "I"),
    35: (8.0, 11.0, 0.2, "I"),
    50: (5.8, 8.2, 0.2, "I"),
    51: (6.2, 8.5, 0.3, "N"),
    52: (6.4, 8.8, 0.3, "I"),
    53: (6.6, 9.1, 0.3, "I"),
    55: (7.0, 9.6, 0.35, "I"),
    56: (7.2, 9.9, 0.35, "I"),
    80: (8.0, 11.0, 0.3, "I"),
    81: (8.5, 11.5, 0.3, "I"),
    86: (9.5, 13.0, 0.3, "I"),
}
#: Somatom Plus 4 (1997): older numbers, softer than a B50.
SIEMENS_AB50: Row = (4.0, 7.0, 0.0, "N")


@dataclass(frozen=True)
class NamedKernel:
    """A kernel and the letter of its source (see the module's list)."""

    kernel: Kernel
    source: str


def parse_kernel(text: str) -> Kernel:
    """The kernel that a user names: "B30f", "GE LUNG", "PHILIPS L", or its MTF "3.5,5.9" or "7.4,9.6,0.4".

    The numbers are the 50 % and 10 % points in lp/cm, and the overshoot.

    Raises
    ------
    UhrctError
        If the text is neither a known name nor such numbers.

    Example
    -------
    >>> parse_kernel("GE STANDARD") == parse_kernel("4.2,7.2")
    True
    """
    if not isinstance(text, str):
        raise UhrctError(f"`kernel` is a {type(text).__name__}; give its name or MTF as text")
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        maker, _, name = text.strip().rpartition(" ")
        found = named_kernel(maker, name)
        if found is None:
            raise UhrctError(
                f"kernel {text[:40]!a} is not in the table; give a name such as B30f, GE LUNG or PHILIPS L, or the "
                "50 % and 10 % points of its MTF in lp/cm, such as 3.5,5.9"
            ) from None
        return found.kernel
    if len(numbers) not in (2, 3):
        raise UhrctError(f"kernel {text[:40]!a}: give two or three numbers: MTF 50 %, MTF 10 % (lp/cm), overshoot")
    return Kernel(*numbers)


def named_kernel(manufacturer: str | None, kernel_name: str | Sequence[str] | None) -> NamedKernel | None:
    """The MTF curve behind Manufacturer (0008,0070) and ConvolutionKernel (0018,1210), with its source; None: unknown.

    Without a manufacturer, only names that one maker alone uses are understood (B31f, STANDARD, FC51).

    Example
    -------
    >>> named_kernel("SIEMENS", "B30f").kernel
    Kernel(mtf50_lp_cm=3.5, mtf10_lp_cm=5.9, overshoot=0.0)
    >>> named_kernel("Somebody", "X7") is None
    True
    """
    if not kernel_name:
        return None
    # several values: kernel and strength of iterative reconstruction (Siemens)
    name = (kernel_name if isinstance(kernel_name, str) else str(kernel_name[0])).strip()
    maker = (manufacturer or "").upper()
    if "SIEMENS" in maker:
        return _siemens(name)
    if maker.startswith("GE"):
        return _listed(GE, name.upper().replace(" ", "").replace("+", "PLUS"))
    if "PHILIPS" in maker or "MARCONI" in maker:
        return _listed(PHILIPS, _philips_name(name))
    if "TOSHIBA" in maker or "CANON" in maker:
        return _toshiba(name)
    if maker:
        return None
    return _siemens(name) or _listed(GE, name.upper()) or _toshiba(name)


def kernel_lp_cm(headers: Sequence[Any] | None) -> float | None:
    """50 % point of the MTF of the kernel that the DICOM headers of a scan name, in line pairs per cm.

    None if the headers name no known kernel, or if the images are derived: their kernel is that of their source.
    """
    if not headers or "DERIVED" in (headers[0].get("ImageType") or ()):
        return None
    found = named_kernel(headers[0].get("Manufacturer"), headers[0].get("ConvolutionKernel"))
    return None if found is None else found.kernel.mtf50_lp_cm


def _listed(table: dict[str, Row], name: str) -> NamedKernel | None:
    return _named(table[name]) if name in table else None


def _philips_name(name: str) -> str:
    """Letters of a Philips filter: "B", "Standard (B)" and "B,ENHANCED" are all B."""
    in_brackets = re.search(r"\(([A-Z]{1,2})\)", name)
    return in_brackets[1] if in_brackets else re.split(r"[,\s]", name)[0].upper()


def _siemens(name: str) -> NamedKernel | None:
    """B30f, I31s, D45, "59 .21.B50s", Br40d, Bv36, Hr40."""
    if name.endswith("AB50"):
        return _named(SIEMENS_AB50)
    indexed = re.search(r"\b([BHQUD])([rvflcp])(\d\d)[a-z]?\b", name)
    if indexed:
        grown = GROWTH_PER_INDEX ** (int(indexed[3]) - 40)
        mtf50, mtf10, overshoot, _ = SIEMENS_INDEXED
        return NamedKernel(Kernel(round(mtf50 * grown, 2), round(mtf10 * grown, 2), overshoot), "I")
    older = re.search(r"\b[BDHIJTUS](\d\d)[a-z]?\b", name)
    return None if older is None else _by_number(SIEMENS, int(older[1]))


def _toshiba(name: str) -> NamedKernel | None:
    number = re.match(r"FC(\d\d)", name.upper())
    if number is None:
        return None
    value = int(number[1])
    same_group = {n: row for n, row in TOSHIBA.items() if n // 10 == value // 10}
    return _by_number(same_group, value) if same_group else None


def _by_number(table: dict[int, Row], number: int) -> NamedKernel:
    """The row of a number, or one between its neighbours (beyond the ends: the end)."""
    if number in table:
        return _named(table[number])
    numbers = sorted(table)
    mtf50, mtf10, overshoot = (
        float(np.interp(number, numbers, [float(table[n][column]) for n in numbers])) for column in range(3)
    )
    return NamedKernel(Kernel(round(mtf50, 2), round(mtf10, 2), round(overshoot, 2)), "I")


def _named(row: Row) -> NamedKernel:
    mtf50, mtf10, overshoot, source = row
    return NamedKernel(Kernel(mtf50, mtf10, overshoot), source)
