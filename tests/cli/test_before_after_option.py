"""`uhrct upscale --compare`: a picture or a page of the scan before and after."""

import json
from pathlib import Path

from run_cli import Uhrct, done, everything, refused

from uhrct import io
from uhrct.core.volume import Volume


def test_picture_and_page_say_what_changed(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    for name, first in (("a.png", b"\x89PNG"), ("a.html", b"<!doctype html>")):
        options = ("--weights", weights, "--compare", tmp_path / name, "--json", tmp_path / "a.json", "--overwrite")
        result = done(uhrct("upscale", tmp_path / "in.nii", tmp_path / "out.nii", *options))
        assert (tmp_path / name).read_bytes().startswith(first)
        [line] = [text for text in result.err.splitlines() if text.startswith(str(tmp_path / name))]
        assert "Edges are" in line
        figures = json.loads((tmp_path / "a.json").read_text())["comparison"]
        assert f"{figures['edges_in_plane']:.1f} times as steep" in line


def test_comparison_does_not_change_the_result(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    done(uhrct("upscale", tmp_path / "in.nii", tmp_path / "a.nii", "--weights", weights))
    compare = ("--compare", tmp_path / "a.png")
    done(uhrct("upscale", tmp_path / "in.nii", tmp_path / "b.nii", "--weights", weights, *compare))
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_bad_names_are_refused_before_the_work(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    (tmp_path / "old.png").write_bytes(b"mine")
    before = everything(tmp_path)
    for name, word in (("a.jpg", ".png"), ("old.png", "--overwrite"), ("no/a.png", "no")):
        arguments = ("upscale", tmp_path / "in.nii", tmp_path / "out.nii", "--weights", weights)
        refused(uhrct(*arguments, "--compare", tmp_path / name), word)
        assert everything(tmp_path) == before
