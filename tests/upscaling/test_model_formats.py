"""Weights for Hugging Face, MONAI and ONNX: what is written is what those programs read, with the same voxels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from uhrct import Upscaler, io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models.model import Model
from uhrct.upscaling.export import export_model

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "onnx_upscale.py"
SPACING_MM = (2.5, 0.7, 0.9)
#: direction of the axes (columns), oblique, so that a wrong affine is seen
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def fast() -> Model:
    return Model.from_pretrained("x2-fast")


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    hu = np.stack([np.roll(slice_hu, k, 0)[20:84, 4:72] for k in range(3)])
    return Volume(np.ascontiguousarray(hu), SPACING_MM, (4.0, -7.0, 30.0), direction=TURN)


def real_part(folder: Path, slices: slice) -> Volume:
    """Lung and wall of a real chest, without air around the body."""
    volume = io.read(folder)
    hu = np.ascontiguousarray(volume.hu[slices, 180:308, 120:280])
    return Volume(hu, volume.spacing_mm, direction=TURN)


def run(*words: object, **environment: str) -> str:
    """A Python process; its output."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, *map(str, words)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def places(blob: bytes) -> list[bytes]:
    return re.findall(rb"/(?:home|root|tmp|usr|work|Users)/[\w./-]+", blob)


class TestHuggingFace:
    def test_the_folder_holds_the_same_weights(self, fast: Model, scan: Volume, tmp_path: Path) -> None:
        export_model(fast, tmp_path / "hub", "huggingface")
        again = Model.from_pretrained(tmp_path / "hub")
        assert again.weights_sha256 == fast.weights_sha256
        assert np.array_equal(Upscaler(again)(scan).volume.hu, Upscaler(fast)(scan).volume.hu)

    def test_calibrated_intervals_come_along(self, tmp_path: Path) -> None:
        export_model(Model.from_pretrained("x2"), tmp_path / "hub", "huggingface")
        assert Model.from_pretrained(tmp_path / "hub").calibration is not None

    def test_the_card_has_metadata_and_says_what_the_weights_are_not(self, fast: Model, tmp_path: Path) -> None:
        export_model(fast, tmp_path / "hub", "huggingface")
        text = (tmp_path / "hub" / "README.md").read_text()
        _, front, body = text.split("---\n", 2)
        metadata = yaml.safe_load(front)
        assert metadata["license"] == "apache-2.0"
        assert metadata["library_name"] == "uhrct"
        assert "research-use-only" in metadata["tags"]
        [entry] = metadata["model-index"]
        gains = {r["dataset"]["name"]: r["metrics"][0]["value"] for r in entry["results"]}
        assert gains == json.loads((fast.folder / "card.json").read_text())["gain_db"]  # type: ignore[operator]
        for r in entry["results"]:  # what the Hub demands of a result
            assert r["task"]["type"]
            assert r["dataset"]["type"]
            assert r["metrics"][0]["type"] == "psnr"
        for words in ("not a medical device", "62 patients", "GE, Siemens and Philips", "merged or invented"):
            assert words in body
        assert "Apache License" in (tmp_path / "hub" / "LICENSE").read_text()

    def test_own_weights_get_no_licence_that_nobody_gave(self, tiny_model: Model, tmp_path: Path) -> None:
        tiny_model.save_pretrained(tmp_path / "own")
        export_model(Model.from_pretrained(tmp_path / "own"), tmp_path / "hub", "huggingface")
        text = (tmp_path / "hub" / "README.md").read_text()
        assert "license" not in yaml.safe_load(text.split("---\n")[1])
        assert not (tmp_path / "hub" / "LICENSE").exists()
        assert "not a medical device" in text


