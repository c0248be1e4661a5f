"""Links by file names: what matches, what is refused, and what a table has said before."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kb
from kb.errors import UserError
from tests.tigerdata.images.bad_files import texture
from tigerdata.images.frames import Refused
from tigerdata.images.ingest import ingest_images
from tigerdata.images.links import compile_pattern
from tigerdata.sources.records import ImageRecord
from tigerdata.workspace import Workspace

BASE = kb.load("thyroid")
SIMPLE = "{patient}_{exam}_{view}.png"


def linked(pattern: str, file: str, **stated: str) -> ImageRecord:
    return compile_pattern(pattern).apply(ImageRecord(file=file, where=file, **stated), BASE)


@pytest.mark.parametrize(
    "pattern, file, found",
    [
        (SIMPLE, "p1_e2_long.png", ("p1", "e2", None)),
        (SIMPLE, "sub/p1_e2_long.png", ("p1", "e2", None)),
        ("{patient}/{exam}/{n}.{kind}", "00012/7/a.jpg", ("00012", "7", None)),
        ("{label}/{patient}-{report}.png", "PTC/甲1-R9.png", ("甲1", None, "R9")),
        (r"(?P<patient>\d+)_(?P<exam>\d+).*\.png", "12_3_x_y.png", ("12", "3", None)),
    ],
)
def test_a_name_gives_its_ids(pattern: str, file: str, found: tuple) -> None:
    record = linked(pattern, file)
    assert (record.patient_id, record.exam_id, record.report_id) == found


@pytest.mark.parametrize("file", ["p1_e2.png", "p1_e2_a_b.png", "p1_e2_a.jpg", "_e2_a.png", "p1_e2_a.b.png"])
def test_a_name_that_could_be_cut_in_two_ways_or_in_none_is_refused(file: str) -> None:
    with pytest.raises(Refused, match="NAME_NOT_MATCHED"):
        linked(SIMPLE, file)


def test_a_table_comes_first_and_a_folder_of_the_pattern_is_no_class() -> None:
    assert linked(SIMPLE, "p1_e2_a.png", patient_id="T").patient_id == "T"
    assert linked("{patient}/{n}.png", "p1/a.png", label="p1").label is None
    assert linked("{label}/{patient}.png", "PTC/a.png", label="PTC").label == "PTC"
    assert linked(SIMPLE, "PTC/p1_e2_a.png", label="PTC").label == "PTC"
    assert linked("{patient}_{plane}.png", "p1_transverse.png").plane == "transverse"
    with pytest.raises(Refused, match="NAME_UNKNOWN_PLANE"):
        linked("{patient}_{plane}.png", "p1_axial.png")


@pytest.mark.parametrize(
    "pattern, said",
    [("(?P<patient>[", "no valid pattern"), ("{a}_{b}.png", "links by nothing"), ("x.png", "links by nothing"),
     ("{patient}_{patient}.png", "a name twice")],
)  # fmt: skip
def test_a_pattern_that_is_none_is_one_sentence(pattern: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compile_pattern(pattern)


def test_names_that_do_not_match_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")  # keyed: the name gives a pseudonym, the same as a report's
    root = tmp_path / "set"
    root.mkdir()
    for number, name in enumerate(("p1_e1_a.png", "p1_e2_a.png", "holiday.png", "p2_e1_b.png")):
        Image.fromarray(np.asarray(texture(number))).save(root / name)
    result = ingest_images(ws, root, "imagefolder", pattern=SIMPLE)
    assert (result["files"], result["taken"]) == (4, 3)
    assert result["rejected"] == [{"where": "holiday.png", "code": "NAME_NOT_MATCHED"}]
    from tigerdata.identity import pseudonyms

    known = pseudonyms(ws)
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT patient_id, exam_id FROM images ORDER BY path").fetchall()
    assert rows == [
        (known.of("patient", p), known.of("exam", e)) for p, e in (("p1", "e1"), ("p1", "e2"), ("p2", "e1"))
    ]
