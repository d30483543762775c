"""`uhrct evaluate`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from run_cli import REFUSED, USAGE, Uhrct, done, everything, refused

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.evaluation.measures import MEASURES, VOLUME_MEASURES


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Three slices of 64 x 64 with a lung cut by the edge and vessels; the test is 10 HU brighter and noisy."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:3, :64, :64]
    hu = np.where(x < 40, -850.0, 40.0) + rng.normal(0, 8, z.shape)
    for cy, cx in ((16, 12), (40, 24)):
        hu += 880 * np.exp(-0.5 * ((y - cy - z) ** 2 + (x - cx) ** 2) / 1.8**2)
    reference = Volume(np.rint(hu).astype(np.int16), (1.0, 0.7, 0.7), (3.0, -20.0, 100.0))
    io.write(reference, tmp_path / "hr.nii.gz")
    test = np.rint(hu + 10 + rng.normal(0, 5, hu.shape)).astype(np.int16)
    io.write(reference.on_grid(reference.grid, test), tmp_path / "sr.nrrd")
    return tmp_path / "hr.nii.gz", tmp_path / "sr.nrrd"


class Balanced(HTMLParser):
    """Every tag that opens closes, and nothing is fetched from elsewhere."""

    void = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        assert tag not in ("script", "iframe", "link")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_table_json_and_page_tell_the_same(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = done(uhrct("evaluate", *pair, "--json", tmp_path / "o.json", "--html", tmp_path / "o.html"))
    data = json.loads((tmp_path / "o.json").read_text())
    page = (tmp_path / "o.html").read_text()
    assert data["schema"] == "uhrct-evaluate-1"
    assert "evaluate: done" in result.err
    assert "Research use only" in result.out
    for name, measure in (MEASURES | VOLUME_MEASURES).items():
        if name == "consistency_hu":
            assert name not in data["means"]
            continue
        value = data["means"][name]["mean"] if name in MEASURES else data["volume"][name]
        assert measure.label in result.out
        shown = "undefined (" if value is None else f"{value * measure.printed_times:.{measure.decimals}f}"
        [line] = [row for row in result.out.splitlines() if row.startswith(f"{measure.label}  ")]
        assert shown in line
        assert shown in page
    assert data["reference"] == {"file": "hr.nii.gz", "shape": [3, 64, 64], "spacing_mm": pytest.approx([1, 0.7, 0.7])}
    assert [s["slice"] for s in data["slices"]] == [0, 1, 2]
    assert data["slices"][0]["mae_hu"] == pytest.approx(10, abs=0.5)
    assert data["constants"]["smse"]["operators"]["vc"]["contrast_hu"] == 250
    assert data["constants"]["acquisition"] is None
    assert data["means"]["cldice_25"]["mean"] > 0.8
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert all(s.startswith(("data:image/webp;base64,", "#")) for s in parser.sources)
    pictures = re.findall(r"base64,([^\"]+)\"", page)
    assert len(pictures) >= 4  # slices, vessels, errors, and a zoom
    assert "interpolation" not in page
    assert all(base64.b64decode(p).startswith(b"RIFF") for p in pictures)
    assert page.count("<svg") == 8
    assert "Research use only; not a medical device." in page
    assert not list(tmp_path.glob(".uhrct-*"))


def test_quiet_says_nothing_and_writes_all(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = done(uhrct("evaluate", *pair, "--quiet", "--json", tmp_path / "o.json"))
    assert (result.out, result.err) == ("", "")
    assert json.loads((tmp_path / "o.json").read_text())["means"]["rmse_hu"]["slices_defined"] == 3


def test_a_real_slice_as_dicom_its_degraded_scan_and_its_interpolation(uhrct: Uhrct, tmp_path: Path) -> None:
    hr = Path(get_testdata_file("CT_small.dcm"))
    lr, sr = tmp_path / "lr.nii.gz", tmp_path / "sr.nii.gz"
    done(uhrct("degrade", hr, lr))
    low = io.read(lr)
    high = io.read(hr)
    nearest = high.on_grid(high.grid, np.repeat(np.repeat(low.hu, 2, 1), 2, 2))
    io.write(nearest, sr)
    means = {}
    for kind in ("scanner", "bicubic"):
        done(uhrct("evaluate", hr, sr, "--lr", lr, "--kind", kind, "--json", tmp_path / "o.json", "-q", "--overwrite"))
        data = json.loads((tmp_path / "o.json").read_text())
        assert data["constants"]["acquisition"]["kind"] == kind
        assert data["constants"]["acquisition"]["scale"] == [1, 2, 2]
        means[kind] = data["means"]
    assert means["scanner"]["rmse_hu"] == means["bicubic"]["rmse_hu"]
    assert means["scanner"]["consistency_hu"]["mean"] > 1
    assert means["scanner"]["consistency_hu"] != means["bicubic"]["consistency_hu"]
    done(uhrct("evaluate", hr, hr, "--lr", lr, "--json", tmp_path / "o.json", "-q", "--overwrite"))
    truth = json.loads((tmp_path / "o.json").read_text())["means"]
    assert truth["consistency_hu"]["mean"] < 0.3  # the LR was rounded to whole HU
    assert truth["psnr_wide"]["mean"] is None
    assert truth["psnr_wide"]["undefined"] == "no difference inside the window"


def test_what_is_undefined_is_said(uhrct: Uhrct, tmp_path: Path) -> None:
    constant = np.full((2, 48, 48), 40, np.float32)
    brighter = constant + np.array([5, 0], np.float32)[:, None, None]
    np.savez(tmp_path / "a.npz", arr_0=constant)
    np.savez(tmp_path / "b.npz", arr_0=brighter)
    arguments = (tmp_path / "a.npz", tmp_path / "b.npz", "--input-spacing", "1,1,1")
    result = done(uhrct("evaluate", *arguments, "--json", tmp_path / "o.json", "--html", tmp_path / "o.html"))
    assert "undefined (no lung in the reference)" in result.out
    assert "undefined (the reference is constant inside the window)" in result.out
    assert "1 of 2 (no difference inside the window)" in result.out
    data = json.loads((tmp_path / "o.json").read_text())
    assert data["means"]["rmse_hu"]["mean"] == 2.5
    assert data["means"]["psnr_wide"] == {
        "mean": pytest.approx(20 * np.log10(1600 / 5)),
        "slices_defined": 1,
        "slices": 2,
        "undefined": "no difference inside the window",
    }
    assert data["slices"][1]["psnr_wide"] is None
    assert data["volume"]["flicker"] is None
    assert "no noise" in data["volume"]["undefined"]["flicker"]
    page = (tmp_path / "o.html").read_text()
    assert "undefined (no lung in the reference)" in page
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower().replace("nan or", "")


def test_nan_and_scans_without_spacing_are_refused(uhrct: Uhrct, tmp_path: Path) -> None:
    hu = np.full((1, 48, 48), -850, np.float32)
    np.savez(tmp_path / "a.npz", arr_0=hu)
    np.savez(tmp_path / "lr.npz", arr_0=hu[:, ::2, ::2])
    hu[0, 3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", arr_0=hu)
    spacing = ("--input-spacing", "1,1,1")
    refused(uhrct("evaluate", tmp_path / "a.npz", tmp_path / "nan.npz", *spacing), "nan.npz", "NaN", code=REFUSED)
    refused(uhrct("evaluate", tmp_path / "a.npz", tmp_path / "a.npz"), "--input-spacing", code=REFUSED)
    lr = ("--lr", tmp_path / "lr.npz")
    refused(
        uhrct("evaluate", tmp_path / "a.npz", tmp_path / "a.npz", *spacing, *lr), "lr.npz", "spacing_mm", code=REFUSED
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hu": np.zeros((3, 64, 60), np.int16)}, "shape (3, 64, 64) against (3, 64, 60)"),
        ({"spacing_mm": (1.0, 0.7, 0.8)}, "by up to 0.1 mm"),
        ({"origin_mm": (3.0, -20.0, 101.0)}, "origin"),
        ({"direction": np.eye(3)[::-1] * -1.0}, "direction"),
    ],
)
def test_grids_that_differ(
    uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path, change: dict[str, object], words: str
) -> None:
    hr = io.read(pair[0])
    fields = {f: getattr(hr, f) for f in ("hu", "spacing_mm", "origin_mm", "direction")}
    io.write(Volume(**{**fields, **change}), tmp_path / "other.nrrd")
    before = everything(tmp_path)
    result = uhrct("evaluate", pair[0], tmp_path / "other.nrrd", "--json", tmp_path / "o.json")
    refused(result, "grids differ", words, code=REFUSED)
    assert everything(tmp_path) == before


def test_senseless_arguments(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    hr, sr = pair
    (tmp_path / "folder").mkdir()
    before = everything(tmp_path)
    for arguments, words in (
        ((hr, tmp_path / "none.nii"), ("none.nii", "no such file")),
        ((hr, sr, "--lr", sr), ("one grid",)),
    ):
        refused(uhrct("evaluate", *arguments), *words, code=REFUSED)
    for arguments, words in (
        ((hr, sr, "--json", hr), ("hr.nii.gz", "choose another")),
        ((hr, sr, "--html", tmp_path / "folder"), ("folder",)),
        ((hr, sr, "--json", tmp_path / "no" / "o.json"), ("does not exist",)),
        ((hr, sr, "--json", tmp_path / "o", "--html", tmp_path / "o"), ("same name",)),
        ((hr, sr, "--kind", "bicubic"), ("--lr",)),
        ((hr, sr, "--psf-fwhm-mm", "1"), ("--lr",)),
        ((hr, sr, "--lr", sr, "--kind", "bicubic", "--psf-fwhm-mm", "1"), ("--psf-fwhm-mm",)),
        ((hr, sr, "--lr", sr, "--psf-fwhm-mm", "-1"), ("--psf-fwhm-mm",)),
        ((hr, sr, "--input-spacing", "1,1,1"), ("--input-spacing",)),
    ):
        refused(uhrct("evaluate", *arguments), *words, code=USAGE)
    assert everything(tmp_path) == before


def test_file_names_are_text_in_the_page(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    odd = tmp_path / "a<b>&c.nrrd"
    pair[1].rename(odd)
    done(uhrct("evaluate", pair[0], odd, "--html", tmp_path / "o.html", "-q"))
    page = (tmp_path / "o.html").read_text()
    assert "a&lt;b&gt;&amp;c.nrrd" in page
    assert "a<b>" not in page


def test_interpolation_is_a_baseline(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    hr, sr = pair
    lr, outputs = tmp_path / "lr.nii.gz", ("--json", tmp_path / "o.json", "--html", tmp_path / "o.html")
    done(uhrct("degrade", hr, lr, "--scale", "3x2x2"))
    result = done(uhrct("evaluate", hr, sr, "--lr", lr, *outputs))
    data = json.loads((tmp_path / "o.json").read_text())
    page = (tmp_path / "o.html").read_text()
    baseline = data["baseline"]
    assert baseline["method"].startswith("cubic interpolation")
    assert set(baseline["means"]) == set(data["means"])
    assert [s["slice"] for s in baseline["slices"]] == [0, 1, 2]
    assert "interpolation: done" in result.err
    [line] = [row for row in result.out.splitlines() if row.startswith("MAE ")]
    mine, theirs = (d["means"]["mae_hu"]["mean"] for d in (data, baseline))
    assert line.split()[1:4] == [f"{mine:.2f}", f"{theirs:.2f}", f"{mine - theirs:+.2f}"]
    assert f"{theirs:.2f}</td>" in page
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert all(s.startswith(("data:image/webp;base64,", "#")) for s in parser.sources)
    # the interpolation as the test: both must have the same scores
    from uhrct.evaluation.baseline import interpolated

    low, high = io.read(lr), io.read(hr)
    io.write(interpolated(low, high.grid, (3, 2, 2)), tmp_path / "cubic.npz")
    done(uhrct("evaluate", hr, tmp_path / "cubic.npz", "--lr", lr, *outputs, "--overwrite", "-q"))
    data = json.loads((tmp_path / "o.json").read_text())
    assert data["means"]["mae_hu"]["mean"] == pytest.approx(theirs)
    assert data["baseline"]["means"]["mae_hu"]["mean"] == pytest.approx(theirs)
