"""The page "Python" of the site: docstrings of the public names, and of what other pages name."""

from __future__ import annotations

PUBLIC = ("upscale", "Upscaler", "Volume", "read", "write", "UhrctError", "InputRefused", "NothingToDo")

#: title -> names that pages of the documentation use; they may change between versions
FURTHER = {
    "Upscaling": ("uhrct.upscaling.plan.UpscaleSettings", "uhrct.upscaling.files.write_result"),
    "Files": ("uhrct.io.DicomOptions", "uhrct.io.open_writer", "uhrct.io.write_segmentation"),
    "Many series": ("uhrct.batch.series.find_series", "uhrct.batch.run.run_batch"),
    "Scanner model and structure": (
        "uhrct.physics.acquisition.Acquisition",
        "uhrct.physics.degrade.degrade",
        "uhrct.physics.resampling.upsample",
        "uhrct.structure.StructureOperator",
    ),
    "Weights": ("uhrct.models.model.Model", "uhrct.models.restoration.Restoration"),
    "Evaluation": (
        "uhrct.evaluation.measures.score_all",
        "uhrct.evaluation.compare.compare",
        "uhrct.evaluation.lungs.lung_mask",
        "uhrct.evaluation.froc.froc",
        "uhrct.evaluation.statistics.interval",
        "uhrct.evaluation.statistics.paired_test",
        "uhrct.evaluation.statistics.holm",
    ),
}

HEAD = """# Python

This page is made from the docstrings of the source.

```python
import uhrct

fine = uhrct.upscale("scans/ct", scale=2)
uhrct.write(fine, "fine.nii.gz")
```

## The public interface
"""


def python_page() -> str:
    """A directive for mkdocstrings for each name."""
    parts = [HEAD, *(directive(f"uhrct.{name}") for name in PUBLIC)]
    parts.append("## Further functions\n\nThese names may change between versions.\n")
    for title, names in FURTHER.items():
        parts += [f"### {title}\n", *(directive(name, level=4) for name in names)]
    return "\n".join(parts)


def directive(name: str, level: int = 3) -> str:
    return f"::: {name}\n    options:\n      heading_level: {level}\n"
