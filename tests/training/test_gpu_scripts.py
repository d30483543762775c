"""What `scripts/gpu/pack.py` sends is what `scripts/gpu/train.py` unpacks."""

from __future__ import annotations

import importlib.util
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "gpu"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_arrive_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    work = tmp_path / "work"
    (work / "clean").mkdir(parents=True)
    extreme = np.array([-(2**15), 2**15 - 1, 0, -1, 1], np.int16)
    np.concatenate([extreme, rng.integers(-3024, 3072, 995).astype(np.int16)]).tofile(work / "a.raw")
    np.save(work / "clean" / "b.npy", rng.integers(-3024, 3072, (2, 9, 7)).astype(np.int16))
    np.save(work / "clean" / "b.maps.npy", rng.normal(size=(2, 3)).astype(np.float16))
    (work / "store.json").write_text("{}")
    files = sorted(f for f in work.rglob("*") if f.is_file())
    groups = list(script("pack").parts(files, work, 1500))
    assert len(groups) > 1
    for k, group in enumerate(groups):
        with tarfile.open(tmp_path / f"part-{k:02d}.tar", "w") as tar:
            for name, data in group:
                entry = tarfile.TarInfo(f"{name}.xz")
                entry.size = len(data)
                tar.addfile(entry, BytesIO(data))
    for part in sorted(tmp_path.glob("part-*.tar")):
        script("train").restored((part, tmp_path / "out"))
    assert {f.relative_to(work): f.read_bytes() for f in files} == {
        f.relative_to(tmp_path / "out"): f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()
    }


def test_a_part_cannot_write_elsewhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "part-00.tar", "w") as tar:
        entry = tarfile.TarInfo("../evil.xz")
        entry.size = 1
        tar.addfile(entry, BytesIO(b"x"))
    with pytest.raises(SystemExit, match="not one of"):
        script("train").restored((tmp_path / "part-00.tar", tmp_path / "out"))
    assert not (tmp_path / "evil").exists()
