"""Augmentation: an editable plan, index-addressed generation, and the gates an image must pass."""
