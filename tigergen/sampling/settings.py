"""How images are drawn: every sampling setting by name, checked, and what of it is reported beside an image."""

from dataclasses import asdict, dataclass
from typing import Any

from kb.errors import UserError

# Sampling mode to the mode of TigerControl in its first pass; `sequential` has a second pass with the BG-Encoder.
MODES = {"joint": "fused", "sequential": "fg", "fg": "fg", "bg": "bg", "sum": "sum", "text": "fused"}
STRENGTH = 0.5
ALWAYS = (0.0, 1.0)


@dataclass(frozen=True)
class Sampling:
    """Settings of one call of the pipeline.

    steps, sampler: `dpm++`, `unipc` or `ddim` with so many steps. guidance: beta of equation 13 (1 none, 0 the model
    without control and words; 2 and more follow edges closer but exaggerate: hypoechoic turns markedly so).
    guidance_interval: guide only while the time of the noise schedule, 1 noise and 0 image, lies in it; elsewhere the
    unguided half does not run at all (Kynkäänniemi et al. 2024).
    mode: `joint` (both encoders, fused), `sequential` (nodule with the FG-Encoder, then the rest around it with the
    BG-Encoder), `fg`, `bg`, `sum` (both encoders plainly added, what MultiControlNet does), `text` (no encoder).
    strength: share of the steps that a real image is taken through, 0 (keep) to 1 (noise); None starts from noise.
    weighting: of tokens (equation 8), `log`, `paper` or `off`. keep_control: the unguided half keeps the control, so
    that beta strengthens words only; False is equation 13, where beta strengthens mask and edges too (measured: they
    are followed a little better, words worse: docs/paper.md). resolution_weighting: ControlNet's w_i = 64 / h_i on
    the control.
    reuse_control, reuse_deep: compute the control, and all of the U-Net below its finest level (DeepCache, Ma et al.
    2024), at every n-th step only and use the last ones in between; 1 computes them at each step.

    Raises UserError for a setting that means nothing.
    """

    steps: int = 15
    sampler: str = "dpm++"
    guidance: float = 1.4
    guidance_interval: tuple[float, float] = ALWAYS
    mode: str = "joint"
    strength: float | None = None
    weighting: str = "log"
    keep_control: bool = False
    resolution_weighting: bool = False
    reuse_control: int = 1
    reuse_deep: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"sampling mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}")
        for name in ("steps", "reuse_control", "reuse_deep"):
            if getattr(self, name) < 1:
                raise UserError(f"sampling setting {name} is {getattr(self, name)}; give a whole number from 1")
        low, high = (float(end) for end in self.guidance_interval)
        object.__setattr__(self, "guidance_interval", (low, high))  # a list where it was read from a file
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"guidance_interval is ({low}, {high}); give its lower and its upper end, from 0 (image) to 1 (noise)"
            )

    def record(self) -> dict[str, Any]:
        """The settings for a manifest. An image refined from a real one holds parts of it: it is a composite."""
        refined = self.strength is not None
        settings = asdict(self) | {"guidance_interval": list(self.guidance_interval)}
        return {"task": "refine" if refined else "diversify", "composite": refined, **settings}
