import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.models.diffusion import Diffusion

PAPER = Diffusion("epsilon", "linear", "ancestral", sampling_steps=100)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
def test_split_undoes_target(prediction):
    d = Diffusion(prediction)
    e, n = torch.randn(2, 4, 3, dtype=torch.float64)
    g = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    z = g.sqrt() * e + (1 - g).sqrt() * n
    back_e, back_n = d.split(d.target(e, n, g), z, g)
    assert torch.allclose(back_e, e)
    assert torch.allclose(back_n, n)


def gaussian(d, m, s):
    """The best denoiser if e ~ N(m, s^2): it is linear and known in closed form."""

    def denoise(z, sqrt_g):
        g = sqrt_g**2
        e = m + sqrt_g * s**2 / (g * s**2 + 1 - g) * (z - sqrt_g * m)
        n = (z - sqrt_g * e) / (1 - g).sqrt().clamp(min=1e-6)
        return d.target(e, n, g)

    return denoise


SAMPLERS = [Diffusion(), PAPER, Diffusion("v", sampler="ancestral"), Diffusion("v", sampler="ddim"), Diffusion("x0")]


@pytest.mark.parametrize("d", SAMPLERS, ids=str)
@pytest.mark.parametrize("steps", [8, 100])
def test_sampler_draws_the_distribution_that_a_perfect_denoiser_knows(d, steps):
    if d is PAPER and steps == 8:
        pytest.skip("the paper's linear schedule does not start from noise in 8 steps")
    m, s = 0.7, 0.5
    generator = torch.Generator().manual_seed(0)
    out = d.sample(gaussian(d, m, s), lambda _: torch.randn(20000, generator=generator, dtype=torch.float64), steps)
    assert float(out.mean()) == pytest.approx(m, abs=0.06)
    assert float(out.std()) == pytest.approx(s, abs=0.12 if steps == 8 else 0.04)


@pytest.mark.parametrize("s", [0.6, 1.0, 1.5])
def test_four_steps_of_multistep_keep_the_spread_that_ddim_loses(s):
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = {}
    for sampler in ("multistep", "ddim"):
        d = Diffusion("v", sampler=sampler)
        kept[sampler] = float(d.sample(gaussian(d, 0.0, s), lambda _: noise, 4).std()) / s
    assert 0.88 < kept["multistep"] < 1.05
    assert kept["ddim"] < 0.76


def test_papers_schedule():
    g = PAPER.sampling_levels(100)
    expected = torch.cumprod(1 - torch.linspace(1e-4, 0.1, 100, dtype=torch.float64), 0)
    assert torch.allclose(g.flip(0), expected)
    drawn = PAPER.draw_levels(4000, torch.Generator().manual_seed(0))
    assert float(drawn.max()) <= 1
    assert float(drawn.min()) >= float(torch.cumprod(1 - torch.linspace(1e-4, 5e-3, 2000), 0)[-1]) - 1e-6
    assert torch.equal(drawn, PAPER.draw_levels(4000, torch.Generator().manual_seed(0)))


def test_cosine_levels_run_from_noise_to_clean():
    g = Diffusion().sampling_levels(4)
    assert float(g[0]) < 1e-9
    assert bool((g.diff() > 0).all())


def test_unknown_settings_are_refused():
    with pytest.raises(UhrctError, match="choose from v, epsilon, x0"):
        Diffusion("noise")
