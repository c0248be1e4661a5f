"""The paper's methods side by side on one's own images: folds, stages, statistics, page (docs/compare.md)."""
