"""Data in and out: reports and images become structured cases, cases become exported data sets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tigerdata.reports.parser import parse
    from tigerdata.workspace import Workspace, open_workspace

__all__ = ["Workspace", "open_workspace", "parse"]


def __getattr__(name: str) -> Any:
    # PEP 562: the rooms are imported on first use, so that `tigerdata --help` stays fast.
    if name == "parse":
        from tigerdata.reports.parser import parse

        return parse
    if name in __all__:
        from tigerdata import workspace

        return getattr(workspace, name)
    raise AttributeError(f"module 'tigerdata' has no attribute {name!r}")
