"""The mean network in 8-bit integers gives nearly the image of torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("name", QUANTIZED)
def test_integers_are_near_and_belong_to_the_weights(name: str, scan: Volume) -> None:
    folder = WEIGHTS_DIR / name
    facts = json.loads((folder / INT8_FACTS).read_text())
    assert facts["sha256"] == hashlib.sha256((folder / INT8).read_bytes()).hexdigest()
    model = Model.from_pretrained(name)
    want = Upscaler(model)(scan).volume.hu.astype(float)
    result = Upscaler(model, engine="int8")(scan)
    assert "mean in int8, OpenVINO" in result.plan.computed_in
    assert with_engine(model, "int8") is with_engine(model, "int8")
    got = result.volume.hu - want
    assert np.abs(got).max() > 0
    assert np.abs(got.mean()) < 2  # HU
    assert got.std() < 12


def test_integers_do_not_depend_on_tiles(scan: Volume) -> None:
    whole = Upscaler(weights="x2", engine="int8", consistency="off")(scan).volume.hu
    tiles = Upscaler(weights="x2", engine="int8", consistency="off", tile=24)(scan).volume.hu
    np.testing.assert_array_equal(whole, tiles)


def test_an_interval_around_integers_is_not_called_calibrated(scan: Volume) -> None:
    """The calibration was made with the mean of torch."""
    reasons = {
        e: Upscaler(weights="x2", interval=True, engine=e).plan(scan).interval_reasons for e in ("torch", "int8")
    }
    assert not any("engine" in r for r in reasons["torch"])
    assert "engine is int8, calibrated with torch" in reasons["int8"]


def test_what_cannot_run_is_one_line(tmp_path: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    with pytest.raises(UhrctError, match=rf"no {INT8}"):
        with_engine(model, "int8")
    shutil.copytree(WEIGHTS_DIR / "x2-fast", tmp_path / "other")
    facts = json.loads((tmp_path / "other" / INT8_FACTS).read_text())
    for changed, words in (
        ({"weights_sha256": "0"}, "made from other weights"),
        ({"sha256": "0"}, "damaged"),
        ({"sha256": None, "weights_sha256": None}, "made from other weights"),
    ):
        (tmp_path / "other" / INT8_FACTS).write_text(json.dumps(facts | changed))
        with pytest.raises(UhrctError, match=words):
            with_engine(Model.from_pretrained(tmp_path / "other"), "int8")
    (tmp_path / "other" / INT8_FACTS).write_text("[]")
    with pytest.raises(UhrctError, match="not readable"):
        with_engine(Model.from_pretrained(tmp_path / "other"), "int8")
    with pytest.raises(UhrctError, match="engine"):
        Upscaler(model, engine="tensorrt")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(UhrctError, match=r"pip install 'uhrct\[int8\]'"):
        Upscaler(weights="x2-fast", engine="int8")(scan)
