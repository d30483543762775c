"""Configuration of a benchmark of tasks, read from YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator

from uhrct.benchmark.config import Method, methods_of, protocols_of
from uhrct.core.errors import UhrctError
from uhrct.models.settings import Settings, checked
from uhrct.training.config import Paths, read_settings

#: the tool that needs no weights: the segmenter without training, or the filter for nodules
CLASSICAL = "classical"
#: method of the rows of the scan itself
TRUE_SCAN = "true scan"

Scale = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class UnmarkedCase(Settings):
    """A scan in which nobody marked the tree: what a tool finds in it is that tool's truth, a pseudo-reference."""

    scan: str


class TreeTask(Settings):
    """Vessels or airways."""

    #: "classical", or names or folders of mask networks
    tools: Annotated[Paths, Field(min_length=1)] = (CLASSICAL,)
    #: folders with scans and true masks (`uhrct.tasks.cases.image_mask_pairs`), and scans without masks
    cases: Annotated[tuple[str | UnmarkedCase, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_kind(self) -> TreeTask:
        if len({type(case) for case in self.cases}) > 1:
            raise ValueError("scans without masks need a configuration of their own: means over both say nothing")
        return self


class PointTask(Settings):
    """Single voxels that readers marked as vessel or not."""

    #: as for vessels
    tools: Annotated[Paths, Field(min_length=1)] = (CLASSICAL,)
    #: folders of VESSEL12 (`uhrct.benchmark.tasks.vessel12`)
    cases: Annotated[Paths, Field(min_length=1)]


class NoduleCase(Settings):
    """A scan with known nodules: those of its readers (`nodule_votes.npz` beside it), and inserted ones."""

    scan: str
    #: number of nodules that are inserted
    inserted: NonNegativeInt = 0
    #: selects these nodules
    seed: NonNegativeInt = 0


class NoduleTask(Settings):
    """Nodules.

    With `annotations`, the table of LUNA16, a case is a scan or a folder of scans, and the table has their nodules.
    """

    #: "classical" (the filter alone), or names or folders of nodule networks
    tools: Annotated[Paths, Field(min_length=1)] = (CLASSICAL,)
    cases: Annotated[
        tuple[Annotated[NoduleCase, BeforeValidator(lambda v: {"scan": v} if isinstance(v, str) else v)], ...],
        Field(min_length=1),
    ]
    #: `annotations.csv` of LUNA16; "": the readers' outlines beside each scan
    annotations: str = ""
    #: `annotations_excluded.csv`: findings that are neither right nor wrong
    excluded: str = ""

    @model_validator(mode="after")
    def _one_truth(self) -> NoduleTask:
        if self.excluded and not self.annotations:
            raise ValueError("excluded belongs to annotations; give both")
        if self.annotations and any(case.inserted for case in self.cases):
            raise ValueError("nodules are inserted into scans without annotations only")
        return self


class Tasks(Settings):
    """What is looked for. A task that is left out is not measured."""

    vessels: TreeTask | None = None
    vessel_points: PointTask | None = None
    airways: TreeTask | None = None
    nodules: NoduleTask | None = None


class TasksFile(Settings):
    """The configuration file."""

    tasks: Tasks
    #: the result file, JSON lines
    out: str
    #: name -> settings, as in `uhrct.benchmark.config.Method`
    methods: dict[str, dict[str, Any] | None]
    #: name -> scale (z, y, x)
    protocols: dict[str, Scale] = Field(default_factory=lambda: {"x2": (1, 2, 2)})
    #: how the low-resolution scan is made
    degradation: Literal["scanner", "bicubic"] = "scanner"
    #: method that all others are compared with; it is drawn in the curves
    against: str = ""


@dataclass(frozen=True)
class TasksConfig:
    """A checked configuration: the file, with its methods and protocols."""

    file: TasksFile
    methods: tuple[Method, ...]
    protocols: tuple[tuple[str, tuple[int, int, int]], ...]

    @property
    def out(self) -> Path:
        """The result file."""
        return Path(self.file.out)

    @property
    def tools(self) -> list[tuple[str, str]]:
        """(task, tool) of everything that is measured."""
        t = self.file.tasks
        named = (
            ("vessels", t.vessels),
            ("vessel_points", t.vessel_points),
            ("airways", t.airways),
            ("nodules", t.nodules),
        )
        return [(task, tool) for task, settings in named if settings is not None for tool in settings.tools]


def load_tasks(path: str | Path) -> TasksConfig:
    """Read and check a configuration.

    Raises
    ------
    UhrctError
        If the file is missing or no YAML, or a setting is unknown or impossible.

    Example
    -------
    ``load_tasks("configs/benchmark-tasks.yaml").tools`` gives ``[("vessels", "classical"), ...]``
    """
    file = checked(TasksFile, read_settings(path), str(path))
    try:
        methods, protocols = methods_of(file.methods, Path(path)), protocols_of(file.protocols)
    except TypeError as error:
        raise UhrctError(f"{path}: methods: {error}") from error
    for method in methods:
        if method.slices is not None:
            raise UhrctError(f"{path}: method {method.name!r}: tasks need whole volumes, so slices has no meaning here")
        if method.name == TRUE_SCAN:
            raise UhrctError(f"{path}: method {TRUE_SCAN!r}: this name is that of the scan itself")
    if file.against not in ("", *(m.name for m in methods)):
        raise UhrctError(f"{path}: against: {file.against!r} is none of the methods")
    config = TasksConfig(file, methods, protocols)
    if not config.tools:
        raise UhrctError(f"{path}: tasks is empty; name vessels, vessel_points, airways or nodules")
    return config
