"""Configuration of a benchmark, read from YAML."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from uhrct.core.arguments import scale_factors
from uhrct.core.errors import UhrctError
from uhrct.evaluation.measures import MEASURES
from uhrct.physics.acquisition import KINDS
from uhrct.training.config import read_settings

INTERPOLATIONS = ("bicubic", "lanczos", "projection")
HEADLINE = (
    "psnr_wide",
    "psnr_lung",
    "ssim_wide",
    "vif_wide",
    "smse_frangi",
    "smse_vc",
    "cldice_25",
    "broken_mm",
    "invented_mm",
    "texture_1",
    "consistency_hu",
)


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Parameters
    ----------
    name : in the tables
    kind : "bicubic" (edge-aligned), "lanczos", "projection" (bicubic, then A y = x exactly); "" for weights
    weights : model folder or shipped name; {protocol} is replaced by the name of the protocol
    steps : of a sample; 1: the posterior mean, or the default of a peer
    consistency : for our own models: "auto", "hard" or "off"
    denoise : for our own models: share of the scan's noise to remove, 0 to 1; None: the default of `uhrct upscale`
    slices : at most so many slices, and no volume, for methods that take minutes per slice
    """

    name: str
    kind: str = ""
    weights: str = ""
    steps: int = 1
    seed: int = 0
    consistency: str = "auto"
    denoise: float | None = None
    slices: int | None = None

    def identity(self, weights_sha256: str) -> str:
        """Hash of settings and weights. Rows with another identity do not belong to this method."""
        own = {k: v for k, v in asdict(self).items() if k not in ("name", "weights", "slices")}
        if self.denoise is None:
            del own["denoise"]  # rows that are older than this setting stay valid
        return hashlib.sha256(json.dumps([own, weights_sha256]).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Every method on every case, in every protocol, under every degradation.

    Parameters
    ----------
    out : the result file, JSON lines
    slices : evenly spaced slices of each case (through plane: LR slices, with all HR slices inside them)
    volume_slices : HR slices in the middle of each case that are also judged as a volume, under the first
        degradation (0: none)
    against : method that all others are compared with ("" for none)
    metrics : columns of the tables; the result file holds all metrics
    """

    methods: tuple[Method, ...]
    out: Path
    data: Path = Path("../shared/ct")
    cases: tuple[str, ...] = ("validation/rider0117", "test/lidc0314")
    protocols: tuple[tuple[str, tuple[int, int, int]], ...] = (("x2", (1, 2, 2)),)
    degradations: tuple[str, ...] = ("scanner", "bicubic")
    slices: int = 24
    volume_slices: int = 0
    against: str = ""
    metrics: tuple[str, ...] = HEADLINE


def load_benchmark(path: str | Path) -> BenchmarkConfig:
    """Read and check a configuration.

    Raises
    ------
    UhrctError
        If the file is missing or no YAML, or a setting, metric, degradation or method is unknown.
    """
    raw = read_settings(path)
    try:
        return _checked(raw, Path(path))
    except (TypeError, ValueError, AttributeError) as e:
        raise UhrctError(f"{path}: {' '.join(str(e).split())}") from e


def _checked(raw: dict[str, Any], path: Path) -> BenchmarkConfig:
    known = {f.name for f in fields(BenchmarkConfig)}
    if unknown := sorted(set(raw) - known):
        raise UhrctError(f"{path}: unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
    methods = methods_of(raw.get("methods", {}), path)
    protocols = protocols_of(raw.get("protocols", {"x2": [1, 2, 2]}))
    for name in ("cases", "degradations", "metrics"):
        if name in raw and not (isinstance(raw[name], list) and raw[name]):
            raise UhrctError(f"{path}: {name}: give a list that is not empty, such as [a, b]")
    for name, allowed in (
        ("degradations", KINDS),
        ("metrics", MEASURES),
        ("against", ("", *(m.name for m in methods))),
    ):
        given = raw.get(name, ())
        for value in [given] if isinstance(given, str) else given:
            if value not in allowed:
                raise UhrctError(
                    f"{path}: {name}: {value!r} is not known; choose from {', '.join(filter(None, allowed))}"
                )
    for name, least in (("slices", 1), ("volume_slices", 0)):
        if not (isinstance(raw.get(name, least), int) and raw.get(name, least) >= least):
            raise UhrctError(f"{path}: {name}: {raw[name]!r} is no whole number from {least}")
    settings: dict[str, Any] = {k: raw[k] for k in ("slices", "volume_slices", "against") if k in raw}
    settings |= {k: tuple(raw[k]) for k in ("cases", "degradations", "metrics") if k in raw}
    settings["out"] = Path(raw.get("out", f"results/{path.stem}.jsonl"))
    settings["data"] = Path(raw.get("data", BenchmarkConfig.data))
    return BenchmarkConfig(methods=methods, protocols=protocols, **settings)


def methods_of(raw: dict[str, Any], path: Path) -> tuple[Method, ...]:
    """The methods of a configuration. `path` names the file in errors."""
    methods = tuple(Method(name, **(settings or {})) for name, settings in raw.items())
    if not methods:
        raise UhrctError(f"{path}: methods is empty; name at least one, such as bicubic: {{kind: bicubic}}")
    for m in methods:
        if (m.kind in INTERPOLATIONS) == bool(m.weights) or (m.kind and m.kind not in INTERPOLATIONS):
            raise UhrctError(f"{path}: method {m.name!r}: give weights, or kind as one of {', '.join(INTERPOLATIONS)}")
        for name, least in (("steps", 1), ("seed", 0), ("slices", 1)):
            if (value := getattr(m, name)) is not None and not (isinstance(value, int) and value >= least):
                raise UhrctError(f"{path}: method {m.name!r}: {name} is {value!r}, no whole number from {least}")
    return methods


def protocols_of(raw: dict[str, Any]) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """(name, scale (z, y, x)) of the protocols of a configuration."""
    return tuple((name, scale_factors(f"protocols.{name}", tuple(scale))) for name, scale in raw.items())
