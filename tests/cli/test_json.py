"""`--json` of all commands, and what `uhrct upscale` says before and after the work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from pydicom import dcmread
from run_cli import Result, Uhrct, done, everything, refused

import uhrct as package
from uhrct import io
from uhrct.core.volume import Volume


def parsed(result: Result) -> Any:
    """The whole of stdout as JSON."""
    return json.loads(done(result).out)


def scout(k: int, ds: Any) -> None:
    if k == 4:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def test_the_report_of_a_run(uhrct: Uhrct, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_series(tmp_path / "in", shape=(5, 12, 14), edit=scout)
    monkeypatch.chdir(tmp_path)
    result = done(uhrct("upscale", "in", "out", "--weights", weights, "--json", "run.json", "--noise-hu", 12))
    assert result.out == ""
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["schema"] == "uhrct-report-2"
    assert report["uhrct"] == package.__version__
    assert report["input"]["path"] == "in"
    assert report["input"]["shape"] == [4, 12, 14]
    assert report["input"]["slice_thickness_mm"] == 3.0
    assert report["output"]["spacing_mm"] == pytest.approx([2.5, 0.4, 0.35])
    sha256 = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    assert report["weights"] == {"name": "tiny", "sha256": sha256}
    assert report["scan_properties"]["noise_hu"] == 12
    assert report["reasons"]["noise"].startswith("your choice")
    assert report["settings"]["noise_hu"] == 12
    assert report["consistency_hu"] > 0
    assert report["seconds"] > 0
    assert report["warnings"] == ["ignored 1 localizer image(s) in the series"]
    [file] = report["files"]
    written = [dcmread(f) for f in sorted((tmp_path / "out").iterdir())]
    assert (file["path"], file["content"]) == ("out", "image")
    assert {ds.SeriesInstanceUID for ds in written} == {file["series_instance_uid"]}
    assert [ds.SOPInstanceUID for ds in written] == file["sop_instance_uids"]
    assert PATIENT not in json.dumps(report)
    assert not list(tmp_path.glob(".uhrct-*"))


def test_the_report_names_the_maps_too(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    make_series(tmp_path / "in", shape=(2, 12, 14))
    report = parsed(
        uhrct(
            *("upscale", tmp_path / "in", tmp_path / "out.nii.gz", "--weights", weights, "--steps", 2, "--samples", 2),
            *("--structure", tmp_path / "v.dcm", "--spread", tmp_path / "sd", "--json", "-"),
        )
    )
    by_content = {file["content"]: file for file in report["files"]}
    assert {k: f["path"] for k, f in by_content.items()} == {
        "image": str(tmp_path / "out.nii.gz"),
        "structure": str(tmp_path / "v.dcm"),
        "spread": str(tmp_path / "sd"),
    }
    assert by_content["image"]["series_instance_uid"] is None
    assert by_content["image"]["sop_instance_uids"] == []
    for content, path in (("structure", tmp_path / "v.dcm"), ("spread", tmp_path / "sd" / "00001.dcm")):
        ds = dcmread(path)
        assert by_content[content]["series_instance_uid"] == ds.SeriesInstanceUID
        assert by_content[content]["sop_instance_uids"] == [ds.SOPInstanceUID]


def test_every_command_leaves_stdout_to_the_json(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uhrct.models.folder.WEIGHTS_DIR", weights.parent)
    io.write(scan, tmp_path / "in.nii")
    commands: dict[str, tuple[object, ...]] = {
        "upscale": (tmp_path / "in.nii", tmp_path / "out.npz", "--weights", weights, "--overwrite"),
        "info": (tmp_path / "in.nii",),
        "models": (),
        "evaluate": (tmp_path / "in.nii", tmp_path / "in.nii"),
    }
    said = {
        "upscale": "Research use only",
        "info": "can be processed",
        "models": "PSNR over interpolation",
        "evaluate": "metric",
    }
    for verb, arguments in commands.items():
        result = uhrct(verb, *arguments, "--json", "-")
        on_stdout = parsed(result)
        assert said[verb] in result.err
        done(uhrct(verb, *arguments, "--json", tmp_path / f"{verb}.json"))
        in_file = json.loads((tmp_path / f"{verb}.json").read_text())
        volatile = {"seconds": 0}
        assert on_stdout | volatile == in_file | volatile
    assert not (tmp_path / "-").exists()


def test_the_json_file_is_checked_before_the_work(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    (tmp_path / "old.json").write_text("someone's")
    (tmp_path / "folder").mkdir()
    before = everything(tmp_path)
    hr = tmp_path / "in.nii"
    for command in (("upscale", hr, tmp_path / "out.nii", "--weights", weights), ("info", hr), ("models",)):
        refused(uhrct(*command, "--json", tmp_path / "old.json"), "old.json: exists", "--overwrite")
        refused(uhrct(*command, "--json", tmp_path / "folder"), "folder: is a folder")
        refused(uhrct(*command, "--json", tmp_path / "no" / "a.json"), "does not exist; create it first")
        if len(command) > 1:
            refused(uhrct(*command, "--json", hr, "--overwrite"), "output equals input")
    same = tmp_path / "out.nii"
    refused(uhrct("upscale", hr, same, "--weights", weights, "--json", same), "same name")
    assert everything(tmp_path) == before
    done(uhrct("models", "--json", tmp_path / "old.json", "--overwrite"))
    assert json.loads((tmp_path / "old.json").read_text())["schema"] == "uhrct-models-1"


def test_a_run_that_fails_writes_no_report(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    command = ("upscale", tmp_path / "in.nii", tmp_path / "out.nii", "--weights", weights, "--scale", 3)
    refused(uhrct(*command, "--json", tmp_path / "run.json"), "no weights serve scale")
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii"]


def test_notes_of_one_run_are_not_those_of_the_next(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "a", shape=(5, 12, 14), edit=scout)
    make_series(tmp_path / "b", shape=(3, 12, 14))
    for name, count in (("a", 1), ("b", 0)):
        command = ("upscale", tmp_path / name, tmp_path / f"{name}.npz", "--weights", weights, "--json", "-")
        report = parsed(uhrct(*command, "-q"))
        assert len(report["warnings"]) == count


def test_clipped_voxels_are_a_note_even_when_quiet(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    hu = np.full((1, 32, 32), 32767, np.int16)
    hu[:, :, :15] = -1000
    io.write(Volume(hu, (1, 1, 1)), tmp_path / "in.npz")
    result = uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", weights, "-q", "--json", "-")
    report = parsed(result)
    assert report["clipped_voxels"] > 0
    assert report["warnings"] == [f"{report['clipped_voxels']} voxels beyond 16 bits were clipped"]
    assert result.err.splitlines() == [f"uhrct: note: {report['warnings'][0]}"]


def test_info_says_where_each_series_lies(uhrct: Uhrct, tmp_path: Path) -> None:
    """Its folder, or its first file if another series lies there too."""
    make_series(tmp_path / "in" / "alone", number=1, seed=1, shape=(3, 8, 8))
    make_series(tmp_path / "in" / "spread" / "x", number=2, seed=2, shape=(3, 8, 8), edit=lambda k, ds: k > 0)
    make_series(tmp_path / "in" / "spread" / "y", number=2, seed=2, shape=(3, 8, 8), edit=lambda k, ds: k == 0)
    make_series(tmp_path / "in" / "mixed", number=3, seed=3, shape=(2, 8, 8), name="a{}.dcm")
    make_series(tmp_path / "in" / "mixed", number=4, seed=4, shape=(2, 8, 8), name="b{}.dcm", edit=lambda k, ds: k != 0)
    (tmp_path / "in" / "spread" / "lost.dcm").write_text("damaged")
    result = uhrct("info", tmp_path / "in", "--json", "-")
    listing = parsed(result)
    assert listing["schema"] == "uhrct-info-1"
    assert listing["input"] == str(tmp_path / "in")
    assert [(s["number"], s["path"]) for s in listing["series"]] == [
        (1, "alone"),
        (2, "spread"),
        (3, "mixed/a1.dcm"),
        (4, "mixed/b1.dcm"),
        (None, "spread/lost.dcm"),
    ]
    first, damaged = listing["series"][0], listing["series"][-1]
    assert first["can_be_processed"] is True
    assert first["shape"] == [3, 8, 8]
    assert first["spacing_mm"] == [2.5, 0.8, 0.7]
    assert (first["kind"], first["modality"], first["description"]) == ("DICOM", "CT", "CHEST 1")
    assert first["uid"] == dcmread(tmp_path / "in" / "alone" / "001.dcm").SeriesInstanceUID
    assert damaged["can_be_processed"] is False
    assert "not a DICOM file" in damaged["problem"]
    for place in ("alone", "mixed/a1.dcm", "spread/lost.dcm"):
        assert place in result.err
    # the path of a folder is the path of that series alone
    assert parsed(uhrct("info", tmp_path / "in" / "spread" / "x", "--json", "-"))["series"][0]["path"] == "."
    file = tmp_path / "in" / "alone" / "001.dcm"
    assert parsed(uhrct("info", file, "--json", "-"))["series"][0]["path"] == "001.dcm"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.mha"])
def test_info_of_a_file_in_json(uhrct: Uhrct, scan: Volume, tmp_path: Path, name: str) -> None:
    io.write(scan, tmp_path / name)
    [series] = parsed(uhrct("info", tmp_path / name, "--json", "-"))["series"]
    assert series["path"] == name
    assert series["shape"] == [3, 45, 37]
    assert series["spacing_mm"] == pytest.approx([2.5, 0.9, 0.8])
    assert series["plane"] == "axial"


def test_info_names_options_in_json(uhrct: Uhrct, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", np.zeros((9, 11), np.int16))
    [series] = parsed(uhrct("info", tmp_path / "in.npz", "--json", "-"))["series"]
    assert series["can_be_processed"] is False
    assert "--input-spacing Z,Y,X" in series["problem"]


def test_models_in_json(uhrct: Uhrct, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uhrct.models.folder.WEIGHTS_DIR", weights.parent)
    blob = (weights / "model.safetensors").read_bytes()
    expected = {
        "name": "tiny",
        "scale": [1, 2, 2],
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
        "draws_samples": True,
        "licence": None,
        "training_data": None,
        "gain_db": {},
    }
    assert parsed(uhrct("models", "--json", "-"))["models"] == [expected]
    card = {"licence": "CC BY 4.0", "training_data": "made up", "gain_db": {"p1": 6.1}}
    (weights / "card.json").write_text(json.dumps(card))
    assert parsed(uhrct("models", "--json", "-"))["models"] == [expected | card]


def test_models_say_what_each_quality_costs(uhrct: Uhrct) -> None:
    costs = parsed(uhrct("models", "--json", "-"))["qualities"]
    ways = (("fast", "torch"), ("standard", "torch"), ("standard", "int8"), ("best", "torch"))
    time = {(c["scale"], c["quality"], c["engine"]): c["time_over_standard"] for c in costs}
    assert set(time) == {(s, *way) for s in ("x2", "x4") for way in ways}
    for scale in ("x2", "x4"):
        fast, standard, int8, best = (time[scale, *way] for way in ways)
        assert max(fast, int8) < standard == 1 < best


def test_the_plan_shows_spacing_and_thickness_of_the_file(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path
) -> None:
    one = Volume(scan.hu[:1], (5.0, 0.74, 0.74), slice_thickness_mm=1.0)
    for name, volume, line in (
        ("a", scan, "scan: 3 slices, 2.50 mm apart, thickness not stated, pixels 0.90 x 0.80 mm"),
        (
            "b",
            replace(scan, slice_thickness_mm=1.25),
            "scan: 3 slices, 2.50 mm apart, 1.25 mm thick, pixels 0.90 x 0.80 mm",
        ),
        ("c", one, "scan: 1 slice, 1.00 mm thick, pixels 0.74 mm"),
    ):
        io.write(volume, tmp_path / f"{name}.npz")
        result = done(uhrct("upscale", tmp_path / f"{name}.npz", tmp_path / f"{name}.nii", "--weights", weights))
        assert line in result.err.splitlines()


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "; the scan's noise alone would give "), (0.7, ", which is more than the scan's noise")]
)
def test_the_summary_compares_the_difference_with_the_noise(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, share: float, words: str
) -> None:
    """Like with like: voxels of the body, and the mean absolute value of noise, which is .8 standard deviations."""
    io.write(scan, tmp_path / "in.npz")
    command = ("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", weights, "--overwrite")
    # without a correction the difference does not depend on the noise
    off = (*command, "--consistency", "off")
    report = parsed(uhrct(*off, "--json", "-"))
    body_hu = report["consistency_body_hu"]
    result = done(uhrct(*off, "--noise-hu", f"{share * body_hu / 0.8:.3f}"))
    line = f"differs from the scan by {report['consistency_hu']:.1f} HU on average, in the body by {body_hu:.1f} HU"
    assert line + words in result.err
    untold = done(uhrct(*off))
    assert "scan's noise" not in untold.err


def test_the_summary_says_why_nothing_was_measured(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan.on_grid(scan.grid, np.full_like(scan.hu, -3024)), tmp_path / "in.npz")
    result = done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", weights))
    assert "Its difference from the scan was not measured, because all slices are padding" in result.err


def test_long_work_is_announced_unless_quiet(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uhrct.core.progress.WARM_UP_S", 0.0)
    monkeypatch.setattr("uhrct.core.progress.LONG_S", 0.0)
    io.write(scan, tmp_path / "in.npz")
    command = ("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", weights, "--overwrite")
    samples = ("--steps", 2, "--samples", 2)
    [line] = [x for x in done(uhrct(*command, *samples)).err.splitlines() if x.startswith("about")]
    assert line.endswith("on this machine (2 samples of 3 slices)")
    assert done(uhrct(*command, *samples, "-q")).err == ""
