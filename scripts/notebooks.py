"""Execute the notebooks and keep their outputs: `make notebooks`.

A notebook runs in its folder, in a kernel of this Python. Paths of this machine, times and messages on stderr are left
out, so the files change only if results do.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
LARGEST_BYTES = 1_000_000
TIMEOUT_S = 900


def executed(file: Path) -> Any:
    """The notebook with new outputs."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(file.parent)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def problems(file: Path) -> list[str]:
    """What a notebook must not hold: errors, places of a machine, no outputs, many bytes."""
    text = file.read_text()
    found = [f"{file.name}: {len(text)} bytes"] if len(text) > LARGEST_BYTES else []
    found += [
        f"{file.name}: names {place}" for place in re.findall(r"/(?:home|root|tmp|usr|work|Users)/[\w./-]+", text)
    ]
    for cell in nbformat.reads(text, as_version=4).cells:
        if cell.cell_type == "code":
            found += [f"{file.name}: {o.ename}" for o in cell.outputs if o.output_type == "error"]
            if cell.execution_count is None:
                found.append(f"{file.name}: not executed")
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    wrong: list[str] = []
    for file in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(file), file)
        wrong += problems(file)
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
