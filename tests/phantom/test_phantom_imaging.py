"""Laws of the image: HU of tissues, coarse grids equal acquired fine ones, noise falls with the root of dose."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.phantom.imaging import add_noise, noise_hu
from uhrct.phantom.scene import LUMEN_HU, WALL_HU, Imager, Scene, View
from uhrct.phantom.tomography import BEAMS, KERNELS, MU_WATER_PER_MM, SOURCE_MM, Scanner, scan
from uhrct.phantom.tree import Tree
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.kernels import SHARP


def test_large_homogeneous_regions_have_their_hu(scene: Scene) -> None:
    hu = (
        Imager(scene, View((3, 40, 40), (1.0, 1.0, 1.0), centre_mm=(-20, 29 * scene.anatomy.size[1], 20))).slab(0, 3).hu
    )
    aorta = hu[1, 16:24, 16:24]  # descending aorta
    assert aorta == pytest.approx(scene.tissues.blood, abs=0.01)
    outside = Imager(scene, View((1, 20, 20), (1.0, 1.0, 1.0), centre_mm=(0, -170, -170))).slab(0, 1).hu
    assert (outside == -1000).all()


def test_the_psf_has_the_same_width_in_mm_on_pixels_that_are_not_square(scene: Scene) -> None:
    view = View((1, 8, 8), (1.0, 0.5, 2.0), psf_fwhm_mm=4.0)
    in_y, in_x = Imager(scene, view).blur_px
    assert in_y * 0.5 == pytest.approx(in_x * 2.0)
    assert in_y * 0.5 * 2.355 == pytest.approx(4.0, rel=0.02)


def test_lung_is_denser_towards_the_back(scene: Scene) -> None:
    view = View((2, 100, 30), (2.0, 2.0, 2.0), centre_mm=(0, 0, -75))
    slab = Imager(scene, view).slab(0, 2)
    lung = (slab.lobes > 0) & (slab.hu < -700)
    y = np.broadcast_to(view.axis_mm(1)[None, :, None], lung.shape)[lung]
    slope = np.polyfit(y, slab.hu[lung], 1)[0]
    assert 0.15 < slope < 0.6


def test_a_thin_airway_has_the_mean_of_its_wall_and_lumen_at_any_voxel(scene: Scene) -> None:
    """Air replaces wall alone, at any voxel size: the sum of the difference of two volumes is known."""
    start = np.array([-60.0, 0.3, -70.2])
    tree = Tree("airway", np.stack([start, start + (120, 0, 0)]), np.array([-1, 0]), np.full(2, 0.26),
                np.array([0, 3]), np.full(2, 0.26))  # fmt: skip
    excess = []
    for spacing in (0.3, 0.8, 1.6):
        view = View((2, int(16 / spacing), int(16 / spacing)), (spacing,) * 3, centre_mm=(0, 0, -70))
        images = []
        for airway in (tree, replace(tree, position_mm=tree.position_mm + (0, 500, 0))):
            trees = {k: replace(airway, kind=k, position_mm=airway.position_mm + 900) for k in ("artery", "vein")}
            images.append(Imager(replace(scene, trees={**trees, "airway": airway}), view).slab(0, 2).hu)
        excess.append(float((images[0] - images[1]).sum() / 2 * spacing**2))
    lung = float(images[1].mean())
    wall = float(tree.outer_mm[0] ** 2 - 0.26**2)
    expected = np.pi * (wall * (WALL_HU - lung) + 0.26**2 * (LUMEN_HU - lung))
    assert excess == pytest.approx([expected] * 3, rel=0.15)


@pytest.mark.parametrize("scale", [(3, 2, 2)])
def test_coarse_is_the_acquisition_of_fine(scene: Scene, scale: tuple[int, int, int]) -> None:
    fine = View((12, 96, 96), (0.8, 0.8, 0.8), psf_fwhm_mm=0.0, centre_mm=(0, 0, -70))
    n = tuple(a // b for a, b in zip(fine.shape, scale, strict=True))
    coarse = View((n[0], n[1], n[2]), (0.8 * scale[0], 1.6, 1.6), centre_mm=fine.centre_mm)
    seen = Imager(scene, coarse).slab(0, n[0]).hu
    expected = Acquisition(scale).forward(torch.from_numpy(Imager(scene, fine).slab(0, 12).hu)).numpy()
    error, contrast = seen - expected, expected - expected.mean()
    assert abs(error.mean()) < 2
    assert error.std() < 0.13 * contrast.std()


def test_slabs_are_parts_of_the_whole(scene: Scene) -> None:
    imager = Imager(scene, View((6, 32, 32), (3.0, 4.0, 4.0)))
    whole = imager.slab(0, 6)
    part = imager.slab(2, 5)
    assert np.allclose(part.hu, whole.hu[2:5], atol=0.05)
    assert (part.lobes == whole.lobes[2:5]).all()
    assert (part.masks["vein"] == whole.masks["vein"][2:5]).all()


def test_noise_falls_with_the_root_of_dose_and_is_correlated() -> None:
    view = View((4, 128, 128), (1.0, 0.7, 0.7))
    flat = np.zeros(view.shape, np.float32)
    low, high = add_noise(flat, view, 0.5, 7, 0), add_noise(flat, view, 8.0, 7, 0)
    assert low.std() / high.std() == pytest.approx(4.0, rel=1e-3)
    assert low.std() == pytest.approx(noise_hu(view, 0.5), rel=0.05)
    assert np.corrcoef(low[:, :, 1:].ravel(), low[:, :, :-1].ravel())[0, 1] > 0.4
    assert abs(np.corrcoef(low[1].ravel(), low[0].ravel())[0, 1]) < 0.1
    assert np.array_equal(add_noise(flat[2:], view, 0.5, 7, 2), low[2:])  # a slice's noise is its own
    assert noise_hu(replace(view, spacing_mm=(4.0, 0.7, 0.7)), 1) == pytest.approx(noise_hu(view, 1) / 2)


def test_a_sharp_kernel_has_more_and_finer_noise() -> None:
    view = View((1, 128, 128), (1.0, 0.7, 0.7))
    flat = np.zeros(view.shape, np.float32)
    standard, sharp = add_noise(flat, view, 1.0, 7, 0), add_noise(flat, view, 1.0, 7, 0, SHARP)
    assert sharp.std() > 2 * standard.std()
    neighbours = [np.corrcoef(n[:, :, 1:].ravel(), n[:, :, :-1].ravel())[0, 1] for n in (standard, sharp)]
    assert neighbours[1] < neighbours[0] - 0.2


N, PIXEL_MM = 72, 5.0  # 360 mm: the fan is far from parallel at the rim
Y, X = np.mgrid[:N, :N] - (N - 1) / 2


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    share = np.clip((27 - np.hypot(Y, X)) / 2, 0, 1)  # an edge as soft as a voxel's, as images of the model have
    return (-1000 + 1040 * share).astype(np.float32)[None].repeat(4, 0)


@pytest.fixture(scope="module")
def parts(disc: np.ndarray) -> np.ndarray:
    """A disc with a lung and a bone, without symmetry."""
    parts = disc[:1].copy()
    parts[:, np.hypot(Y - 4, X - 12) < 8] = -850
    parts[:, np.hypot(Y + 9, X + 14) < 3] = 500
    return parts


def seen_by(scanner: Scanner, images: np.ndarray) -> np.ndarray:
    return scanner.reconstruct(scanner.project(torch.from_numpy(images))).numpy()


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_backprojection_of_a_disc_gives_its_hu(disc: np.ndarray, kernel: str, beam: str) -> None:
    seen = seen_by(Scanner(N, PIXEL_MM, kernel=kernel, beam=beam), disc[:1])[0]
    assert seen[22:50, 22:50].std() < 5  # ringing of a sharp kernel on coarse pixels
    assert seen[22:50, 22:50].mean() == pytest.approx(40, abs=1)
    assert seen[:6, :6].mean() == pytest.approx(-1000, abs=5)


@pytest.mark.parametrize("beam", BEAMS)
def test_parts_are_seen_where_they_are(parts: np.ndarray, beam: str) -> None:
    seen = seen_by(Scanner(N, PIXEL_MM, kernel="sharp", beam=beam), parts)[0]
    for y, x, radius, hu in ((4, 12, 5, -850), (-9, -14, 1.5, 500), (-14, 12, 2, 40)):
        assert seen[np.hypot(Y - y, X - x) < radius].mean() == pytest.approx(hu, abs=25)


def test_fan_and_parallel_beam_agree(parts: np.ndarray) -> None:
    fan, parallel = (seen_by(Scanner(N, PIXEL_MM, beam=beam), parts)[0] for beam in BEAMS)
    assert np.abs(fan - parallel).max() < 0.03 * 1500  # of the contrast, at edges
    assert (fan - parallel).std() < 8
    assert abs((fan - parallel).mean()) < 0.5


def test_a_fan_measures_the_chords_of_a_disc() -> None:
    """Chord of a ray at distance d from the middle: 2 sqrt(r^2 - d^2)."""
    scanner = Scanner(160, 2.0, beam="fan")
    y, x = np.mgrid[:160, :160] - 79.5
    disc = np.where(np.hypot(y, x) * 2 < 100, 0.0, -1000.0).astype(np.float32)[None]
    measured = scanner.project(torch.from_numpy(disc))[:, :, 0].mean(0).numpy()
    fan = (np.arange(scanner.fan_detectors) - (scanner.fan_detectors - 1) / 2) * 2.0 / SOURCE_MM
    away = SOURCE_MM * np.sin(fan)
    chord = MU_WATER_PER_MM * 2 * np.sqrt(np.maximum(100**2 - away**2, 0))
    assert measured[np.abs(away) < 90] == pytest.approx(chord[np.abs(away) < 90], rel=0.01)
    assert not measured[np.abs(away) > 104].any()


@pytest.mark.parametrize("beam", BEAMS)
def test_a_sharp_kernel_keeps_more_of_an_edge(disc: np.ndarray, beam: str) -> None:
    steep = []
    for kernel in ("standard", "sharp"):
        seen = seen_by(Scanner(N, PIXEL_MM, kernel=kernel, beam=beam), disc[:1])[0]
        steep.append(np.abs(np.diff(seen[35])).max())
    assert steep[1] > 1.1 * steep[0]


def noise_of_scan(disc: np.ndarray, dose: float, beam: str) -> float:
    seen = scan(disc.repeat(6, 0), (1.0, PIXEL_MM, PIXEL_MM), dose, 5, 0, beam=beam)
    return float(seen[:, 24:48, 24:48].std(axis=0).mean())


@pytest.mark.parametrize("beam", BEAMS)
def test_noise_of_projections_falls_with_the_root_of_dose(disc: np.ndarray, beam: str) -> None:
    assert noise_of_scan(disc, 1.0, beam) / noise_of_scan(disc, 16.0, beam) == pytest.approx(4.0, rel=0.1)


def test_a_dose_means_the_same_noise_to_either_beam(disc: np.ndarray) -> None:
    assert noise_of_scan(disc, 1.0, "fan") == pytest.approx(noise_of_scan(disc, 1.0, "parallel"), rel=0.05)


def test_unknown_kernels_and_beams_are_refused() -> None:
    with pytest.raises(UhrctError, match="choose from standard, sharp"):
        Scanner(8, 1.0, kernel="lung")
    with pytest.raises(UhrctError, match="choose from fan, parallel"):
        Scanner(8, 1.0, beam="cone")
