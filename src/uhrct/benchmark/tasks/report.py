"""`uhrct benchmark --report` of tasks: tables, box plots, curves and pictures of trees from a result file."""

from __future__ import annotations

from pathlib import Path

from uhrct.benchmark.tasks import figures
from uhrct.benchmark.tasks.config import TRUE_SCAN, TasksConfig
from uhrct.benchmark.tasks.render import TreePanel, trees_side_by_side
from uhrct.benchmark.tasks.rows import TaskResults, mask_file, read_task_results, stored_mask
from uhrct.benchmark.tasks.summary import Measured, groups, markdown
from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.progress import track

#: metrics above a picture of a tree
SHOWN = {"dice": "Dice", "length_detected": "length", "leak_ml": "leaks"}


def write_task_report(config: TasksConfig, folder: Path, *, quiet: bool = False) -> Path:
    """Write `tables.md` and `figures/` into `folder`, and return it.

    Raises
    ------
    UhrctError
        If there are no results of a method yet.
    """
    results = read_task_results(config.out)
    found = groups(results, config)
    if not found:
        raise UhrctError(f"{config.out}: no results; measure them first with uhrct benchmark, without --report")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tables.md", markdown(results, config))
    for (task, tool, protocol), methods in track(list(found.items()), "figures", quiet=quiet):
        name = "-".join((task, Path(tool).name, protocol))
        title = f"{task} by {tool}, {protocol}"
        place = folder / "figures"
        figures.boxes(task, methods, title, place / f"{name}-boxes.png")
        if task == "vessel_points":  # nobody knows how wide the vessels at the marks are
            continue
        figures.by_size(task, methods, config, title, place / f"{name}-sizes.png")
        if task == "nodules":
            figures.froc_curves(methods, config, title, place / f"{name}-froc.png")
        else:
            _trees(results, task, methods, title, place / f"{name}-trees.png")
    return folder


def _trees(results: TaskResults, task: str, methods: dict[str, Measured], title: str, path: Path) -> None:
    """The trees of the first case whose masks were stored; nothing without them."""
    for case, row in (methods[TRUE_SCAN].rows if TRUE_SCAN in methods else {}).items():
        # without a true mask the tree of the true scan is what others are compared with
        marked, own = (mask_file(results.path, some, task, case) for some in (None, row))
        if marked.is_file() or own.is_file():
            break
    else:
        return
    file = marked if marked.is_file() else own
    mask, spacing_mm = stored_mask(file)
    truth = TreePanel("true tree" if marked.is_file() else TRUE_SCAN, mask)
    panels = []
    for name, measured in methods.items():
        mine = measured.rows.get(case)
        if mine is None or (found := mask_file(results.path, mine, task, case)) == file or not found.is_file():
            continue
        values = mine["values"]
        dice, length = (f"{label} {100 * values[k]:.0f} %" for k, label in list(SHOWN.items())[:2])
        panels.append(TreePanel(f"{name}: {dice}, {length}, leaks {values['leak_ml']:.1f} ml", stored_mask(found)[0]))
    if panels:
        trees_side_by_side(truth, panels, spacing_mm, f"{title}, {case}", path)
