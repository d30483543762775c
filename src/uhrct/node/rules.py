"""Which series a node processes, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from pydicom import Dataset

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.files import DicomFile
from uhrct.io.dicom.header import quiet, read_header, text
from uhrct.io.dicom.scan import is_localizer
from uhrct.io.dicom.write import NAME
from uhrct.node.config import Match, NodeConfig, Rule


@dataclass(frozen=True)
class SeriesFacts:
    """What the rules ask about a series."""

    modality: str = ""
    kernel: str = ""
    slice_thickness_mm: float | None = None
    description: str = ""
    manufacturer: str = ""
    body_part: str = ""
    series_uid: str = ""
    derived: bool = False
    #: made by uhrct, or from something that uhrct made
    ours: bool = False
    localizer: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of a series: its rule, or the reason why none applies."""

    rule: Rule | None
    reason: str = ""


def facts_of(header: Dataset) -> SeriesFacts:
    """The facts in a header. What cannot be parsed counts as missing."""
    return SeriesFacts(
        modality=_text(header, "Modality").upper(),
        kernel=_text(header, "ConvolutionKernel"),
        slice_thickness_mm=_number(header, "SliceThickness"),
        description=_text(header, "SeriesDescription"),
        manufacturer=_text(header, "Manufacturer"),
        body_part=_text(header, "BodyPartExamined"),
        series_uid=_text(header, "SeriesInstanceUID"),
        derived=_text(header, "ImageType").upper().startswith("DERIVED"),
        ours=_is_ours(header),
        localizer=is_localizer(header),
    )


def facts_of_files(files: Iterable[Path]) -> SeriesFacts | None:
    """The facts of a received series, from its first image that is no localizer; None if no file can be read."""
    found = None
    for file in files:
        try:
            parsed = read_header(DicomFile(file.name, file.stat().st_size, file), alone=True)
        except (OSError, UhrctError):
            continue
        if parsed is not None:
            with quiet():
                found = facts_of(parsed[0])
            if not found.localizer:
                return found
    return found


def decide(facts: SeriesFacts, config: NodeConfig) -> Decision:
    """The rule for a series. `never` comes first, then the first rule that fits.

    Example
    -------
    >>> peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
    >>> config = NodeConfig.model_validate({
    ...     "folder": "node", "receive": {"callers": ["CT1"]}, "peers": peers,
    ...     "never": [{"description": "*topogram*"}],
    ...     "rules": [{"name": "lung", "kernel": "B7*", "slice_thickness_mm": [0, 2], "send_to": "PACS"}],
    ... })
    >>> decide(SeriesFacts(modality="CT", kernel="B70f", slice_thickness_mm=1.0), config).rule.name
    'lung'
    >>> decide(SeriesFacts(modality="CT", kernel="B30f", slice_thickness_mm=1.0), config).reason
    'no rule fits'
    >>> decide(SeriesFacts(modality="CT", kernel="B70f", ours=True), config).reason
    'a result of uhrct'
    """
    if facts.ours:
        return Decision(None, "a result of uhrct")
    if facts.modality != "CT":
        return Decision(None, "no CT")
    if facts.localizer:
        return Decision(None, "a localizer")
    if any(fits(facts, match) for match in config.never):
        return Decision(None, "listed under never")
    fitting = [rule for rule in config.rules if fits(facts, rule)]
    for rule in fitting:
        if rule.derived or not facts.derived:
            return Decision(rule)
    return Decision(None, "a derived series; its rule needs derived: true" if fitting else "no rule fits")


def fits(facts: SeriesFacts, match: Match) -> bool:
    """Whether all conditions of `match` hold. A condition on something that the series does not state does not hold."""
    if match.slice_thickness_mm is not None:
        low, high = match.slice_thickness_mm
        if facts.slice_thickness_mm is None or not low <= facts.slice_thickness_mm <= high:
            return False
    names = ("kernel", "description", "manufacturer", "body_part")
    return facts.modality == match.modality and all(
        not getattr(match, name) or _any_fits(getattr(facts, name), getattr(match, name)) for name in names
    )


def _any_fits(value: str, patterns: tuple[str, ...]) -> bool:
    return any(re.match(translate(pattern.lower()), value.lower()) for pattern in patterns)


def _is_ours(header: Dataset) -> bool:
    """Whether uhrct is among the equipment that contributed. This survives other programs that process the image."""
    if _text(header, "DerivationDescription").lower().startswith(f"{NAME} "):
        return True
    try:
        items = list(header.get("ContributingEquipmentSequence") or [])
    except Exception:  # pydicom raises many kinds of errors for a damaged element
        return False
    return any(_text(item, "Manufacturer").lower() == NAME for item in items)


def _text(header: Dataset, key: str) -> str:
    try:
        return text(header, key)
    except Exception:
        return ""


def _number(header: Dataset, key: str) -> float | None:
    try:
        value = float(header.get(key))
    except Exception:
        return None
    return value if 0 < value < 1e4 else None
