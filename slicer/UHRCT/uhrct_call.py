"""Calls `uhrct upscale` from 3D Slicer in the Python of uhrct. Nothing here needs Slicer, torch or uhrct.

Slicer has its own Python with its own numpy. uhrct runs as another process, with the environment that the user would
have outside of Slicer, so their packages never meet.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

SCALES = ("2", "4", "5x1x1", "5x2x2")
QUALITIES = ("standard", "fast", "best")
#: what Slicer's launcher sets for its own libraries, Python and Qt
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "LD_PRELOAD")
FOREIGN += ("PYTHONNOUSERSITE", "PYTHONSTARTUP", "QT_PLUGIN_PATH", "SSL_CERT_FILE", "TCL_LIBRARY", "TK_LIBRARY")
#: time for a cancelled run to remove its files
PATIENCE_S = 10
TYPES = {"int16": "int16", "uint16": "uint16", "int32": "int32", "uint8": "uint8", "int8": "int8", "uint32": "uint32"}
TYPES |= {"float32": "float", "float64": "double"}


def clean_environment(environment, slicer_home=""):
    """The environment without Slicer's Python and libraries; its folders are taken out of PATH too."""
    clean = {
        name: value for name, value in environment.items() if name not in FOREIGN and not name.startswith("SLICER")
    }
    folders = environment.get("PATH", "").split(os.pathsep)
    clean["PATH"] = os.pathsep.join(f for f in folders if f and not (slicer_home and inside(f, slicer_home)))
    return clean


def inside(folder, home):
    """Whether a folder lies in another one."""
    return Path(home) in [Path(folder), *Path(folder).parents]


def arguments(image, output, scale="2", quality="standard", denoise=0.75, device="auto"):
    """The arguments of uhrct for one volume."""
    if scale not in SCALES or quality not in QUALITIES or not 0 <= denoise <= 1:
        raise ValueError(f"no settings of uhrct: scale {scale}, quality {quality}, denoise {denoise}")
    options = ["--scale", scale, "--quality", quality, "--denoise", f"{denoise:g}", "--device", device]
    return ["upscale", str(image), str(output), *options, "--filter-progress", "--overwrite"]


def last_progress(text):
    """The last share that was reported, from 0 to 1."""
    found = re.findall(r"<filter-progress>([0-9.]+)</filter-progress>", text)
    return float(found[-1]) if found else 0.0


def error_line(text):
    """The line in which uhrct says what is wrong; else the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("uhrct: ") and not line.startswith("uhrct: note: ")]
    return (own or lines or ["uhrct ended without a message"])[-1]


def checked_version(command, environment):
    """The version of the uhrct that a command starts.

    Raises RuntimeError with a sentence for the user if it starts none.
    """
    try:
        done = subprocess.run([command, "--version"], env=environment, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{command or '(empty)'} cannot be started: {error}") from error
    version = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"\d+\.\d+\S*", version):
        raise RuntimeError(f"{command} is not uhrct: {error_line(done.stderr or done.stdout)}")
    return version


def write_nrrd(path, voxels, ijk_to_ras):
    """Write a volume for uhrct: voxels (k, j, i) as Slicer has them, 4 x 4 matrix from (i, j, k) to RAS in mm."""
    voxels = np.ascontiguousarray(voxels)
    if voxels.ndim != 3 or voxels.dtype.name not in TYPES:
        raise ValueError(f"a volume of shape {voxels.shape} and type {voxels.dtype}; a CT has one number per voxel")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(ijk_to_ras, float)
    vectors = ["(" + ",".join(f"{v:.17g}" for v in column) + ")" for column in lps[:3].T]
    header = [
        "NRRD0004",
        f"type: {TYPES[voxels.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, voxels.shape[::-1]))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: {vectors[3]}",
    ]
    Path(path).write_bytes("\n".join([*header, "", ""]).encode() + voxels.tobytes())


class Run:
    """One call of uhrct in the background. `poll` often; the files of the run lie in `folder`."""

    def __init__(self, command, given, environment, folder):
        self.out, self.err = Path(folder) / "stdout.txt", Path(folder) / "stderr.txt"
        hide = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [command, *given], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, creationflags=hide
            )
        self.cancelled = False

    def poll(self):
        """(share that is done, exit code or None while it runs)."""
        code = self.process.poll()
        return (1.0 if code == 0 else last_progress(self.out.read_text(errors="replace"))), code

    def cancel(self):
        """End the run. uhrct removes what is not complete."""
        self.cancelled = True
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def error(self):
        """What went wrong, in one line."""
        return "cancelled" if self.cancelled else error_line(self.err.read_text(errors="replace"))
