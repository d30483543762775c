"""Numbers and tables of a benchmark of tasks: scores with intervals over cases, differences, paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from uhrct.benchmark.tables import ALPHA, Table
from uhrct.benchmark.tasks.config import TRUE_SCAN, TasksConfig
from uhrct.benchmark.tasks.rows import Row, TaskResults
from uhrct.core.undefined import Undefined
from uhrct.evaluation.froc import Match, Place, curve, match
from uhrct.evaluation.measures import NOTE, Measure
from uhrct.evaluation.statistics import bootstrap, holm, paired_test

TREE_MEASURES = {
    "dice": Measure("Dice", "%", "higher", 1, 100),
    "cldice": Measure("clDice", "%", "higher", 1, 100),
    "precision": Measure("precision", "%", "higher", 1, 100),
    "sensitivity": Measure("sensitivity", "%", "higher", 1, 100),
    "length_detected": Measure("tree length detected", "%", "higher", 1, 100),
    "branches_detected": Measure("branches detected", "%", "higher", 1, 100),
    "recall_1_2": Measure("centre line of 1 to 2 mm found", "%", "higher", 1, 100),
    "leak_ml": Measure("leaks", "ml", "lower", 2),
}
POINT_MEASURES = {
    "sensitivity": Measure("marked vessels found", "%", "higher", 1, 100),
    "specificity": Measure("marked other voxels left out", "%", "higher", 1, 100),
    "balanced": Measure("mean of both", "%", "higher", 1, 100),
}
NODULE_MEASURES = {
    "froc": Measure("FROC score (mean of 1/8 to 8 false positives per scan)", "%", "higher", 1, 100),
    "sensitivity_4": Measure("sensitivity at 4 false positives per scan", "%", "higher", 1, 100),
    "sensitivity_4_small": Measure("the same, nodules of 3 to 5 mm", "%", "higher", 1, 100),
    "candidates": Measure("nodules among all candidates", "%", "higher", 1, 100),
}
#: diameters of small nodules
SMALL_MM = (3.0, 5.0)
#: false positives per scan at which sensitivities are compared
OPERATING_POINT = 4.0


@dataclass(frozen=True)
class Measured:
    """All cases by one method: their rows, and for nodules what was found in each.

    Parameters
    ----------
    rows : case -> row
    matches : case -> hits and false positives; empty for trees
    diameters_mm : case -> of its nodules
    """

    rows: dict[str, Row]
    matches: dict[str, Match]
    diameters_mm: dict[str, np.ndarray]

    @classmethod
    def of(cls, rows: dict[str, Row]) -> Measured:
        """From the rows of one method."""
        matches, diameters = {}, {}
        for case, row in rows.items():
            if "nodules" in row:
                known, unsure = ([_place(p) for p in row[name]] for name in ("nodules", "excluded"))
                found = [Place((x, y, z), score=score) for x, y, z, score in row["found"]]
                matches[case] = match(known, found, unsure)
                diameters[case] = np.array([p.diameter_mm for p in known])
        return cls(rows, matches, diameters)

    def value(self, metric: str, cases: Sequence[str]) -> float:
        """A metric over some cases, which may repeat; NaN where it is undefined."""
        if metric not in NODULE_MEASURES:
            values = np.array([_number(self.rows[c]["values"][metric]) for c in cases], float)
            return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        small = SMALL_MM if metric == "sensitivity_4_small" else (0.0, np.inf)
        chosen = [self.sized(c, *small) for c in cases]
        if metric == "candidates":
            best = np.concatenate([m.best for m in chosen])
            return float(np.isfinite(best).mean()) if len(best) else float("nan")
        try:
            found = curve(chosen)
        except Undefined:
            return float("nan")
        return found.score if metric == "froc" else found.at[OPERATING_POINT]

    def sized(self, case: str, low_mm: float, high_mm: float) -> Match:
        """The match of a case, with its nodules of some diameters alone; all false positives stay."""
        diameter = self.diameters_mm[case]
        return Match(self.matches[case].best[(diameter >= low_mm) & (diameter < high_mm)], self.matches[case].wrong)


def _place(stored: Sequence[float]) -> Place:
    x, y, z, diameter_mm = stored
    return Place((x, y, z), diameter_mm)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def measures_of(task: str) -> dict[str, Measure]:
    """The metrics of a task, in the order of its tables."""
    return {"nodules": NODULE_MEASURES, "vessel_points": POINT_MEASURES}.get(task, TREE_MEASURES)


def groups(results: TaskResults, config: TasksConfig) -> dict[tuple[str, str, str], dict[str, Measured]]:
    """(task, tool, protocol) -> method -> its results; the true scan first."""
    out = {}
    for task, tool in config.tools:
        for protocol, _ in config.protocols:
            if found := results.of(config, task, tool, protocol):
                out[task, tool, protocol] = {name: Measured.of(rows) for name, rows in found.items()}
    return out


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over cases; NaN where undefined."""

    value: float
    low: float
    high: float


def estimate(of: Callable[[Sequence[str]], float], cases: Sequence[str]) -> Estimate:
    """A statistic of cases, with its bootstrap interval."""
    try:
        low, high = bootstrap(lambda drawn: of([cases[k] for k in drawn]), len(cases))
    except Undefined:
        low = high = float("nan")
    return Estimate(of(cases), low, high)


def tables(results: TaskResults, config: TasksConfig) -> list[Table]:
    """For each task, tool and protocol: scores, differences from the true scan, and from the method `against`."""
    out = []
    for (task, tool, protocol), methods in groups(results, config).items():
        title = f"{task} by {tool}, {protocol}"
        out.append(_scores(title, task, methods))
        out += [_scores(f"{title}: {name}", task, some) for name, some in by_patient(methods).items()]
        out.append(_differences(title, task, methods, TRUE_SCAN))
        if config.file.against in methods and len(methods) > 2:
            out.append(_differences(title, task, methods, config.file.against))
    return out


