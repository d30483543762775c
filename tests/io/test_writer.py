"""Outputs appear whole or not at all, never on top of anything else, and in flat memory."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume

ALL = ["out.nii", "out.nii.gz", "out.nrrd", "out.mha", "out.mhd", "out.npz", "series"]
GRID = Grid((4, 3, 5), (1.0, 0.5, 0.5))
SLAB = np.zeros((2, 3, 5), np.int16)


def write_slabs(path: Path, slabs: list[np.ndarray], then: type[BaseException] | None = None) -> None:
    with io.open_writer(path, GRID, dtype=np.int16, overwrite=True) as writer:
        for slab in slabs:
            writer.write(slab)
        if then:
            raise then


def refusal(path: Path, input_path: Path | None = None) -> str:
    with pytest.raises(UhrctError) as caught:
        io.check_outputs(input_path, [path])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("name", ALL)
def test_nothing_before_the_end(tmp_path: Path, name: str) -> None:
    with io.open_writer(tmp_path / name, GRID, dtype=np.int16) as writer:
        writer.write(SLAB)
        writer.write(SLAB)
        assert not (tmp_path / name).exists()
    assert (tmp_path / name).exists()
    expected = {name, "out.raw"} if name == "out.mhd" else {name}
    assert {p.name for p in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("name", ALL)
def test_nothing_after_an_exception(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_slabs(tmp_path / name, [SLAB], KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("slabs", [1, 3])
def test_wrong_number_of_slices(tmp_path: Path, name: str, slabs: int) -> None:
    with pytest.raises(UhrctError, match="slices"):
        write_slabs(tmp_path / name, [SLAB] * slabs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("slab", [SLAB[:, :2], SLAB.astype(np.float32), SLAB[0]])
def test_wrong_slab(tmp_path: Path, name: str, slab: np.ndarray) -> None:
    with (
        pytest.raises(UhrctError, match="does not fit"),
        io.open_writer(tmp_path / name, GRID, dtype="int16") as w,
    ):
        w.write(slab)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL)
def test_nan_is_never_written(tmp_path: Path, name: str) -> None:
    slab = np.full((4, 3, 5), np.nan, np.float32)
    with pytest.raises(UhrctError, match="NaN"), io.open_writer(tmp_path / name, GRID, dtype="float32") as w:
        w.write(slab)
    assert list(tmp_path.iterdir()) == []


def test_no_other_types() -> None:
    with pytest.raises(UhrctError, match="int16 or float32"):
        io.open_writer("a.nii", GRID, dtype=np.float64)


@pytest.mark.parametrize("name", [n for n in ALL if n != "series"])
def test_failed_run_keeps_the_older_file(tmp_path: Path, name: str) -> None:
    older = Volume(np.ones((2, 3, 5), np.int16), (1, 1, 1))
    io.write(older, tmp_path / name)
    with pytest.raises(RuntimeError):
        write_slabs(tmp_path / name, [SLAB], RuntimeError)
    np.testing.assert_array_equal(io.read(tmp_path / name).hu, older.hu)
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / name, overwrite=True)
    np.testing.assert_array_equal(io.read(tmp_path / name).hu, SLAB)


CHILD = """
import sys, time, numpy as np
from uhrct import io
from uhrct.core.volume import Grid
grid = Grid((1000, 64, 64), (1, 1, 1))
with io.open_writer(sys.argv[1], grid, dtype=np.int16) as writer:
    writer.write(np.ones((500, 64, 64), np.int16))
    print("half", flush=True)
    while True:  # a signal that comes just before a long sleep begins waits for its end
        time.sleep(0.1)
