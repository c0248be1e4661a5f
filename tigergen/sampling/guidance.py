"""Guidance between the prediction without and with control (equation 13), and resolution weighting of the control."""

from torch import Tensor

from tigergen.model.unet import Features


def guide(uncontrolled: Tensor, fused: Tensor, beta: float) -> Tensor:
    """F_PRED = F_SD + beta (F_fusion - F_SD) (equation 13); all [B, C, h, w]."""
    return uncontrolled + beta * (fused - uncontrolled)


def resolution_weight(bottom: int, height: int) -> float:
    """Weight of a connection of `height` rows when the coarsest level has `bottom` rows: bottom / height.

    ControlNet's w_i = 64 / h_i (Zhang et al. 2023, section 3.4), relative to the coarsest level.
    """
    return bottom / height


def weigh_resolutions(control: Features) -> Features:
    """Apply `resolution_weight` to each level of the control."""
    bottom = control.mid.shape[-2]
    return Features(tuple(skip * resolution_weight(bottom, skip.shape[-2]) for skip in control.skips), control.mid)
