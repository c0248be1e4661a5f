"""The comparison: every method on the same folds with the same classifier, stage by stage, continued after a kill.

A stage is a trained generator, a block of its images, a classifier's predictions or a row of quality; each leaves one
file. The same call on the same folder goes on; several processes may share a folder. Whatever is chosen is chosen on
validation, and no test image is seen by a generator, a plan or a choice.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import atomic_write, read_json, write_json
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigergen.augment.work import claim
from tigergen.baselines.methods import METHODS, NAME, Method
from tigergen.evaluation.classifier import Part, Variant, predict, train_classifier
from tigergen.evaluation.compare.folds import Data, labels_of, load_data, named, open_folds, take
from tigergen.evaluation.compare.made import BLOCK, draw_block, read_made
from tigergen.evaluation.compare.settings import Settings, most_images, per_class
from tigergen.evaluation.dual_encoder import RECORD, too_few

# What classifiers with generated images are trained with where there are none.
WITHOUT = "basic-balanced"
# Most pixels a side that the dual encoder looks at: as many as the workspace's own.
DUAL_SIZE = 64
# Settings that decide what a folder holds; the others may change and only add to it.
FIXED = ("target", "reference", "multiclass", "folds", "steps", "coarse_share", "rare", "preset", "overrides", "seed")
RECIPES: dict[str, Variant] = {
    "natural": Variant(classical=False, balanced=False),
    "basic": Variant(classical=True, balanced=False),
    "basic-balanced": Variant(classical=True, balanced=True),
    "mixing": Variant(classical=True, balanced=False, mixing=True),
    "mixing-alone": Variant(classical=False, balanced=False, mixing=True),
    "erasing": Variant(classical=True, balanced=False, erasing=True),
    "erasing-alone": Variant(classical=False, balanced=False, erasing=True),
    "feature-space": Variant(classical=True, balanced=False, feature_space=True),
    "feature-space-alone": Variant(classical=False, balanced=False, feature_space=True),
    "generated": Variant(classical=True, balanced=True, generated=0.5),
    "real": Variant(classical=True, balanced=True, pool=True),
}


@dataclass(frozen=True)
class Stage:
    """A piece of work that leaves one file: what it is, whether it is done, and the work."""

    name: str
    lock: Path
    done: Callable[[], bool]
    run: Callable[[], None]


class Comparison:
    """Folds, methods and files of one comparison in the folder `out`."""

    def __init__(
        self, ws: Any, settings: Settings, out: str | os.PathLike[str], progress: Progress | None = None
    ) -> None:
        from tigergen.training import presets

        self.ws, self.settings, self.out, self.progress = ws, settings, Path(out), progress
        preset = presets.load(settings.preset, settings.overrides)
        self.preset = preset
        self.size = int(preset["model"]["image_size"])
        self.threads = int(preset["training"]["threads"])
        self._plans: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._digests: dict[int, list[str]] = {}

    @cached_property
    def data(self) -> list[Data]:
        """The folds' images."""
        return [load_data(fold, self.settings, self.size) for fold in open_folds(self.ws, self.settings)]

    @property
    def rows(self) -> list[Method]:
        """The methods that can be run: the ceiling only where there are further real images in every fold."""
        pool = all("pool" in data.parts for data in self.data)
        return [m for m in self.settings.rows() if m.group != "real" or pool]

    def folder(self, data: Data) -> Path:
        """Where a fold's files lie."""
        return self.out / f"fold-{data.fold.number}"

    # Stages, in the order of their dependence.

    def generators(self) -> list[Stage]:
        """One training for each fold, seed and different model."""
        out = []
        for data in self.data:
            for seed in range(self.settings.generator_seeds):
                for method in {m.training: m for m in self.rows if m.generates}.values():
                    folder = self.generator_folder(data, method, seed)
                    name = f"train {method.training}, fold {data.fold.number}, seed {seed}"
                    stage = self._stage(name, folder / "generator.json", self._train, data, method, seed)
                    if stage.done():
                        stage.run()  # trains nothing, but refuses a model of other images
                    out.append(stage)
        return out

    def images(self) -> list[Stage]:
        """Blocks of generated images of every method."""
        out = []
        for data in self.data:
            for seed in range(self.settings.generator_seeds):
                for method in (m for m in self.rows if m.generates):
                    count = most_images(method, self.settings, data.sizes) * len(labels_of(self.settings, data))
                    for start in range(0, count, BLOCK):
                        path = self.images_folder(data, method, seed) / f"block-{start:06d}.npz"
                        name = f"draw {method.name}, fold {data.fold.number}, seed {seed}, from {start}"
                        out.append(self._stage(name, path, self._draw, data, method, seed, start))
        return out

    def classifiers(self) -> list[Stage]:
        """All classifiers: the main table, the curve, and real additions beside it."""
        out = []
        for data in self.data:
            known: set[Path] = set()
            for method, recipe, amount in self.trainings("pool" in data.parts):
                for seed in range(self.settings.seeds):
                    path = self.prediction(data, method, recipe, amount, seed)
                    name = f"classify {path.parent.name}, fold {data.fold.number}, seed {seed}"
                    if path not in known:
                        out.append(self._stage(name, path, self._classify, data, method, recipe, amount, seed))
                    known.add(path)
        return out

    def trainings(self, pool: bool) -> list[tuple[Method, str, float | None]]:
        """(method, recipe, amount) of every kind of classifier; the amount None is all of the pool, or no image."""
        settings, out = self.settings, []
        for method in self.rows:
            amount = settings.amount if method.generates else None
            out += [(method, recipe, amount) for recipe in method.recipes[: settings.recipes]]
        drawn = settings.drawn()
        further = [a for a in settings.amounts if a not in (0.0, settings.amount)]
        out += [(method, "generated", amount) for method in drawn for amount in further]
        if drawn and 0.0 in settings.amounts:
            out.append((METHODS["basic"], WITHOUT, None))
        real = [m for m in self.rows if m.group == "real"]
        if pool and drawn and real:
            out += [(real[0], "real", amount) for amount in [settings.amount, *further]]
        return out

    def encoders(self) -> list[Stage]:
        """One dual encoder a fold, of its training pairs, where images are generated and there are enough pairs."""
        folds = self.data if any(m.generates for m in self.rows) else []
        return [
            self._stage(
                f"train dual encoder, fold {data.fold.number}", self.encoder_folder(data) / RECORD, self._encode, data
            )
            for data in folds if too_few(data.train.fg) is None
        ]  # fmt: skip

    def quality(self) -> list[Stage]:
        """Distances and diversity of every method's images, and what the dual encoder says of them."""
        return [
            self._stage(
                f"measure {method.name}, fold {data.fold.number}",
                self.quality_file(data, method),
                self._measure, data, method,
            )
            for data in self.data for method in self.rows if method.generates
        ]  # fmt: skip

    def run(self) -> None:
        """Do every stage that nobody has done."""
        open_folder(self.out, self.settings)
        with torch_threads(self.threads):
            for phase in (self.generators, self.images, self.classifiers, self.encoders, self.quality):
                self._all(phase())

    def _all(self, stages: Sequence[Stage]) -> None:
        """Run stages that are free, then wait for those that another process is at."""
        busy, started = [], time.monotonic()
        todo = [stage for stage in stages if not stage.done()]
        for number, stage in enumerate(todo):
            self._tell(stage.name, len(stages) - len(todo) + number, len(stages), started, number)
            with claim(stage.lock) as free:
                if not free:
                    busy.append(stage)
                elif not stage.done():
                    stage.run()
        for stage in busy:
            with claim(stage.lock, wait=True):
                if not stage.done():
                    stage.run()
        if todo:
            self._tell("", len(stages), len(stages), started, len(todo))

    def _tell(self, what: str, step: int, steps: int, started: float, done: int) -> None:
        if self.progress is not None:
            event: dict[str, Any] = {"stage": "compare", "step": step, "steps": steps, "what": what}
            if done:
                event["eta_s"] = round((time.monotonic() - started) / done * (steps - step))
            self.progress(event)

    def _stage(self, name: str, path: Path, work: Callable[..., None], *given: Any) -> Stage:
        lock = self.out / ".locks" / f"{hashlib.sha256(str(path.relative_to(self.out)).encode()).hexdigest()[:16]}.lock"
        key = self._key(*given) if work == self._classify else None

        def done() -> bool:
            if not path.is_file():
                return False
            if work == self._measure:
                # Figures of an earlier version know no dual encoder.
                return "dual_encoder" in read_json(path)
            if key is None:
                return True
            with np.load(path) as stored:
                return str(stored["key"]) == key

        return Stage(name, lock, done, lambda: work(path, *given))

    # Generators and their images.

    def generator_folder(self, data: Data, method: Method, seed: int) -> Path:
        """Where the trained model of a method lies; methods with the same training share it."""
        return self.folder(data) / "generators" / slug(method.training) / f"seed-{seed}"

    def images_folder(self, data: Data, method: Method, seed: int) -> Path:
        """Where the images of a method lie; a plan of another size is another plan."""
        count = most_images(method, self.settings, data.sizes)
        return self.folder(data) / "images" / slug(method.name) / f"seed-{seed}-of-{count}"

    def work(self, data: Data, method: Method, seed: int) -> Any:
        """What the trainer of a method is given."""
        from tigergen.baselines.work import Work
        from tigergen.training import presets
        from tigergen.training.stages import vocabulary_of

        cases = named(data.train, self.ws.kb) if method.words == NAME else data.train
        coarse = "coarse-" + method.words
        return Work(
            cases=cases,
            preset=presets.override(self.preset, method.overrides),
            steps=self.settings.steps,
            seed=self.settings.seed + seed,
            folder=self.generator_folder(data, method, seed),
            vocabulary=vocabulary_of([cases], self.ws.kb),
            knowledge=self.ws.kb,
            coarse=self.folder(data) / "generators" / coarse / f"seed-{seed}",
            coarse_share=self.settings.coarse_share,
            options=method.options,
            progress=self.progress,
        )

    def _train(self, path: Path, data: Data, method: Method, seed: int) -> None:
        from tigergen.baselines.train import train_generator

        train_generator(method.model, self.work(data, method, seed))

    def plan(self, data: Data, method: Method, seed: int) -> dict[str, Any]:
        """The plan of a method's images, equally many a class: one and the same for all methods with equal words."""
        from tigergen.augment.plan import SAMPLING, make_plan

        count = most_images(method, self.settings, data.sizes)
        key = (data.fold.number, seed, count, json.dumps(dict(method.plan), sort_keys=True))
        if key not in self._plans:
            labels = labels_of(self.settings, data)
            # How the workspace's own model would sample is not asked: all methods sample as the preset says.
            plain = {k: v for k, v in SAMPLING.items() if k != "quality"}
            sampling = {**plain, **self.preset.get("sampling", {})}
            own = self.settings.seed + seed
            self._plans[key] = make_plan(data.fold, labels[0], count, labels[1:], own, sampling=sampling, **method.plan)
        return self._plans[key]

    def _draw(self, path: Path, data: Data, method: Method, seed: int, start: int) -> None:
        draw_block(self, path, data, method, seed, start)

    def generated(self, data: Data, method: Method, seed: int, amount: float | None = None) -> Part:
        """A method's images for `amount` times the real ones, or all (`made.read_made`)."""
        return read_made(self, data, method, seed, amount).part

    # Quality.

    def encoder_folder(self, data: Data) -> Path:
        """Where a fold's dual encoder of images and prompts lies."""
        return self.folder(data) / "dual-encoder"

    @property
    def encoder_size(self) -> int:
        """Side in pixels of what a dual encoder looks at."""
        return min(DUAL_SIZE, self.size)

    def _encode(self, path: Path, data: Data) -> None:
        from tigergen.evaluation.dual_encoder import train_dual_encoder

        train_dual_encoder(
            data.train.images, data.train.fg, self.ws.kb, path.parent, (data.parts["val"].images, data.fg["val"]),
            seed=self.settings.seed, size=self.encoder_size, image_ids=data.train.image_ids,
            progress=self.progress,
        )  # fmt: skip

    def quality_file(self, data: Data, method: Method) -> Path:
        """Where the figures of a method's images lie."""
        return self.folder(data) / "quality" / f"{slug(method.name)}.json"

    # Classifiers.

    def prediction(self, data: Data, method: Method, recipe: str, amount: float | None, seed: int) -> Path:
        """Where a classifier's predictions lie."""
        name = recipe if not method.generates and amount is None else f"{slug(method.name)}-{recipe}"
        at = "" if amount is None else f"@{amount:g}"
        return self.folder(data) / "classifiers" / f"{name}{at}" / f"seed-{seed}.npz"

    def training_part(self, data: Data, method: Method, recipe: str, amount: float | None, seed: int) -> Part:
        """The images that a classifier trains on: real ones of the fold's train, and what the method adds."""
        part = data.parts["train"]
        if RECIPES[recipe].generated:
            made = self.generated(data, method, seed % self.settings.generator_seeds, amount)
            return part + made
        if RECIPES[recipe].pool:
            pool = data.parts["pool"]
            rows = np.random.default_rng([self.settings.seed, 6]).permutation(len(pool.y))
            count = len(rows) if amount is None else min(len(rows), per_class(amount, data.sizes))
            return part + take(pool, rows[:count].tolist())
        return part

    def _key(self, data: Data, method: Method, recipe: str, amount: float | None, seed: int) -> str:
        """What a classifier's predictions depend on."""
        state = hashlib.sha256()
        how = [self.settings.iterations, self.settings.architecture, sorted(asdict(RECIPES[recipe]).items()), seed]
        part = self.training_part(data, method, recipe, amount, seed)
        state.update(json.dumps([*how, part.digest(), *self._scored(data)]).encode())
        return state.hexdigest()

    def _scored(self, data: Data) -> list[str]:
        number = data.fold.number
        if number not in self._digests:
            self._digests[number] = [data.parts[part].digest() for part in ("val", "test")]
        return self._digests[number]

    def _classify(self, path: Path, data: Data, method: Method, recipe: str, amount: float | None, seed: int) -> None:
        part = self.training_part(data, method, recipe, amount, seed)
        settings = self.settings
        began = time.monotonic()
        model = train_classifier(
            part, RECIPES[recipe], settings.seed + seed, settings.iterations, self.progress, settings.architecture
        )
        stored: dict[str, Any] = {"key": self._key(data, method, recipe, amount, seed)}
        stored |= {"n_real": int((~part.generated).sum()), "n_generated": int(part.generated.sum())}
        for name in ("val", "test"):
            own = data.parts[name]
            p = predict(model, own.images)
            p = np.stack([1 - p, p], 1) if p.ndim == 1 else p
            stored |= {f"y_{name}": own.y, f"p_{name}": p, f"patients_{name}": np.array(own.patients)}
        stored["seconds"] = time.monotonic() - began
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **stored)

    def _measure(self, path: Path, data: Data, method: Method) -> None:
        from tigergen.evaluation.compare.quality import measure
        from tigergen.evaluation.dual_encoder import DualEncoder

        made = [read_made(self, data, method, seed) for seed in range(self.settings.generator_seeds)]
        encoder = None if too_few(data.train.fg) else DualEncoder.load(self.encoder_folder(data))
        write_json(path, measure(data, made, encoder))


def slug(name: str) -> str:
    """A name as the name of a folder.

    >>> slug("tiger-f/fg"), slug("tiger+fusion=sum")
    ('tiger-f_fg', 'tiger+fusion-sum')
    """
    return name.replace("/", "_").replace("=", "-")


def open_folder(out: Path, settings: Settings) -> None:
    """Create the folder or check that it holds this comparison.

    Raises:
        UserError: another comparison, or files that are none, lie there.
    """
    path, wanted = out / "settings.json", settings.record()
    # Looked at before the settings are: another process may be creating the folder, and writes them first of all.
    others = [p for p in out.iterdir() if not p.name.startswith(".partial-")] if out.exists() else []
    if path.is_file():
        stored = read_json(path)
        for name in FIXED:
            if stored.get(name) != json.loads(json.dumps(wanted[name])):
                raise UserError(
                    f"{out} holds a comparison with {name} = {stored.get(name)} and not {wanted[name]}; name another "
                    "folder."
                )
    elif others:
        raise UserError(f"{out} is not empty and holds no comparison; name a new folder.")
    write_json(path, wanted)
