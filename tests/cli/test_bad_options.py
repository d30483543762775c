"""Options, outputs and weights that cannot be: one line, exit code 2, nothing left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series
from run_cli import INTERNAL, NOTHING, USAGE, Uhrct, everything, refused

from uhrct import io
from uhrct.core.volume import Volume


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scale", "3"), "no weights serve scale x3; there are: tiny (x2)"),
        (("--scale", "5x2x2"), "no weights serve scale 5x2x2; there are: tiny (x2)"),
        (("--scale", "two"), "--scale is 'two'"),
        (("--scale", "0"), "--scale is '0'"),
        (("--scale", "2x2"), "--scale is '2x2'"),
        (("--steps", "0"), "--steps is 0; give a whole number from 1"),
        (("--samples", "3"), "--steps 4"),
        (("--tile", "0"), "--tile is 0; give"),
        (("--spread", "sd.nii.gz"), "--samples 8"),
        (("--input-spacing", "1,1,1"), "--input-spacing is for .npz"),
        (("--series", "1"), "--series is for DICOM"),
        (("--transfer-syntax", "jpegls", "--keep-private", "--anonymize"), "--keep-private or --anonymize"),
    ],
)
def test_senseless_options(
    uhrct: Uhrct,
    weights: Path,
    scan: Volume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    io.write(scan, tmp_path / "in.nii")
    before = everything(tmp_path)
    refused(uhrct("upscale", "in.nii", "out.nii", "--weights", weights, *options), words)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--noise-hu", "-1"), "--noise-hu is -1.0"),
        (("--noise-hu", "nan"), "--noise-hu is nan"),
        (("--psf-fwhm-mm", "inf"), "--psf-fwhm-mm is inf"),
        (("--kind", "bicubic", "--psf-fwhm-mm", "1"), "--psf-fwhm-mm needs --kind scanner"),
        (("--seed", "-1"), "--seed is -1"),
        (("--seed", "99999999999999999999"), "--seed is 9999"),
        (("--scale", "16x16x16"), "too small for scale"),
    ],
)
def test_senseless_degradations(
    uhrct: Uhrct, scan: Volume, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    io.write(scan, tmp_path / "in.nii")
    refused(uhrct("degrade", tmp_path / "in.nii", tmp_path / "out.nii", *options), words)
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii"]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--sigma-mm", "1,0"), "scales above 0"), (("--sigma-mm", "a"), "numbers"), (("--contrast-hu", "nan"), "0 HU")],
)
def test_senseless_structure_options(
    uhrct: Uhrct, scan: Volume, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    io.write(scan, tmp_path / "in.nii")
    refused(uhrct("structure", tmp_path / "in.nii", tmp_path / "out.nii", *options), words)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("in.nii", "output equals input"),
        ("missing/out.nii", "does not exist; create it first"),
        ("file/out.nii", "does not exist"),
        ("out.foo", "unknown suffix .foo"),
        ("used", "folder is not empty"),
        ("file", "is a file"),
        pytest.param(
            "/proc/out.nii",
            "cannot write into /proc",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc"),
        ),
    ],
)
@pytest.mark.parametrize("as_map", [False, True])
def test_outputs_that_cannot_be(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, target: str, words: str, as_map: bool
) -> None:
    io.write(scan, tmp_path / "in.nii")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "a.txt").write_text("someone's")
    (tmp_path / "file").write_text("someone's")
    before = everything(tmp_path)
    outputs = (tmp_path / "out.npz", "--structure", tmp_path / target) if as_map else (tmp_path / target,)
    refused(uhrct("upscale", tmp_path / "in.nii", *outputs, "--weights", weights), words)
    assert everything(tmp_path) == before


def test_nothing_is_replaced_unless_told(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    (tmp_path / "old.nii").write_text("someone's")
    (tmp_path / "link.nii").symlink_to(tmp_path / "elsewhere.nii")
    before = everything(tmp_path)
    hr, old = tmp_path / "in.nii", tmp_path / "old.nii"
    for command in (
        ("upscale", hr, old, "--weights", weights),
        ("upscale", hr, tmp_path / "new.nii", "--structure", old, "--weights", weights),
        ("degrade", hr, old),
        ("structure", hr, old),
        ("evaluate", hr, hr, "--json", old),
        ("evaluate", hr, hr, "--html", old),
    ):
        refused(uhrct(*command), "old.nii: exists", "--overwrite")
        linked = [tmp_path / "link.nii" if part == old else part for part in command]
        refused(uhrct(*linked, "--overwrite"), "link.nii: is a symbolic link")
        assert everything(tmp_path) == before


def test_outputs_in_each_others_way(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii")
    (tmp_path / "out").mkdir()
    before = everything(tmp_path)
    base = ("upscale", tmp_path / "in.nii", "--weights", weights)
    same = tmp_path / "a.nii"
    refused(uhrct(*base, same, "--structure", same), "same name")
    # found after the work, this would have been an error at the end of hours
    refused(uhrct(*base, tmp_path / "out", "--structure", tmp_path / "out" / "v.nii"), "lies inside another output")
    assert everything(tmp_path) == before


def test_scan_inside_the_output_folder(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    refused(uhrct("upscale", tmp_path / "in", tmp_path / "in" / "out", "--weights", weights), "lies inside the input")
    refused(uhrct("upscale", tmp_path / "in", tmp_path / "in", "--weights", weights), "output equals input")


def damage_blob(weights: Path) -> None:
    blob = bytearray((weights / "model.safetensors").read_bytes())
    blob[-5] ^= 1
    (weights / "model.safetensors").write_bytes(blob)


def cut_blob(weights: Path) -> None:
    (weights / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes()[:999])


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(weights: Path) -> None:
        config = json.loads((weights / "config.json").read_text())
        (weights / "config.json").write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_blob, "damaged"),
        (cut_blob, "damaged"),
        (lambda w: (w / "model.safetensors").unlink(), "no such file"),
        (lambda w: (w / "config.json").write_text("{"), "not readable as JSON"),
        (lambda w: (w / "config.json").unlink(), "no config.json"),
        (lambda w: shutil.rmtree(w), "no such weights"),
        (change_config(format_version=99), "model format 99"),
        (change_config(colour="red"), "colour"),
        (change_config(mean={"image_widht": 8}), "image_widht"),
    ],
)
def test_weights_that_cannot_be_used(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    io.write(scan, tmp_path / "in.nii")
    before = everything(tmp_path)
    damage(weights)
    refused(uhrct("upscale", tmp_path / "in.nii", tmp_path / "out", "--weights", weights), words)
    assert everything(tmp_path) == before


def test_a_failure_in_the_middle_leaves_nothing(
    uhrct: Uhrct, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image and both maps are half there when memory runs out."""
    from uhrct.upscaling import slabs

    io.write(Volume(np.zeros((4, 300, 300), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    before = everything(tmp_path)
    compute = slabs._compute_slab
    seen = []

    def slab(plan, around, middle, *rest):
        seen.append({p.name for p in tmp_path.iterdir()})
        if middle[0] > 0:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")
        return compute(plan, around, middle, *rest)

    monkeypatch.setattr(slabs, "_compute_slab", slab)
    maps = ("--structure", tmp_path / "v.nii")
    refused(
        uhrct("upscale", tmp_path / "in.npz", tmp_path / "out", *maps, "--weights", weights, "--quiet"),
        "not enough memory; try a smaller --tile",
    )
    assert len(seen) == 2
    assert len([name for name in seen[1] if name.startswith(".uhrct-")]) == 2  # it was under way
    assert everything(tmp_path) == before


def test_mistakes_of_ours_are_one_line_and_a_traceback_if_wanted(
    uhrct: Uhrct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of the exception stays out of the line: it may hold a value from a header."""

    def broken(path: Path) -> None:
        raise RuntimeError("DOE^JANE")

    monkeypatch.setattr("uhrct.io.inspect", broken)
    refused(uhrct("info", tmp_path), "internal error (RuntimeError", "report it", "UHRCT_DEBUG=1", code=INTERNAL)
    monkeypatch.setenv("UHRCT_DEBUG", "1")
    result = uhrct("info", tmp_path)
    assert result.code == INTERNAL
    assert "Traceback" in result.err
    assert "RuntimeError: DOE^JANE" in result.err
    assert "internal error" in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--spacing", "0.5", "--scale", "2"), "exclude each other"),
        (("--spacing", "1,2"), "give one positive number in mm"),
        (("--spacing", "abc"), "numbers separated by commas"),
        (("--noise-hu", "-1"), "--noise-hu is -1.0; give a number from 0"),
        (("--psf-fwhm-mm", "100"), "--psf-fwhm-mm is 100.0; give a number from 0 to 3"),
        (("--slice-thickness-mm", "0"), "is 0; give a number above 0"),
    ],
)
def test_senseless_wishes(uhrct: Uhrct, weights: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    io.write(Volume(np.zeros((2, 16, 16), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    before = everything(tmp_path)
    refused(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.nii", "--weights", weights, *options), message)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("spacing", ["1", "3", "1,1,1"])
def test_a_scan_that_is_fine_enough_is_nothing_to_do(uhrct: Uhrct, weights: Path, tmp_path: Path, spacing: str) -> None:
    io.write(Volume(np.zeros((2, 16, 16), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    command = ("upscale", tmp_path / "in.npz", tmp_path / "out.nii", "--weights", weights, "--spacing", spacing)
    refused(uhrct(*command), "nowhere finer", "nothing to do", code=NOTHING)
    assert [p.name for p in tmp_path.iterdir()] == ["in.npz"]


@pytest.mark.parametrize(("wanted", "words"), [("3", "no series 3 here"), ("1.2.3", "no series 1.2.3 here")])
def test_a_series_that_is_not_there_is_a_wrong_option(
    uhrct: Uhrct, weights: Path, tmp_path: Path, wanted: str, words: str
) -> None:
    make_series(tmp_path / "in", shape=(2, 8, 8))
    result = uhrct("upscale", tmp_path / "in", tmp_path / "out.npz", "--weights", weights, "--series", wanted)
    refused(result, words, code=USAGE)


def test_deep_nesting_is_one_line(uhrct: Uhrct, tmp_path: Path) -> None:
    io.write(Volume(np.zeros((1, 16, 16), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    (tmp_path / "a.yaml").write_text("a: " + "[" * 100_000)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("[" * 100_000)
    (tmp_path / "split.json").write_text('{"a":' * 100_000)
    refused(uhrct("train", tmp_path / "a.yaml", "--out", tmp_path / "run"), "a.yaml: not valid YAML")
    weights = ("--weights", tmp_path / "model")
    refused(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out", *weights), "config.json: not readable")
    split = ("--split", tmp_path / "split.json")
    refused(uhrct("pack", tmp_path / "in.npz", "--out", tmp_path / "store", *split), "split.json: is not JSON")
    assert {p.name for p in tmp_path.iterdir()} == {"in.npz", "a.yaml", "model", "split.json"}


def test_too_little_memory_for_a_library_is_one_line(uhrct: Uhrct, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr("uhrct.models.model.available_models", fails)
    refused(uhrct("models"), "not enough memory")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upscale", "a", "b", "--quality", "good"), "'good' is not one of 'fast', 'standard', 'best'"),
        (("upscale", "a", "b", "--nosuch"), "--nosuch"),
        (("upscale", "a"), "output"),
        (("enlarge",), "enlarge"),
    ],
)
def test_what_the_command_line_does_not_know_is_one_line(uhrct: Uhrct, arguments: tuple[str, ...], words: str) -> None:
    refused(uhrct(*arguments), words, "--help' lists what there is")
