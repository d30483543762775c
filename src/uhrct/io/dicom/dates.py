"""Dates and times of a derived object: when it was made, not when the patient was scanned."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, timezone

from pydicom import Dataset

from uhrct.core.errors import UhrctError

#: Beginnings of the names of dates and times that state when series, voxels and file were made (PS3.3 C.7.3.1,
#: C.7.6.1, C.12.1).
MADE = ("Series", "Content", "InstanceCreation")


def creation_time(source: Dataset | None = None) -> datetime:
    """The present time in the time zone of the source (TimezoneOffsetFromUTC), else in that of this computer.

    The environment variable SOURCE_DATE_EPOCH (seconds since 1970) replaces the present time, so that two runs can
    write the same bytes (https://reproducible-builds.org/specs/source-date-epoch/).

    Raises
    ------
    UhrctError
        If SOURCE_DATE_EPOCH is not a number of seconds.

    Example
    -------
    >>> header = Dataset()
    >>> header.TimezoneOffsetFromUTC = "-0330"
    >>> creation_time(header).utcoffset() == -timedelta(hours=3, minutes=30)
    True
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    if fixed:
        try:
            now = datetime.fromtimestamp(int(fixed), UTC)
        except (ValueError, OverflowError, OSError):
            raise UhrctError(f"SOURCE_DATE_EPOCH is {fixed!r}; give whole seconds since 1970, or unset it") from None
    else:
        now = datetime.now(UTC)
    stated = "" if source is None else str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if zone := re.fullmatch(r"([+-])(\d\d)([0-5]\d)", stated):
        minutes = int(zone[2]) * 60 + int(zone[3])
        if minutes <= 14 * 60:
            return now.astimezone(timezone((1 if zone[1] == "+" else -1) * timedelta(minutes=minutes)))
    return now.astimezone()


def set_dates(out: Dataset, made: datetime | None) -> None:
    """Write the date and time of making into `out`; None removes them, for anonymous objects.

    Example
    -------
    >>> out = Dataset()
    >>> set_dates(out, datetime(2026, 11, 29, 5, 6, 7))
    >>> out.SeriesDate, out.ContentTime, out.InstanceCreationDate
    ('20261129', '050607', '20261129')
    """
    for what in MADE:
        for name, form in ((f"{what}Date", "%Y%m%d"), (f"{what}Time", "%H%M%S")):
            if made is not None:
                setattr(out, name, made.strftime(form))
            elif name in out:
                delattr(out, name)
