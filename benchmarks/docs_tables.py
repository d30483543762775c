"""Copies generated tables into the documents: what stands between <!-- from FILE --> and <!-- end --> becomes FILE.

python benchmarks/docs_tables.py docs/benchmark.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MARKS = re.compile(r"(<!-- from (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path) -> str:
    """`text` with the files below `root` between its marks."""
    return MARKS.sub(lambda m: m[1] + (root / m[2]).read_text().rstrip() + "\n" + m[3], text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(filled(Path(name).read_text(), Path()))
