"""3D Slicer: the XML description and calls made from it; the scripted module without Slicer."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from xml.etree import ElementTree

import nibabel
import nrrd
import numpy as np
import pytest
import typer
from run_cli import REFUSED, Uhrct, done, refused, same_place

from uhrct import io
from uhrct.cli.main import app
from uhrct.core.volume import Volume

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "slicer" / "UHRCT"
FOREIGN_PYTHON = {"PYTHONHOME": "/opt/Slicer/lib/Python", "PYTHONPATH": "/opt/Slicer/lib/Python/site-packages"}


@pytest.fixture
def described(uhrct: Uhrct) -> ElementTree.Element:
    out = done(uhrct("--xml")).out
    assert out.startswith("<?xml")  # Slicer knows a module by this
    return ElementTree.fromstring(out)


def slicer_call(root: ElementTree.Element, image: Path, output: Path, **chosen: str) -> list[str]:
    """The arguments that Slicer makes of a description: flags in order, then the files by their index."""
    words: list[str] = []
    files: dict[int, str] = {}
    for parameter in root.findall("parameters/*"):
        name, flag = parameter.findtext("name"), parameter.findtext("longflag")
        if parameter.tag == "image":
            files[int(parameter.findtext("index") or "")] = str({"input": image, "output": output}[str(name)])
        elif flag is not None:
            value = chosen.get(str(name), str(parameter.findtext("default")))
            if parameter.tag == "boolean":
                words += [flag] if value == "true" else []
            elif value:
                words += [flag, value]
    return words + [files[k] for k in sorted(files)]


class TestDescription:
    def test_every_flag_and_value_is_one_of_upscale(self, described: ElementTree.Element) -> None:
        options = {o: p for p in typer.main.get_command(app).commands["upscale"].params for o in p.opts}  # type: ignore[attr-defined]
        parameters = [p for p in described.findall("parameters/*") if p.find("longflag") is not None]
        assert len(parameters) >= 6
        for parameter in parameters:
            assert parameter.findtext("longflag") in options
            values = [e.text for e in parameter.findall("element")]
            assert not values or parameter.findtext("default") in values
        names = [p.findtext("name") for p in described.findall("parameters/*") if p.find("name") is not None]
        assert len(names) == len(set(names))
        assert "not a medical device" in str(described.findtext("description"))

    def test_a_call_made_of_it_gives_the_result_of_upscale(
        self, described: ElementTree.Element, uhrct: Uhrct, scan: Volume, tmp_path: Path
    ) -> None:
        io.write(scan, tmp_path / "ct.nrrd")
        words = slicer_call(described, tmp_path / "ct.nrrd", tmp_path / "out.nrrd", quality="fast", denoise="0.5")
        result = done(uhrct(*words))
        shares = [float(line[17:-18]) for line in result.out.split()]
        assert all(line.startswith("<filter-progress>") for line in result.out.split())
        assert shares == sorted(shares)
        assert shares[-1] == 1
        done(uhrct("upscale", tmp_path / "ct.nrrd", tmp_path / "own.nrrd", "--quality", "fast", "--denoise", "0.5"))
        assert np.array_equal(io.read(tmp_path / "out.nrrd").hu, io.read(tmp_path / "own.nrrd").hu)

    def test_progress_and_a_report_do_not_share_stdout(self, uhrct: Uhrct, tmp_path: Path) -> None:
        result = uhrct("upscale", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "--filter-progress", "--json", "-")
        refused(result, "both write to stdout")

    def test_other_calls_are_left_alone(self, uhrct: Uhrct) -> None:
        refused(uhrct("--scale", "2", "in.nrrd", "out.nrrd"), "No such option")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The part of the module that needs no Slicer."""
    monkeypatch.syspath_prepend(str(MODULE))
    return importlib.import_module("uhrct_call")


@pytest.fixture
def command(tmp_path: Path) -> str:
    """A `uhrct` of another Python: it dies of PYTHONHOME, as a real one does."""
    file = tmp_path / "uhrct"
    file.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{ROOT / "src"}" exec "{sys.executable}" -m uhrct "$@"\n')
    file.chmod(0o755)
    return str(file)


