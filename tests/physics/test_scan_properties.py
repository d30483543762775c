"""What a network is told about a scan."""

import pytest

from uhrct.physics.scan_properties import ScanProperties


@pytest.mark.parametrize("correlation", [0.1, 0.6])
def test_correlation_of_no_noise_says_nothing(correlation):
    """A network never saw correlation without noise in training: it must not see it in use."""
    assert ScanProperties(noise_correlation=correlation).conditions() == ScanProperties().conditions()
    assert (
        ScanProperties(noise_hu=10, noise_correlation=correlation).conditions()
        != ScanProperties(noise_hu=10).conditions()
    )
