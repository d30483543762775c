"""What a network is told about a scan."""

import pytest

from uhrct.physics.scan_properties import ScanProperties


@pytest.mark.parametrize("fwhm", [0.7, 1.8])
def test_correlation_of_no_noise_says_nothing(fwhm):
    """A network never saw correlation without noise in training: it must not see it in use."""
    assert ScanProperties(noise_fwhm=fwhm).vector() == ScanProperties().vector()
    assert ScanProperties(noise_hu=10, noise_fwhm=fwhm).vector() != ScanProperties(noise_hu=10).vector()
