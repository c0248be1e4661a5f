"""Regions of a frame: nodule and gland masks, imported or predicted by a segmenter trained here."""
