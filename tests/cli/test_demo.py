"""The shipped weights make a demo that is worth looking at."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.cli.demo import demo_name, restore, sharpen

FILES = ("x2.nii.gz", "compare.png", "compare.html")


@pytest.mark.parametrize("scale", [(1, 2, 2), (1, 4, 4)])
def test_the_restored_skull_is_better_than_interpolation(tmp_path: Path, scale: tuple[int, int, int]) -> None:
    """The blur of the simulated scan is told. An unknown one costs x4 several dB on this smooth slice."""
    skull = io.read(str(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    volumes, scores = restore(skull, "skull", scale, tmp_path)
    assert scores["ours"]["psnr_wide"] > scores["interpolation"]["psnr_wide"] + 3
    assert {path.name for path in tmp_path.iterdir()} == {f"skull-{kind}.nii.gz" for kind in volumes} | {
        "skull-scores.json"
    }


def test_the_demo_of_a_scan_says_what_it_assumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(str(get_testdata_file("CT_small.dcm")))
    sharpen(io.read(path), demo_name(path), tmp_path)
    said = capsys.readouterr().out
    assert said.startswith(f"{demo_name(path)}: the middle 1 of 1 slices, about ")
    assert "scan properties: " in said
    assert {p.name for p in tmp_path.iterdir()} == {f"{demo_name(path)}-{end}" for end in FILES}


def test_scans_have_names_of_their_own() -> None:
    assert demo_name(Path("a/CHEST 1.nii.gz")) == "yours-a-CHEST-1"
    assert demo_name(Path("b/CHEST 1.nii.gz")) == "yours-b-CHEST-1"
    assert demo_name(Path("a/1.2.840")) == "yours-a-1.2.840"
