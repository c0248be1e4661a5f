"""What a study asks: equal numbers, near but different pictures, the same picture for everybody, nothing that tells."""

import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kb
from kb import store
from kb.errors import UserError
from tests.tigergen.study.conftest import ASKED, make_run
from tigerdata.images.duplicates import perceptual_hash
from tigerdata.workspace import Workspace
from tigergen.study.folder import Item, Study, Word, read
from tigergen.study.new import new
from tigergen.study.pool import Candidate, pool, shown
from tigergen.study.questions import Neighbours, choose_features, contradictions, truth
from tigergen.study.words import _table, word


def targets(study: Study, task: str) -> list[Item]:
    return [study.items[q.items[q.right]] for q in study.questions.values() if q.task == task]


def test_numbers_are_equal_by_class_and_source(study: Study) -> None:
    for task, n in ASKED.items():
        counts = Counter((item.source, item.label) for item in targets(study, task))
        assert counts == {(s, c): n // 4 for s in ("real", "augmented") for c in ("benign", "FTC")}, task
    told = {item.item for item in targets(study, "match")}
    assert not told & {item.item for item in targets(study, "mark")}, "who read a picture's text cannot mark it blindly"


def test_one_picture_a_patient_while_there_are_others(study: Study, ws: Workspace) -> None:
    patients = dict(ws.cases("test")[["image_id", "patient_id"]].itertuples(index=False))
    shown_of = Counter(patients[item.origin] for item in targets(study, "source") if item.source == "real")
    assert max(shown_of.values()) == 1


def test_wrong_pictures_are_near_of_the_same_source_and_contradict_the_text(study: Study) -> None:
    for question in (q for q in study.questions.values() if q.task == "match"):
        four = [study.items[item] for item in question.items]
        right = four[question.right]
        assert len({item.item for item in four}) == 4 and {item.source for item in four} == {right.source}
        assert {(w.attribute, w.value) for w in question.words} == {(a, v) for a in right.attributes for v in
                                                                    right.attributes[a]}  # fmt: skip
        assert all(contradictions(right, other) >= 2 for other in four if other is not right)
        assert not {"nodule_location", "sonogram_direction", "diameter"} & {w.attribute for w in question.words}


def test_the_nearest_are_chosen_and_copies_are_not(ws: Workspace, tmp_path: Path) -> None:
    """Against a search by hand: Hamming distances one by one; a mirrored copy is the nearest and must not be shown."""
    made = pool(ws, {"run": make_run(tmp_path / "run", copy_of=0)}, "test", None, 0)
    near = Neighbours(made)
    target = next(c for c in made if c.item.origin == "FTC/0.png")
    copy = next(c for c in made if c.item.origin == "FTC/1.png")
    copy.item.attributes.clear()
    copy.item.attributes.update({a: ["other"] for a in target.item.attributes})
    found = near.beside(target, 3)
    assert copy not in found

    def distance(c: Candidate) -> int:
        return (perceptual_hash(c.pixels) ^ perceptual_hash(target.pixels)).bit_count()

    fit = [c for c in made if c.item.source == "run" and c.group != target.group and c is not copy
           and contradictions(target.item, c.item) >= 2]  # fmt: skip
    assert sorted(map(distance, found)) == sorted(map(distance, fit))[:3]


def test_pictures_leave_no_trace_of_their_source(study: Study, run: Path) -> None:
    sizes = set()
    for item in study.items.values():
        content = study.picture(item.item).read_bytes()
        sizes.add(len(content))
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (512, 512) and image.mode == "L" and not image.info and not image.getexif()
        assert b"Tiger" not in content and b"tEXt" not in content and b"iTXt" not in content
    assert len(sizes) == 1, "the number of bytes would tell smooth pictures from others"
    assert b"TigerSynthetic" in (run / "FTC" / "0.png").read_bytes()
    flat, noise = np.zeros((64, 64), np.uint8), np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    assert len(shown(flat)) == len(shown(noise))


def test_readers_have_their_own_order_and_addresses_of_the_same_questions(study: Study) -> None:
    a, b = study.readers
    assert (a.reader, a.level, b.reader, b.level) == ("J1", "junior", "S1", "senior") and a.token != b.token
    assert [t.question for t in a.trials] != [t.question for t in b.trials]
    assert {t.question for t in a.trials} == {t.question for t in b.trials} == set(study.questions)
    tasks = [study.questions[t.question].task for t in a.trials]
    assert tasks == sorted(tasks, key=["source", "match", "mark"].index), "no text is read before the first task"
    addresses = [address for r in study.readers for t in r.trials for address in (t.trial, *t.pictures)]
    assert len(set(addresses)) == len(addresses) and not set(addresses) & set(study.items)
    for trial in a.trials:
        assert sorted(trial.pictures.values()) == sorted(study.questions[trial.question].items)


def test_repeats_come_late_and_from_both_sources(study: Study) -> None:
    for reader in study.readers:
        block = [t for t in reader.trials if study.questions[t.question].task == "source"]
        again = [t for t in block if t.repeat]
        assert len(again) == 3 and len(block) == 15
        sources = Counter(study.items[study.questions[t.question].items[0]].source for t in again)
        assert set(sources) == {"real", "augmented"}
        for trial in again:
            first = next(k for k, t in enumerate(block) if t.question == trial.question)
            assert not block[first].repeat and block.index(trial) - first > 6


def test_the_seed_draws_the_same_study_under_other_addresses(ws: Workspace, run: Path, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        new(ws, tmp_path / name, [run], counts=ASKED, seed=seed)
        made.append(read(tmp_path / name))
    orders = [
        [[study.items[study.questions[t.question].items[0]].origin for t in r.trials] for r in study.readers]
        for study in made
    ]
    assert orders[0] == orders[1] != orders[2]
    assert made[0].readers[0].token != made[1].readers[0].token and not set(made[0].items) & set(made[1].items)
    assert os.stat(tmp_path / "a" / "key.json").st_mode & 0o077 == 0
    assert os.stat(tmp_path / "a").st_mode & 0o077 == 0


def test_features_are_those_that_texts_affirm_and_deny() -> None:
    base = kb.load("thyroid")
    said = [{"margin": ["clear"], "shape": ["regular"]}, {"margin": ["unclear"]}, {"margin": ["unclear"]}, {}]
    items = [Item(str(k), "real", "x", "", row) for k, row in enumerate(said)]
    chosen = choose_features(base, items)
    assert [f.value for f in chosen] == ["clear", "unclear"], "nobody denies a regular shape"
    assert [truth(item, chosen[0]) for item in items] == [True, False, False, None]


def test_chinese_words_are_those_of_reports() -> None:
    """Each line of the table names a value of the vocabulary by a surface form that the parser reads as this value."""
    base = kb.load("thyroid")
    without = {("calcification", "absent"), ("halo", "absent")}
    for attribute, values in _table().items():
        for value, text in values.items():
            surfaces = base.attributes[attribute].values[value].surfaces("zh")
            assert (attribute, value) in without or any(s in text for s in surfaces), f"{attribute} {value}: {text}"
    words = [word(base, a, v) for a, m in base.attributes.items() if m.scope == "fg" and not m.unit for v in m.values]
    assert len({w.zh for w in words}) == len(words) == len({w.en for w in words})
    breast = kb.load("breast")
    some = [
        word(breast, a, v) for a, m in breast.attributes.items() if m.scope == "fg" and not m.unit for v in m.values
    ]
    assert all(isinstance(w, Word) and w.zh for w in some)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"counts": {"source": 3}}, "3 pictures are too few for equal numbers"),
        ({"counts": {}}, "a study without tasks"),
        ({"readers": {"junior": 0}}, "a study without readers"),
        ({"classes": ["MTC"]}, "class MTC has no image in split 'test'"),
        ({"features": ["margin=wild"]}, "--feature 'margin=wild' is no attribute=value"),
        ({"repeats": 0.9}, "--repeats 0.9"),
        ({"split": "val"}, "no cases in split 'val'"),
    ],
)
def test_what_cannot_be_asked_is_said(given: dict, sentence: str, ws: Workspace, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        new(ws, tmp_path / "x", [run], **({"counts": ASKED} | given))
    assert not list(tmp_path.iterdir()), "nothing half made is left behind"


def test_folders_that_are_no_run_or_hold_a_study(ws: Workspace, run: Path, study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no finished run"):
        new(ws, tmp_path / "x", [tmp_path / "empty"])
    with pytest.raises(UserError, match="exists; a study is never changed"):
        new(ws, study.path, [run])
    with pytest.raises(UserError, match="is no reader study"):
        read(tmp_path / "empty")


def test_real_images_that_the_generator_saw_are_refused(ws: Workspace, tmp_path: Path) -> None:
    seen = [*ws.cases("train")["image_id"], ws.cases("test")["image_id"][0]]
    with ws.connect() as con:
        row = {"model_id": "leaky", "kind": "fine", "path": "m", "trained_on": json.dumps(seen)}
        store.insert(con, "models", pd.DataFrame([row]), replace=True)
    with pytest.raises(UserError, match="was trained on 1 of these real images"):
        new(ws, tmp_path / "x", [make_run(tmp_path / "run", model="leaky")], counts=ASKED)


def test_several_generators_share_the_first_task_with_as_many_real_images(
    ws: Workspace, run: Path, tmp_path: Path
) -> None:
    other = make_run(tmp_path / "augmented")
    facts = new(ws, tmp_path / "x", [run, other], counts={"source": 16}, classes=["FTC"])
    counts = Counter(item.source for item in targets(read(tmp_path / "x"), "source"))
    assert counts == {"real": 8, "augmented": 4, "augmented-2": 4}
    assert any("what its generator was trained on" in note for note in facts["notes"])
