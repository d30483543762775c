"""Real CT, where the machine has it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def shared_ct() -> Path:
    folder = Path(__file__).parents[3] / "shared" / "ct"
    if not folder.is_dir():
        pytest.skip(f"real CT is absent: {folder}")
    return folder
