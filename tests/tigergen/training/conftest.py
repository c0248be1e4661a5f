"""The micro corpus of `training_toy`, found beside this file: tests are imported without packages."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_PATH = Path(__file__).with_name("training_toy.py")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `training_toy`."""
    if "training_toy" not in sys.modules:
        spec = importlib.util.spec_from_file_location("training_toy", _PATH)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["training_toy"] = module
        spec.loader.exec_module(module)
    return sys.modules["training_toy"]
