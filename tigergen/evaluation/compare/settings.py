"""How much of everything a comparison trains, and how that shrinks to a budget of minutes, in the open."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kb.errors import UserError
from tigergen.baselines.methods import BEST, Method, select

# Those of `tigergen.evaluation.classifier`, which loads torch; the help of a command must not.
ARCHITECTURES = ("small", "resnet18", "resnet50")
# Nothing is scaled below these: fewer say nothing at all.
LEAST_STEPS, LEAST_ITERATIONS, LEAST_IMAGES = 20, 20, 16
# Report, tables and loading libraries.
OVERHEAD_S = 30.0


@dataclass(frozen=True)
class Settings:
    """Everything that decides the figures of a comparison.

    `reference`: classes that the target is told from (none: benign, or all others); `multiclass`: one classifier of all
    classes instead. `folds`: 1 takes the workspace's split, more are drawn by patient. `steps`: optimiser steps of
    every generator, all its stages together; `coarse_share`: of them for the coarse stage where there are two.
    `amount`: generated images in the main table, times the real training images of the compared classes, shared
    equally by the classes; `amounts`: those of the curve, drawn for the methods in `curve`. `recipes`: how many ways
    of training a method may choose from on validation. `rare`: class to number, keeps so many of its training images
    and calls the others further real images. `minutes`: the compute a generator may take (0: no cap is stated).
    """

    target: str
    methods: tuple[str, ...] = ("all",)
    ablations: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    multiclass: bool = False
    folds: int = 5
    seeds: int = 5
    generator_seeds: int = 2
    steps: int = 4000
    coarse_share: float = 0.3
    amount: float = 1.0
    amounts: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    curve: tuple[str, ...] = ("all",)
    iterations: int = 400
    architecture: str = "resnet18"
    recipes: int = 2
    rare: Mapping[str, int] = field(default_factory=dict)
    preset: str = "tiny"
    overrides: tuple[str, ...] = ()
    seed: int = 0
    minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("folds", "seeds", "generator_seeds", "steps", "iterations", "recipes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} is {getattr(self, name)}; give a whole number from 1.")
        if self.steps < 2 or self.iterations < 2:
            raise UserError("steps and iterations must be 2 or more; one step teaches nothing.")
        if self.amount <= 0 or any(a < 0 for a in self.amounts):
            raise UserError("amounts of generated images are shares of the real ones: give 0 or more, such as 0,0.5,1.")
        if not 0 < self.coarse_share < 1:
            raise UserError(f"the coarse share is {self.coarse_share}; give a number between 0 and 1.")
        if self.architecture not in ARCHITECTURES:
            raise UserError(
                f"there is no architecture '{self.architecture}'; choose one of {', '.join(ARCHITECTURES)}."
            )
        self.rows()
        self.drawn()

    def rows(self) -> list[Method]:
        """The methods, in the order of the table."""
        return select(self.methods, self.ablations)

    def drawn(self) -> list[Method]:
        """The generating methods whose curve over the number of images is drawn."""
        if self.curve == ("none",) or not self.curve:
            return []
        wanted = {method.name for method in select(self.curve)}
        return [m for m in self.rows() if m.name in wanted and m.group == "generated"]

    def record(self) -> dict[str, Any]:
        """The settings for a file, lists for tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Prices:
    """Seconds on this machine: a step of each trained model, an image of each method, a classifier's iteration, and a
    training pair of the dual encoder in all its passes."""

    step: Mapping[str, float]
    image: Mapping[str, float]
    iteration: float
    pair: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """Real training images of the compared classes in a fold, number of classes, test and validation images, and the
    image-prompt pairs that the dual encoder is trained on (0: too few)."""

    real: int
    classes: int
    scored: int
    pairs: int = 0


def per_class(amount: float, sizes: Sizes) -> int:
    """Generated images a class for `amount` times the real training images."""
    return max(1, round(amount * sizes.real / sizes.classes)) if amount else 0


def most_images(method: Method, settings: Settings, sizes: Sizes) -> int:
    """The most generated images a class that any use of a method needs."""
    amounts = [settings.amount, *(settings.amounts if method in settings.drawn() else ())]
    return max(per_class(amount, sizes) for amount in amounts)


def classifiers(settings: Settings, pool: bool) -> int:
    """How many classifiers a fold trains."""
    rows = [m for m in settings.rows() if m.group != "real" or pool]
    trained = sum(len(m.recipes[: settings.recipes]) for m in rows)
    further = [a for a in settings.amounts if a not in (0.0, settings.amount)]
    drawn = settings.drawn()
    trained += len(drawn) * len(further)
    # Where the curve begins, unless the table has it; and as many real images at each of its points.
    begins = any("basic-balanced" in m.recipes[: settings.recipes] for m in rows)
    trained += bool(drawn) and 0.0 in settings.amounts and not begins
    trained += 1 + len(further) if drawn and any(m.group == "real" for m in rows) else 0
    return trained * settings.seeds


