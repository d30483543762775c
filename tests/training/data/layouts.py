"""Small data sets in the exact layouts that users have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.core.volume import Volume

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.{}"
#: spacing of the in-house UHRCT data, which store none
UHRCT_MM = (1.0, 0.34, 0.34)


def noise(seed: int, shape: tuple[int, int, int] = (4, 40, 44)) -> np.ndarray:
    """HU that no one could take for another patient's, smooth along z, from air to bone and beyond."""
    rng = np.random.default_rng(seed)
    return np.rint(np.cumsum(rng.normal(0, 120, shape), 0) + rng.normal(-300, 500, shape[1:])).astype(np.int16)


def volume(seed: int, shape: tuple[int, int, int] = (4, 40, 44)) -> Volume:
    return Volume(noise(seed, shape), (1.25, 0.7, 0.8))


def save(volume: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write(volume, path)


def uhrct_npz(root: Path) -> dict[str, np.ndarray]:
    """Volumes and slices, one of them clipped, none with a spacing."""
    root.mkdir(parents=True)
    whole, clipped, slices = noise(1), noise(2, (4, 64, 64)).clip(-1000, 600), noise(3, (12, 40, 44))
    np.savez(root / "whole.npz", whole)
    np.savez_compressed(root / "clipped.npz", clipped)
    (root / "slices").mkdir()
    for k, plane in enumerate(slices):  # without leading zeros: 10 comes after 9
        np.savez(root / "slices" / f"p7_{k}.npz", plane)
    return {"whole": whole, "clipped": clipped, "p7": slices}


def luna16(root: Path) -> dict[str, Volume]:
    """Subsets 0, 7, 8 and 9, annotations, and the lung masks beside them."""
    scans = {}
    for k, subset in enumerate((0, 7, 8, 9)):
        scan = Volume(noise(k), (1.25, 0.7, 0.8), origin_mm=(-150.0 + k, -140.0, -300.0))
        scans[UID.format(k)] = scan
        save(scan, root / f"subset{subset}" / f"{UID.format(k)}.mhd")
    mask = Volume((noise(0) > 0).astype(np.int16), (1.25, 0.7, 0.8))
    save(mask, root / "seg-lungs-LUNA16" / f"{UID.format(0)}.mhd")
    (root / "annotations.csv").write_text(
        f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{UID.format(0)},-142.0,-133.0,-297.5,6.5\n"
    )
    (root / "candidates.csv").write_text(
        f"seriesuid,coordX,coordY,coordZ,class\n{UID.format(0)},-142.0,-133.0,-297.5,1\n"
        f"{UID.format(0)},-150.0,-140.0,-300.0,0\n"
    )
    return scans


def thick_and_thin(seed: int, slices: int = 31, first: int = -2) -> tuple[Volume, Volume]:
    """(5 mm, 1 mm) of a patient: thick slice k is the mean of the thin ones from 5 k + `first` on, as in RPLHR-CT."""
    fine = noise(seed, (slices + 4, 40, 44)).astype(np.float32)  # two more at each end, which only thick slices see
    starts = [s for s in range(first + 2, slices, 5) if s >= 0 and s + 5 <= len(fine)]
    means = np.rint([fine[s : s + 5].mean(0) for s in starts]).astype(np.int16)
    thin = Volume(fine[2:-2].astype(np.int16), (1.0, 0.7, 0.7), origin_mm=(-170.0, -160.0, -250.0))
    # the middle of thick slice 0 lies two after its first thin one, which `fine` counts from two before `thin`
    thick = Volume(means, (5.0, 0.7, 0.7), origin_mm=(-170.0, -160.0, -250.0 + starts[0]))
    return thick, thin


def rplhr(root: Path) -> dict[str, tuple[Volume, Volume]]:
    """train, val and test, each with folders 5mm and 1mm."""
    pairs = {}
    for k, split in enumerate(("train", "val", "test")):
        name = f"CT{k:08d}"
        pairs[name] = thick, thin = thick_and_thin(10 + k)
        save(thick, root / split / "5mm" / f"{name}.nii.gz")
        save(thin, root / split / "1mm" / f"{name}.nii.gz")
    return pairs