class TestMonai:
    def test_a_run_gives_the_voxels_of_upscale(self, fast: Model, scan: Volume, tmp_path: Path) -> None:
        pytest.importorskip("fire", reason="monai.bundle needs fire")
        pytest.importorskip("monai")
        bundle = tmp_path / "bundle"
        export_model(fast, bundle, "monai")
        io.write(scan, tmp_path / "ct.nii.gz")
        words = ["run", "--config_file", bundle / "configs" / "inference.json", "--bundle_root", bundle]
        files = ["--image", tmp_path / "ct.nii.gz", "--output", tmp_path / "fine.nii.gz"]
        run("-m", "monai.bundle", *words, *files, "--denoise", "0.5", "--noise_hu", "12")
        same = ["--weights", "x2-fast", "--denoise", "0.5", "--noise-hu", "12"]
        run("-m", "uhrct", "upscale", tmp_path / "ct.nii.gz", tmp_path / "own.nii.gz", *same)
        found, expected = io.read(tmp_path / "fine.nii.gz"), io.read(tmp_path / "own.nii.gz")
        assert np.array_equal(found.hu, expected.hu)
        assert np.allclose(found.grid.corner_mm, expected.grid.corner_mm)

    def test_monai_finds_the_network_as_described(self, tmp_path: Path) -> None:
        """`verify_net_in_out` runs the network; the stored state fits it."""
        pytest.importorskip("fire", reason="monai.bundle needs fire")
        scripts = pytest.importorskip("monai.bundle.scripts")
        bundle = tmp_path / "bundle"
        export_model(Model.from_pretrained("5x2x2"), bundle, "monai")
        config, meta = (str(bundle / "configs" / f"{name}.json") for name in ("inference", "metadata"))
        scripts.verify_net_in_out(
            net_id="network_def", device="cpu", bundle_root=str(bundle), config_file=config, meta_file=meta
        )
        from uhrct.upscaling.monai_bundle import restoration

        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        network = restoration(bundle / "models")
        assert state.keys() == network.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())

    def test_the_metadata_has_what_the_specification_demands(self, fast: Model, tmp_path: Path) -> None:
        """`verify_metadata` would fetch the schema; here it gets the mandatory keys of MONAI's specification."""
        scripts = pytest.importorskip("monai.bundle.scripts")
        pytest.importorskip("jsonschema")
        export_model(fast, tmp_path / "bundle", "monai")
        keys = ("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task")
        keys += ("description", "authors", "copyright", "network_data_format")
        tensor_keys = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"]
        tensors = {"type": "object", "additionalProperties": {"required": [*tensor_keys, "channel_def"]}}
        data_format = {"required": ["inputs", "outputs"], "properties": {"inputs": tensors, "outputs": tensors}}
        schema = {"type": "object", "required": list(keys), "properties": {"network_data_format": data_format}}
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        meta = tmp_path / "bundle" / "configs" / "metadata.json"
        scripts.verify_metadata(meta_file=str(meta), filepath=str(tmp_path / "schema.json"))
        meta.write_text(meta.read_text().replace("channel_def", "channels"))
        with pytest.raises(ValueError, match="is a required property"):
            scripts.verify_metadata(meta_file=str(meta), filepath=str(tmp_path / "schema.json"))

    def test_no_file_names_this_machine(self, fast: Model, tmp_path: Path) -> None:
        export_model(fast, tmp_path / "bundle", "monai")
        texts = [p for p in (tmp_path / "bundle").rglob("*") if p.suffix in (".json", ".md", ".pt")]
        assert len(texts) >= 6
        assert [p.name for p in texts if places(p.read_bytes())] == []


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("onnx")
    for name in ("x2-fast", "5x2x2"):
        export_model(Model.from_pretrained(name), folder / f"{name}.onnx", "onnx")
    return {name: folder / f"{name}.onnx" for name in ("x2-fast", "5x2x2")}


