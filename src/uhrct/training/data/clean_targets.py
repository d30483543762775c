"""Training targets without noise: each slice denoised by what its own noise is measured to be, cached beside the run.

Networks learn to restore the noise of their targets. Clean targets stop that, for every kernel. The low-resolution
input is made from the slice as it is.

A denoiser takes faint vessels away with the noise. What it took away is therefore searched for spots and short lines
that noise alone would hardly make, and those are put back (`return_structures`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.hu import FLOOR_HU, INT16, PADDING_HU
from uhrct.core.progress import track
from uhrct.physics.noise import directional_noise_map, noise_map
from uhrct.physics.scan_noise import NoiseMeasurement, measure_noise
from uhrct.training.data.recorrupted import SliceDenoiser

#: Non-local means: side of the compared patches, reach of the search (pixels), and strength in sigmas.
PATCH_PX, DISTANCE_PX, STRENGTH = 5, 7, 0.8
#: What was taken away is searched with a round Gaussian of this sigma, and with lines of this length in as many
#: directions; an answer of the first number of standard deviations returns nothing, of the second everything. What is
#: usual is taken within a neighbourhood, for each direction: streaks are usual where they all lie in one direction.
NEIGHBOURHOOD_MM = 18.0
SPOT_SIGMA_MM, LINE_MM, LINES = 0.5, 4.0, 8
RETURN_FROM, RETURN_ALL = 2.5, 4.0
#: Outside the lungs fewer things are thin and faint: both numbers are larger there. Lung is below this HU on average.
STRICTER, LUNG_HU = 0.5, -500.0
#: Side of the stored noise maps, which vary slowly over a slice.
MAP_PX = 64
#: Slices looked at for the noise of a scan whose single slices hold too little even tissue.
SCAN_SLICES = 9

#: denoise(hu (y, x) float32 without padding, standard deviation of the noise (y, x)) -> clean HU (y, x)
Denoise = Callable[[np.ndarray, np.ndarray], np.ndarray]


def non_local_means(hu: np.ndarray, sigma_map_hu: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """A slice (y, x) denoised by non-local means, where the noise may vary over the slice.

    Parameters
    ----------
    hu : (y, x), HU;  sigma_map_hu : (y, x), local standard deviation of the noise
    strength : filter parameter h in standard deviations

    Raises
    ------
    UhrctError
        Without scikit-image.

    References
    ----------
    Buades, Coll, Morel, "Non-local means denoising", doi 10.5201/ipol.2011.bcm_nlm.

    Example
    -------
    >>> noisy = np.random.default_rng(0).normal(40, 20, (48, 48)).astype(np.float32)
    >>> bool(non_local_means(noisy, np.full((48, 48), 20.0)).std() < 8)
    True
    """
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError:
        raise UhrctError("non-local means needs scikit-image; install uhrct[train]") from None
    unit = np.maximum(sigma_map_hu, 0.1).astype(np.float32)  # patches compare in units of their own noise
    scaled = denoise_nl_means(
        hu.astype(np.float32) / unit,
        patch_size=PATCH_PX,
        patch_distance=DISTANCE_PX,
        h=strength,
        sigma=1.0,
        fast_mode=True,
    )
    return (scaled * unit).astype(np.float32)


def by_network(network: SliceDenoiser, share: float = 1.0) -> Denoise:
    """A learned denoiser as a `Denoise`; `share` of the noise that it finds is taken away."""

    def denoise(hu: np.ndarray, sigma_map_hu: np.ndarray) -> np.ndarray:
        sigma = torch.from_numpy(np.maximum(sigma_map_hu, 0.5).astype(np.float32))
        clean = network.clean(torch.from_numpy(hu.astype(np.float32)), sigma).numpy()
        return (hu + share * (clean - hu)).astype(np.float32)

    return denoise


def clean_slice(
    hu: np.ndarray, spacing_mm: tuple[float, float], sigma_hu: float, denoise: Denoise = non_local_means
) -> np.ndarray:
    """A slice without its noise; padding outside the field of view stays as it is.

    Parameters
    ----------
    hu : (y, x), HU;  spacing_mm : (y, x)
    sigma_hu : its noise in soft tissue (`measure_noise`); how it varies over the body is taken from the slice

    Returns
    -------
    array (y, x), float32
    """
    source = np.asarray(hu, np.float32)
    if sigma_hu <= 0:
        return source
    padding = source <= PADDING_HU
    held = np.where(padding, np.float32(FLOOR_HU), source)
    sigma_map = sigma_hu * noise_map(held, spacing_mm).numpy()
    clean = return_structures(held, denoise(held, sigma_map), sigma_map, spacing_mm)
    return np.where(padding, source, clean).astype(np.float32)


def return_structures(
    noisy: np.ndarray, clean: np.ndarray, sigma_map_hu: np.ndarray, spacing_mm: tuple[float, float]
) -> np.ndarray:
    """Put back what a denoiser took away where it looks like a vessel and not like noise.

    The difference, in units of the local noise, is correlated with a spot and with short lines. Where an answer exceeds
    what is usual around it, the difference is added again.

    Parameters
    ----------
    noisy, clean : (y, x), HU, before and after;  sigma_map_hu : (y, x), local standard deviation of the noise
    spacing_mm : (y, x)
    """
    taken = noisy - clean
    unit = np.clip(taken / np.maximum(sigma_map_hu, 0.1), -6, 6)  # an edge that was taken away must not dwarf the rest
    touched = np.abs(unit) > 1e-3
    if not touched.any():
        return clean
    window = 2 * round(NEIGHBOURHOOD_MM / (2 * float(np.mean(spacing_mm)))) + 1
    spectrum = np.fft.rfft2(unit)
    stricter = np.where(_local_mean(clean, window) < LUNG_HU, 0, STRICTER)
    weight = np.zeros_like(taken)
    for template in _templates(unit.shape[0], unit.shape[1], spacing_mm):
        answer = np.abs(np.fft.irfft2(spectrum * template, unit.shape))
        usual = np.maximum(1.25 * _local_mean(answer, window), 1.25 * float(answer[touched].mean()))
        weight = np.maximum(weight, (answer / usual - RETURN_FROM - stricter) / (RETURN_ALL - RETURN_FROM))
    near = F.max_pool2d(torch.from_numpy(weight.clip(0, 1).astype(np.float32))[None, None], 3, 1, 1)[0, 0].numpy()
    return (clean + near * taken).astype(np.float32)


def _local_mean(image: np.ndarray, window: int) -> np.ndarray:
    """Mean over a square of `window` pixels; at the sides over what lies inside."""
    tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    half = window // 2
    for kernel, padding in (((window, 1), (half, 0)), ((1, window), (0, half))):
        tensor = F.avg_pool2d(tensor, kernel, 1, padding, count_include_pad=False)
    return tensor[0, 0].numpy()


@lru_cache(maxsize=16)
def _templates(height: int, width: int, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Transfer functions (1 + LINES, y, x // 2 + 1) of a Gaussian spot and of Gaussian lines."""
    fy, fx = np.fft.fftfreq(height, spacing_mm[0])[:, None], np.fft.rfftfreq(width, spacing_mm[1])[None]
    along_mm = LINE_MM / np.sqrt(12)  # standard deviation of a line of that length
    spots = [np.exp(-2 * (np.pi * SPOT_SIGMA_MM) ** 2 * (fy**2 + fx**2))]
    for angle in np.arange(LINES) * np.pi / LINES:
        u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        spots.append(np.exp(-2 * np.pi**2 * ((along_mm * u) ** 2 + (SPOT_SIGMA_MM * v) ** 2)))
    return np.stack(spots).astype(np.float32)


