"""Regions of a frame: nodule and gland masks, imported or predicted by a segmenter trained here."""

from tigerdata.regions.segment import Segmenter, open_segmenter, segment
from tigerdata.regions.train import train_segmenter

__all__ = ["Segmenter", "open_segmenter", "segment", "train_segmenter"]
