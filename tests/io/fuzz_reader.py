"""Coverage-guided fuzzing of the reader. Not part of `make test`: it needs atheris (`pip install atheris`).

    python tests/io/fuzz_reader.py seeds CORPUS           # small files of every kind to start from
    python tests/io/fuzz_reader.py CORPUS -max_total_time=1800 -timeout=20 -rss_limit_mb=3000 -max_len=16384

An input is one byte that says which suffix the file has, and the file. Beside a .mhd lies `a.raw` with 48 bytes of
voxels. `read` and `inspect` must return, or raise `UhrctError` with one line. Everything else is a finding: it is
stored in CORPUS-findings, once for each line of code that raised, and the search goes on. Decoders in C that crash end
the run; libFuzzer then leaves the input behind as crash-*. Fixed findings are tests in `test_fuzz_findings.py`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

SUFFIXES = (".dcm", ".zip", "", ".nii", ".nii.gz", ".nrrd", ".mha", ".npz", ".mhd")


def seeds(corpus: Path) -> None:
    """Write one small file of every kind and transfer syntax."""
    import numpy as np
    from ct_files import make_series
    from ct_syntaxes import SYNTAXES, in_syntax, make_enhanced
    from pydicom.data import get_testdata_file
    from zoo_places import dicomdir, zipped

    from uhrct import io
    from uhrct.core.volume import Volume

    corpus.mkdir(parents=True, exist_ok=True)

    def keep(suffix: str, file: Path) -> None:
        content = bytes([SUFFIXES.index(suffix)]) + file.read_bytes()
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)

    with tempfile.TemporaryDirectory(prefix="uhrct-seeds-") as name:
        top = Path(name)
        for syntax in SYNTAXES:
            make_series(top / "in" / syntax, shape=(1, 8, 9), edit=in_syntax(syntax))
            keep(".dcm", next((top / "in" / syntax).iterdir()))
        for syntax in ("explicit", "jpeg-ls", "deflated"):
            make_enhanced(top / f"{syntax}.dcm", shape=(2, 8, 9), syntax=syntax)
            keep("", top / f"{syntax}.dcm")
        keep(".zip", zipped(top))
        make_series(top / "DICOM", shape=(2, 4, 4))
        keep("", dicomdir(top))
        keep(".dcm", Path(get_testdata_file("CT_small.dcm", download=False)))
        volume = Volume(np.zeros((2, 3, 4), np.int16), (2.0, 1.0, 1.0))
        for suffix in SUFFIXES[3:]:
            io.write(volume, top / f"a{suffix}")
            keep(suffix, top / f"a{suffix}")


def read_all(content: bytes, folder: Path) -> None:
    """Read one input; raises what is a finding."""
    from uhrct import io
    from uhrct.core.errors import UhrctError

    file = folder / f"a{SUFFIXES[content[0] % len(SUFFIXES)]}"
    file.write_bytes(content[1:])
    for look in (io.inspect, io.read):
        try:
            look(file)
        except UhrctError as error:
            if not str(error).isprintable():
                raise ValueError(f"not one line: {error!r}") from error
    file.unlink()


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "seeds":
        seeds(Path(sys.argv[2]))
        return
    import atheris

    with atheris.instrument_imports(include=["uhrct.io", "pydicom", "nibabel", "nrrd"]):
        from uhrct import io  # noqa: F401
        from uhrct.io import image, metaimage, nifti, npz, nrrd  # noqa: F401
        from uhrct.io.dicom import read  # noqa: F401
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="uhrct-fuzz-"))
    (folder / "a.raw").write_bytes(bytes(48))
    findings = Path(sys.argv[1].rstrip("/") + "-findings")
    findings.mkdir(exist_ok=True)

    def one(content: bytes) -> None:
        if not content:
            return
        try:
            read_all(content, folder)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
            if not (findings / name).exists():
                (findings / name).write_bytes(content)
                (findings / f"{name}.txt").write_text(traceback.format_exc())
                print(f"finding: {name}: {error}", file=sys.stderr)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
