"""The learned operator: called like an analytic one, near to the one that it imitates, and kept with its constants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.models.model import available_models
from uhrct.models.surrogate import SHIPPED, Surrogate
from uhrct.structure import StructureOperator


def untrained(seed: int = 0) -> Surrogate:
    torch.manual_seed(seed)
    return Surrogate(StructureOperator("frangi", contrast_hu=150.0)).eval()


def vessels(spacing_mm: tuple[float, float], sigma_mm: float = 1.2) -> Tensor:
    """Lung with a line along y and one that crosses the slice, the same object on any grid."""
    y, x = torch.meshgrid(torch.arange(0, 60, spacing_mm[0]), torch.arange(0, 60, spacing_mm[1]), indexing="ij")
    line = torch.exp(-0.5 * ((x - 20) / sigma_mm) ** 2)
    disc = torch.exp(-0.5 * (((x - 42) / sigma_mm) ** 2 + ((y - 30) / sigma_mm) ** 2))
    return -850 + 800 * torch.maximum(line, disc)


@pytest.mark.parametrize("shape", [(17, 22), (3, 16, 20), (2, 3, 19, 16)])
def test_shapes_ranges_and_gradients(shape: tuple[int, ...]) -> None:
    image = (500 * torch.randn(shape) - 500).requires_grad_()
    structure = untrained()(image, (0.7, 0.8))
    assert structure.shape == shape
    assert structure.dtype == torch.float32
    assert 0 <= structure.min() <= structure.max() < 1
    structure.sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0


def test_items_do_not_see_each_other() -> None:
    s, images = untrained(), 300 * torch.randn(3, 2, 24, 21)
    spacings = [(0.5, 0.5), (0.7, 0.9), (1.4, 1.4)]
    together = s(images, spacings)
    for item, spacing, alone in zip(images, spacings, together, strict=True):
        assert torch.allclose(s(item, spacing), alone, atol=1e-5)
    assert not torch.allclose(s(images, (0.7, 0.7))[0], together[0], atol=1e-4)  # the spacing is heard


def test_the_spacing_is_heard_where_there_is_no_gradient_to_tell_it() -> None:
    s, flat = untrained(), torch.zeros(20, 20)
    for finer in ((0.5, 1.4), (1.4, 0.5)):
        assert not torch.allclose(s(flat, finer), s(flat, (1.4, 1.4)), atol=1e-4)


def test_a_shift_of_all_hu_changes_nothing() -> None:
    image = 300 * torch.randn(20, 20)
    assert torch.allclose(untrained()(image + 700, (0.7, 0.7)), untrained()(image, (0.7, 0.7)), atol=1e-4)


def test_saved_and_loaded_it_is_the_same_with_its_operator(tmp_path: Path) -> None:
    s = untrained()
    s.save(tmp_path / "a" / "s.safetensors")
    back = Surrogate.load(tmp_path / "a" / "s.safetensors")
    assert back.operator == s.operator
    image = 300 * torch.randn(20, 20)
    assert torch.equal(back(image, (0.7, 0.7)), s(image, (0.7, 0.7)))
    assert not any(p.requires_grad for p in back.parameters())


def test_what_is_no_surrogate_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("nothing")
    whole = SHIPPED.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, message in (("text", "not the weights"), ("cut", "not the weights"), ("other", "not the weights")):
        with pytest.raises(UhrctError, match=message) as caught:
            Surrogate.load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)
    with pytest.raises(UhrctError, match="no such surrogate"):
        Surrogate.load(tmp_path / "none.safetensors")
    with pytest.raises(UhrctError, match="ndim=2"):
        Surrogate(StructureOperator(ndim=3))


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7), (0.55, 0.7), (1.1, 1.1)])
def test_the_shipped_one_lights_what_its_operator_lights(spacing_mm: tuple[float, float]) -> None:
    s = Surrogate.load()
    image = vessels(spacing_mm)
    made, wanted = s(image, spacing_mm), s.operator(image, spacing_mm)
    assert torch.corrcoef(torch.stack([made.flatten(), wanted.flatten()]))[0, 1] > 0.9
    assert float((made - wanted).abs().mean()) < 0.25 * float((wanted - wanted.mean()).abs().mean())


def test_scales_are_millimetres_to_the_shipped_one() -> None:
    """The same pixels said to be three times as far apart are a vessel too wide for V_C, or a fainter one."""
    s, image = Surrogate.load(), vessels((0.5, 0.5), sigma_mm=0.8)
    near, far = (float(s(image, (p, p)).mean()) for p in (0.5, 1.5))
    near_truth, far_truth = (float(s.operator(image, (p, p)).mean()) for p in (0.5, 1.5))
    assert (near - far) * (near_truth - far_truth) > 0


def test_it_is_no_model() -> None:
    assert SHIPPED.stat().st_size < 1_000_000
    assert SHIPPED.parent not in available_models()