def by_patient(methods: dict[str, Measured]) -> dict[str, dict[str, Measured]]:
    """The results of each patient, if there are several of which one has several cases (seeds of inserted nodules)."""
    cases = [c for c, row in methods[TRUE_SCAN].rows.items() if "nodules" in row]
    patients = dict.fromkeys(patient_of(c) for c in cases)
    if not 1 < len(patients) < len(cases):
        return {}
    out: dict[str, dict[str, Measured]] = {p: {} for p in patients}
    for p, parts in out.items():
        for name, measured in methods.items():
            if rows := {c: row for c, row in measured.rows.items() if patient_of(c) == p}:
                parts[name] = Measured.of(rows)
    return out


def patient_of(case: str) -> str:
    """The scan that a case was made of.

    Example
    -------
    >>> patient_of("test/lidc0314, 12 inserted, seed 1")
    'test/lidc0314'
    """
    return case.split(",")[0]


def markdown(results: TaskResults, config: TasksConfig) -> str:
    """All tables in one text, and what was refused."""
    run = results.runs[-1]
    head = (
        f"Made from `{results.path.name}` by `uhrct benchmark --report`: commit {run['commit'][:10]}, {run['device']}, "
        f"{run['time']}. Degradation: {config.file.degradation}.\n{NOTE}\n"
    )
    lines = [
        f"- {r['task']} by {r['tool']}, {r['case']}, {r['protocol'] or 'all protocols'}, {r['method']}: {r['refused']}"
        for r in results.rows
        if "refused" in r
    ]
    refused = ["### Scans in which nothing was found", "", *lines, ""] if lines else []
    return "\n".join([head, *(t.markdown() for t in tables(results, config)), *refused])


def _heading(measure: Measure) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}[measure.better]
    return f"{measure.label} ({measure.unit}){arrow}"


def _scores(title: str, task: str, methods: dict[str, Measured]) -> Table:
    measures = measures_of(task)
    cells = [["method", "cases", *(_heading(m) for m in measures.values())]]
    for name, measured in methods.items():
        cases = list(measured.rows)
        line = [name, str(len(cases))]
        for metric, m in measures.items():
            line.append(_text(estimate(lambda some, k=metric, own=measured: own.value(k, some), cases), m))  # type: ignore[misc]
        cells.append(line)
    pooled = "All nodules of the cases count alike." if task == "nodules" else "Mean over cases."
    note = f"{pooled} [95 % bootstrap interval over cases]. Cases of the same patient are alike."
    return Table(title, note, cells)


def _differences(title: str, task: str, methods: dict[str, Measured], base: str) -> Table:
    """Differences of all methods from `base` on the cases that both have."""
    measures = measures_of(task)
    others = [name for name in methods if name not in (base, TRUE_SCAN)]
    cells = [["method", "cases", *(_heading(m) for m in measures.values())]]
    common = {name: [c for c in methods[base].rows if c in methods[name].rows] for name in others}
    cells += [[name, str(len(common[name]))] for name in others]
    fewest = fewest_for_p(len(others))
    for metric, m in measures.items():
        texts, p_values = [], []
        for name in others:
            a, b = methods[name], methods[base]

            def gap(some: Sequence[str], a: Measured = a, b: Measured = b, k: str = metric) -> float:
                return a.value(k, some) - b.value(k, some)

            texts.append(_text(estimate(gap, common[name]), m, signed=True))
            p_values.append(_p_value(a, b, metric, common[name], fewest))
        corrected = iter(holm([p for p in p_values if p is not None]))
        for line, text, p in zip(cells[1:], texts, p_values, strict=True):
            line.append(text if p is None else f"{text} {_significance(next(corrected))}")
    note = (
        f"Difference from **{base}**, in points where the unit is per cent [95 % bootstrap interval over cases]. p: "
        "Wilcoxon's signed-rank test on the values of single cases, corrected by Holm over the methods of a column "
        f"(n.s.: no difference shown at {ALPHA:g}); given from {fewest} cases on, since with fewer "
        f"none below {ALPHA:g} is possible."
    )
    return Table(f"{title}: against {base}", note, cells)


def fewest_for_p(methods: int) -> int:
    """Cases from which a difference of so many methods can be shown.

    The smallest p of the signed-rank test of n cases is 2 / 2^n; Holm's correction multiplies it by the methods.

    Example
    -------
    >>> fewest_for_p(1), fewest_for_p(2), fewest_for_p(9)
    (6, 7, 9)
    """
    return math.ceil(math.log2(2 * max(methods, 1) / ALPHA))


def _p_value(a: Measured, b: Measured, metric: str, cases: Sequence[str], fewest: int) -> float | None:
    """Of the values of single cases where both are defined; None with fewer than `fewest` of them."""
    pairs = np.array([[m.value(metric, [c]) for m in (a, b)] for c in cases], float).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(1)]
    return paired_test(pairs[:, 0], pairs[:, 1]) if len(pairs) >= fewest else None


def _significance(p: float) -> str:
    text = f"{p:.2g}" if p >= 0.001 else "< 0.001"
    return f"(p {text}{'' if p < ALPHA else ', n.s.'})"


def _text(e: Estimate, m: Measure, *, signed: bool = False) -> str:
    if np.isnan(e.value):
        return "undefined"
    shape = f"{'+' if signed else ''}.{m.decimals}f"
    value, low, high = (format(m.printed_times * v, shape) for v in (e.value, e.low, e.high))
    return value if np.isnan(e.low) else f"{value} [{low}, {high}]"
