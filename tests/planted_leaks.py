"""One leak of each kind, planted where it would come about: in the database of a workspace or in the folder of a run.

Each plant changes copies of a clean workspace and run and returns what the refusal must name: the training side and the
evaluation side. `tests/tigerdata/export/test_planted_leaks.py` exports each, `benchmarks/planted_leaks.py` prints them.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kb.errors import UserError
from kb.files import read_json, write_json
from tests.proof_corpus import FakePipe, enter_model, make_workspace, model_stub
from tigerdata.export import export
from tigerdata.leaks import REAL_PROMPT, LeakError
from tigerdata.prompts import compose
from tigerdata.splits import split_folds
from tigerdata.workspace import Workspace

COUNTS = {"train": {"benign": 20, "FTC": 6}, "val": {"benign": 6, "FTC": 4}, "test": {"benign": 6, "FTC": 4}}
Named = tuple[str, str]


@dataclass
class Scene:
    """Copies of a clean workspace and of a finished run, to plant a leak in."""

    ws: Workspace
    run: Path

    def __post_init__(self) -> None:
        self.real = self.ws.cases()
        table = pd.read_parquet(self.run / "manifest.parquet")
        self.made = table[table["accepted"]].reset_index(drop=True)
        self.model = str(self.made["model_id"][0])

    def ids(self, split: str, lent: bool | None = None) -> list[str]:
        """Images of a split; `lent`: only donors of the run, or only others."""
        found = self.real[self.real["split"] == split]
        if lent is not None:
            found = found[found["image_id"].isin(self.made["donor_image_id"]) == lent]
        return list(found["image_id"])

    def execute(self, query: str, *values: Any) -> None:
        with self.ws.connect() as con:
            con.execute(query, list(values))

    def patient(self, image_id: str) -> str:
        return str(self.real.set_index("image_id")["patient_id"][image_id])

    def give(self, image_id: str, patient: str) -> None:
        """Say that an image is of this patient."""
        for table in ("images", "splits"):
            self.execute(f"UPDATE {table} SET patient_id = ? WHERE image_id = ?", patient, image_id)

    def hide(self, *image_ids: str) -> None:
        """Take images out of the export, but not out of the workspace: without a prompt they are no case."""
        for image_id in image_ids:
            self.execute("DELETE FROM prompts WHERE image_id = ?", image_id)

    def alike(self, first: str, second: str) -> None:
        for image_id, other in ((first, second), (second, first)):
            row = (image_id, first, other, "near", 0.99, False)
            self.execute("INSERT INTO duplicates VALUES (?, ?, ?, ?, ?, ?)", *row)

    def rewrite(self, column: str, value: Any, row: int = 0) -> str:
        """Change the manifest's row of an accepted image; returns its file."""
        table = pd.read_parquet(self.run / "manifest.parquet")
        if column not in table:
            table[column] = None
        table.loc[table["file"] == self.made["file"][row], column] = value
        table.to_parquet(self.run / "manifest.parquet")
        return str(self.made["file"][row])

    def repeat(self, image_id: str, row: int = 0, source: str | None = REAL_PROMPT) -> str:
        """Give a row of the plan, and the images made for it, the prompt of a real image; returns the first file."""
        case = self.real.set_index("image_id").loc[image_id]
        # A value that no training image has beside the others, so that the prompt can be from that image alone.
        said = {**case["attributes"], "halo": ["interrupted"], "margin": ["spiculated"]}
        self.execute("UPDATE prompts SET attributes = ? WHERE image_id = ?", json.dumps(said), image_id)
        prompt = compose(self.ws.kb, case["label"], said)
        number = int(self.made["plan_row"][row])
        plan = read_json(self.run / "plan.json")
        told = {"label": case["label"], "fg": prompt.fg, "bg": prompt.bg, "attributes": said, "source": source}
        plan["rows"][number - 1] |= told
        write_json(self.run / "plan.json", plan)
        table = pd.read_parquet(self.run / "manifest.parquet")
        of_row = table["plan_row"] == number
        table.loc[of_row, ["label", "attributes", "fg"]] = [case["label"], json.dumps(said), prompt.fg]
        table.to_parquet(self.run / "manifest.parquet")
        return str(table[of_row & table["accepted"]]["file"].iloc[0])


