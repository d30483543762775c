"""Training of the nodule network on a lung with inserted nodules and bent vessels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import records
from scipy import ndimage

import uhrct
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.phantom.nodules import Nodule
from uhrct.tasks.even_grid import CUBE_MM, EvenGrid
from uhrct.tasks.nodule_candidates import LEAST_HU, Candidate
from uhrct.tasks.nodule_insertion import Lung
from uhrct.tasks.nodule_network import SIDE, NoduleNetwork, NoduleNetworkConfig, ball_response, cube
from uhrct.tasks.nodule_training import CubeMaker, NoduleScan, load_scans, train_nodules, with_nodule

CPU = torch.device("cpu")


def chest(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """(HU, lungs) of a body with two lungs that are full of vessels."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:40, :n, :n]
    hu = np.where(np.hypot(y - n / 2, x - n / 2) < 0.47 * n, 30.0, -1000.0)
    lungs = (np.hypot(y - n / 2, x - 0.3 * n) < 0.17 * n) | (np.hypot(y - n / 2, x - 0.7 * n) < 0.17 * n)
    hu[lungs] = -850
    for _ in range(12):
        place, slope = rng.uniform(0.38, 0.62) * n, rng.uniform(-0.4, 0.4, 2)
        side = rng.choice([0.3, 0.7]) * n
        vessel = np.hypot(y - place - slope[0] * (z - 20), x - side - slope[1] * (z - 20)) < 2
        hu[lungs & vessel] = 0
        thick = np.hypot((z - rng.uniform(8, 32)) / 3, np.hypot(y - place - rng.uniform(-9, 9), x - side)) < 2
        hu[lungs & thick] = 0
    return (hu + rng.normal(0, 15, hu.shape)).astype(np.int16), lungs


def scan() -> NoduleScan:
    hu, lungs = chest()
    others = np.argwhere(lungs & (hu > -100)).astype(float)
    return NoduleScan("a", torch.from_numpy(hu), Lung.of(hu, lungs), others, np.zeros((0, 3)))


def test_a_step_always_sees_the_same_cubes() -> None:
    a, b, other = (CubeMaker([scan()], 8, seed=0, device=CPU)(step) for step in (3, 3, 4))
    assert torch.equal(a.hu, b.hu)
    assert torch.equal(a.nodule, b.nodule)
    assert not torch.equal(a.hu, other.hu)
    assert a.hu.shape == (8, 1, SIDE, SIDE, SIDE)
    assert 0 < a.nodule.sum() < 8


def test_a_cube_of_a_nodule_has_it_in_the_middle() -> None:
    batch = CubeMaker([scan()], 32, seed=1, device=CPU)(0)
    middle = batch.hu[:, 0, 14:18, 14:18, 14:18].mean((1, 2, 3))
    assert middle[batch.nodule > 0].mean() > -600


def test_a_nodule_that_the_filter_cannot_see_is_not_shown() -> None:
    batch = CubeMaker([scan()], 200, seed=2, device=CPU)(0)
    response = ball_response(batch.hu[:, 0])
    assert (response[batch.nodule > 0] >= LEAST_HU).all()
    # without the rule some would be: small ones of ground glass in a blurred scan
    rng = np.random.default_rng(0)
    small = Nodule((16.0, 36.0, 22.0), 3.0, "ground-glass", "free", 0, np.zeros((5, 5)))
    hu = with_nodule(torch.full((40, 90, 90), -850), small, rng.uniform(-1, 1, 3))
    blurred = ndimage.gaussian_filter(hu.numpy(), np.array([2.0, 1.0, 1.0]) / CUBE_MM)
    assert ball_response(torch.from_numpy(blurred)[None]) < LEAST_HU < ball_response(hu[None])


def test_half_of_the_counter_examples_are_of_scans_that_readers_marked() -> None:
    plain = scan()
    marked = replace(plain, hu=torch.full_like(plain.hu, 1000), real=np.array([[20.0, 45, 27]]))
    batch = CubeMaker([marked, *[plain] * 9], 400, seed=0, device=CPU)(0)
    bright = batch.hu[batch.nodule == 0][:, 0, 16, 16, 16] > 500  # only the marked scan is
    assert 0.4 < bright.float().mean() < 0.6


