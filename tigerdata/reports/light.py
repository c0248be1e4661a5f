"""spaCy without the tensor libraries that its base library imports wherever they are installed.

Parsing needs none of them; torch alone takes 700 MB and two seconds in each process.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

HEAVY = ("torch", "tensorflow", "mxnet", "cupy")


@contextmanager
def light_imports() -> Iterator[None]:
    """Within it an import of a heavy library fails as if it were not there; afterwards it works as ever.

    Libraries that are imported already stay.
    """
    # `None` is how Python itself marks a module that must not be imported.
    hidden = [name for name in HEAVY if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden, cast(ModuleType, None)))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
