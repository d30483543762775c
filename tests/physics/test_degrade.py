"""`degrade` on whole volumes: slabs, noise, padding."""

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.degrade import degrade
from uhrct.physics.kernels import Kernel


def scan(shape=(20, 12, 10), **settings):
    hu = np.random.default_rng(0).normal(-500, 200, shape).astype(np.float32)
    return Volume(hu, (1.0, 0.7, 0.7), **settings)


@pytest.mark.parametrize("thickness_mm", [None, 2.0, 5.0, 8.0, 12.5])
def test_slice_by_slice_it_is_the_operator_on_the_whole_volume(thickness_mm):
    volume = scan()
    low = degrade(volume, scale=(5, 2, 2), slice_thickness_mm=thickness_mm)
    A = Acquisition((5, 2, 2), slice_thickness=1.0 if thickness_mm is None else thickness_mm / 5)
    assert np.allclose(low.hu, A.forward(torch.from_numpy(volume.hu)).numpy(), atol=1e-3)
    assert low.spacing_mm == (5.0, 1.4, 1.4)
    assert np.allclose(low.grid.corner_mm, volume.grid.corner_mm)


def test_voxels_and_thickness_belong_together():
    """Equal labels mean equal voxels: the thickness of the source's own slices counts in both."""
    thick = scan(slice_thickness_mm=1.25)
    joined = degrade(thick, scale=(5, 1, 1))
    asked = degrade(thick, scale=(5, 1, 1), slice_thickness_mm=joined.slice_thickness_mm)
    assert np.array_equal(asked.hu, joined.hu)
    thinner = degrade(thick, scale=(5, 1, 1), slice_thickness_mm=5.0)
    assert thinner.slice_thickness_mm == 5.0
    assert not np.array_equal(thinner.hu, joined.hu)
    # as thick as the slices of the source: one of them, the middle one
    own = degrade(thick, scale=(5, 1, 1), slice_thickness_mm=1.25)
    assert np.array_equal(own.hu, thick.hu[2 : 5 * len(own.hu) : 5])


def test_slices_do_not_become_thinner():
    with pytest.raises(UhrctError, match=r"the slices of the scan are 1\.25 mm thick already"):
        degrade(scan(slice_thickness_mm=1.25), scale=(5, 1, 1), slice_thickness_mm=1.0)


def test_slices_do_not_become_thicker_than_the_scan_is_long():
    thick = scan(slice_thickness_mm=1.25)
    five = Volume(thick.hu[:5], thick.spacing_mm, slice_thickness_mm=1.25)
    whole = degrade(five, scale=(5, 1, 1)).slice_thickness_mm
    assert degrade(five, scale=(5, 1, 1), slice_thickness_mm=whole).shape[0] == 1
    with pytest.raises(UhrctError, match="`slice_thickness_mm` is 900; the whole scan is"):
        degrade(five, scale=(5, 1, 1), slice_thickness_mm=900)


def test_thickness_is_kept_apart_from_the_increment():
    thin = scan(slice_thickness_mm=1.25)
    assert degrade(thin, scale=(5, 1, 1)).slice_thickness_mm == pytest.approx(1.25 + 4 * 1.0)
    assert degrade(thin, scale=(5, 1, 1), slice_thickness_mm=8.0).slice_thickness_mm == 8.0
    assert degrade(thin, scale=(1, 2, 2)).slice_thickness_mm == 1.25


def test_thick_slices_made_thin_are_as_thick_as_their_spacing():
    overlapping = scan(slice_thickness_mm=2.0)
    assert overlapping.refined_grid((5, 1, 1)).slice_thickness_mm == pytest.approx(0.2)
    assert overlapping.refined_grid((1, 2, 2)).slice_thickness_mm == 2.0


def test_padding_of_neighbouring_slabs_does_not_bleed():
    volume = scan()
    volume.hu[:10] = -2000
    low = degrade(volume, scale=(5, 2, 2), slice_thickness_mm=5.0)
    assert (low.hu[:2] == -2000).all()
    assert (low.hu[2:] > -1500).all()


def test_a_kernel_blurs_as_its_curve_says():
    """A grating below the fine grid's Nyquist frequency keeps the contrast that MTF and pixel pass."""
    _, x = np.mgrid[:96, :96]
    kernel = Kernel(3.5, 5.9)
    lp_cm = 10 / (8 * 0.35)  # a period of 8 fine pixels
    grating = Volume((100 * np.cos(2 * np.pi * x / 8)).astype(np.float32)[None], (1.0, 0.35, 0.35))
    low = degrade(grating, scale=(1, 2, 2), kernel=kernel).hu[0, 16:-16, 16:-16]
    passed = kernel.mtf(np.array(lp_cm)) * np.sinc(2 / 8) / np.sinc(1 / 8)  # two pixels are averaged into one
    assert low.std() * 2**0.5 == pytest.approx(100 * passed, rel=0.05)


def test_noise_looks_like_that_of_the_kernel():
    water = Volume(np.zeros((2, 192, 192), np.float32), (1.0, 0.5, 0.5))

    def noise(kernel):
        return degrade(water, scale=(1, 2, 2), kernel=kernel, noise_hu=20.0, seed=3).hu

    soft, sharp = noise(Kernel(2.3, 4.0)), noise(Kernel(4.6, 7.0))
    for found in (soft, sharp):
        assert found.std() == pytest.approx(20, rel=0.15)
        power = (np.abs(np.fft.fft2(found)) ** 2).mean(0)
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
        ring = power[(frequency > 0.1) & (frequency < 0.25)]
        assert power[frequency < 0.03].mean() < 0.4 * ring.mean()  # ramp filter: little noise at low frequencies
    along = [np.corrcoef(n[:, :, 1:].ravel(), n[:, :, :-1].ravel())[0, 1] for n in (soft, sharp)]
    assert along[0] > along[1] + 0.2
    assert np.array_equal(noise(Kernel(2.3, 4.0)), soft)


def test_kernel_and_psf_exclude_each_other():
    with pytest.raises(UhrctError, match="exclude"):
        degrade(scan(), scale=(1, 2, 2), kernel=Kernel(3.5, 5.9), psf_fwhm_mm=1.0)
    with pytest.raises(UhrctError, match="kernel"):
        degrade(scan(), scale=(1, 2, 2), kernel=Kernel(3.5, 5.9), kind="bicubic")
