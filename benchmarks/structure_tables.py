"""Tables of the structure study out of its rows, written between two marks in docs/structure-study.md."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.evaluation.statistics import interval

BEGIN, END = "<!-- study: tables, made by benchmarks/structure_study.py -->", "<!-- study: end -->"
NOT_RUN = "**Not yet run.** `python benchmarks/structure_study.py --max-cpu-minutes 6` fills this in."
AGAINST = "single"
#: column -> its measures, added up
COLUMNS = {
    "PSNR dB": ("psnr",),
    "SMSE V_C": ("smse_vc",),
    "SMSE Frangi": ("smse_frangi",),
    "SMSE Jerman": ("smse_jerman",),
    "clDice V_C": ("cldice_vc",),
    "broken mm": ("broken_vc",),
    "invented mm": ("invented_vc",),
}
EXACT = {"broken, exact": ("broken_exact",), "invented, exact": ("invented_exact",)}
#: differences: measures and whether they are told in per cent
DIFFERENCES = {
    "PSNR dB": (("psnr",), False),
    "SMSE V_C %": (("smse_vc",), True),
    "SMSE Frangi %": (("smse_frangi",), True),
    "broken + invented, V_C %": (("broken_vc", "invented_vc"), True),
    "the same, Frangi %": (("broken_frangi", "invented_frangi"), True),
    "the same, Jerman %": (("broken_jerman", "invented_jerman"), True),
}
EXACT_DIFFERENCE = {"the same, exact truth %": (("broken_exact", "invented_exact"), True)}

#: what trainings of one table have in common
TABLE = ("scale", "optimizer", "budget", "common", "slices")
OPTIMIZER = {"adamw": "AdamW", "muon": "Muon"}

Row = dict[str, Any]
#: (seed, slice) -> row
Rows = dict[tuple[int, int], Row]


def write_tables(results: Path, doc: Path, variants: dict[str, str]) -> None:
    """Replace what is between the marks of `doc` by the tables of `results` (a note, if there are none yet).

    Raises
    ------
    UhrctError
        If the marks are not there.
    """
    text = doc.read_text() if doc.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UhrctError(f"{doc}: needs the lines {BEGIN} and {END}, between which tables go")
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    body = tables(rows, variants) if any(r["budget"] for r in rows) else NOT_RUN
    doc.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}")


def tables(rows: list[Row], variants: dict[str, str]) -> str:
    """Markdown: for each scale, budget and patient the means, then the paired differences from the single stream."""
    parts: list[str] = []
    rows = [{"common": "", **r} for r in rows]
    for scale, optimizer, budget, common, slices in dict.fromkeys(
        tuple(r[k] for k in TABLE) for r in rows if r["budget"]
    ):
        for case in dict.fromkeys(r["case"] for r in rows):
            found: dict[str, Rows] = defaultdict(dict)
            for r in rows:
                mine = not r["budget"] or (r["optimizer"], r["budget"], r["common"]) == (optimizer, budget, common)
                if (r["case"], r["scale"], r["slices"]) == (case, scale, slices) and mine:
                    found[r["variant"]][r["seed"], r["slice"]] = r  # the last one counts
            if not any(v in variants for v in found):
                continue
            some = next(iter(found.values()))
            exact = any("broken_exact" in r for r in some.values())
            order = [v for v in ("truth", "interpolation", *variants) if v in found]
            number = len({k for _, k in some})  # a patient may have fewer than were asked for
            among = f", {common}" if common else ""
            parts += [f"### x{scale}, {OPTIMIZER[optimizer]}, {budget}{among}, {case} ({number} slices)", ""]
            parts += means(found, order, variants, COLUMNS | EXACT if exact else COLUMNS)
            if AGAINST in found:
                told = DIFFERENCES | EXACT_DIFFERENCE if exact else DIFFERENCES
                parts += differences(found, [v for v in order if v in variants and v != AGAINST], told)
    return "\n".join(parts).rstrip()


def means(found: dict[str, Rows], order: list[str], variants: dict[str, str], columns: dict[str, Any]) -> list[str]:
    """Means over slices and seeds; lengths are a slice's."""
    lines = table_head(["variant", "what", "seeds", "steps", "CPU min", *columns])
    for v in order:
        rows = list(found[v].values())
        cost = [f"{np.mean([r[k] for r in rows]):.{d}f}" if k in rows[0] else "" for k, d in _COST]
        values = []
        for names in columns.values():
            x = [total(r, names) for r in rows]
            told = [value for value in x if value is not None]
            values.append(f"{np.mean(told):.3f}" if told else "-")
        seeds = str(len({r["seed"] for r in rows})) if v in variants else ""
        lines.append(f"| {' | '.join([v, variants.get(v, ''), seeds, *cost, *values])} |")
    return [*lines, ""]


_COST = (("steps", 0), ("cpu_minutes", 1))


def differences(
    found: dict[str, Rows], order: list[str], columns: dict[str, tuple[tuple[str, ...], bool]]
) -> list[str]:
    """Mean paired differences from the single stream: bootstrap over slices of means over seeds, and range of seeds."""
    lines = ["Less `single`: mean [95 % over slices] (lowest ... highest of the seeds).", ""]
    lines += table_head(["variant", *columns])
    for v in order:
        cells = [difference(found[v], found[AGAINST], names, percent) for names, percent in columns.values()]
        lines.append(f"| {' | '.join([v, *cells])} |")
    return [*lines, ""]


def difference(mine: Rows, base: Rows, names: tuple[str, ...], percent: bool) -> str:
    """One cell, "-" where the same slices of the same seeds are not there."""
    pairs: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)  # slice -> seed -> (mine, base)
    for seed, k in mine.keys() & base.keys():
        a, b = total(mine[seed, k], names), total(base[seed, k], names)
        if a is not None and b is not None:
            pairs[k][seed] = a, b
    if len(pairs) < 2:
        return "-"
    unit = 1.0
    if percent:
        level = float(np.mean([b for by_seed in pairs.values() for _, b in by_seed.values()]))
        if not level:
            return "-"
        unit = 100 / level
    by_slice = [unit * float(np.mean([a - b for a, b in by_seed.values()])) for by_seed in pairs.values()]
    low, high = interval(by_slice)
    seeds = sorted({seed for by_seed in pairs.values() for seed in by_seed})
    each = [
        unit * float(np.mean([a - b for by_seed in pairs.values() for s, (a, b) in by_seed.items() if s == seed]))
        for seed in seeds
    ]
    digits = 1 if percent else 3
    cell = f"{np.mean(by_slice):+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return cell + (f" ({min(each):+.{digits}f} ... {max(each):+.{digits}f})" if len(seeds) > 1 else "")


def total(row: Row, names: tuple[str, ...]) -> float | None:
    """Sum of a row's measures, None if one has no value there."""
    values = [row.get(name) for name in names]
    return None if any(v is None for v in values) else float(sum(values))  # type: ignore[arg-type]


def table_head(columns: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
