"""The Tiger Model: train, sample, augment, evaluate."""