class TestCall:
    def test_nothing_of_slicer_reaches_the_child(self, call: ModuleType) -> None:
        theirs = FOREIGN_PYTHON | {
            "LD_LIBRARY_PATH": "/opt/Slicer/lib",
            "SLICER_HOME": "/opt/Slicer",
            "HOME": "/home/me",
        }
        path = os.pathsep.join(["/opt/Slicer/bin", "/opt/Slicer", "/opt/Slicer-tools", "/usr/bin", ""])
        clean = call.clean_environment(theirs | {"PATH": path}, "/opt/Slicer")
        assert clean == {"HOME": "/home/me", "PATH": os.pathsep.join(["/opt/Slicer-tools", "/usr/bin"])}
        assert theirs["PYTHONHOME"]  # the given one is left as it is

    @pytest.mark.skipif(os.name == "nt", reason="the command of this test is a shell script")
    def test_a_command_is_checked_in_the_clean_environment(self, call: ModuleType, command: str) -> None:
        slicers = {**os.environ, **FOREIGN_PYTHON}
        from uhrct.core.version import __version__

        assert call.checked_version(command, call.clean_environment(slicers)) == __version__
        with pytest.raises(RuntimeError):  # without cleaning, another Python's library kills it
            call.checked_version(command, slicers)
        with pytest.raises(RuntimeError, match="cannot be started"):
            call.checked_version("/no/such/uhrct", call.clean_environment(slicers))
        with pytest.raises(RuntimeError, match="is not uhrct"):
            call.checked_version("echo", call.clean_environment(slicers))

    @pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
    def test_the_temporary_file_has_the_voxels_and_the_place(
        self, call: ModuleType, tmp_path: Path, dtype: str
    ) -> None:
        voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
        turn = np.array([[0.0, -0.8, 0.6], [0.6, 0.48, 0.64], [-0.8, 0.36, 0.48]])
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ np.diag([0.7, 0.8, 2.5])
        matrix[:3, 3] = (11.5, -20.25, 300.125)
        call.write_nrrd(tmp_path / "scan.nrrd", voxels, matrix)
        own = io.read(tmp_path / "scan.nrrd")
        assert np.array_equal(own.hu, voxels)
        io.write(own, tmp_path / "scan.nii.gz")
        assert np.allclose(nibabel.load(tmp_path / "scan.nii.gz").affine, matrix, atol=1e-5)  # type: ignore[attr-defined]
        other, header = nrrd.read(str(tmp_path / "scan.nrrd"), index_order="C")
        assert np.array_equal(other, voxels)
        assert np.allclose(header["space origin"], (-11.5, 20.25, 300.125))
        with pytest.raises(ValueError, match="one number per voxel"):
            call.write_nrrd(tmp_path / "rgb.nrrd", np.zeros((2, 2, 2, 3), np.uint8), matrix)

    def test_arguments_are_those_of_the_program(self, call: ModuleType) -> None:
        from uhrct.cli.slicer import SCALES
        from uhrct.cli.upscale import Quality

        assert set(call.SCALES) == set(SCALES)
        assert set(call.QUALITIES) == {q.value for q in Quality}
        words = call.arguments("in.nrrd", "out.nrrd", "5x2x2", "best", 0.5)
        typer.main.get_command(app).commands["upscale"].make_context("upscale", words[1:])  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="no settings"):
            call.arguments("in.nrrd", "out.nrrd", scale="3")

    def test_progress_and_errors_are_found_in_the_output(self, call: ModuleType) -> None:
        assert call.last_progress("") == 0
        text = "<filter-progress>0.250</filter-progress>\nnoise\n<filter-progress>0.500</filter-progress>\n<filter-pro"
        assert call.last_progress(text) == 0.5
        said = "scan: 3 slices\nuhrct: note: small\nuhrct: ct.nrrd: no CT\nlast words\n"
        assert call.error_line(said) == "uhrct: ct.nrrd: no CT"
        assert call.error_line("") == "uhrct ended without a message"

    @pytest.mark.skipif(os.name == "nt", reason="the command of this test is a shell script")
    def test_a_run_in_the_background_writes_the_result(
        self, call: ModuleType, command: str, slice_hu: np.ndarray, tmp_path: Path
    ) -> None:
        scan, result = tmp_path / "scan.nrrd", tmp_path / "result.nrrd"
        call.write_nrrd(scan, slice_hu[None, :48, :40], np.diag([-1.4, -1.4, 2.5, 1.0]))
        environment = call.clean_environment({**os.environ, **FOREIGN_PYTHON})
        run = call.Run(command, call.arguments(scan, result, quality="fast"), environment, tmp_path)
        run.process.wait(300)
        assert run.poll() == (1.0, 0), run.error()
        assert call.last_progress(run.out.read_text()) == 1
        assert io.read(result).shape == (1, 96, 80)
        same_place(io.read(result), io.read(scan))
        run = call.Run(command, call.arguments(tmp_path / "none.nrrd", result), environment, tmp_path)
        run.process.wait(300)
        assert run.poll()[1] == REFUSED
        assert "none.nrrd" in run.error()

    @pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
    def test_a_cancelled_run_leaves_no_result(self, call: ModuleType, command: str, tmp_path: Path) -> None:
        scan, result = tmp_path / "scan.nrrd", tmp_path / "result.nrrd"
        hu = np.random.default_rng(0).normal(0, 200, (40, 256, 256)).astype(np.int16)
        call.write_nrrd(scan, hu, np.diag([-0.7, -0.7, 2.5, 1.0]))
        run = call.Run(command, call.arguments(scan, result), call.clean_environment(os.environ), tmp_path)
        deadline = time.monotonic() + 300
        while run.poll()[0] == 0 and run.poll()[1] is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert 0 < run.poll()[0] < 1
        run.cancel()
        assert run.poll()[1] not in (None, 0)
        assert run.error() == "cancelled"
        assert not result.exists()
        assert [p.name for p in tmp_path.glob(".uhrct-*")] == []


