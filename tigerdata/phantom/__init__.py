"""Simulated thyroid corpus with known ground truth: frames, masks, reports, pathology."""
