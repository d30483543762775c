import json

import pytest
import torch

from uhrct.errors import UhrctError
from uhrct.model import Model, ModelConfig, available_models, model_folder


def test_a_saved_model_comes_back_the_same(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    back = Model.from_pretrained(tmp_path)
    assert back.config == tiny_model.config
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    assert not list(tmp_path.glob("*.tmp"))


def test_damaged_weights_are_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    blob = bytearray(file.read_bytes())
    blob[-5] ^= 1
    file.write_bytes(blob)
    with pytest.raises(UhrctError, match="damaged"):
        Model.from_pretrained(tmp_path)
    file.write_bytes(blob[:100])
    with pytest.raises(UhrctError, match=r"model\.safetensors"):
        Model.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(UhrctError, match="no such file"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format 99"),
        ({"colour": "red"}, "unknown"),
        (None, "JSON"),
    ],
)
def test_a_config_of_another_version_or_kind_is_refused(tiny_model, tmp_path, change, message):
    tiny_model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text("{" if change is None else json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UhrctError, match=message):
        Model.from_pretrained(tmp_path)


def test_unhashed_garbage_is_refused_too(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "weights_sha256": ""}))
    (tmp_path / "model.safetensors").write_bytes(b"garbage" * 10)
    with pytest.raises(UhrctError, match="not a readable"):
        Model.from_pretrained(tmp_path)


def test_unknown_names_say_what_there_is():
    with pytest.raises(UhrctError, match="shipped"):
        model_folder("x17")


def test_every_shipped_model_loads_and_has_its_papers():
    for folder in available_models():
        Model.from_pretrained(folder)
        assert {"README.md", "card.json", "train.json", "log.jsonl"} <= {p.name for p in folder.iterdir()}
        assert all(p.stat().st_size <= 16e6 for p in folder.iterdir())


def test_papers_own_system_is_a_configuration():
    """One denoiser around the interpolation, epsilon, the paper's schedules, 100 ancestral steps."""
    size = {"image_width": 8, "image_blocks": 1, "structure_width": 8}
    settings = {"prediction": "epsilon", "levels": "linear", "sampler": "ancestral", "sampling_steps": 100}
    torch.manual_seed(0)
    model = Model(ModelConfig(mean=None, denoiser=size, diffusion=settings)).eval()
    f = model.features(torch.randn(1, 6, 6) * 50, (1.4, 1.4))
    with pytest.raises(UhrctError, match="--steps 2"):
        model.mean_hu(f)
    calls = []

    def noise(step):
        calls.append(step)
        return torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(step))

    with torch.inference_mode():
        assert model.sample_hu(f, None, (1.4, 1.4), noise).shape == (1, 12, 12)
    assert calls == list(range(100))


def test_through_plane_scales_are_refused_for_now():
    with pytest.raises(UhrctError, match="through-plane"):
        ModelConfig(scale=(5, 1, 1))
