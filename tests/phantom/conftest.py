"""A chest with few vessels: every law holds for it as for the full one."""

import pytest

from uhrct.phantom.scene import Scene, make_scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    return make_scene("train", 1, density=0.06)
