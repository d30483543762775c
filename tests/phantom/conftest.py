"""A chest with few vessels: it obeys the same laws as a full one."""

import pytest

from uhrct.phantom.scene import Scene, make_scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    return make_scene("train", 1, density=0.06)