def patient(s: Scene) -> Named:
    a, b = s.ids("train", lent=False)[0], s.ids("test")[0]
    s.give(b, s.patient(a))
    return a, b


def file(s: Scene) -> Named:
    a, b = s.ids("train")[0], s.ids("test")[0]
    s.execute("UPDATE images SET sha256 = (SELECT sha256 FROM images WHERE image_id = ?) WHERE image_id = ?", a, b)
    return a, b


def pixels(s: Scene) -> Named:
    a, b = s.ids("train")[0], s.ids("val")[0]
    for image_id in (a, b):
        s.execute("INSERT INTO fingerprints (image_id, pixel_hash) VALUES (?, 'same')", image_id)
    return a, b


def near_duplicate(s: Scene) -> Named:
    a, b = s.ids("train")[0], s.ids("test")[0]
    s.alike(a, b)
    return a, b


def generated_as_real(s: Scene) -> Named:
    """A generated file that was ingested among the real ones of the test part."""
    b = s.ids("test")[0]
    s.execute("UPDATE images SET sha256 = ? WHERE image_id = ?", s.made["sha256"][0], b)
    return b, str(s.made["file"][0])


def donor(s: Scene) -> Named:
    b = s.ids("test")[0]
    return s.rewrite("donor_image_id", b), b


def mask(s: Scene) -> Named:
    b = s.ids("val")[0]
    return s.rewrite("mask_image_id", b), b


def patient_of_donor(s: Scene) -> Named:
    """The donor is in train but not exported; a later image of its patient is in test."""
    a, b = s.ids("train", lent=True)[0], s.ids("test")[0]
    s.give(b, s.patient(a))
    s.hide(*s.real[s.real["patient_id"] == s.patient(a)]["image_id"])
    return str(s.made[s.made["donor_image_id"] == a]["file"].iloc[0]), b


def copy_of_donor(s: Scene) -> Named:
    a, b = s.ids("train", lent=True)[0], s.ids("test")[0]
    s.alike(a, b)
    s.hide(a)
    return str(s.made[s.made["donor_image_id"] == a]["file"].iloc[0]), b


def edited(s: Scene) -> Named:
    b = s.ids("test")[0]
    return s.rewrite("edited_image_id", b), b


def patient_of_edited(s: Scene) -> Named:
    a, b = s.ids("train", lent=False)[0], s.ids("test")[0]
    s.give(b, s.patient(a))
    s.hide(*s.real[s.real["patient_id"] == s.patient(a)]["image_id"])
    return s.rewrite("edited_image_id", a), b


def report(s: Scene) -> Named:
    """The prompt of a training image is from a report of a patient of the test part."""
    a, b = s.ids("train")[0], s.ids("test")[0]
    who = s.patient(b)
    s.execute("INSERT INTO nodules (nodule_id, report_id, patient_id, ordinal) VALUES ('r1/1', 'r1', ?, 1)", who)
    s.execute("UPDATE prompts SET nodule_id = 'r1/1' WHERE image_id = ?", a)
    return a, b


def shared_report(s: Scene) -> Named:
    """Two images of nobody have their prompts from one report."""
    a, b = s.ids("train")[0], s.ids("test")[0]
    s.execute("INSERT INTO nodules (nodule_id, report_id, ordinal) VALUES ('r1/1', 'r1', 1), ('r1/2', 'r1', 2)")
    for number, image_id in enumerate((a, b), 1):
        s.execute("UPDATE prompts SET nodule_id = ? WHERE image_id = ?", f"r1/{number}", image_id)
    return a, b


def prompt(s: Scene) -> Named:
    """A row of the plan repeats the prompt of a test image, as a plan from before a new split does."""
    b = s.ids("test")[0]
    return s.repeat(b), b


def prompt_by_hand(s: Scene) -> Named:
    """The same in a row that names no source."""
    b = s.ids("val")[0]
    return s.repeat(b, source=None), b


def unknown_generator(s: Scene) -> Named:
    s.execute("UPDATE models SET trained_on = NULL WHERE model_id = ?", s.model)
    return s.model, "models"


