"""Fixtures shared by all rooms."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images and reports, named by TIGER_REAL_DATA; tests marked `realdata` skip without it."""
    folder = os.environ.get("TIGER_REAL_DATA")
    if not folder:
        pytest.skip("TIGER_REAL_DATA names no folder of real data")
    return Path(folder)
