"""All metrics under one name: arrays in, numbers out, and `MetricError` where a number would say nothing."""

from tigergen.evaluation.metric_classify import (
    auroc,
    brier,
    confusion,
    delong_test,
    expected_calibration_error,
    wilson,
)
from tigergen.evaluation.metric_images import dice, pearson, ssim
from tigergen.evaluation.metric_sets import MetricError, density_coverage, frechet_distance, kernel_distance

__all__ = [
    "MetricError",
    "auroc",
    "brier",
    "confusion",
    "delong_test",
    "density_coverage",
    "dice",
    "expected_calibration_error",
    "frechet_distance",
    "kernel_distance",
    "pearson",
    "ssim",
    "wilson",
]
