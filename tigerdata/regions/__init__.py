"""Regions of a frame: nodule and gland masks, imported or predicted by a segmenter trained here."""

from tigerdata.regions.segment import Segmenter, segment, train_segmenter

__all__ = ["Segmenter", "segment", "train_segmenter"]
