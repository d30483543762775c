"""Law: wherever a run is killed, its output is the old one or the new one, and the next run removes the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kill_writers import main

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.volume import Volume
from uhrct.core.workspace import PREFIX, Workspace, remove_leftovers

KINDS = ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.npz", "series", "one.dcm"]
EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


def volume(value: int) -> Volume:
    return Volume(np.full((1, 2, 3), value, np.int16), (1, 1, 1))


def killed_at(step: int, folder: Path, run: Callable[[], object]) -> bool:
    """Run in a child process that dies before its step-th change in `folder`; whether it died."""
    child = os.fork()
    if child == 0:
        import sys

        left = [step]

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event in EVENTS and any(str(folder) in str(a) for a in arguments[:2]):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)

        try:
            sys.addaudithook(watch)
            run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def value_of(path: Path) -> int | None:
    """The value of all voxels; None if there is no output. Raises if old and new are mixed."""
    if not path.exists():
        return None
    [value] = np.unique(io.read(path).hu)
    return int(value)


@pytest.mark.parametrize("older", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("name", KINDS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_output(tmp_path: Path, name: str, older: bool) -> None:
    out, step, seen = tmp_path / "out" / name, 0, set()
    while True:
        step += 1
        out = tmp_path / f"{step}" / name
        out.parent.mkdir()
        (out.parent / "other.txt").write_text("someone's")
        if older:
            io.write(volume(1), out)
        before = {p.name for p in out.parent.iterdir()}
        killed = killed_at(step, out.parent, lambda out=out: io.write(volume(2), out, overwrite=True))
        # a folder has no name for the instant between two renames; the next run brings it back
        assert value_of(out) in ({1, 2} if older and name != "series" else {1, 2, None} if older else {2, None})
        remove_leftovers(out.parent)
        value = value_of(out)
        seen.add(value)
        left = {p.name for p in out.parent.iterdir()}
        if value == 2:
            extra = {p for p in left if p.startswith("a") and p.endswith(".raw")}
            assert left == {"other.txt", name} | extra
            assert len(extra) == (name == "a.mhd")
        else:
            assert value == (1 if older else None)
            assert left == before
        assert (out.parent / "other.txt").read_text() == "someone's"
        if not killed:
            break
    assert value == 2
    assert seen == ({1, 2} if older else {None, 2})
    assert step > 8


def test_a_living_run_keeps_its_folder(tmp_path: Path) -> None:
    with Workspace(tmp_path / "a.txt") as work:
        (work.new / "a.txt").write_text("half")
        killed_at(0, tmp_path, lambda: remove_leftovers(tmp_path))  # from another process
        remove_leftovers(tmp_path)  # and from this one
        with Workspace(tmp_path / "b.txt") as other:
            (other.new / "b.txt").write_text("b")
            other.publish()
        work.publish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_only_own_leftovers_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f"{PREFIX}abcd1234.tmp"
    for folder in (leftover, tmp_path / f"{PREFIX}ABC.tmp", tmp_path / f"{PREFIX}efgh5678.tmp"):
        (folder / "new").mkdir(parents=True)
        (folder / "new" / "file").write_text("x")
    (leftover / "lock").write_text("out.nii")  # the others have no lock file: uhrct did not make them
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "lock").write_text("x")
    (tmp_path / f"{PREFIX}link0000.tmp").symlink_to(outside)
    (tmp_path / f"{PREFIX}file0000.tmp").write_text("a file")
    io.write(volume(1), tmp_path / "a.nii")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {
        "a.nii",
        "precious",
        *(f"{PREFIX}{part}.tmp" for part in ("ABC", "efgh5678", "link0000", "file0000")),
    }
    assert (outside / "lock").exists()


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io.write(volume(1), tmp_path / "series")
    rename = os.rename

    def refuse(made: Path, final: Path) -> None:
        if Path(final) == tmp_path / "series" and "new" in str(made):
            raise OSError(5, "Input/output error")
        rename(made, final)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UhrctError, match="cannot be written"):
        io.write(volume(2), tmp_path / "series", overwrite=True)
    monkeypatch.undo()
    assert value_of(tmp_path / "series") == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for value in (1, 2, 3):
        io.write(volume(value), tmp_path / "a.mhd", overwrite=True)
        assert value_of(tmp_path / "a.mhd") == value
        assert len(list(tmp_path.iterdir())) == 2
    made_meanwhile = io.open_writer(tmp_path / "b.nii", volume(1).grid, dtype=np.int16)
    made_meanwhile.__enter__().write(volume(1).hu)
    (tmp_path / "b.nii").write_text("someone's")
    with pytest.raises(UhrctError, match="another program"):
        made_meanwhile.__exit__(None, None, None)
    assert (tmp_path / "b.nii").read_text() == "someone's"


@pytest.mark.slow
def test_random_kills_and_full_disks() -> None:
    """The short version of the script; `check` in it raises where an output is wrong."""
    pytest.importorskip("highdicom")
    counts = main(["--kills", "3", "--sizes", "3"])
    assert [sum(seen.values()) for seen in counts.values()] == [3, 3]


def test_errors_do_not_name_temporary_files(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic(tmp_path / "out") as folder:
            raise UhrctError(f"{folder / 'out' / 'ct.nii'}: cannot be written (No space left on device)")

    with pytest.raises(UhrctError) as caught:
        fail()
    assert str(caught.value).startswith(str(tmp_path / "out" / "ct.nii") + ": cannot")
