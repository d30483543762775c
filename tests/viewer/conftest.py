"""A scan, its result and the truth with structures that differ, and a served page."""

from collections.abc import Iterator

import numpy as np
import pytest
from in_thread import in_thread
from viewed import body, finding

from uhrct.core.volume import Volume
from uhrct.viewer import server
from uhrct.viewer.overlay import overlay_of
from uhrct.viewer.study import Pane, Study


@pytest.fixture(scope="session")
def scan() -> Volume:
    return body((8, 32, 40), (2.5, 1.6, 1.6), 1)


@pytest.fixture(scope="session")
def result() -> Volume:
    return body((8, 64, 80), (2.5, 0.8, 0.8), 2)


@pytest.fixture(scope="session")
def truth() -> Volume:
    return body((8, 64, 80), (2.5, 0.8, 0.8), 3)


@pytest.fixture(scope="session")
def study(scan: Volume, result: Volume, truth: Volume) -> Study:
    structure = np.zeros(result.shape, np.float32)
    structure[:, 30:34, 20:32] = 0.8
    grades = np.zeros(result.shape, np.int16)
    grades[:, 40:60, 30:60] = 4
    mesh = (
        np.array([[10, -20, 300], [40, -20, 300], [10, 10, 310], [40, 10, 320]], float),
        np.array([[0, 1, 2], [1, 3, 2]]),
    )
    return Study(
        [Pane("scan", scan), Pane("result", result), Pane("truth", truth)],
        [overlay_of(result.on_grid(result.grid, m)) for m in (structure, grades)],
        mesh,
        [finding((5, 20, 60)), finding((1, 50, 12), "inferred")],
    )


@pytest.fixture(scope="session")
def address(study: Study) -> Iterator[str]:
    """The address of a page that is served by uvicorn in a thread."""
    with in_thread(server.serve, study, study.whole()) as place:
        yield place
