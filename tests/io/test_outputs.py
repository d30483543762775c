"""What an output may replace, and where it may go: all of it is known before the work starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series
from pydicom import dcmread

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume

FILES = ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.npz", "a.dcm"]


def volume(value: int) -> Volume:
    return Volume(np.full((1, 2, 3), value, np.int16), (1, 1, 1))


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every entry below a folder: content of files, targets of links."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else ""
        for p in sorted(folder.rglob("*"))
    }


def refusal(outputs: list[Path], input_path: Path | None = None, overwrite: bool = True) -> str:
    """The message with which outputs are refused: one line that starts with one of them. Nothing changes."""
    top = outputs[0].parent if outputs[0].parent.is_dir() else outputs[0].parent.parent
    before = tree(top)
    with pytest.raises(UhrctError) as caught:
        io.check_outputs(input_path, outputs, overwrite=overwrite)
    assert tree(top) == before
    message = str(caught.value)
    assert message.isprintable()
    return message


# --- existing outputs


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_replaced_only_if_told(tmp_path: Path, name: str) -> None:
    io.write(volume(1), tmp_path / name)
    before = tree(tmp_path)
    assert "exists; choose another name, or add `overwrite=True`" in refusal([tmp_path / name], overwrite=False)
    with pytest.raises(UhrctError, match="exists"):
        io.write(volume(2), tmp_path / name)
    assert tree(tmp_path) == before
    io.write(volume(2), tmp_path / name, overwrite=True)
    assert (io.read(tmp_path / name).hu == 2).all()
    assert len(tree(tmp_path)) == len(before)


@pytest.mark.parametrize("kind", ["image", "map", "mask"])
def test_a_folder_is_replaced_if_uhrct_wrote_all_of_it(tmp_path: Path, kind: str) -> None:
    if kind != "image":
        pytest.importorskip("highdicom")
    grid, out = Grid((3, 2, 2), (1.0, 1.0, 1.0)), tmp_path / "out"

    def write(overwrite: bool) -> None:
        if kind == "map":
            with io.open_map_writer(out, grid, "spread", overwrite=overwrite) as writer:
                writer.write(np.ones(grid.shape, np.float32))
        elif kind == "mask":
            mask = np.ones(grid.shape, np.uint8)
            io.write_segmentation(mask, grid, out, [io.Segment("vessel")], overwrite=overwrite)
        else:
            io.write(Volume(np.ones(grid.shape, np.int16), (1, 1, 1)), out, overwrite=overwrite)

    io.write(Volume(np.zeros((5, 2, 2), np.int16), (1, 1, 1)), out)
    assert len(list(out.iterdir())) == 5
    with pytest.raises(UhrctError, match="folder is not empty"):
        write(overwrite=False)
    write(overwrite=True)
    assert len(list(out.iterdir())) == (3 if kind == "image" else 1)  # no slice of the old series is left
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def stored_by_another_program(folder: Path) -> None:
    file = folder / "00001.dcm"
    dcmread(file).save_as(file, enforce_file_format=True)
    ds = dcmread(file)
    ds.file_meta.ImplementationClassUID = "1.2.3"
    ds.save_as(file, enforce_file_format=False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "notes.txt").write_text("someone's"),
        lambda folder: (folder / ".hidden").write_text("someone's"),
        lambda folder: (folder / "00009.dcm").write_text("no DICOM"),
        lambda folder: (folder / "deeper").mkdir(),
        lambda folder: (folder / "00009.dcm").symlink_to(folder / "00001.dcm"),
        lambda folder: shutil.move(folder / "00001.dcm", folder / "mine.dcm"),
        stored_by_another_program,
    ],
)
def test_a_folder_with_anything_else_is_not_replaced(tmp_path: Path, spoil) -> None:
    io.write(volume(1), tmp_path / "out")
    spoil(tmp_path / "out")
    assert "must stay" in refusal([tmp_path / "out"])


def test_a_series_of_a_scanner_is_not_replaced(tmp_path: Path) -> None:
    make_series(tmp_path / "out", name="{:05d}.dcm")
    assert "must stay" in refusal([tmp_path / "out"])


def test_what_comes_into_a_folder_meanwhile_stays(tmp_path: Path) -> None:
    io.write(volume(1), tmp_path / "out")
    writer = io.open_writer(tmp_path / "out", volume(2).grid, dtype="int16", overwrite=True)
    writer.__enter__().write(volume(2).hu)
    (tmp_path / "out" / "notes.txt").write_text("someone's")
    with pytest.raises(UhrctError, match="another program"):
        writer.__exit__(None, None, None)
    assert sorted(tree(tmp_path)) == ["out", "out/00001.dcm", "out/notes.txt"]
    assert (io.read(tmp_path / "out" / "00001.dcm").hu == 1).all()


# --- the data file of .mhd


def test_the_data_file_of_another_header_stays(tmp_path: Path) -> None:
    """`uhrct upscale in.mhd vox.mhd`, where the voxels of in.mhd are in vox.raw."""
    sitk.WriteImage(sitk.GetImageFromArray(np.full((1, 2, 3), 7, np.int16)), str(tmp_path / "in.mhd"))
    (tmp_path / "in.raw").rename(tmp_path / "vox.raw")
    header = (tmp_path / "in.mhd").read_text().replace("in.raw", "vox.raw")
    (tmp_path / "in.mhd").write_text(header)
    before = tree(tmp_path)
    for value in (1, 2, 3):
        io.check_outputs(tmp_path / "in.mhd", [tmp_path / "vox.mhd"], overwrite=True)
        io.write(volume(value), tmp_path / "vox.mhd", overwrite=True)
        assert (io.read(tmp_path / "vox.mhd").hu == value).all()
        assert before.items() <= tree(tmp_path).items()
        assert len(tree(tmp_path)) == 4
    assert (io.read(tmp_path / "in.mhd").hu == 7).all()


def test_the_data_file_of_a_replaced_header_of_another_program_stays(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((1, 2, 3), np.int16)), str(tmp_path / "a.mhd"))
    voxels = (tmp_path / "a.raw").read_bytes()
    io.write(volume(5), tmp_path / "a.mhd", overwrite=True)
    assert (io.read(tmp_path / "a.mhd").hu == 5).all()
    assert (tmp_path / "a.raw").read_bytes() == voxels


def test_a_header_that_names_a_foreign_data_file_does_not_remove_it(tmp_path: Path) -> None:
    io.write(volume(1), tmp_path / "a.mhd")
    (tmp_path / "precious.raw").write_bytes((tmp_path / "a.raw").read_bytes())
    header = (tmp_path / "a.mhd").read_text().replace("a.raw", "precious.raw")
    (tmp_path / "a.mhd").write_text(header)
    io.write(volume(2), tmp_path / "a.mhd", overwrite=True)
    assert (tmp_path / "precious.raw").exists()


@pytest.mark.parametrize(
    "name", ["Prüfung 1.mhd", "scan%d.mhd", "日本.mhd", "a b.mhd", "LIST.mhd", "-x.mhd", "x" * 240 + ".mhd"]
)
def test_any_name_of_a_header_can_be_read_back(tmp_path: Path, name: str) -> None:
    io.write(volume(4), tmp_path / name)
    header = (tmp_path / name).read_bytes().decode("ascii")
    [data] = [line.split(" = ")[1] for line in header.splitlines() if line.startswith("ElementDataFile")]
    assert np.frombuffer((tmp_path / data).read_bytes(), "<i2").tolist() == [4] * 6
    assert (io.read(tmp_path / name).hu == 4).all()


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.mhd")
    io.write(volume(4), tmp_path / name)
    assert (tmp_path / "a_.raw").stat().st_size == 12


# --- parts of the input


def test_parts_of_an_input_are_never_touched(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    slices = sorted((tmp_path / "in").iterdir())
    os.link(slices[0], tmp_path / "hard.dcm")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(slices[1], tmp_path / "elsewhere" / "real.dcm")
    slices[1].symlink_to(tmp_path / "elsewhere" / "real.dcm")
    (tmp_path / "linked").mkdir()
    (tmp_path / "in" / "more").symlink_to(tmp_path / "linked")
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    for out, words in (
        (tmp_path / "hard.dcm", "part of the input"),
        (tmp_path / "elsewhere" / "real.dcm", "part of the input"),
        (tmp_path / "linked", "part of the input"),
        (tmp_path / "linked" / "new.nii", "input links to"),
        (tmp_path / "alias" / "new.nii", "inside the input"),
        (tmp_path / "linked" / ".." / "in" / "003.dcm", "inside the input"),
    ):
        assert words in refusal([out], tmp_path / "in")
    io.check_outputs(tmp_path / "in", [tmp_path / "elsewhere" / "new.nii"])


def test_an_output_folder_whose_files_are_parts_of_the_input(tmp_path: Path) -> None:
    io.write(volume(1), tmp_path / "out")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").symlink_to(tmp_path / "out" / "00001.dcm")
    assert "00001.dcm is a part of the input" in refusal([tmp_path / "out"], tmp_path / "in")


def test_the_data_file_that_would_be_removed_is_a_part_of_the_input(tmp_path: Path) -> None:
    io.write(volume(1), tmp_path / "a.mhd")
    shutil.copy(tmp_path / "a.mhd", tmp_path / "copy.mhd")
    assert "a.raw is a part of the input" in refusal([tmp_path / "a.mhd"], tmp_path / "copy.mhd")


def test_files_beside_a_dicomdir_are_parts_of_it(tmp_path: Path) -> None:
    make_series(tmp_path / "disc" / "IMAGES")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"")
    assert "part of the input" in refusal([tmp_path / "disc" / "IMAGES" / "001.dcm"], tmp_path / "disc" / "DICOMDIR")


# --- places and names


@pytest.mark.parametrize("target", ["file.nii", "folder", "nothing"])
@pytest.mark.parametrize("name", ["out.nii", "out"])
def test_a_symbolic_link_is_refused(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / "file.nii").write_text("someone's")
    (tmp_path / "folder").mkdir()
    (tmp_path / name).symlink_to(tmp_path / target)
    for overwrite in (False, True):
        message = refusal([tmp_path / name], overwrite=overwrite)
        assert "symbolic link" in message or "is a f" in message
        with pytest.raises(UhrctError):
            io.write(volume(1), tmp_path / name, overwrite=overwrite)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 300 + ".nii", "this name cannot be used here"),
        ("x" * 300, "this name cannot be used here"),
        ("a\0b.nii", "this name cannot be used here"),
        ("missing/a.nii", "does not exist; create it first"),
        ("file/a.nii", "does not exist"),
    ],
)
def test_names_and_places_that_cannot_be(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UhrctError, match=words):
        io.check_outputs(None, [tmp_path / name])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_pipes_and_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.nii")
    assert "no regular file" in refusal([tmp_path / "a.nii"])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", "..", "../here", tmp_path / "here"):
        with pytest.raises(UhrctError, match="current folder"):
            io.check_outputs(None, [path])


def test_escape_sequences_in_names_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m.nii").write_text("x")
    assert "exists" in refusal([tmp_path / "a\x1b[31m.nii"], overwrite=False)
