"""Copy generated tables into the documents.

    python benchmarks/docs_tables.py docs/benchmark.md

The text between `<!-- from FILE: TITLE -->` and `<!-- end -->` becomes the table below the bold TITLE in FILE.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

MARKS = re.compile(r"(<!-- from (\S+): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path) -> str:
    """`text` with the tables of the files below `root` between its marks."""

    def section(match: re.Match[str]) -> str:
        title = f"**{match[3]}**\n\n"
        table = (root / match[2]).read_text().split(title)[1].split("\n\n")[0].rstrip()
        return f"{match[1]}{title}{table}\n{match[4]}"

    return MARKS.sub(section, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="+", metavar="DOCUMENT")
    for document in parser.parse_args().documents:
        document.write_text(filled(document.read_text(), Path()))


if __name__ == "__main__":
    main()
