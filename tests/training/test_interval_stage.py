"""Stage interval: quantiles of the scan as it is around a mean network that does not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import CPU, equal, network, records, train

from uhrct.core.errors import UhrctError
from uhrct.models.interval import kernel_input
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import Acquisition
from uhrct.training.config import DataSettings, TrainingConfig
from uhrct.training.data.batch import hr_crop
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Corpus, Patient, load_patients, with_clean
from uhrct.training.losses import _pinball
from uhrct.training.stages import build_model, make_batches

Tiny = Callable[..., TrainingConfig]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingConfig, Path]:
    """(configuration of the stage, folder of a run of mean and interval)."""
    model = {"interval": {"width": 8, "blocks": 1}}
    interval = tiny(
        stage="interval", model=model, steps=250, optimizer={"learning_rate": 1e-2, "ema": 0.9, "warmup_steps": 10}
    )
    out = tmp_path_factory.mktemp("interval") / "run"
    train(tiny(steps=3, model=model), interval, out=out)
    return interval, out


def test_the_interval_holds_nine_of_ten_voxels_of_training_data(trained: tuple[TrainingConfig, Path]) -> None:
    config, out = trained
    model = Model.from_pretrained(out / "model")
    maker = make_batches(config, model, Corpus.load(config.data, CPU))
    inside = []
    for step in range(1000, 1010):
        batch = maker(step)
        f = model.features(batch.lr_hu, batch.spacing_mm, batch.properties)
        mean = model.mean_hu(f)[0]
        assert batch.kernel is not None
        below, above = model.interval_hu(f, mean, batch.kernel)
        error = hr_crop(batch.hr_hu - mean, model.config.scale)
        below, above = (hr_crop(width, model.config.scale) for width in (below, above))
        assert min(below.min(), above.min()) > 0
        inside.append(((error >= -below) & (error <= above)).float().mean())
    assert float(torch.stack(inside).mean()) == pytest.approx(0.9, abs=0.05)


def test_the_stage_leaves_the_mean_network_alone(
    tiny: Tiny, trained: tuple[TrainingConfig, Path], tmp_path: Path
) -> None:
    alone = train(tiny(steps=3), out=tmp_path / "run")
    whole = Model.from_pretrained(trained[1] / "model").state_dict()
    assert equal(network(alone, "mean"), network(dict(whole), "mean"))
    log = records(trained[1])
    assert {"below", "above", "coverage"} <= log[-2].keys()
    assert set(log[-1]["validation"]["c"]) == {"coverage", "width_hu"}


def test_the_loss_is_least_at_the_quantile() -> None:
    errors = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 12 + 3
    width = torch.tensor(5.0, requires_grad=True)
    quantile = float(errors.quantile(0.95))
    for value, sign in ((quantile - 2, -1), (quantile + 2, 1)):
        width.data.fill_(value)
        [slope] = torch.autograd.grad(_pinball(errors, width, 0.05), width)
        assert sign * float(slope) > 0


def test_an_interval_needs_a_mean_network(tiny: Tiny) -> None:
    config = tiny(stage="interval", model={"interval": {}})
    with pytest.raises(UhrctError, match="stage interval: no trained mean network"):
        build_model(config, None)
    with pytest.raises(ValueError, match="needs a mean network"):
        ModelConfig(mean=None, denoiser={"image_width": 8}, interval={})


def test_the_target_is_the_scan_as_it_is(corpus: Path, tmp_path: Path) -> None:
    """The wish to denoise changes the target of the mean network, not that of the interval."""
    patients = with_clean(load_patients((str(corpus / "train"),), {}, CPU), tmp_path, quiet=True)
    settings = DataSettings(clean="kept", denoised=1.0, batch=4, crop=16, augmented=0.0)
    noisy, clean = (
        BatchMaker(patients, settings, Acquisition((1, 2, 2)), as_scanned=as_scanned)(3).hr_hu
        for as_scanned in (True, False)
    )

    def roughness(hu: torch.Tensor) -> float:
        return float((hu[..., 1:] - hu[..., :-1]).abs().median())

    assert roughness(noisy) > 1.2 * roughness(clean)


def test_a_kernel_is_told_in_pixels_of_the_result() -> None:
    assert kernel_input(None, 0.5) == [0.0, 0.0]
    sharp, soft = kernel_input(8.0, 0.5), kernel_input(4.0, 0.5)
    assert sharp[1] - soft[1] == pytest.approx(1)
    assert kernel_input(4.0, 1.0) == pytest.approx(sharp)


def test_added_noise_comes_with_its_kernel(tmp_path: Path) -> None:
    """Neighbouring pixels of the target are the less alike, the sharper the kernel that is told."""
    generator = torch.Generator().manual_seed(0)
    even = (50 + 2 * torch.randn((3, 160, 160), generator=generator)).round().short()
    patients = with_clean([Patient("even", even, (0.7, 0.7), (0, 160, 0, 160), 1.0)], tmp_path, quiet=True)
    settings = DataSettings(clean="kept", denoised=1.0, batch=16, crop=16, augmented=0.0)
    maker = BatchMaker(patients, settings, Acquisition((1, 2, 2)), as_scanned=True)
    sharpness, correlation = [], []
    for step in range(6):
        batch = maker(step)
        assert batch.kernel is not None
        for (known, sharp), hu in zip(batch.kernel.tolist(), batch.hr_hu[:, 0], strict=True):
            detail = hu - hu.mean()
            if known and detail.std() > 8:
                sharpness.append(sharp)
                correlation.append(float((detail[:, 1:] * detail[:, :-1]).mean() / detail.square().mean()))
    assert len(sharpness) > 10
    assert torch.corrcoef(torch.tensor([sharpness, correlation]))[0, 1] < -0.7
