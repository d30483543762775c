"""Trains the nodule network: nodules of readers and inserted ones against other candidates of the same scans."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from scipy import ndimage
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.progress import track
from uhrct.core.upright import Upright
from uhrct.core.volume import Volume
from uhrct.models.settings import Settings, checked
from uhrct.phantom.nodules import Nodule
from uhrct.tasks.cases import read_votes, votes_file
from uhrct.tasks.even_grid import CUBE_MM
from uhrct.tasks.lung_cubes import lung_cubes
from uhrct.tasks.nodule_candidates import LEAST_HU, Candidate, find_candidates
from uhrct.tasks.nodule_insertion import Lung, draw_nodule, insert
from uhrct.tasks.nodule_network import SIDE, NoduleNetwork, NoduleNetworkConfig, ball_response, cube
from uhrct.training.budget import Budget
from uhrct.training.config import LoopSettings, Paths, read_settings
from uhrct.training.data.datasets import list_scans, read_scan, series_of
from uhrct.training.run import Run
from uhrct.training.trainer import Trainer

#: share of a batch that holds nodules
NODULES = 0.5
#: share of these that are inserted; the others are those of the readers, if there are any
INSERTED = 0.8
#: diameters of inserted nodules: beyond the 12 mm that are looked for, so that the largest ones are not at the end
DIAMETERS_MM = (3.0, 16.0)
#: a place is shown up to so many cubes beside the middle, a large nodule up to a share of its radius
JITTER, JITTER_SHARE = 2.0, 0.4
#: a nodule that the dot filter cannot see is drawn again, up to so many times
TRIES = 20
#: places for inserted nodules that are kept of each scan
MOST_PLACES = 300_000
#: share of the counter-examples from scans that readers marked, if there are any. Other scans hold nodules that nobody
#: outlined.
MARKED = 0.5
#: share of the counter-examples that are among the strongest candidates of their scan, and the part that these are
STRONG, STRONGEST = 0.5, 0.25
#: largest standard deviation of a blur across and in the slices, in mm, and the share of cubes that are blurred:
#: thick slices and interpolated or restored scans look like that
BLUR_MM, BLURRED = (2.5, 1.3), 0.5
#: largest noise in HU, and the share of cubes that get some
NOISE_HU, NOISY = 40.0, 0.7
#: a candidate as near as this to a reader's nodule is not used as a counter-example
NEAR_MM = 4.0


class NoduleData(Settings):
    """What the network is trained on."""

    #: folders of scans; `nodule_votes.npz` beside a scan marks its nodules
    corpus: Paths = ("../shared/ct/train",)
    #: scans that the network never trains on; they are scored on the way
    validation: Paths = ("../shared/ct/validation/rider0117",)
    #: folder that keeps the resampled scans with their candidates
    cache: str = "runs/nodule-scans"
    #: cubes per step
    batch: PositiveInt = 16
    #: nodules and counter-examples that are scored for each validation scan
    validation_cubes: PositiveInt = 64


class NoduleTraining(LoopSettings):
    """The training of a nodule network."""

    nodules: NoduleNetworkConfig
    data: NoduleData = NoduleData()


@dataclass(frozen=True)
class NoduleScan:
    """A scan on cubes.

    Parameters
    ----------
    hu : int16 (z, y, x)
    lung : where nodules can be put
    others : (n, 3), places of candidates that are no reader's nodule, the strongest first
    real : (n, 3), places in the nodules of readers
    """

    name: str
    hu: Tensor
    lung: Lung
    others: np.ndarray
    real: np.ndarray


@dataclass(frozen=True)
class CubeBatch:
    """hu : (B, 1, side, side, side);  nodule : (B,) of 0 and 1"""

    hu: Tensor
    nodule: Tensor


class CubeMaker:
    """Makes the batch of any step."""

    def __init__(self, scans: list[NoduleScan], batch: int, *, seed: int, device: torch.device) -> None:
        self.patients, self.batch, self.seed, self.device = scans, batch, seed, device
        self.left_out: list[str] = []
        # a scan with three counter-examples shall not show each of them a hundred times as often as one with 300
        weights = np.sqrt([len(scan.others) for scan in scans])
        marked = np.array([len(scan.real) > 0 for scan in scans])
        self.shares = weights / weights.sum()
        if marked.any() and not marked.all():
            for group, share in ((marked, MARKED), (~marked, 1 - MARKED)):
                self.shares[group] *= share / self.shares[group].sum()

    def __call__(self, step: int, rank: int = 0) -> CubeBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step, rank])
        truth = rng.random(self.batch) < NODULES
        hu = torch.stack([self._cube(wanted, rng) for wanted in truth])[:, None]
        return CubeBatch(hu.to(self.device), torch.from_numpy(truth).float().to(self.device))

    def _cube(self, wanted: bool, rng: np.random.Generator) -> Tensor:
        """A nodule if one is wanted, and otherwise a counter-example."""
        if not wanted:
            return _varied(self._other(rng), rng)
        for _ in range(TRIES):
            hu = _varied(self._nodule(rng), rng)
            # what the dot filter cannot see is no candidate; shown as a nodule, it would teach that nothing is one
            if ball_response(hu[None]) >= LEAST_HU:
                break
        return hu

    def _nodule(self, rng: np.random.Generator) -> Tensor:
        real = [scan for scan in self.patients if len(scan.real)]
        if real and rng.random() > INSERTED:
            scan = real[rng.integers(len(real))]
            return cube(scan.hu, scan.real[rng.integers(len(scan.real))] + _beside(rng))
        while True:
            scan = self.patients[rng.integers(len(self.patients))]
            nodule = draw_nodule(scan.lung, rng, diameters_mm=DIAMETERS_MM)
            if nodule is not None:
                jitter = _beside(rng, max(JITTER, JITTER_SHARE * nodule.diameter_mm / 2 / CUBE_MM))
                return with_nodule(scan.hu, nodule, jitter)

    def _other(self, rng: np.random.Generator) -> Tensor:
        scan = self.patients[rng.choice(len(self.patients), p=self.shares)]
        count = len(scan.others)
        if rng.random() < STRONG:  # these decide how many false positives a scan has
            count = max(1, round(STRONGEST * count))
        return cube(scan.hu, scan.others[rng.integers(count)] + _beside(rng))


def _beside(rng: np.random.Generator, most: float = JITTER) -> np.ndarray:
    return rng.uniform(-most, most, 3)


def with_nodule(hu: Tensor, nodule: Nodule, jitter: np.ndarray) -> Tensor:
    """A cube of a scan around an inserted nodule."""
    place = np.array(nodule.centre_mm) / CUBE_MM
    out = cube(hu, place + jitter).numpy()
    first = np.rint(place + jitter).astype(int) - SIDE // 2
    z, y, x = ((place - first) * CUBE_MM).tolist()
    insert(out, (CUBE_MM,) * 3, replace(nodule, centre_mm=(z, y, x)))
    return torch.from_numpy(out)


def _varied(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """A cube flipped, turned, blurred and with noise, so that few scans look like many."""
    hu = hu.flip([axis for axis in range(3) if rng.random() < 0.5])
    if rng.random() < 0.5:
        hu = hu.mT
    if rng.random() < BLURRED:
        z, yx = rng.random(2) * BLUR_MM / CUBE_MM
        hu = torch.from_numpy(ndimage.gaussian_filter(hu.numpy(), (z, yx, yx), mode="nearest"))
    if rng.random() < NOISY:
        hu = hu + float(rng.uniform(0, NOISE_HU)) * torch.from_numpy(rng.standard_normal(hu.shape, np.float32))
    return hu


@dataclass(frozen=True)
class NoduleScans:
    """The scans of a training, those of its validation, and the sha256 of what it trains on."""

    train: list[NoduleScan]
    validation: list[NoduleScan]
    sha256: str


class NoduleTrainer(Trainer):
    """Trains a nodule network by cross-entropy."""

    def __init__(self, config: NoduleTraining, run: Run, scans: NoduleScans, budget: Budget) -> None:
        torch.manual_seed(config.seed)
        self.model = NoduleNetwork(config.nodules).to(run.device)
        cubes = CubeMaker(scans.train, config.data.batch, seed=config.seed, device=run.device)
        super().__init__(self.model, config, cubes, run, scans, budget, "nodules")
        self.cubes = config.data.validation_cubes

    def loss(
        self, network: nn.Module, batch: CubeBatch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value = F.binary_cross_entropy_with_logits(network(batch.hu).float(), batch.nodule)
        return value, {"loss": value}

    def validate(self, patient: NoduleScan) -> dict[str, float]:
        """Area under the ROC curve, and sensitivity where 5 % of the counter-examples pass."""
        self.averaged.eval()
        batch = CubeMaker([patient], self.cubes, seed=1, device=self.folder.device)(0)
        scores = self.averaged(batch.hu).float().cpu().numpy()
        truth = batch.nodule.cpu().numpy() > 0
        right, wrong = scores[truth], scores[~truth]
        area = float((right[:, None] > wrong).mean())
        return {"auc": round(area, 4), "sensitivity": round(float((right > np.quantile(wrong, 0.95)).mean()), 4)}

    def score_line(self, scores: dict[str, float]) -> str:
        return f"AUC {scores['auc']:.3f}, sensitivity at 5 % false positives {scores['sensitivity']:.3f}"

    @property
    def explanation(self) -> str:
        return "loss: cross-entropy; 0.69 is a guess"

    def save_result(self) -> None:
        self.averaged.save_pretrained(self.folder.out / "model")


def train_nodules(
    config: str | Path,
    overrides: list[str] | None = None,
    *,
    out: str | Path,
    max_minutes: float | None = None,
    max_cpu_minutes: float | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    quiet: bool = False,
) -> Path:
    """Train a nodule network from a configuration file; the arguments are those of `uhrct.training.recipe.train`.

    Returns
    -------
    The folder of the trained network.

    Raises
    ------
    UhrctError
        If the configuration, the scans or the folder cannot be used.
    """
    settings = checked(NoduleTraining, read_settings(config, overrides), str(config))
    run = Run(out, resume=resume, device=device, quiet=quiet)
    cache = Path(settings.data.cache)
    train = load_scans(settings.data.corpus, cache, quiet=quiet)
    validation = load_scans(settings.data.validation, cache, quiet=quiet) if settings.data.validation else []
    digest = hashlib.sha256(b"".join(scan.hu.numpy().tobytes() for scan in train)).hexdigest()
    scans = NoduleScans(train, validation, digest)
    return NoduleTrainer(settings, run, scans, Budget(max_minutes, max_cpu_minutes)).run_alone()


def load_scans(roots: tuple[str, ...], cache: Path, *, quiet: bool = False) -> list[NoduleScan]:
    """All scans with lungs below some folders, on cubes; `cache` keeps them.

    Raises
    ------
    UhrctError
        If no scan has lungs and candidates.
    """
    out: list[NoduleScan] = []
    series = [s for root in roots for scan in list_scans(root).scans for s in series_of(scan)[0]]
    for scan in track(series, "scans with lungs", quiet=quiet):
        volume = read_scan(scan)
        if not isinstance(volume, Volume) or Upright.of(volume.direction).slices(volume.shape) < 16:
            continue
        found = _prepared(scan.name, volume, scan.paths[0], cache)
        if found is not None:
            out.append(found)
    if not out:
        raise UhrctError(f"{', '.join(roots)}: no scan of 16 slices or more with lungs")
    return out


def _prepared(name: str, volume: Volume, place: Path, cache: Path) -> NoduleScan | None:
    """One scan, from the cache if it was prepared before. None: it has no lungs or nothing bright in them."""
    votes = votes_file(place)
    digest = hashlib.sha256(np.ascontiguousarray(volume.hu).tobytes())
    digest.update(
        f"{volume.spacing_mm} {CUBE_MM} {MOST_PLACES}".encode() + (votes.read_bytes() if votes.is_file() else b"")
    )
    file = cache / f"{digest.hexdigest()[:24]}.npz"
    if not file.is_file():
        cubes = lung_cubes(volume)
        places: list[Candidate] = [] if cubes is None else find_candidates(*cubes)
        cache.mkdir(parents=True, exist_ok=True)
        with atomic(file) as folder:
            if cubes is None or not places:
                np.savez_compressed(folder / file.name, empty=np.ones(1))
            else:
                grid, lungs = cubes
                hu = grid.hu.numpy().round().astype(np.int16)
                lung = Lung.of(hu, lungs).some(MOST_PLACES, np.random.default_rng(0))
                others = np.array([grid.from_scan(np.array(c.voxel)) for c in places])
                real = np.zeros((0, 3))
                if votes.is_file():
                    real = grid.from_scan(np.argwhere(read_votes(place, volume.shape) > 0))
                if len(real):
                    near = [np.linalg.norm((real - o) * CUBE_MM, axis=1).min() < NEAR_MM for o in others]
                    others = others[~np.array(near)]
                np.savez_compressed(
                    folder / file.name,
                    hu=hu,
                    lung_voxel=lung.voxel,
                    depth_mm=lung.depth_mm,
                    gap_mm=lung.gap_mm,
                    others=others,
                    real=real,
                )
    with np.load(file) as stored:
        if "empty" in stored or not len(stored["others"]):
            return None
        lung = Lung(stored["lung_voxel"], stored["depth_mm"], stored["gap_mm"])
        return NoduleScan(name, torch.from_numpy(stored["hu"]), lung, stored["others"], stored["real"])