@dataclass(frozen=True)
class CleanTarget:
    """A cached clean scan.

    `path` is an int16 `.npy` file (z, y, x); `sigma_hu` the noise that was assumed for each slice; `left_out` the
    slices whose noise could not be measured, not even from the rest of the scan: they are stored as they were.
    """

    name: str
    path: Path
    sigma_hu: tuple[float, ...]
    left_out: tuple[int, ...]

    def load(self) -> np.ndarray:
        """The clean HU (z, y, x), int16, mapped from the disk."""
        return np.load(self.path, mmap_mode="r")

    def load_noise_maps(self) -> np.ndarray:
        """Relative noise of each slice by direction, (z, directions, MAP_PX, MAP_PX), float16."""
        return np.load(self.path.with_suffix(".maps.npy"), mmap_mode="r")


def scan_sigmas(hu: np.ndarray, spacing_mm: tuple[float, float]) -> list[float]:
    """Noise of every slice of a scan (z, y, x); NaN where nothing can be measured.

    A slice with too little even tissue gets the median of its scan's measured slices.
    """
    each = [measure_noise(image, spacing_mm) for image in hu]
    known = [m.sigma_hu for m in each if m.reliable]
    if not known:
        pooled: NoiseMeasurement = measure_noise(hu[np.linspace(0, len(hu) - 1, SCAN_SLICES).astype(int)], spacing_mm)
        return [pooled.sigma_hu] * len(hu)
    typical = float(np.median(known))
    return [m.sigma_hu if m.reliable else typical for m in each]