"""


@pytest.mark.parametrize("name", ["out.nii.gz", "out.mhd", "out.npz", "series"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_kill_during_writing(tmp_path: Path, name: str, how: signal.Signals) -> None:
    out = tmp_path / name
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
        child.send_signal(how)
        assert child.wait(60) != 0
    assert not out.exists()
    assert not out.with_suffix(".raw").exists()
    left = list(tmp_path.iterdir())
    assert all(p.name.startswith(".uhrct-") and p.name.endswith(".tmp") for p in left)
    if how == signal.SIGINT:  # Python gets to clean up
        assert left == []
    io.write(Volume(SLAB, (1, 1, 1)), out)  # the next run removes what is left
    np.testing.assert_array_equal(io.read(out).hu, SLAB)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".uhrct-")]


@pytest.mark.parametrize("name", ALL)
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    def peak(slices: int) -> int:
        grid = Grid((slices, 64, 64), (1, 1, 1))
        slab = np.zeros((1, 64, 64), np.int16)
        tracemalloc.start()
        with io.open_writer(tmp_path / f"{slices}{name}", grid, dtype=np.int16) as writer:
            for _ in range(slices):
                writer.write(slab)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(2)  # imports
    # pydicom's own caches grow a little; 190 more slices held in memory would be 190 of these.
    assert peak(200) - peak(10) < 60 * 64 * 64 * 2


def test_no_time_of_day_in_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.npz"):
        io.write(Volume(SLAB, (1, 1, 1)), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)
    assert {m.date_time for m in zipfile.ZipFile(tmp_path / "a.npz").infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nii_gz_is_gzip_of_nii(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        io.write(Volume(SLAB, (1, 1, 1)), tmp_path / name)
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "a.nii").read_bytes()


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "a.nii.gz")
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "series")
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "a.nii.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "series").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_npz_has_room_beyond_2_gib(tmp_path: Path) -> None:
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "a.npz")
    assert zipfile.ZipFile(tmp_path / "a.npz").getinfo("arr_0.npy").extract_version >= zipfile.ZIP64_VERSION


# --- where an output may go


def test_unknown_suffix(tmp_path: Path) -> None:
    message = refusal(tmp_path / "out.foo")
    assert "unknown suffix .foo" in message
    assert ".nii.gz" in message


@pytest.mark.parametrize("name", ["out", "thorax_0.5mm", "1.2.840.113", "out.NII.GZ", "out.dcm"])
def test_known_outputs(tmp_path: Path, name: str) -> None:
    io.check_outputs(None, [tmp_path / name])
    assert list(tmp_path.iterdir()) == []


def test_output_equals_input(tmp_path: Path) -> None:
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "a.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    os.link(tmp_path / "a.nii", tmp_path / "hard.nii")
    for name in ("a.nii", "link.nii", "hard.nii", "../" + tmp_path.name + "/a.nii"):
        assert "output equals input" in refusal(tmp_path / name, tmp_path / "a.nii")
    io.check_outputs(tmp_path / "a.nii", [tmp_path / "b.nii"])


def test_output_inside_or_around_input(tmp_path: Path) -> None:
    make_series(tmp_path / "study" / "scan")
    scan = tmp_path / "study" / "scan"
    assert "output equals input" in refusal(scan, scan)
    assert "lies inside the input" in refusal(scan / "out", scan)
    assert "lies inside the input" in refusal(scan / "out.nii.gz", scan)
    assert "contains the input" in refusal(tmp_path / "study", scan)
    io.check_outputs(scan, [tmp_path / "study" / "scan_sr"])


def test_folder_in_use(tmp_path: Path) -> None:
    make_series(tmp_path / "used")
    assert "not empty" in refusal(tmp_path / "used")
    with pytest.raises(UhrctError, match="not empty"):
        io.open_writer(tmp_path / "used", GRID, dtype=np.int16)
    (tmp_path / "empty").mkdir()
    io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 2


def test_folder_filled_while_writing_is_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    writer = io.open_writer(tmp_path / "out", GRID, dtype=np.int16)
    writer.__enter__()
    writer.write(SLAB)
    writer.write(SLAB)
    (tmp_path / "out" / "other.dcm").write_text("someone else's")
    with pytest.raises(UhrctError, match="cannot be written"):
        writer.__exit__(None, None, None)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "other.dcm"]


def test_file_and_folder_confused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").mkdir()
    assert "is a folder" in refusal(tmp_path / "a.nii")
    (tmp_path / "out").write_text("a file")
    assert "is a file" in refusal(tmp_path / "out")


def test_parent_missing(tmp_path: Path) -> None:
    assert "does not exist; create it" in refusal(tmp_path / "no" / "out.nii.gz")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where even root cannot write: /proc")
def test_parent_not_writable() -> None:
    assert "cannot write into /proc" in refusal(Path("/proc/out.nii.gz"))
    with pytest.raises(UhrctError, match="cannot write into /proc"):
        io.open_writer("/proc/out", GRID, dtype=np.int16)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uhrct.io.image_writer import ImageWriter

    def full(self: ImageWriter, slab: np.ndarray) -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(slab.tobytes())

    monkeypatch.setattr(ImageWriter, "_append", full)
    with pytest.raises(UhrctError, match=r"out\.nii: cannot be written \(No space left"):
        io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "out.nii")
    assert list(tmp_path.iterdir()) == []


def test_several_slices_in_one_dcm(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match="one slice, not 2; give a folder"):
        io.write(Volume(SLAB, (1, 1, 1)), tmp_path / "out.dcm")


def test_too_deep_for_nifti(tmp_path: Path) -> None:
    with (
        pytest.raises(UhrctError, match="32767"),
        io.open_writer(tmp_path / "a.nii", Grid((40000, 1, 1), (1, 1, 1)), dtype=np.int16),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_import_is_light() -> None:
    code = "import sys, uhrct.io; print([m for m in ('torch', 'SimpleITK', 'pydicom', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
