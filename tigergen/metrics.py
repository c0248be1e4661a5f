"""`tigergen.metrics`: one function a metric, the stable way in (see `tigergen.evaluation.metrics`)."""

from tigergen.evaluation.metrics import *  # noqa: F403
from tigergen.evaluation.metrics import __all__ as __all__
