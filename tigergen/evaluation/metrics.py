"""All metrics under one name: arrays in, numbers out, and `MetricError` where a number would say nothing.

These names and signatures are stable. Each docstring has formula, source, units, direction and an example that is run
by the tests; `docs/evaluate.md` says how to read them and what misleads.
"""

from tigergen.evaluation.metric_classify import (
    auroc,
    brier,
    confusion,
    delong_test,
    expected_calibration_error,
    wilson,
)
from tigergen.evaluation.metric_images import dice, gradient_similarity, pearson, phash_distance, ssim
from tigergen.evaluation.metric_neighbours import density_coverage, memorisation
from tigergen.evaluation.metric_readers import fleiss_kappa, mcnemar
from tigergen.evaluation.metric_sets import MetricError, cmmd, frechet_distance, kernel_distance
from tigergen.evaluation.metric_topology import geometry_score
from tigergen.evaluation.metric_value import linear_head_gradients, moso
from tigergen.evaluation.metric_words import clip_score, inception_score

__all__ = [
    "MetricError",
    "auroc",
    "brier",
    "clip_score",
    "cmmd",
    "confusion",
    "delong_test",
    "density_coverage",
    "dice",
    "expected_calibration_error",
    "fleiss_kappa",
    "frechet_distance",
    "geometry_score",
    "gradient_similarity",
    "inception_score",
    "kernel_distance",
    "linear_head_gradients",
    "mcnemar",
    "memorisation",
    "moso",
    "pearson",
    "phash_distance",
    "ssim",
    "wilson",
]