@pytest.fixture
def module(call: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """UHRCT.py with stand-ins for Slicer, Qt and VTK: they take every call."""
    plain = SimpleNamespace(**dict.fromkeys(("ScriptedLoadableModule", "ScriptedLoadableModuleLogic"), object))
    plain.ScriptedLoadableModuleWidget = object
    for base in ("ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleWidget"):
        setattr(plain, base, type(base, (), {"__init__": lambda self, parent=None: None}))
    fakes = {name: MagicMock(name=name) for name in ("slicer", "qt", "ctk", "vtk")}
    fakes["slicer"].util.startupEnvironment.return_value = {**os.environ, **FOREIGN_PYTHON}
    fakes["slicer"].app.slicerHome = "/opt/Slicer"
    for name, fake in (*fakes.items(), ("slicer.ScriptedLoadableModule", plain)):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.delitem(sys.modules, "UHRCT", raising=False)
    return importlib.import_module("UHRCT")


@pytest.mark.skipif(os.name == "nt", reason="the command of this test is a shell script")
def test_the_logic_of_the_module_runs_and_removes_its_files(
    module: Any, command: str, slice_hu: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slicer is faked here: this shows that the parts fit, not that Slicer likes them."""
    module.slicer.util.arrayFromVolume.return_value = slice_hu[None, :48, :40]
    matrix = np.diag([-1.4, -1.4, 2.5, 1.0])
    module.vtk.vtkMatrix4x4.return_value.GetElement.side_effect = lambda i, j: matrix[i, j]
    logic = module.UHRCTLogic()
    logic.begin(MagicMock(), command, "2", "fast", 0.75)
    folder = logic.folder
    logic.run.process.wait(300)
    assert logic.run.poll() == (1.0, 0), logic.run.error()
    assert io.read(logic.result).spacing_mm == pytest.approx((2.5, 0.7, 0.7))
    made = logic.load()
    module.slicer.util.loadVolume.assert_called_once()
    module.show_beside(logic.source, made)
    logic.stop()
    assert not folder.exists()


def test_the_module_is_python_that_slicer_can_read() -> None:
    """Slicer 5 has Python 3.9: no newer syntax."""
    for file in MODULE.glob("*.py"):
        subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--target-version", "py39", "--select", "E9,F", str(file)],
            check=True,
        )
