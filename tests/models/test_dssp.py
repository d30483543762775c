import pytest
import torch

from uhrct.models.dssp import DSSP, from_channels, to_channels
from uhrct.models.tiling import run_tiled


def net(noisy=False, structure_width=8, **more):
    torch.manual_seed(0)
    n = DSSP(
        inputs=1,
        sub_voxels=4,
        noisy=noisy,
        image_width=12,
        image_blocks=2,
        structure_width=structure_width,
        structure_blocks=3,
        **more,
    )
    for p in n.parameters():
        p.data += 0.05 * torch.randn(p.shape)
    return n.eval().requires_grad_(False)


def inputs(h=40, w=52, b=1):
    g = torch.Generator().manual_seed(1)
    return torch.randn(b, 1, h, w, generator=g), torch.rand(b, 4, h, w, generator=g)


@pytest.mark.parametrize("scale", [(2, 2), (4, 4), (3, 2)])
def test_sub_voxel_shuffle_keeps_each_voxel_inside_its_lr_voxel(scale):
    sy, sx = scale
    image = torch.arange(6 * sy * 5 * sx).reshape(1, 1, 6 * sy, 5 * sx)
    channels = to_channels(image, sy, sx)
    assert torch.equal(channels[0, :, 2, 3], image[0, 0, 2 * sy : 3 * sy, 3 * sx : 4 * sx].flatten())
    assert torch.equal(from_channels(channels, sy, sx), image)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("tile", [16, 23, 39])
def test_tiles_equal_the_whole(noisy, tile):
    n = net(noisy)
    images = inputs()
    level = {}
    if noisy:
        images = (*images, torch.randn(1, 4, 40, 52))
        level = {"sqrt_g": torch.tensor([0.4])}
    whole, whole_structure = run_tiled(n, None, *images, **level)
    tiled, tiled_structure = run_tiled(n, tile, *images, **level)
    assert torch.allclose(tiled, whole, atol=1e-5)
    assert torch.allclose(tiled_structure, whole_structure, atol=1e-5)


@pytest.mark.parametrize(
    "size",
    [
        {"structure_width": 0},
        {"structure_width": 8},
    ],
)
def test_halo_is_exactly_as_far_as_the_network_sees(size):
    n = net(**size)
    x, prior = inputs(61, 61)
    x.requires_grad_(True)
    prior.requires_grad_(True)
    image, _ = n(x, prior)
    image[0, :, 30, 30].sum().backward()
    rows = [(t.grad[0].abs().sum((0, 2)) > 0).nonzero().flatten() for t in (x, prior) if t.grad is not None]
    reach = max(max(30 - int(r[0]), int(r[-1]) - 30) for r in rows)
    assert reach == n.halo


def test_noise_level_changes_the_answer_of_a_denoiser_only():
    n = net(noisy=True)
    x, prior = inputs()
    z = torch.randn(1, 4, 40, 52)
    a, b = (n(x, prior, z, torch.tensor([g]))[0] for g in (0.1, 0.9))
    assert (a - b).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="noisy"):
        n(x, prior)


def test_streams_are_exchanged_by_summation():
    """Both heads hear both streams: image from the prior, structure map from the scan."""
    n = net()
    x, prior = inputs()
    image, structure = n(x, prior)
    assert (n(x, prior * 0)[0] - image).abs().max() > 1e-3
    assert (n(x * 0, prior)[1] - structure).abs().max() > 1e-3


def test_blocks_begin_as_the_identity():
    n = DSSP(inputs=1, sub_voxels=4, noisy=False, image_width=8, image_blocks=3, structure_width=0)
    f = torch.randn(1, 8, 6, 6)
    for block in n.image.blocks:
        assert torch.equal(block(f, None), f)


def test_bfloat16_inner_layers_agree_with_float32():
    n, (x, prior) = net(), inputs()
    exact = n(x, prior)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = n(x, prior)[0]
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


def test_structure_map_begins_as_the_prior():
    n = DSSP(inputs=1, sub_voxels=4, noisy=False, image_width=8, image_blocks=1, structure_width=8)
    x, prior = inputs()
    assert torch.equal(n(x, prior)[1], prior)
