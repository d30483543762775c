"""Laws of the image: tissues have their HU, coarse is the acquisition of fine, noise falls with the root of dose."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from uhrct.acquisition import Acquisition
from uhrct.phantom.imaging import add_noise, noise_hu
from uhrct.phantom.scene import LUMEN_HU, WALL_HU, Imager, Scene, View
from uhrct.phantom.tomography import Scanner, scan
from uhrct.phantom.trees import Tree


def test_large_homogeneous_regions_have_their_hu(scene: Scene) -> None:
    hu = (
        Imager(scene, View((3, 40, 40), (1.0, 1.0, 1.0), centre_mm=(-20, 29 * scene.anatomy.size[1], 20))).slab(0, 3).hu
    )
    aorta = hu[1, 16:24, 16:24]  # descending aorta
    assert aorta == pytest.approx(scene.tissues.blood, abs=0.01)
    outside = Imager(scene, View((1, 20, 20), (1.0, 1.0, 1.0), centre_mm=(0, -170, -170))).slab(0, 1).hu
    assert (outside == -1000).all()


def test_lung_is_denser_towards_the_back(scene: Scene) -> None:
    view = View((2, 100, 30), (2.0, 2.0, 2.0), centre_mm=(0, 0, -75))
    slab = Imager(scene, view).slab(0, 2)
    lung = (slab.lobes > 0) & (slab.hu < -700)
    y = np.broadcast_to(view.axis_mm(1)[None, :, None], lung.shape)[lung]
    slope = np.polyfit(y, slab.hu[lung], 1)[0]
    assert 0.15 < slope < 0.6


def test_a_thin_airway_has_the_mean_of_its_wall_and_lumen_at_any_voxel(scene: Scene) -> None:
    """Air takes the place of wall, however many tissues share a voxel: the difference of two volumes is known."""
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


@pytest.mark.parametrize("scale", [(2, 2, 2), (3, 2, 2)])
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


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    y, x = np.mgrid[:72, :72] - 35.5
    return np.where(np.hypot(y, x) < 26, 40.0, -1000.0).astype(np.float32)[None].repeat(4, 0)


@pytest.mark.parametrize("kernel", ["standard", "sharp"])
def test_backprojection_of_a_disc_gives_its_hu(disc: np.ndarray, kernel: str) -> None:
    scanner = Scanner(72, 2.0, kernel=kernel)
    seen = scanner.reconstruct(scanner.project(torch.from_numpy(disc[:1]))).numpy()[0]
    assert seen[22:50, 22:50] == pytest.approx(40, abs=6)
    assert seen[22:50, 22:50].mean() == pytest.approx(40, abs=1)
    assert seen[:6, :6].mean() == pytest.approx(-1000, abs=5)


def test_a_sharp_kernel_keeps_more_of_an_edge(disc: np.ndarray) -> None:
    steep = []
    for kernel in ("standard", "sharp"):
        scanner = Scanner(72, 2.0, kernel=kernel)
        seen = scanner.reconstruct(scanner.project(torch.from_numpy(disc[:1])))[0]
        steep.append(float((seen[35, 1:] - seen[35, :-1]).abs().max()))
    assert steep[1] > 1.15 * steep[0]


def test_noise_of_projections_falls_with_the_root_of_dose(disc: np.ndarray) -> None:
    spread = [scan(disc, (1.0, 2.0, 2.0), dose, 5, 0)[:, 24:48, 24:48].std(axis=0).mean() for dose in (1.0, 16.0)]
    assert spread[0] / spread[1] == pytest.approx(4.0, rel=0.15)
