"""What held-out images say of a run: its best step, whether it has diverged, and whether it learns images by heart."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError

Losses = NDArray[np.float64]

# Losses of so many times the best ones: the weights have left the region where they had learned something.
DIVERGED = 2.0
# Held-out images this much harder than training images, at the very least, are a sign of memorisation.
MEMORISED = 1.2
# Fewer pairs than this give no verdict: the limit of so few is not to be trusted.
LEAST = 8
DIGITS = 6


@dataclass(frozen=True)
class Gap:
    """How many times the loss of training images the held-out loss is, and the least that it may well be."""

    ratio: float
    low: float

    @classmethod
    def of(cls, held_out: Losses, seen: Losses) -> "Gap":
        """Ratio of the means of two losses [N], of images or groups of images at the same N noise levels; lower limit.

        The limit is the ratio at which the mean of held_out − ratio · seen is two of its standard errors above zero
        (Fieller 1954): the noise level decides most of a loss, so the images are compared pair by pair, and it holds
        for training losses near zero too. Images count as independent; where several come from one patient the limit
        is too high.
        """
        (hh, hs), (_, ss) = 4 * np.cov(held_out, seen) / len(seen)
        h, s = held_out.mean(), seen.mean()
        a, b, c = s * s - ss, h * s - hs, h * h - hh
        # Without a held-out loss that differs from zero nothing is known; with one, b² ≥ a·c but for rounding.
        low = c / (b + np.sqrt(max(b * b - a * c, 0.0))) if c > 0 else 0.0
        return cls(float(h / s), float(low))

    @property
    def memorised(self) -> bool:
        """The rule of the warning."""
        return self.low > MEMORISED


@dataclass
class Watch:
    """The looks at held-out images so far; `shown` holds the figures of the last one, for statistics and record."""

    stage: str
    best_step: int | None = None
    best_held_out: float | None = None
    lowest_held_out: float | None = None
    lowest_loss: float | None = None
    memorised: dict[str, float] | None = None
    shown: dict[str, float | None] = field(default_factory=lambda: {"held_out": None})

    def look(self, step: int, loss: float, held_out: Losses, seen: Losses) -> tuple[bool, str | None]:
        """Take in the losses of held-out and of training images at the same noise levels, each [N].

        `loss` is that of the last training steps. Returns whether this step is the best so far, and a sentence when
        the run is found to memorise for the first time. Raises UserError when it has diverged.
        """
        value = round(float(held_out.mean()), DIGITS)
        self.check(step, loss, value)
        better = self.best_held_out is None or value < self.best_held_out
        if better:
            self.best_step, self.best_held_out = step, value
        self.lowest_held_out = value if self.lowest_held_out is None else min(value, self.lowest_held_out)
        self.shown = {"held_out": value, "seen": round(float(seen.mean()), DIGITS)}
        if len(seen) < LEAST:
            return better, None
        gap = Gap.of(held_out, seen)
        self.shown |= {"gap": round(gap.ratio, 3), "gap_low": round(gap.low, 3)}
        if self.memorised is not None or not gap.memorised:
            return better, None
        self.memorised = {"step": step, **self.shown}  # type: ignore[dict-item]
        return better, (
            f"Stage {self.stage} learns its training images by heart: at step {step} the held-out loss is {value}, "
            f"{gap.ratio:.2f} times that of training images at the same noise levels (at least {gap.low:.2f} times); "
            f"take fewer steps ({self.stage}.steps) or more images, or leave training.final at best, which goes back "
            f"to step {self.best_step} unless a later one is better."
        )

    def check(self, step: int, loss: float, held_out: float | None) -> None:
        """Stop a run whose losses have doubled: the training loss, and the held-out loss too where it is given.

        The held-out loss alone also doubles in a model that memorises, the training loss does not; of few steps it
        says little, which is why a look at held-out images asks both. Raises UserError.
        """
        lost = self.lowest_loss is not None and loss > DIVERGED * self.lowest_loss
        if held_out is not None:
            lost = lost and self.lowest_held_out is not None and held_out > DIVERGED * self.lowest_held_out
        if lost:
            name, value, best = (
                ("training", loss, self.lowest_loss)
                if held_out is None
                else ("held-out", held_out, self.lowest_held_out)
            )
            raise UserError(
                f"Stage {self.stage} has diverged: at step {step} the {name} loss is {value}, its best was {best}. "
                f"Lower {self.stage}.lr (or training.clip) and run the command with the new value in a new folder; the "
                "last checkpoint may be spoilt already."
            )
        self.lowest_loss = loss if self.lowest_loss is None else min(loss, self.lowest_loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
