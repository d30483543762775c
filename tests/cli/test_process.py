"""The command line as a process of its own: kills, exit codes, light help."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_cli import REFUSED, Result, Uhrct, done, everything, refused

from uhrct import io
from uhrct.core.volume import Volume

CHILD = """
import sys, time
from uhrct.cli import main as cli
from uhrct.upscaling import slabs

compute = slabs._compute_slab

def slab(plan, around, middle, *rest):
    if middle[0] >= 2:
        print("half", flush=True)
        time.sleep(60)
    return compute(plan, around, middle, *rest)

slabs._compute_slab = slab
cli.main()
"""


@pytest.mark.parametrize(
    ("name", "how"),
    [("out.nii.gz", signal.SIGKILL), ("out", signal.SIGKILL), ("out", signal.SIGTERM), ("out", signal.SIGINT)],
)
def test_killed_while_writing(weights: Path, tmp_path: Path, name: str, how: signal.Signals) -> None:
    io.write(Volume(np.zeros((4, 260, 260), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    before = everything(tmp_path)
    arguments = ["upscale", tmp_path / "in.npz", tmp_path / name, "--weights", weights]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "half\n"
        assert len(list(tmp_path.iterdir())) == 2  # half is written, under another name
        child.send_signal(how)
        assert child.wait(20) != 0
        assert "Traceback" not in child.stderr.read()
    left = everything(tmp_path)
    if how == signal.SIGKILL:  # nobody can clean up; what is left does not look like a result
        left = {k: v for k, v in left.items() if not k.startswith(".uhrct-")}
    assert left == before


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "uhrct", *map(str, arguments)], capture_output=True, text=True)


def test_exit_code_and_line_of_a_real_process(tmp_path: Path) -> None:
    process = run_process("upscale", tmp_path / "none.nii", tmp_path / "out.nii")
    refused(
        Result(process.returncode, process.stdout, process.stderr), "none.nii: no such file or folder", code=REFUSED
    )


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from uhrct.cli import main as cli\n"
        "sys.argv = ['uhrct', '--help']\n"
        "try:\n    cli.main()\n"
        "finally:\n    print([m for m in ('torch', 'numpy', 'pydicom', 'SimpleITK') if m in sys.modules])\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0
    for verb in ("upscale", "degrade", "structure", "info", "models", "train"):
        assert verb in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["upscale", "degrade", "structure", "info", "models", "train"])
def test_every_verb_explains_itself(uhrct: Uhrct, verb: str) -> None:
    assert "Usage" in done(uhrct(verb, "--help")).out


def test_no_verb_shows_the_help_and_a_wrong_one_fails(uhrct: Uhrct) -> None:
    result = uhrct()
    assert "Usage" in result.out + result.err
    assert uhrct("enlarge").code == 2
