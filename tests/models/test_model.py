import json

import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig, available_models, model_folder, stacks
from uhrct.models.settings import checked
from uhrct.physics.resampling import apply_along_z, resize_matrix, upsample
from uhrct.physics.scan_properties import ScanProperties


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
        ({"colour": "red"}, "unknown setting colour; known: acquisition"),
        ({"mean": {"image_width": -8}}, "setting mean.image_width=-8: input should be greater than or equal to 1"),
        ({"peer": {"architecture": "srcnn"}}, "weights of a peer network; only uhrct benchmark"),
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
    f = model.features(torch.randn(1, 1, 6, 6) * 50, (1.4, 1.4))
    with pytest.raises(UhrctError, match="steps=2"):
        model.mean_hu(f)
    calls = []

    def noise(step):
        calls.append(step)
        return torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(step))

    with torch.inference_mode():
        assert model.sample_hu(f, None, (1.4, 1.4), noise).shape == (1, 1, 12, 12)
    assert calls == list(range(100))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (5, 1, 1), "context": 1}, r"interpolation along z needs context 2 or more"),
        ({"scale": (0, 2, 2)}, r"setting scale\.0=0"),
        ({"mean": None}, "a mean network, a denoiser or both"),
        ({"acquisition": {"blur": 1}}, "acquisition: unknown setting"),
        ({"diffusion": {"sampling_steps": 0}}, "`sampling_steps` is 0; give a whole number from 1"),
        ({"structure": {"contrast_hu": "high"}}, r"setting structure\.contrast_hu=high"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UhrctError, match=message):
        checked(ModelConfig, settings, "here")


def test_models_of_release_0_1_0_load(tiny_model, tmp_path):
    """They have the key `peer`, which is null."""
    tiny_model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peer": None}))
    assert Model.from_pretrained(tmp_path).config == tiny_model.config


def test_a_silent_network_through_plane_is_cubic_interpolation():
    """Slice by slice out of stacks, ends going on: the same as the whole volume at once."""
    model = Model(ModelConfig(scale=(5, 2, 2), context=2, mean={"image_width": 8, "image_blocks": 1})).eval()
    for p in model.mean.to_image.parameters():
        p.data.zero_()
    volume = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0)) * 100
    hr = model.mean_hu(model.features(stacks(volume, range(4), 2), (1.4, 1.4)))[0]
    assert hr.shape == (4, 5, 12, 14)
    whole = apply_along_z(upsample(volume, 2, 2), torch.tensor(resize_matrix(4, 20)).float())
    assert torch.allclose(hr.flatten(0, 1), whole, atol=1e-3)


def test_properties_change_the_answer_once_learnt_and_not_before():
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}, properties=True)).eval()
    lr = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 100
    scans = ScanProperties(), ScanProperties(noise_hu=40.0, psf_fwhm=1.0)
    clean, noisy = (model.mean_hu(model.features(lr, (1.4, 1.4), s))[0] for s in scans)
    assert torch.equal(clean, noisy)
    for name, p in model.mean.named_parameters():
        if "shift" in name or "second" in name:
            p.data += 0.1
    clean, noisy = (model.mean_hu(model.features(lr, (1.4, 1.4), s))[0] for s in scans)
    assert (clean - noisy).abs().max() > 0.01