@pytest.mark.slow
class TestOnnx:
    @pytest.mark.parametrize("name", ["x2-fast", "5x2x2"])
    def test_the_example_without_torch_agrees_with_upscale(
        self, name: str, onnx_files: dict[str, Path], shared_ct: Path, tmp_path: Path
    ) -> None:
        volume = real_part(shared_ct / "test" / "lidc0314", slice(128, 131))
        io.write(volume, tmp_path / "ct.nii.gz")
        # no torch and no uhrct: importing them fails
        for package in ("torch", "uhrct"):
            (tmp_path / "blocked" / package).mkdir(parents=True)
            (tmp_path / "blocked" / package / "__init__.py").write_text("raise ImportError('not here')")
        upscaler = Upscaler(
            Model.from_pretrained(name),
            consistency="off",
            skip_air=False,
            precision=torch.float32,
            denoise=0.5,
            noise_hu=25.0,
        )
        expected = upscaler(io.read(tmp_path / "ct.nii.gz"))
        (tmp_path / "report.json").write_text(json.dumps(expected.report))
        files = [onnx_files[name], tmp_path / "ct.nii.gz", tmp_path / "fine.nii.gz", tmp_path / "report.json"]
        said = run(EXAMPLE, *files, PYTHONPATH=str(tmp_path / "blocked"))
        assert said == ""
        found = io.read(tmp_path / "fine.nii.gz")
        assert np.abs(found.hu - expected.volume.hu).max() <= 1.0  # half for rounding
        assert np.sqrt(((found.hu - expected.volume.hu) ** 2.0).mean()) < 0.4  # rounding alone gives .29
        assert np.allclose(found.grid.corner_mm, expected.volume.grid.corner_mm, atol=1e-4)
        assert np.allclose(found.grid.extent_mm, expected.volume.grid.extent_mm, atol=1e-4)
        assert np.allclose(found.direction, expected.volume.direction, atol=1e-6)

    def test_what_is_not_said_is_unknown(self, onnx_files: dict[str, Path], scan: Volume, tmp_path: Path) -> None:
        io.write(scan, tmp_path / "ct.nii.gz")
        run(EXAMPLE, onnx_files["x2-fast"], tmp_path / "ct.nii.gz", tmp_path / "fine.nii.gz")
        settings = {"consistency": "off", "skip_air": False, "precision": torch.float32}
        unknown = {"psf_known": False, "noise_known": False}
        given = {"psf_fwhm": 0.6, "noise_hu": 0.0, "noise_correlation": 0.0}
        upscaler = Upscaler(Model.from_pretrained("x2-fast"), overrides=given | unknown, **settings)
        expected = upscaler(scan).volume.hu
        found = np.asarray(nibabel.load(tmp_path / "fine.nii.gz").dataobj).T  # type: ignore[attr-defined]
        assert np.abs(found - expected).max() <= 1.0

    def test_any_size_and_many_slices_at_once(self, onnx_files: dict[str, Path]) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(onnx_files["x2-fast"]))
        hu = np.random.default_rng(0).normal(-500, 300, (3, 3, 17, 40)).astype(np.float32)
        [together] = session.run(None, {"hu": hu})
        assert together.shape == (3, 1, 34, 80)
        for k in range(3):
            assert np.allclose(session.run(None, {"hu": hu[k : k + 1]})[0], together[k], atol=0.01)

    def test_the_file_says_what_it_is_and_not_where_it_was_made(self, onnx_files: dict[str, Path]) -> None:
        import onnx

        for name, file in onnx_files.items():
            made = onnx.load(str(file))
            onnx.checker.check_model(made)
            said = {p.key: p.value for p in made.metadata_props}
            assert said["weights"] == name
            assert said["weights_sha256"] == Model.from_pretrained(name).weights_sha256
            assert "not a medical device" in said["note"]
            assert places(file.read_bytes()) == []


class TestWriting:
    def test_an_unknown_format_is_refused(self, fast: Model, tmp_path: Path) -> None:
        with pytest.raises(UhrctError, match="`format` is keras"):
            export_model(fast, tmp_path / "a", "keras")

    def test_a_model_in_memory_is_refused_and_leaves_nothing(self, tiny_model: Model, tmp_path: Path) -> None:
        with pytest.raises(UhrctError, match="made in memory"):
            export_model(tiny_model, tmp_path / "a", "huggingface")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("format", ["huggingface", "monai"])
    def test_only_own_folders_are_replaced(self, fast: Model, tmp_path: Path, format: str) -> None:
        export_model(fast, tmp_path / "a", format)
        with pytest.raises(UhrctError, match="not empty"):
            export_model(fast, tmp_path / "a", format)
        export_model(fast, tmp_path / "a", format, overwrite=True)
        (tmp_path / "a" / "thesis.docx").touch()
        with pytest.raises(UhrctError, match=re.escape("thesis.docx")):
            export_model(fast, tmp_path / "a", format, overwrite=True)
