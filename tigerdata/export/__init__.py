"""Export: real and accepted generated images in a folder that other programs read."""

from tigerdata.export.export import export

__all__ = ["export"]