def generator(s: Scene) -> Named:
    b = s.ids("test")[0]
    enter_model(s.ws, s.model, b)
    return s.model, b


def fold(s: Scene) -> Named:
    """The generator was trained on the training part of a fold, which holds patients that are now in test."""
    split_folds(s.ws, 3)
    seen = list(s.ws.cases("train", "default-fold1")["image_id"])
    s.execute("UPDATE models SET trained_on = ? WHERE model_id = ?", json.dumps(seen), s.model)
    return s.model, next(i for i in s.ids("test") if i in seen)


def patient_of_generator(s: Scene) -> Named:
    a, b = s.ids("train", lent=False)[0], s.ids("test")[0]
    s.give(b, s.patient(a))
    s.hide(*s.real[s.real["patient_id"] == s.patient(a)]["image_id"])
    return s.model, b


def copy_of_generator(s: Scene) -> Named:
    a, b = s.ids("train", lent=False)[0], s.ids("test")[0]
    s.alike(a, b)
    s.hide(a)
    return s.model, b


OF_DONOR = "the patient of a donor or of an edited image is outside train"
OF_REPORT = "a training image has its prompt from the report of a patient outside train"
OF_PROMPT = "a generated image has the prompt of an image outside train"
# What is planted -> (the kind that the refusal must name, how it is planted).
PLANTS: dict[str, tuple[str, Callable[[Scene], Named]]] = {
    "a patient in train and test": ("a patient is in two splits", patient),
    "a file in train and test": ("the same image is in two splits", file),
    "equal pixels in train and val": ("copies of an image are in two splits", pixels),
    "a near-duplicate in train and test": ("copies of an image are in two splits", near_duplicate),
    "a generated file ingested as real": ("a generated image passes for a real one", generated_as_real),
    "a donor of edges from test": ("a donor is not in train", donor),
    "a donor of the mask from val": ("a donor is not in train", mask),
    "the donor's patient in test": (OF_DONOR, patient_of_donor),
    "a near-duplicate of the donor in test": (
        "a copy of a donor or of an edited image is outside train",
        copy_of_donor,
    ),
    "an edited test image": ("an edited image is not in train", edited),
    "the edited image's patient in test": (OF_DONOR, patient_of_edited),
    "a prompt from a test patient's report": (OF_REPORT, report),
    "one report behind prompts of train and test": (OF_REPORT, shared_report),
    "a plan with the prompt of a test image": (OF_PROMPT, prompt),
    "a row by hand with the prompt of a val image": (OF_PROMPT, prompt_by_hand),
    "a generator that says nothing of its training": ("the generator's training set is not known", unknown_generator),
    "a generator that saw a test image": ("the generator has seen an image outside train", generator),
    "a generator of another fold": ("the generator has seen an image outside train", fold),
    "a generator that saw a test patient": ("the generator has seen a patient outside train", patient_of_generator),
    "a generator that saw a near-duplicate": (
        "the generator has seen a copy of an image outside train",
        copy_of_generator,
    ),
}


def clean(folder: Path) -> tuple[Workspace, Path]:
    """A workspace and a run in `folder` that leak nothing."""
    from tigergen.augment.plan import make_plan
    from tigergen.augment.run import augment

    ws = make_workspace(folder / "ws", COUNTS)
    # Few donors a row: some training images lend nothing, and leaks that are not of donors can be planted with them.
    plan = make_plan(ws, "FTC", 6, seed=1, rare_below=10, donors=1, donor_labels=["benign"])
    augment(ws, plan, model_stub(folder), folder / "run", pipe=FakePipe())
    scene = Scene(ws, folder / "run")
    enter_model(ws, scene.model)
    return ws, folder / "run"


def refused(ws: Workspace, run: Path, plant: Callable[[Scene], Named], folder: Path) -> tuple[Named, UserError | None]:
    """Plant a leak in copies of workspace and run and export them; returns what must be named, and the refusal."""
    shutil.copytree(ws.path, folder / "ws")
    shutil.copytree(run, folder / "run")
    scene = Scene(Workspace.open(folder / "ws"), folder / "run")
    named = plant(scene)
    try:
        export(scene.ws, folder / "set", scene.run, draft=True)
    except LeakError as error:
        return named, error
    return named, None
