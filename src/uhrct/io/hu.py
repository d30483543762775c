"""Moved to `uhrct.core.hu`."""

from uhrct.core.hu import as_hu as as_hu
from uhrct.core.hu import check_finite as check_finite
