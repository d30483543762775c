"""The baseline is the cubic interpolation that the models use, on the grid of the reference, judged as the test is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.evaluation.baseline import interpolated, interpolation
from uhrct.evaluation.compare import compare
from uhrct.evaluation.summary import rows
from uhrct.physics.degrade import degrade
from uhrct.physics.resampling import upsample, upsample_stack


def scan(shape: tuple[int, int, int] = (7, 12, 10)) -> Volume:
    hu = np.random.default_rng(0).normal(-300, 200, shape).astype(np.float32)
    return Volume(hu, (5.0, 1.4, 1.6), (3.0, -20.0, 100.0))


@pytest.mark.parametrize("scale", [(1, 2, 2), (1, 4, 4)])
def test_in_plane_it_is_bicubic(scale: tuple[int, int, int]) -> None:
    lr = scan()
    volume = interpolated(lr, lr.refined_grid(scale), scale)
    np.testing.assert_allclose(volume.hu, upsample(torch.from_numpy(lr.hu), *scale[1:]), atol=1e-2)


@pytest.mark.parametrize("scale", [(5, 1, 1), (5, 2, 2)])
def test_through_plane_it_is_cubic_too(scale: tuple[int, int, int]) -> None:
    lr = scan()
    volume = interpolated(lr, lr.refined_grid(scale), scale)
    middle = upsample_stack(torch.from_numpy(lr.hu[1:6]), scale)  # of slice 3
    np.testing.assert_allclose(volume.hu[15:20], middle, atol=1e-2)
    assert np.abs(volume.hu[15] - volume.hu[17]).mean() > 10  # the slices inside an LR slice differ


def test_beyond_the_end_the_last_value_is_repeated_and_padding_stays() -> None:
    lr = scan()
    lr.hu[:, :3] = -2000
    grid = Grid((7, 25, 21), (5.0, 0.7, 0.8), lr.refined_grid((1, 2, 2)).origin_mm, lr.direction)
    volume = interpolated(lr, grid, (1, 2, 2))
    assert volume.shape == grid.shape
    assert (volume.hu[:, :6] == -2000).all()
    assert volume.hu[:, 6:].min() > -1500
    assert np.isfinite(volume.hu).all()


def test_it_is_judged_as_the_test_is() -> None:
    rng = np.random.default_rng(0)
    hu = np.rint(rng.normal(-700, 100, (4, 32, 32))).astype(np.int16)
    hu[:, :4] = -2000
    reference = Volume(hu, (1.0, 0.7, 0.7))
    low = degrade(reference, scale=2)
    for count_padding in (False, True):
        result = compare(reference, reference, lr=low, count_padding=count_padding)
        baseline = interpolation(reference, low, result)
        alone = compare(reference, baseline.volume, lr=low, count_padding=count_padding)
        assert baseline.result.as_dict() == alone.as_dict()
        assert baseline.as_dict()["means"] == alone.as_dict()["means"]
    with pytest.raises(UhrctError, match="no low-resolution scan; give `lr`"):
        interpolation(reference, low, compare(reference, reference))


def test_differences_are_over_slices_that_both_have() -> None:
    """The PSNR of an equal slice is undefined: a difference of means would compare different slices."""
    hu = np.random.default_rng(0).normal(-300, 100, (2, 32, 32)).astype(np.float32)
    reference = Volume(hu, (1.0, 0.7, 0.7))

    def off(*by: float) -> Volume:
        return reference.on_grid(reference.grid, hu + np.array(by, np.float32)[:, None, None])

    def row(mine: Volume, theirs: Volume, label: str) -> dict[str, str]:
        [found] = [r for r in rows(compare(reference, mine), compare(reference, theirs)) if r["metric"] == label]
        return found

    assert row(off(0, 8), off(16, 16), "RMSE")["difference"] == "-12.00 better"
    assert row(off(8, 8), off(0, 4), "MAE")["difference"] == "+6.00 worse"
    assert row(off(8, 8), off(8, 8), "MAE")["difference"] == "+0.00"
    psnr = row(off(0, 8), off(16, 16), "PSNR, wide window")
    assert psnr["difference"] == "+6.02 better"
    assert psnr["slices"].startswith("1 of 2")
    nothing = row(off(0, 0), off(16, 16), "PSNR, wide window")
    assert nothing["difference"] == ""
    texture = row(off(8, 8), off(4, 4), "texture, Nyquist/2 to Nyquist")
    assert "baseline" in texture
