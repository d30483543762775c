"""The operators agree with scikit-image's `frangi` and ITK's objectness on a real slice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from skimage.filters import frangi as skimage_frangi

from uhrct import io
from uhrct.evaluation.lungs import lung_mask
from uhrct.structure import StructureOperator

SIGMA_MM = (0.7, 1.2, 2.0)
CONTRAST_HU = 100.0


def by_scikit_image(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """It knows square pixels only, and it leaves out the sigma^2 of scale normalisation: both are supplied here."""
    maps = []
    for sigma_mm in SIGMA_MM:
        sigma_px = sigma_mm / spacing_mm[0]
        scaled = (hu - hu.mean()) * sigma_px**2
        maps.append(skimage_frangi(scaled, [sigma_px], black_ridges=False, beta=0.5, gamma=CONTRAST_HU, mode="nearest"))
    return np.max(maps, axis=0)


def by_itk(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    image = sitk.GetImageFromArray(hu - hu.mean())
    image.SetSpacing(spacing_mm[::-1])
    settings = {"beta": 0.5, "gamma": CONTRAST_HU, "objectDimension": 1, "scaleObjectnessMeasure": False}
    maps = []
    for sigma_mm in SIGMA_MM:
        smooth = sitk.SmoothingRecursiveGaussian(image, sigma_mm) * sigma_mm**2
        maps.append(sitk.GetArrayFromImage(sitk.ObjectnessMeasure(smooth, **settings)))
    return np.max(maps, axis=0)


PEERS: dict[str, Callable[[np.ndarray, tuple[float, float]], np.ndarray]] = {
    "scikit-image": by_scikit_image,
    "ITK": by_itk,
}


@pytest.fixture(scope="module")
def real(shared_ct: Path) -> dict[str, np.ndarray]:
    """Every map of one slice of rider0117, as a list of its lung pixels."""
    files = sorted((shared_ct / "validation" / "rider0117").glob("*.dcm"))
    if not files:
        pytest.skip("real CT not here: rider0117 is missing in ../shared/ct")
    volume = io.read(files[len(files) // 2])
    hu, spacing_mm = volume.hu[0].astype(np.float32), (volume.spacing_mm[1], volume.spacing_mm[2])
    lungs = lung_mask(hu, spacing_mm)
    maps = {name: peer(hu, spacing_mm) for name, peer in PEERS.items()}
    for kind in ("vc", "frangi", "jerman"):
        operator = StructureOperator(kind, sigma_mm=SIGMA_MM, contrast_hu=CONTRAST_HU)
        maps[kind] = operator(torch.from_numpy(hu), spacing_mm).numpy()
    return {name: structure[lungs] for name, structure in maps.items()}


@pytest.mark.parametrize("peer", PEERS)
def test_frangi_equals_both_peers_once_they_get_our_constants(real: dict[str, np.ndarray], peer: str) -> None:
    assert np.corrcoef(real["frangi"], real[peer])[0, 1] > 0.99
    assert np.abs(real["frangi"] - real[peer]).mean() < 0.01


@pytest.mark.parametrize("kind", ["vc", "jerman"])
@pytest.mark.parametrize("peer", PEERS)
def test_v_c_and_jerman_see_the_same_vessels_as_the_peers(real: dict[str, np.ndarray], kind: str, peer: str) -> None:
    """They differ where a vessel crosses the slice: they show a disc, Frangi shows a ring."""
    assert 0.8 < np.corrcoef(real[kind], real[peer])[0, 1] < 0.99
    assert real[kind].mean() > real[peer].mean()
