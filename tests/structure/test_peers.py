"""The operator beside scikit-image and ITK on a real slice: peers, not truth."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCAN = ROOT.parent / "shared" / "ct" / "validation" / "rider0117"

pytestmark = pytest.mark.skipif(not any(SCAN.glob("*.dcm")), reason=f"real CT is not here: {SCAN}")


@pytest.fixture(scope="module")
def peers():
    spec = importlib.util.spec_from_file_location("structure_peers", ROOT / "benchmarks" / "structure_peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def real(peers):
    hu, spacing_mm = peers.read_slice(SCAN)
    return {name: method(hu, spacing_mm) for name, method in peers.METHODS.items()}, peers.lungs(hu)


def correlation(maps, lungs, a, b):
    return np.corrcoef(maps[a][lungs], maps[b][lungs])[0, 1]


def test_lungs_were_found(real):
    assert 0.05 < real[1].mean() < 0.6


@pytest.mark.parametrize("peer", ["scikit-image frangi", "ITK objectness"])
def test_frangi_equals_both_peers_once_they_get_our_constants(real, peer):
    maps, lungs = real
    assert correlation(maps, lungs, "Frangi", peer) > 0.99
    assert np.abs(maps["Frangi"] - maps[peer])[lungs].mean() < 0.01


@pytest.mark.parametrize("name", ["V_C", "Jerman"])
@pytest.mark.parametrize("peer", ["scikit-image frangi", "ITK objectness"])
def test_v_c_and_jerman_see_the_same_vessels_as_the_peers(real, name, peer):
    """They differ where a vessel crosses the plane: a disc, which Frangi hollows out."""
    maps, lungs = real
    assert 0.8 < correlation(maps, lungs, name, peer) < 0.99
    assert maps[name][lungs].mean() > maps[peer][lungs].mean()
