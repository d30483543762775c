"""Muon: orthogonal steps whose size does not depend on the gradient, for inner layers only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uhrct.models.dssp import DSSP
from uhrct.training.config import OptimizerSettings
from uhrct.training.muon import RMS, Muon, orthogonal
from uhrct.training.optimizers import make_optimizers


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (64, 40)])
def test_orthogonal_keeps_the_directions_and_evens_their_strengths(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    strengths = torch.logspace(0, -1.5, min(shape), dtype=torch.float64)  # 30 to 1
    made = orthogonal(u * strengths @ vh).double()
    seen = u.T @ made @ vh.T
    assert seen.diagonal().min() > 0.5
    assert seen.diagonal().max() < 1.3
    assert (seen - seen.diagonal().diag()).abs().max() < 1e-3


def step(gradients: list[torch.Tensor], **settings: float) -> torch.Tensor:
    weights = nn.Parameter(torch.zeros(16, 16, 3, 3).to(memory_format=torch.channels_last))
    optimizer = Muon([weights], lr=0.01, **settings)
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()
    return weights.detach()


def test_a_step_leads_down_and_its_size_is_the_learning_rates() -> None:
    gradient = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(1))
    moved = step([gradient])
    assert (moved * gradient).sum() < 0
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.01 * RMS, rel=0.2)
    assert torch.allclose(step([1000 * gradient]), moved, atol=1e-6)


def test_memory_layout_is_no_matter() -> None:
    gradient = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(step([gradient.to(memory_format=torch.channels_last)]), step([gradient]))


def test_momentum_carries_on_where_the_gradient_turns() -> None:
    gradient = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(3))
    three = step([gradient] * 3)
    turned = step([gradient, gradient, gradient, -0.01 * gradient])
    assert ((turned - three) * gradient).sum() < 0


def test_every_parameter_has_one_optimizer_and_muon_has_the_inner_convolutions() -> None:
    net = DSSP(inputs=3, sub_voxels=16, noisy=False, properties=2, image_width=32, structure_width=16)
    adamw, muon = make_optimizers(net, OptimizerSettings(name="muon"))
    names = {id(p): name for name, p in net.named_parameters()}
    groups = [[names.pop(id(p)) for g in o.param_groups for p in g["params"]] for o in (adamw, muon)]
    assert not names
    assert {"image.blocks.0.first.weight", "narrow.weight"} <= set(groups[1])
    assert not [n for n in groups[1] if n.endswith("bias") or "head" in n or "to_" in n or "told" in n]
    assert [g["weight_decay"] for g in adamw.param_groups if any(p.ndim == 1 for p in g["params"])] == [0.0]
