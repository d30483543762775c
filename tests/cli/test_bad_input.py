"""Bad input: one line that says what is wrong, exit code 3 (or 4: no input), nothing left behind."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series
from pydicom import dcmread
from pydicom.data import get_testdata_file
from run_cli import NOTHING, REFUSED, Uhrct, done, everything, refused

from uhrct import io
from uhrct.core.volume import Volume


def bad_two_series(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in" / "1", number=3, seed=1)
    make_series(folder / "in" / "2", number=4, seed=2)
    return folder / "in", "--series NUMBER-or-UID: 1: CHEST 3 (CT, 5 slices); 2: CHEST 4"


def bad_missing_slices(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in", edit=lambda k, ds: k != 2)
    return folder / "in", "missing slices: 1"


def bad_localizer_alone(folder: Path) -> tuple[Path, str]:
    def edit(k, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    make_series(folder / "in", edit=edit)
    return folder / "in", "localizer"


def bad_truncated_dicom(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in", shape=(3, 32, 32))
    file = folder / "in" / "002.dcm"
    file.write_bytes(file.read_bytes()[:-500])
    return folder / "in", "002.dcm"


def bad_truncated_nifti(folder: Path) -> tuple[Path, str]:
    io.write(Volume(np.random.default_rng(0).integers(0, 99, (4, 30, 30)).astype("i2"), (1, 1, 1)), folder / "a.nii")
    (folder / "a.nii").write_bytes((folder / "a.nii").read_bytes()[:-2000])
    return folder / "a.nii", "truncated"


def bad_text_named_dcm(folder: Path) -> tuple[Path, str]:
    (folder / "text.dcm").write_text("this is a text\n" * 50)
    return folder / "text.dcm", "not a DICOM file"


def bad_mr(folder: Path) -> tuple[Path, str]:
    return Path(get_testdata_file("MR_small.dcm", download=False)), "is MR, not CT"


def bad_rgb(folder: Path) -> tuple[Path, str]:
    ds = dcmread(get_testdata_file("SC_rgb_rle.dcm", download=False))
    ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "CT", "1", "0"
    ds.save_as(folder / "rgb.dcm")
    return folder / "rgb.dcm", "colour image"


def bad_nan(folder: Path) -> tuple[Path, str]:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    np.savez(folder / "a.npz", values, spacing_mm=(1, 1, 1))
    return folder / "a.npz", "NaN or infinite"


def bad_inf(folder: Path) -> tuple[Path, str]:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = -np.inf
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "a.nii.gz"))
    return folder / "a.nii.gz", "NaN or infinite"


def bad_four_dimensions(folder: Path) -> tuple[Path, str]:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / "a.nii.gz"))
    return folder / "a.nii.gz", "4 dimensions"


def _bad_spacing(folder: Path, value: float) -> tuple[Path, str]:
    io.write(Volume(np.zeros((3, 4, 5), np.int16), (1, 1, 1)), folder / "a.nii")
    content = bytearray((folder / "a.nii").read_bytes())
    struct.pack_into("<f", content, 84, value)
    (folder / "a.nii").unlink()
    (folder / "a.nii.gz").write_bytes(gzip.compress(content))
    return folder / "a.nii.gz", "is not positive"


def bad_zero_spacing(folder: Path) -> tuple[Path, str]:
    return _bad_spacing(folder, 0.0)


def bad_negative_spacing(folder: Path) -> tuple[Path, str]:
    return _bad_spacing(folder, -1.5)


def bad_unknown_suffix(folder: Path) -> tuple[Path, str]:
    (folder / "a.foo").write_text("hello")
    return folder / "a.foo", "suffix .foo is unknown"


def bad_npz_key(folder: Path) -> tuple[Path, str]:
    np.savez(folder / "a.npz", image=np.zeros((3, 4, 5)))
    return folder / "a.npz", "keys here: image"


def bad_npz_pickle(folder: Path) -> tuple[Path, str]:
    np.savez(folder / "a.npz", np.array([[{"a": 1}]], dtype=object))
    return folder / "a.npz", "damaged npz"


BAD = [f for name, f in sorted(globals().items()) if name.startswith("bad_")]


@pytest.mark.parametrize("make", BAD)
@pytest.mark.parametrize("verb", ["upscale", "degrade", "structure"])
def test_bad_input(
    uhrct: Uhrct, weights: Path, tmp_path: Path, verb: str, make: Callable[[Path], tuple[Path, str]]
) -> None:
    source, words = make(tmp_path)
    before = everything(tmp_path)
    options = ("--weights", weights) if verb == "upscale" else ()
    refused(uhrct(verb, source, tmp_path / "out.nii.gz", *options), str(source), words, code=REFUSED)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("content", [None, b"text"])
@pytest.mark.parametrize("verb", ["info", "upscale", "degrade", "structure"])
def test_a_folder_without_images_is_nothing_to_do(
    uhrct: Uhrct, tmp_path: Path, verb: str, content: bytes | None
) -> None:
    (tmp_path / "in").mkdir()
    if content is not None:
        (tmp_path / "in" / "notes").write_bytes(content)
    output = () if verb == "info" else (tmp_path / "out.nii.gz",)
    words = "folder is empty" if content is None else "no DICOM among 1 files"
    refused(uhrct(verb, tmp_path / "in", *output), str(tmp_path / "in"), words, code=NOTHING)


def test_localizer_mixed_in_is_left_out_with_a_note(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    """A scout under the scan's own UID, and one as a series of its own."""

    def scout(k, ds):
        if k == 4:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def scouts(k, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        return k < 1

    make_series(tmp_path / "one", edit=scout)
    make_series(tmp_path / "two" / "scan", seed=1)
    make_series(tmp_path / "two" / "scout", seed=2, edit=scouts)
    for name, slices, words in (("one", 4, "ignored 1 localizer"), ("two", 5, "ignored series")):
        result = done(uhrct("upscale", tmp_path / name, tmp_path / f"{name}.npz", "--weights", weights))
        assert io.read(tmp_path / f"{name}.npz").shape[0] == slices
        assert f"uhrct: note: {words}" in result.err


def test_evaluate_names_no_option_that_it_lacks(uhrct: Uhrct, tmp_path: Path) -> None:
    folder, _ = bad_two_series(tmp_path)
    result = uhrct("evaluate", folder, folder)
    refused(result, "holds 2 CT series; give a folder that holds only one of them: 1: CHEST 3", code=REFUSED)
    assert "`" not in result.err