def stages(settings: Settings, prices: Prices, sizes: Sizes, pool: bool) -> list[dict[str, Any]]:
    """Each stage with how often it runs and its seconds in all: what `--dry-run` prints."""
    rows, runs = settings.rows(), settings.folds * settings.generator_seeds
    out: list[dict[str, Any]] = []
    for training in dict.fromkeys(m.training for m in rows if m.generates):
        seconds = prices.step[training] * settings.steps
        out.append({"stage": f"train {training}", "runs": runs, "each_s": seconds})
    for method in rows:
        if method.generates:
            images = most_images(method, settings, sizes) * sizes.classes
            each = images * prices.image[method.name]
            out.append({"stage": f"draw {method.name}", "runs": runs, "each_s": each, "images": images})
    each = prices.iteration * (settings.iterations + sizes.scored / 90)
    count = classifiers(settings, pool) * settings.folds
    out.append({"stage": "classifiers", "runs": count, "each_s": each})
    if sizes.pairs and any(m.generates for m in rows):
        # A ruler: it is not made shorter to fit a budget.
        out.append({"stage": "dual encoder", "runs": settings.folds, "each_s": prices.pair * sizes.pairs})
    return [{**row, "seconds": round(row["runs"] * row["each_s"], 3), "each_s": round(row["each_s"], 4)} for row in out]


def total(settings: Settings, prices: Prices, sizes: Sizes, pool: bool) -> float:
    """Seconds of the whole comparison in one process."""
    return OVERHEAD_S + sum(row["seconds"] for row in stages(settings, prices, sizes, pool))


def scale(settings: Settings, minutes: float, prices: Prices, sizes: Sizes, pool: bool) -> tuple[Settings, list[str]]:
    """Settings that fit into `minutes`, and a sentence for everything that was made smaller on the way.

    First what only narrows intervals (folds, choices, curve, seeds), then, all by one factor, generator steps,
    generated images and classifier iterations. Methods are never left out.

    Raises:
        UserError: not even the smallest comparison of these methods fits.
    """
    said: list[str] = []
    cuts: list[dict[str, Any]] = [
        {"folds": 1},
        {"recipes": 1},
        {"curve": (BEST,), "amounts": _within(settings.amounts, 1.0)},
        {"generator_seeds": 1},
        {"seeds": min(settings.seeds, 2)},
    ]
    for cut in cuts:
        if total(settings, prices, sizes, pool) <= 60 * minutes:
            return settings, said
        if "curve" in cut and BEST not in {m.name for m in settings.drawn()}:
            cut = {"curve": ("none",)}
        changed = {name: value for name, value in cut.items() if getattr(settings, name) != value}
        said += [f"{name}: {_words(getattr(settings, name))} → {_words(value)}" for name, value in changed.items()]
        settings = replace(settings, **changed)
    whole = settings
    for percent in range(100, 0, -1):
        settings = _share(whole, percent / 100, sizes)
        if total(settings, prices, sizes, pool) <= 60 * minutes:
            said += [
                f"{name}: {_words(getattr(whole, name))} → {_words(getattr(settings, name))}"
                for name in ("steps", "amount", "amounts", "iterations")
                if getattr(whole, name) != getattr(settings, name)
            ]
            return settings, said
    needed = total(settings, prices, sizes, pool) / 60
    raise UserError(
        f"a budget of {minutes:g} minutes is too small: the smallest comparison of these methods takes about "
        f"{needed:.0f}; give more minutes or fewer methods."
    )


def _share(whole: Settings, share: float, sizes: Sizes) -> Settings:
    """Steps, images and iterations by one factor, none below its least."""
    least = LEAST_IMAGES * sizes.classes / sizes.real
    amounts = tuple(round(a * share, 4) for a in whole.amounts)
    return replace(
        whole,
        steps=max(min(LEAST_STEPS, whole.steps), round(whole.steps * share)),
        iterations=max(min(LEAST_ITERATIONS, whole.iterations), round(whole.iterations * share)),
        amount=round(max(min(least, whole.amount), whole.amount * share), 4),
        amounts=tuple(dict.fromkeys(max(a, round(least, 4)) if a else 0.0 for a in amounts)),
    )


def _within(amounts: Sequence[float], most: float) -> tuple[float, ...]:
    return tuple(a for a in amounts if a <= most)


def _words(value: Any) -> str:
    return (
        ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        if isinstance(value, tuple)
        else str(value)
    )
