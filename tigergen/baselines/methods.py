"""The rows of the comparison: twelve augmentation methods of the paper, SD-S, the ceiling, and ablations of Tiger-F."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kb.errors import UserError

# What a generator is told of an image: class and features, or the class alone.
FEATURES, NAME = "features", "name"
BEST = "tiger-f"


@dataclass(frozen=True)
class Method:
    """One row.

    `number`: the row of the paper's Table 3 ("" where it has none). `group`: `none`, `classical`, `generated`, `real`
    or `ablation`. `recipes`: names of what classifiers may be trained with, best guess first; the one that counts is
    chosen on validation (`tigergen.evaluation.compare.comparison.RECIPES`). For generators: `model` is the trainer
    (`tigergen.baselines.train.TRAINERS`), `words` what it is trained and asked with, `options` what its trainer gets,
    `overrides` changes of the preset, `plan` and `sampling` settings of the plan.
    """

    name: str
    title: str
    group: str
    number: str = ""
    recipes: tuple[str, ...] = ("generated",)
    model: str = ""
    words: str = FEATURES
    options: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def generates(self) -> bool:
        """Whether a generator is trained for it."""
        return bool(self.model)

    @property
    def training(self) -> str:
        """Name of the trained model: methods that differ in plan or sampling only share it."""
        parts = [self.model, self.words if self.words != FEATURES else "", *self.overrides]
        parts += [f"{k}={v}" for k, v in sorted(self.options.items())]
        return "+".join(part.replace("fine.", "") for part in parts if part)


def _tiger(name: str, title: str, **different: Any) -> Method:
    return Method(name, title, "ablation", model="tiger", **different)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("none", "No augmentation", "none", "1", ("natural",)),
        Method("basic", "Basic image manipulation", "classical", "2", ("basic", "basic-balanced")),
        Method("mixing", "Mixing images (MixUp, CutMix)", "classical", "3", ("mixing", "mixing-alone")),
        Method("erasing", "Random erasing", "classical", "4", ("erasing", "erasing-alone")),
        Method(
            "feature-space", "Feature-space augmentation", "classical", "5", ("feature-space", "feature-space-alone")
        ),
        Method("pg-gan", "PG-GAN", "generated", "6", model="pg-gan"),
        Method("dit", "Diffusion Transformer (DiT)", "generated", "7", model="dit"),
        Method("imagen", "Imagen-type cascade", "generated", "8", model="imagen"),
        Method("sd", "Stable Diffusion", "generated", "9", model="sd", sampling={"mode": "text"}),
        Method("sd-s", "Stable Diffusion + segmentation (SD-S)", "generated", "", model="sd-s"),
        Method("sd-c", "Stable Diffusion + ControlNet (SD-C)", "generated", "10", model="sd-c"),
        Method("tiger-n", "Tiger-N (name)", "generated", "11", model="tiger", words=NAME, plan={"variant": "N"}),
        Method("tiger-f", "Tiger-F (features)", "generated", "12", model="tiger"),
        Method("real", "More real images (ceiling)", "real", "", ("real",)),
        _tiger("tiger-f/unweighted", "Tiger-F, token weighting off", overrides=("fine.weighting=off",)),
        _tiger("tiger-f/sum", "Tiger-F, plain sum for fusion", options={"fusion": "sum"}),
        _tiger("tiger-f/fg", "Tiger-F, FG-Encoder alone", sampling={"mode": "fg"}),
        _tiger("tiger-f/bg", "Tiger-F, BG-Encoder alone", sampling={"mode": "bg"}),
        _tiger("tiger-f/sequential", "Tiger-F, FG first, BG after", sampling={"mode": "sequential"}),
        _tiger("tiger-f/observed", "Tiger-F, no literature prompts", plan={"rare_below": 0}),
    )
}
ABLATIONS = {name.partition("/")[2]: name for name, method in METHODS.items() if method.group == "ablation"}
ABLATION_WORDS = {
    "weighting": "unweighted", "fusion": "sum", "fg": "fg", "bg": "bg", "sequential": "sequential",
    "literature": "observed",
}  # fmt: skip


def select(methods: Sequence[str], ablations: Sequence[str] = ()) -> list[Method]:
    """The methods of these names in the order of the table; "all" is every row but the ablations.

    `ablations`: of Tiger-F, by what is taken away (`ABLATION_WORDS`), or "all".

    Raises:
        UserError: an unknown name.
    """
    rows = [name for name, method in METHODS.items() if method.group != "ablation"]
    wanted = set(rows) if "all" in methods else set(methods)
    off = set(ABLATION_WORDS) if "all" in ablations else set(ablations) - {"none"}
    for given, known, what in ((wanted, set(rows), "method"), (off, set(ABLATION_WORDS), "ablation")):
        unknown = sorted(given - known)
        if unknown:
            ordered = [name for name in (rows if what == "method" else ABLATION_WORDS) if name in known]
            raise UserError(f"there is no {what} '{unknown[0]}'; choose all or some of {', '.join(ordered)}.")
    chosen = wanted | {ABLATIONS[ABLATION_WORDS[word]] for word in off} | ({BEST} if off else set())
    return [method for name, method in METHODS.items() if name in chosen]
