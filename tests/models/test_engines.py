"""OpenVINO in the place of torch: the same image, or nearly the same in 8-bit integers."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models.engines import INT8, INT8_FACTS, with_engine
from uhrct.models.folder import WEIGHTS_DIR, available_models
from uhrct.models.model import Model, ModelConfig
from uhrct.upscaling.upscaler import Upscaler

pytest.importorskip("openvino")
QUANTIZED = [folder.name for folder in available_models() if (folder / INT8).is_file()]


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    return Volume(np.stack([np.roll(slice_hu, 2 * k, 1)[:63, :58] for k in range(5)]), (2.5, 0.9, 0.9))


@pytest.mark.parametrize("structure_width", [0, 8])
def test_openvino_gives_the_image_of_torch(structure_width: int, scan: Volume) -> None:
    torch.manual_seed(0)
    size = {"image_width": 16, "image_blocks": 1, "structure_width": structure_width, "structure_blocks": 1}
    model = Model(ModelConfig(mean=size, context=1, properties=True)).eval().requires_grad_(False)
    for p in model.parameters():  # blocks start as the identity, and would hide a mistake
        p.add_(0.02 * torch.randn_like(p))
    want = Upscaler(model, tile=40)(scan).volume.hu.astype(int)
    got = Upscaler(model, tile=24, engine="openvino")(scan)
    assert np.ptp(want) > 500
    assert np.abs(got.volume.hu - want).max() <= 1  # one unit of the last digit
    assert "mean by openvino" in got.plan.computed_in
    assert with_engine(model, "openvino") is with_engine(model, "openvino")


@pytest.mark.parametrize("name", QUANTIZED)
def test_integers_are_near_and_belong_to_the_weights(name: str, scan: Volume) -> None:
    folder = WEIGHTS_DIR / name
    facts = json.loads((folder / INT8_FACTS).read_text())
    assert facts["sha256"] == hashlib.sha256((folder / INT8).read_bytes()).hexdigest()
    model = Model.from_pretrained(name)
    want = Upscaler(model)(scan).volume.hu.astype(float)
    got = Upscaler(model, engine="openvino-int8")(scan).volume.hu - want
    assert np.abs(got).max() > 0
    assert np.abs(got.mean()) < 2  # HU
    assert got.std() < 12


def test_integers_do_not_depend_on_tiles(scan: Volume) -> None:
    whole = Upscaler(weights="x2", engine="openvino-int8", consistency="off")(scan).volume.hu
    tiles = Upscaler(weights="x2", engine="openvino-int8", consistency="off", tile=24)(scan).volume.hu
    np.testing.assert_array_equal(whole, tiles)


def test_what_cannot_run_is_one_line(tmp_path: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    with pytest.raises(UhrctError, match=rf"no {INT8}"):
        with_engine(model, "openvino-int8")
    shutil.copytree(WEIGHTS_DIR / "x2-fast", tmp_path / "other")
    (tmp_path / "other" / INT8_FACTS).write_text(json.dumps({"weights_sha256": "0"}))
    with pytest.raises(UhrctError, match="made from other weights"):
        with_engine(Model.from_pretrained(tmp_path / "other"), "openvino-int8")
    with pytest.raises(UhrctError, match="engine"):
        Upscaler(model, engine="tensorrt")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(UhrctError, match=r"pip install 'uhrct\[openvino\]'"):
        Upscaler(model, engine="openvino")(scan)
