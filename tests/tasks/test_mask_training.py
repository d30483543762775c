"""Training of mask networks: cases, patches, and a network that learns bright lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import records

import uhrct
from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.tasks.cases import Case, load_cases
from uhrct.tasks.mask_network import MaskNetwork
from uhrct.tasks.patches import PatchMaker
from uhrct.tasks.training import train_task

CPU = torch.device("cpu")
SPACING_MM = (1.0, 0.7, 0.7)


def lines(seed: int, shape: tuple[int, int, int] = (24, 48, 48)) -> tuple[np.ndarray, np.ndarray]:
    """(HU, mask) of bright lines in lung."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for y, x in rng.integers(4, 44, (6, 2)):
        mask[:, y : y + 3, x : x + 3] = True
    hu = np.where(mask, 0, -850) + rng.normal(0, 10, shape)
    return hu.astype(np.int16), mask


def folder_of(cases: Path, count: int) -> Path:
    for k in range(count):
        (cases / str(k)).mkdir(parents=True)
        hu, mask = lines(k)
        uhrct.write(Volume(hu, SPACING_MM), cases / str(k) / "ct.nii.gz")
        uhrct.write(Volume(mask.astype(np.int16), SPACING_MM), cases / str(k) / "vessels.nii.gz")
    return cases


def never(volume: Volume) -> np.ndarray:
    raise AssertionError("a scan with a mask needs no segmenter")


def load(root: Path, tmp_path: Path, segmenter=never) -> list[Case]:
    return load_cases((str(root),), "vessels", segmenter, tmp_path / "masks", largest_mm=2.0, quiet=True)


def test_masks_beside_images_are_exact(tmp_path: Path) -> None:
    cases = load(folder_of(tmp_path / "cases", 2), tmp_path)
    assert [case.exact for case in cases] == [True, True]
    assert cases[0].hu.shape == cases[0].mask.shape
    assert cases[0].mask.sum() == lines(0)[1].sum()


def test_the_layout_of_atm22_is_read(tmp_path: Path) -> None:
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "atm" / part).mkdir(parents=True)
    hu, mask = lines(0)
    uhrct.write(Volume(hu, SPACING_MM), tmp_path / "atm/imagesTr/ATM_001_0000.nii.gz")
    uhrct.write(Volume(mask.astype(np.int16), SPACING_MM), tmp_path / "atm/labelsTr/ATM_001_0000.nii.gz")
    [case] = load(tmp_path / "atm", tmp_path)
    assert case.exact
    assert case.mask.sum() == mask.sum()
    (tmp_path / "atm/imagesTr/ATM_001_0000.nii.gz").unlink()
    with pytest.raises(UhrctError, match=r"its image ATM_001_0000.nii.gz is not in"):
        load(tmp_path / "atm", tmp_path)


def test_narrow_branches_of_a_phantom_are_taken_out_of_its_mask(tmp_path: Path) -> None:
    case = tmp_path / "phantom" / "0"
    case.mkdir(parents=True)
    hu, mask = np.full((24, 48, 48), -850, np.int16), np.zeros((24, 48, 48), bool)
    mask[:, 9:12, 9:12] = mask[:, 30, 30] = True
    uhrct.write(Volume(hu, SPACING_MM), case / "ct.nii.gz")
    uhrct.write(Volume(mask.astype(np.int16), SPACING_MM), case / "airways.nii.gz")
    y, x = 10 * SPACING_MM[1], 30 * SPACING_MM[1]  # of the two tubes, each in both directions
    ends = np.array([[0, y, y], [23, y, y], [0, x, x], [23, x, x]])
    np.savez(
        case / "truth.npz",
        airway_position_mm=ends,
        airway_parent=np.array([-1, 0, -1, 2]),
        airway_radius_mm=np.array([1.0, 1.0, 0.3, 0.3]),
    )

    def marked(least_mm: float) -> int:
        [found] = load_cases(
            (str(tmp_path / "phantom"),),
            "airways",
            never,
            tmp_path,
            largest_mm=2.0,
            least_diameter_mm=least_mm,
            quiet=True,
        )
        return int(found.mask.sum())

    assert marked(0.0) == mask.sum()
    assert marked(1.5) == mask[:, 9:12, 9:12].sum()


def test_scans_without_a_mask_get_a_pseudo_reference_once(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    io.write(Volume(lines(0)[0], SPACING_MM), tmp_path / "scans" / "a.nii.gz")
    calls = []

    def segmenter(volume: Volume) -> np.ndarray:
        calls.append(volume.shape)
        return volume.hu > -400

    first = load(tmp_path / "scans", tmp_path, segmenter)
    again = load(tmp_path / "scans", tmp_path, segmenter)
    assert len(calls) == 1
    assert not first[0].exact
    assert np.array_equal(first[0].mask, again[0].mask)


def test_a_step_always_sees_the_same_patches() -> None:
    hu, mask = lines(0)
    case = Case("a", hu, mask, SPACING_MM, True)
    a, b, other = (PatchMaker([case], (8, 16, 16), 2, seed=0, device=CPU)(step) for step in (3, 3, 4))
    assert torch.equal(a.hu, b.hu)
    assert not torch.equal(a.hu, other.hu)
    assert a.hu.shape == a.mask.shape == (2, 1, 8, 16, 16)


def test_patches_hold_image_and_mask_of_the_same_place() -> None:
    hu, mask = lines(0)
    batch = PatchMaker([Case("a", hu, mask, SPACING_MM, True)], (16, 32, 32), 8, seed=0, device=CPU)(0)
    inside, outside = batch.hu[batch.mask > 0].mean(), batch.hu[batch.mask == 0].mean()
    assert inside > -300
    assert outside < -780


def test_a_network_learns_bright_lines(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    config = tmp_path / "lines.yaml"
    config.write_text(
        f"task: {{task: vessels, width: 4}}\n"
        f"data: {{corpus: [{folder_of(tmp_path / 'train', 3)}], validation: [{tmp_path / 'train'}],\n"
        f"       patch: [8, 32, 32], batch: 4}}\n"
        f"optimizer: {{learning_rate: 3e-2, warmup_steps: 5, ema: 0.9}}\nsteps: 100\n"
    )
    model = train_task(config, segmenter=never, out=tmp_path / "run", device=CPU, quiet=True)
    scores = next(r["validation"] for r in records(tmp_path / "run") if "validation" in r)
    assert min(s["dice"] for s in scores.values()) > 0.85
    network = MaskNetwork.from_pretrained(model)
    hu, mask = lines(9, (20, 40, 50))  # sides that are no multiples of 8
    found = network.probability(hu, patch=(16, 32, 32)) > 0.5
    assert (found & mask).sum() / max(1, (found | mask).sum()) > 0.8


def test_a_bad_setting_gives_one_line(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("task: {task: veins}\n")
    with pytest.raises(UhrctError, match="task"):
        train_task(config, segmenter=never, out=tmp_path / "run")
