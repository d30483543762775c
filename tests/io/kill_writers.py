"""Kill writers at random moments, and let them run into full disks. `make test` runs a short version.

    python tests/io/kill_writers.py --kills 100 --sizes 20

Each run writes one kind of output into a folder with files of others, over an older output or not. It must leave the
old output or the new one, and files of others as they were. The next run must remove the rest. A full disk is a small
tmpfs where this process may mount one, else a limit on the size of a file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPE = (24, 96, 96)
KINDS = {
    **{name: "volume" for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.npz", "series", "jpegls")},
    **{"enhanced": "enhanced", "map": "map", "map.dcm": "map", "seg.dcm": "seg", "seg": "seg", "text.json": "text"},
}
OTHERS = {"other.raw": b"someone's", "a_1.raw": b"voxels of someone", "notes.txt": b"x"}


def write_kind(folder: Path, name: str, value: int) -> None:
    """Write the output `name`, whose voxels all follow from `value`."""
    from ct_syntaxes import make_enhanced

    from uhrct import io
    from uhrct.core.files import write_atomic
    from uhrct.core.volume import Grid, Volume

    out, grid = folder / name, Grid(SHAPE, (1.0, 1.0, 1.0))
    hu = np.random.default_rng(value).integers(-1000, 1000, SHAPE).astype(np.int16)
    kind = KINDS[name]
    if kind == "volume":
        options = io.DicomOptions("jpegls" if name == "jpegls" else "explicit")
        io.write(Volume(hu, grid.spacing_mm), out, dicom=options, overwrite=True)
    elif kind == "enhanced":
        with tempfile.TemporaryDirectory() as source:
            make_enhanced(Path(source) / "in.dcm", shape=SHAPE)
            scan = io.read(Path(source) / "in.dcm")
        io.write(scan.on_grid(scan.grid, hu), out, overwrite=True)
    elif kind == "map":
        with io.open_map_writer(out, grid, "spread", overwrite=True) as writer:
            writer.write(hu.astype(np.float32))
    elif kind == "seg":
        io.write_segmentation((hu > 0).astype(np.uint8), grid, out, [io.Segment("vessel")], overwrite=True)
    else:
        write_atomic(out, str(hu.tolist()))


def fingerprint(out: Path) -> object:
    """What the output holds: its voxels, or None if there is no output. Raises if it is damaged."""
    import pydicom

    from uhrct import io

    if not out.exists():
        return None
    kind = KINDS[out.name]
    if kind == "text":
        return hash(out.read_text()) if out.read_text().endswith("]]]") else "damaged"
    if kind in ("map", "seg"):
        files = [out] if out.is_file() else sorted(out.iterdir())
        return tuple(hash(pydicom.dcmread(file).pixel_array.tobytes()) for file in files)
    return hash(io.read(out).hu.tobytes())


def check(folder: Path, name: str, allowed: set[object], older: object) -> str:
    """Raise unless the folder holds an allowed output and others are as they were; say which output it is."""
    from uhrct.core.workspace import remove_leftovers

    assert fingerprint(folder / name) in allowed | ({None} if (folder / name).suffix == "" else set())
    remove_leftovers(folder)
    found = fingerprint(folder / name)
    assert found in allowed
    for other, content in OTHERS.items():
        assert (folder / other).read_bytes() == content
    names = {p.name for p in folder.iterdir()} - set(OTHERS)
    data = {n for n in names if n.endswith(".raw")} if name == "a.mhd" else set()
    assert len(data) == (name == "a.mhd" and found is not None)
    assert names - data == ({name} if found is not None else set())
    return "nothing" if found is None else "old" if found == older else "new"


def child(folder: Path, name: str, value: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(folder), name, str(value)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def fill(folder: Path, name: str, older: bool) -> object:
    """Files of others, and an older output; its fingerprint."""
    folder.mkdir(exist_ok=True)
    for other, content in OTHERS.items():
        (folder / other).write_bytes(content)
    if older:
        write_kind(folder, name, 1)
    return fingerprint(folder / name)


def kills(count: int, rng: random.Random) -> dict[str, int]:
    """Random SIGKILLs; how often there was nothing, the old or the new output."""
    seen = {"nothing": 0, "old": 0, "new": 0}
    with tempfile.TemporaryDirectory() as top:
        complete, seconds = {}, {}
        kinds = rng.sample(list(KINDS), len(KINDS))
        for number in range(count):
            name = kinds[number % len(kinds)]
            if name not in complete:
                reference = Path(top) / f"reference-{name}"
                fill(reference, name, older=False)
                with child(reference, name, 2) as run:
                    assert run.stdout.readline() == b"ready\n"
                    begin = time.monotonic()
                    assert run.stdout.readline() == b"written\n", run.stderr.read()
                    seconds[name] = time.monotonic() - begin
                complete[name] = fingerprint(reference / name)
            folder = Path(top) / str(number)
            old = fill(folder, name, older=rng.random() < 0.7)
            with child(folder, name, 2) as run:
                assert run.stdout.readline() == b"ready\n"
                time.sleep(rng.uniform(0, 1.1) * seconds[name])
                run.send_signal(signal.SIGKILL)
            seen[check(folder, name, {old, complete[name]}, old)] += 1
    return seen


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A file system of `size` bytes; None where this process may not mount one."""
    with tempfile.TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            yield None
            return
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def full_disks(count: int, rng: random.Random) -> dict[str, int]:
    """Outputs on disks of random size; how often they were refused and written."""
    seen = {"refused": 0, "written": 0}
    kinds = rng.sample(list(KINDS), len(KINDS))
    with tempfile.TemporaryDirectory() as top:
        for number in range(count):
            name = kinds[number % len(kinds)]
            with small_disk(16 * 4096 + int(rng.uniform(0, 1.2) * np.prod(SHAPE) * 2)) as disk:
                folder = disk or Path(top) / str(number)
                fill(folder, name, older=False)
                limit = None if disk else (int(rng.uniform(0, 1.2) * np.prod(SHAPE) * 2),) * 2
                command = [sys.executable, __file__, "--child", str(folder), name, "2"]
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    preexec_fn=lambda limit=limit: limit and resource.setrlimit(resource.RLIMIT_FSIZE, limit),
                )
                if done.returncode == 0:
                    assert fingerprint(folder / name) is not None
                    seen["written"] += 1
                    continue
                [message] = done.stderr.splitlines()
                assert message.startswith(str(folder / name)), message
                assert "No space left" in message or "File too large" in message, message
                assert {p.name for p in folder.iterdir()} == set(OTHERS), list(folder.iterdir())
                check(folder, name, {None}, None)
                seen["refused"] += 1
    return seen


def run_child(folder: Path, name: str, value: int) -> None:
    from uhrct.core.errors import UhrctError

    with tempfile.TemporaryDirectory() as place, contextlib.suppress(UhrctError):
        write_kind(Path(place), name, value)  # imports
    print("ready", flush=True)
    try:
        write_kind(folder, name, value)
        print("written", flush=True)
    except UhrctError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def main(arguments: list[str]) -> dict[str, dict[str, int]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args(arguments)
    if options.child:
        run_child(Path(options.child[0]), options.child[1], int(options.child[2]))
        return {}
    rng = random.Random(options.seed)
    return {"kills": kills(options.kills, rng), "full disks": full_disks(options.sizes, rng)}


if __name__ == "__main__":
    result = main(sys.argv[1:])
    if result:
        print(result)