def test_cubes_are_as_blurred_and_as_free_of_noise_as_results_are() -> None:
    even = replace(scan(), hu=torch.zeros(40, 90, 90, dtype=torch.int16), others=np.array([[20.0, 45, 45]]))
    even.hu[:, 45:] = 100
    batch = CubeMaker([even], 200, seed=0, device=CPU)(0)
    others = batch.hu[batch.nodule == 0][:, 0]
    quiet = others[others[:, 2:-2, :, 2:6].std((1, 3)).amax(1) < 0.5]
    assert 0.2 < len(quiet) / len(others) < 0.4  # the others have noise
    steep = quiet.diff(dim=2).abs().amax((1, 2, 3))
    assert (steep > 99).any()
    assert (steep < 50).any()


def test_candidates_are_scored_at_their_places() -> None:
    pytest.importorskip("monai")
    network = NoduleNetwork(NoduleNetworkConfig(width=2)).eval()
    hu, _ = chest()
    grid = EvenGrid.of(hu, (CUBE_MM,) * 3, tuple(slice(0, n) for n in hu.shape))
    places = [(20.0, 45.0, 27.0), (0.0, 0.0, 0.0)]
    both = network.probabilities(grid, [Candidate(p, 6.0, 50.0) for p in places])
    alone = network(cube(grid.hu, np.array(places[0]))[None, None]).sigmoid()
    assert both.shape == (2,)
    assert both[0] == pytest.approx(float(alone[0].detach()), abs=1e-5)
    assert network.probabilities(grid, []).shape == (0,)


def test_without_its_layers_the_network_ranks_as_the_filter_does() -> None:
    pytest.importorskip("monai")
    network = NoduleNetwork(NoduleNetworkConfig(width=2)).eval()
    for p in network.network.parameters():
        torch.nn.init.zeros_(p)
    z, y, x = np.mgrid[-16:16, -16:16, -16:16] * CUBE_MM
    shapes = [np.sqrt(z**2 + y**2 + x**2) < 3, np.hypot(y, x) < 3, x < -9.5]  # ball, tube, wall
    hu = torch.from_numpy(np.where(np.stack(shapes)[:, None], 0.0, -850.0)).float()
    ball, tube, wall = network(hu).tolist()
    assert ball > 1
    assert max(abs(tube), abs(wall)) < 0.1


def test_the_network_learns_from_a_folder_of_scans(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    (tmp_path / "scans").mkdir()
    uhrct.write(Volume(chest(200)[0], (0.8, 0.8, 0.8)), tmp_path / "scans" / "a.nii.gz")
    config = tmp_path / "nodules.yaml"
    config.write_text(
        f"nodules: {{width: 4}}\ndata: {{corpus: [{tmp_path / 'scans'}], validation: [{tmp_path / 'scans'}],\n"
        f"  cache: {tmp_path / 'cache'}, batch: 8}}\n"
        f"optimizer: {{learning_rate: 1e-2, warmup_steps: 5, ema: 0.9}}\nsteps: 30\n"
    )
    model = train_nodules(config, out=tmp_path / "run", device=CPU, quiet=True)
    scores = next(r["validation"] for r in records(tmp_path / "run") if "validation" in r)
    assert scores["a"]["auc"] > 0.7
    assert NoduleNetwork.from_pretrained(model).config.width == 4
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_scan_whose_readers_found_nothing_is_used(tmp_path: Path) -> None:
    volume = Volume(chest(200)[0], (0.8, 0.8, 0.8))
    (tmp_path / "scans").mkdir()
    uhrct.write(volume, tmp_path / "scans" / "a.nii.gz")
    np.savez(tmp_path / "scans" / "nodule_votes.npz", votes=np.zeros(volume.shape, np.uint8))
    for _ in range(2):  # the second time from the cache
        scans = load_scans((str(tmp_path / "scans"),), tmp_path / "cache", quiet=True)
        assert len(scans[0].others) > 0
        assert len(scans[0].real) == 0
    np.savez(tmp_path / "scans" / "nodule_votes.npz", votes=np.ones((3, 4, 5), np.uint8))
    with pytest.raises(UhrctError, match="do not fit the scan"):
        load_scans((str(tmp_path / "scans"),), tmp_path / "cache", quiet=True)


def test_scans_without_lungs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    uhrct.write(Volume(np.full((16, 40, 40), 30, np.int16), (1, 1, 1)), tmp_path / "scans" / "a.nii.gz")
    config = tmp_path / "nodules.yaml"
    config.write_text(f"nodules: {{width: 2}}\ndata: {{corpus: [{tmp_path / 'scans'}], cache: {tmp_path / 'cache'}}}\n")
    with pytest.raises(UhrctError, match="no scan of 16 slices or more with lungs"):
        train_nodules(config, out=tmp_path / "run", quiet=True)