def clean_corpus(
    scans: Iterable[tuple[str, np.ndarray, tuple[float, float]]],
    cache: Path,
    denoise: Denoise = non_local_means,
    *,
    settings: str = f"nlm {PATCH_PX} {DISTANCE_PX} {STRENGTH}",
    workers: int = 2,
    quiet: bool = False,
) -> Iterator[CleanTarget]:
    """Denoise a corpus, or find it already denoised in `cache`.

    Parameters
    ----------
    scans : (name, HU (z, y, x), pixel spacing (y, x) in mm); for patients of training:
        ``((p.name, p.hu.numpy(), p.spacing_mm) for p in patients)``
    cache : folder of the `.npy` files; made if it is not there
    denoise : what takes the noise away
    settings : names the denoiser with all that its result depends on; with the voxels it is the key of the cache
    workers : slices at once
    quiet : show no progress

    Returns
    -------
    iterator of CleanTarget, in the order of `scans`
    """
    cache.mkdir(parents=True, exist_ok=True)
    for name, hu, spacing_mm in track(scans, "clean targets", quiet=quiet):
        path = cache / f"{_key(hu, spacing_mm, settings)}.npy"
        noise, maps = path.with_suffix(".sigma.npy"), path.with_suffix(".maps.npy")
        if not (path.is_file() and noise.is_file() and maps.is_file()):
            sigmas = scan_sigmas(hu, spacing_mm)
            with atomic(path) as folder:
                np.save(folder / path.name, _cleaned(hu, spacing_mm, sigmas, denoise, workers))
            with atomic(noise) as folder:
                np.save(folder / noise.name, np.array(sigmas, np.float32))
            with atomic(maps) as folder:
                np.save(folder / maps.name, np.stack([_noise_maps(image, spacing_mm) for image in hu]))
        found = np.load(noise)
        yield CleanTarget(name, path, tuple(found.tolist()), tuple(np.flatnonzero(np.isnan(found)).tolist()))


def _cleaned(
    hu: np.ndarray, spacing_mm: tuple[float, float], sigmas: list[float], denoise: Denoise, workers: int
) -> np.ndarray:
    """Clean slices as int16; those without a known noise as they were."""

    def one(pair: tuple[np.ndarray, float]) -> np.ndarray:
        image, sigma = pair
        clean = image if np.isnan(sigma) else np.rint(clean_slice(image, spacing_mm, sigma, denoise))
        return np.clip(clean, INT16.min, INT16.max).astype(np.int16)

    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(one, zip(hu, sigmas, strict=True))))


def _noise_maps(image: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    return F.adaptive_avg_pool2d(directional_noise_map(image, spacing_mm)[None], MAP_PX)[0].half().numpy()


def _key(hu: np.ndarray, spacing_mm: tuple[float, float], settings: str) -> str:
    digest = hashlib.sha256(f"{hu.shape} {hu.dtype} {spacing_mm} {settings}".encode())
    digest.update(np.ascontiguousarray(hu).tobytes())
    return digest.hexdigest()[:24]
