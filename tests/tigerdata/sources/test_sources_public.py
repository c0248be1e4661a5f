"""Readers of public sets on generated samples of their layouts, and on the real files where they are there."""

import json
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest

import kb
from kb.errors import UserError
from tigerdata import sources
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts
from tigerdata.regions import masks
from tigerdata.regions.outlines import fill
from tigerdata.sources import breast, busi, ddti, tiger_release, vindr_pcxr
from tigerdata.sources.records import ImageRecord
from tigerdata.workspace import Workspace


def speckle(path: Path, shape: tuple[int, int], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(30, 220, shape, dtype=np.uint8)
    cv2.imwrite(str(path), noise)


def disc(path: Path, shape: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = cv2.circle(np.zeros(shape, np.uint8), centre, radius, 255, -1)
    cv2.imwrite(str(path), mask)
    return mask > 0


def said(record: ImageRecord) -> set[tuple[str, str]]:
    return {(d.attribute, d.value) for d in record.descriptors}


def workspace(folder: Path, organ: str) -> Workspace:
    return Workspace.create(folder, domain=organ, settings={"privacy": {"ids": "kept"}})


def findings(ws: Workspace) -> list[tuple]:
    with ws.connect(read_only=True) as con:
        return con.execute(
            "SELECT path, attribute, value, surface, f.rule FROM findings f JOIN nodules USING (nodule_id) "
            "JOIN images USING (image_id) ORDER BY ALL"
        ).fetchall()


@pytest.mark.parametrize(
    ("source", "words", "organ"),
    [
        ("ddti", ddti.VOCABULARY, "thyroid"), ("breast", breast.VOCABULARY, "breast"),
        ("tiger-release", tiger_release.BARE, "thyroid"), ("vindr-pcxr", vindr_pcxr.VOCABULARY, "chest"),
    ],
)  # fmt: skip
def test_every_word_of_a_set_stands_for_a_value_of_its_organ(source: str, words: dict, organ: str) -> None:
    sources.records.require(kb.load(organ), source, words, organ)
    other = "breast" if organ != "breast" else "thyroid"
    with pytest.raises(UserError, match=f"--domain {organ}"):
        sources.records.require(kb.load(other), source, words, organ)


def test_every_source_has_its_part_of_the_page() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "data-sources.md").read_text(encoding="utf-8")
    for name in sources.SOURCES:
        assert f"\n## {name}" in page and f"| `{name}` |" in page


def test_all_36_findings_of_vindr_pcxr_have_a_word() -> None:
    values = {value for said in vindr_pcxr.VOCABULARY["class_name"].values() for _, value in said}
    assert values == set(kb.load("chest").attributes["finding"].values) and len(values) == 36


# ---- DDTI, original layout

SQUARE = [{"x": 100, "y": 100}, {"x": 200, "y": 100}, {"x": 200, "y": 160}, {"x": 100, "y": 160}]


def write_case(folder: Path, number: int, marks: list[tuple[str, str]], **fields: str) -> None:
    known = {
        "composition": "solid", "echogenicity": "marked hypoechogenecity", "margins": "well defined smooth",
        "calcifications": "microcalcifications", "tirads": "4c", "sex": "F", "age": "58", "reportbacaf": "",
    } | fields  # fmt: skip
    body = "".join(f"<{k}>{v}</{k}>" for k, v in known.items())
    body += "".join(f"<mark><image>{n}</image><svg>{svg}</svg></mark>" for n, svg in marks)
    (folder / f"{number}.xml").write_text(f'<?xml version="1.0"?><case><number>{number}</number>{body}</case>')


def svg(*shapes: list[dict[str, int]]) -> str:
    return json.dumps([{"points": shape, "annotation": {}, "regionType": "freehand"} for shape in shapes])


def test_ddti_in_its_original_layout(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for name in ("1_1", "1_2", "12_1", "3_1"):
        speckle(folder / f"{name}.jpg", (360, 300), seed=len(name))
    speckle(folder / "2_1.jpg", (360, 300), seed=9)
    second = [{"x": p["x"] + 60, "y": p["y"] + 100} for p in SQUARE]
    write_case(folder, 1, [("1", svg(SQUARE, second)), ("3", svg(SQUARE))])
    write_case(folder, 2, [("1", "[{oops")], composition="dense", margins="ill- defined", tirads="4d", age="x")
    write_case(folder, 12, [("1", svg(SQUARE[:2]))], echogenicity="", calcifications="non", reportbacaf="Bethesda II")
    (folder / "4.xml").write_text("<case><number>")
    (folder / "5.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><case>&a;</case>')
    result = ingest_images(ws, folder, "ddti")
    assert (result["files"], result["nodule_masks"]) == (5, 1)
    assert {name: result[name] for name in result if name.startswith(("file_", "outline_", "biopsy"))} == {
        "file_without_row": 1, "file_without_outline": 3, "outline_without_file": 1, "biopsy_text_not_read": 1,
    }  # fmt: skip
    assert result["unknown_values"] == {"composition=dense": 1, "tirads=4d": 1}
    assert sorted(r["code"] for r in result["rejected"] if "DUPLICATE" not in r["code"]) == [
        "BROKEN_OUTLINE", "BROKEN_XML", "REFUSED_XML", "UNKNOWN_VALUE:composition", "UNKNOWN_VALUE:tirads",
    ]  # fmt: skip
    rows = [(Path(path).name, *rest) for path, *rest in findings(ws)]
    assert [r[1:] for r in rows if r[0] == "1_1.jpg"] == [
        ("calcification", "microcalcification", "microcalcifications", "source:ddti"),
        ("composition", "solid", "solid", "source:ddti"),
        ("echogenicity", "markedly_hypoechoic", "marked hypoechogenecity", "source:ddti"),
        ("margin", "clear", "well defined smooth", "source:ddti"),
        ("margin", "smooth", "well defined smooth", "source:ddti"),
        ("tirads", "4C", "4c", "source:ddti"),
    ]
    assert [r[1:3] for r in rows if r[0] == "2_1.jpg"] == [
        ("calcification", "microcalcification"), ("echogenicity", "markedly_hypoechoic"), ("margin", "unclear"),
    ]  # fmt: skip
    with ws.connect(read_only=True) as con:
        (image_id, path, left, top), *_ = con.execute(
            "SELECT image_id, r.path, crop_left, crop_top FROM regions r JOIN cleaning USING (image_id)"
        ).fetchall()
        patients = con.execute("SELECT DISTINCT patient_id FROM images WHERE path LIKE '%/1_%' ORDER BY 1").fetchall()
    outlines = [[(p["x"], p["y"]) for p in shape] for shape in (SQUARE, second)]
    mask = masks.load(ws, path)
    whole = fill(outlines, (360, 300))
    assert mask.sum() == whole.sum() == 2 * 100 * 60
    np.testing.assert_array_equal(mask, whole[top : top + mask.shape[0], left : left + mask.shape[1]])
    assert patients == [("ddti-1",), ("ddti-12",)]


# ---- BrEaST

HEADER = [
    "CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size", "Age",
    "Tissue_composition", "Signs", "Symptoms", "Shape", "Margin", "Echogenicity", "Posterior_features", "Halo",
    "Calcifications", "Skin_thickening", "Interpretation", "BIRADS", "Verification", "Diagnosis", "Classification",
]  # fmt: skip


def breast_row(number: int, **cells: object) -> list[object]:
    row = dict.fromkeys(HEADER, "not available") | {
        "CaseID": number, "Image_filename": f"case{number:03d}.png", "Mask_tumor_filename": f"case{number:03d}_t.png",
        "Mask_other_filename": None, "Age": 57, "Tissue_composition": "homogeneous: fat", "Shape": "irregular",
        "Margin": "not circumscribed - spiculated&indistinct", "Echogenicity": "hypoechoic",
        "Posterior_features": "shadowing", "Halo": "yes", "Calcifications": "in a mass", "Skin_thickening": "yes",
        "BIRADS": "4c", "Verification": "confirmed by biopsy", "Classification": "malignant",
        "Diagnosis": "Invasive carcinoma of no special type (NST)&Ductal carcinoma in situ (DCIS)",
    } | cells  # fmt: skip
    return [row[name] for name in HEADER]


def write_breast(folder: Path, rows: list[list[object]]) -> Path:
    folder.mkdir()
    book = openpyxl.Workbook()
    for row in (HEADER, *rows):
        book.active.append(row)
    book.save(folder / "BrEaST-sample.xlsx")
    return folder


def test_breast_words_histology_and_rows_without_an_image(tmp_path: Path) -> None:
    folder = write_breast(
        tmp_path / "b",
        [
            breast_row(1),
            breast_row(
                2, Margin="not circumscribed", Diagnosis="not applicable", Verification="confirmed by follow-up care",
                Classification="benign", Halo="no", Calcifications="indefinable", Skin_thickening="no", BIRADS=2,
                Tissue_composition="lactating&heterogeneous: predominantly fat", Mask_other_filename="case002_o.png",
            ),
            breast_row(3),
            breast_row(4, Diagnosis="Phyllodes tumor", Classification="benign"),
        ],
    )  # fmt: skip
    for number in (1, 2, 4):
        speckle(folder / f"case{number:03d}.png", (50, 60), seed=number)
        disc(folder / f"case{number:03d}_t.png", (50, 60), (30, 25), 10)
    ws = workspace(tmp_path / "ws", "breast")
    result = ingest_images(ws, folder, "breast")
    assert (result["images"], result["nodule_masks"], result["row_without_file"], result["pathology"]) == (3, 3, 1, 2)
    assert result["unknown_values"] == {"Calcifications=indefinable": 1, "Tissue_composition=lactating": 1}
    assert result["other_lesion_masks_left"] == 1
    rows = {(Path(path).name, a, v) for path, a, v, _, rule in findings(ws) if rule == "source:breast"}
    assert {r[1:] for r in rows if r[0] == "case001.png"} == {
        ("shape", "irregular"), ("margin", "spiculated"), ("margin", "indistinct"), ("echogenicity", "hypoechoic"),
        ("posterior", "shadowing"), ("halo", "present"), ("calcification", "in_mass"),
        ("associated", "skin_thickening"), ("tissue", "homogeneous_fat"), ("tirads", "BI-RADS 4C"),
    }  # fmt: skip
    second = {r[1:] for r in rows if r[0] == "case002.png"}
    assert {("margin", "not_circumscribed"), ("halo", "absent"), ("tissue", "heterogeneous")} <= second
    assert not {a for a, _ in second} & {"calcification", "associated"}
    build_prompts(ws)
    with ws.connect(read_only=True) as con:
        labels = dict(con.execute("SELECT patient_id, p.label FROM prompts p JOIN images USING (image_id)").fetchall())
        pathology = con.execute("SELECT patient_id, subtype, rule, surface FROM pathology ORDER BY 1").fetchall()
    # Histology names the class where it can; the phyllodes tumour is neither, so the set's own word stands.
    assert labels == {"breast-1": "IDC", "breast-2": "benign", "breast-4": "benign"}
    assert pathology == [
        ("breast-1", "IDC", "source:breast", "Invasive carcinoma of no special type"),
        ("breast-4", "indeterminate", "source:breast", "Phyllodes"),
    ]
    again = ingest_images(ws, folder, "breast")
    with ws.connect(read_only=True) as con:
        assert again["new"] == 0 and con.execute("SELECT count(*) FROM pathology").fetchone() == (2,)


def test_breast_needs_its_workbook_and_its_organ(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 workbooks"):
        breast.read(tmp_path, kb.load("breast"), {})
    with pytest.raises(UserError, match="--domain breast"):
        ingest_images(ws, write_breast(tmp_path / "b", [breast_row(1)]), "breast")


# ---- BUSI


def test_busi_unites_masks_and_leaves_those_of_normal_images(tmp_path: Path) -> None:
    root = tmp_path / "Dataset_BUSI_with_GT"
    for number, (label, n) in enumerate(
        (("benign", 1), ("benign", 2), ("benign", 10), ("malignant", 1), ("normal", 1))
    ):
        speckle(root / label / f"{label} ({n}).png", (50, 60), seed=number)
    one = disc(root / "benign" / "benign (1)_mask.png", (50, 60), (15, 25), 8)
    two = disc(root / "benign" / "benign (1)_mask_1.png", (50, 60), (45, 25), 6)
    disc(root / "malignant" / "malignant (1)_mask.png", (50, 60), (30, 25), 9)
    disc(root / "malignant" / "malignant (9)_mask.png", (50, 60), (30, 25), 9)
    disc(root / "benign" / "benign (2)_mask.png", (20, 20), (10, 10), 5)
    cv2.imwrite(str(root / "normal" / "normal (1)_mask.png"), np.zeros((50, 60), np.uint8))
    speckle(root / "normal" / "copy of normal (1).png", (50, 60))
    ws = workspace(tmp_path / "ws", "breast")
    result = ingest_images(ws, tmp_path, "busi")
    assert (result["images"], result["nodule_masks"], result["several_masks"]) == (5, 2, 1)
    assert (result["mask_without_image"], result["other_file"], result["image_without_mask"]) == (1, 1, 1)
    assert result["rejected_by_code"] == {"NODULE_MASK:MASK_SIZE": 1} and result["image_without_patient"] == 5
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            "SELECT i.path, label, r.path FROM images i LEFT JOIN regions r USING (image_id) ORDER BY 1"
        ).fetchall()
    by_name = {Path(path).name: (label, region) for path, label, region in rows}
    np.testing.assert_array_equal(masks.load(ws, by_name["benign (1).png"][1]), one | two)
    assert {name: label for name, (label, _) in by_name.items()} == {
        "benign (1).png": "benign", "benign (2).png": "benign", "benign (10).png": "benign",
        "malignant (1).png": "malignant", "normal (1).png": "normal",
    }  # fmt: skip
    assert [r.file for r in busi.read(root, kb.load("breast"), {}).records][:3] == [
        "benign/benign (1).png", "benign/benign (2).png", "benign/benign (10).png",
    ]  # fmt: skip
    with pytest.raises(UserError, match="Dataset_BUSI_with_GT"):
        busi.read(root / "benign", kb.load("breast"), {})


# ---- the Tiger paper's release


def test_prompts_of_the_release_become_findings(tmp_path: Path) -> None:
    rows = [
        {"file_name": "1.png", "text_nd": "malignant, papillary nodule, taller-than-wide, hypoechoic, unclear, large",
         "text_bg": "sonogram longitudinal plane, less definition, bright"},
        {"file_name": "2.jpg", "text_nd": "follicular, irregular, wobbly, no halo",
         "text_bg": "sonogram transverse left"},
        {"file_name": "gone.png", "text_nd": "benign, cystic", "text_bg": ""},
    ]  # fmt: skip
    for number, name in enumerate(("1.png", "2.jpg")):
        speckle(tmp_path / "init_image" / name, (50, 60), seed=number)
    disc(tmp_path / "condition_FG" / "1.png", (50, 60), (30, 25), 9)
    speckle(tmp_path / "condition_BG" / "1.png", (50, 60))
    (tmp_path / "init_image" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = kb.load("thyroid")
    for place in (tmp_path, tmp_path / "init_image"):
        found = tiger_release.read(place, base, {})
        assert [r.label for r in found.records] == ["PTC", "FTC", "benign"]
        assert [r.plane for r in found.records] == ["longitudinal", "transverse", None]
        assert found.records[0].masks == {"nodule": ("condition_FG/1.png",)}
        assert said(found.records[0]) == {
            ("aspect", "taller_than_wide"), ("echogenicity", "hypoechoic"), ("margin", "unclear"),
            ("diameter", "large"),
        }  # fmt: skip
        assert {("shape", "irregular"), ("nodule_location", "left")} <= said(found.records[1])
        assert said(found.records[2]) == {("composition", "cystic")}
        assert found.unknown == {"text_nd=wobbly": 1} and found.counts["sobel_maps_left"] == 1
        assert found.counts["file_without_mask"] == 2


# ---- VinDr-PCXR


def write_vindr(folder: Path) -> Path:
    for part, images in (("train", ("a1", "b2", "c3")), ("test", ("d4",))):
        for number, image in enumerate(images):
            speckle(folder / part / f"{image}.png", (80, 60), seed=10 * len(part) + number)
    (folder / "train" / "e5.dicom").write_bytes(b"\0" * 128 + b"DICM")
    box = "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max\n"
    (folder / "annotations_train.csv").write_text(
        box + "a1,R1,Diffuse aveolar opacity,10,20,30,50\na1,R1,Cardiomegaly,5.5,40,25.5,60\n"
        "a1,R1,Cardiomegaly,6,40,26,60\n"
        "b2,R1,No finding,,,,\nc3,R2,Sunspots,1,1,9,9\nc3,R2,Edema,9,9,1,1\nc3,R2,Emphysema,x,1,2,2\n"
    )
    (folder / "annotations_test.csv").write_text(box + "d4,R1,Interstitial lung disease - ILD,1,1,20,20\n")
    head = "image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia,Other disease,Pneumonia\n"
    (folder / "image_labels_train.csv").write_text(
        head + "a1,R1,0,0,1,0,0\nb2,R1,1,0,0,0,0\nc3,R2,0,1.0,0,0,1.0\nf6,R2,0,0,0,1,0\n"
    )
    (folder / "image_labels_test.csv").write_text(head + "d4,R1,0,0,0,0,0\n")
    return folder


def test_vindr_findings_boxes_and_diseases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ws = workspace(tmp_path / "ws", "chest")
    result = ingest_images(ws, write_vindr(tmp_path / "v"), "vindr-pcxr")
    assert (result["files"], result["images"], result["nodule_masks"]) == (5, 4, 2)
    assert (result["several_diseases"], result["row_without_file"]) == (1, 1)
    assert result["unknown_values"] == {"class_name=sunspots": 1} and result["boxes_as_region"] == 4
    codes = {r["where"]: r["code"] for r in result["rejected"]}
    assert codes == {
        "annotations_train.csv:6": "UNKNOWN_VALUE:class_name", "annotations_train.csv:7": "EMPTY_BOX",
        "annotations_train.csv:8": "BROKEN_BOX", "train/e5.dicom": codes["train/e5.dicom"],
    }  # fmt: skip
    rows = {(Path(path).stem, value, surface) for path, _, value, surface, _ in findings(ws)}
    assert rows == {
        ("a1", "diffuse_alveolar_opacity", "Diffuse aveolar opacity"), ("a1", "cardiomegaly", "Cardiomegaly"),
        ("c3", "edema", "Edema"), ("c3", "emphysema", "Emphysema"),
        ("d4", "interstitial_lung_disease", "Interstitial lung disease - ILD"),
    }  # fmt: skip
    with ws.connect(read_only=True) as con:
        images = con.execute("SELECT path, label, cohort, patient_id FROM images WHERE rejected IS NULL").fetchall()
        region = con.execute(
            "SELECT r.path FROM regions r JOIN images i USING (image_id) WHERE i.path LIKE '%a1.png'"
        ).fetchone()
    assert {(Path(p).stem, label, cohort) for p, label, cohort, _ in images} == {
        ("a1", "bronchopneumonia", "train"), ("b2", "no_finding", "train"), ("c3", None, "train"), ("d4", None, "test"),
    }  # fmt: skip
    expected = np.zeros((80, 60), bool)
    expected[20:50, 10:30] = expected[40:60, 5:26] = True
    expected[40:60, 5] = True  # 5.5 covers the centre of column 5
    np.testing.assert_array_equal(masks.load(ws, region[0]), expected)
    with pytest.raises(UserError, match="image_labels_train.csv"):
        vindr_pcxr.read(tmp_path, kb.load("chest"), {})


# ---- the real files


@pytest.mark.realdata
def test_the_real_breast_cases(real_data: Path, tmp_path: Path) -> None:
    """All 96 images that are there; every descriptor counted independently in the workbook."""
    ws = workspace(tmp_path / "ws", "breast")
    result = ingest_images(ws, real_data / "breast", "breast")
    assert (result["files"], result["images"], result["nodule_masks"], result["row_without_file"]) == (96, 96, 95, 160)
    assert result["unknown_values"] == {"Tissue_composition=lactating": 3}
    (book,) = (real_data / "breast").glob("*.xlsx")
    header, *rows = openpyxl.load_workbook(book, read_only=True).worksheets[0].iter_rows(values_only=True)
    here = [r for r in (dict(zip(header, row, strict=False)) for row in rows)
            if r["Image_filename"] and (book.parent / r["Image_filename"]).exists()]  # fmt: skip
    got = [(attribute, value) for _, attribute, value, _, _ in findings(ws)]
    for word in ("spiculated", "angular", "microlobulated", "indistinct"):
        assert got.count(("margin", word)) == sum(word in r["Margin"] for r in here)
    assert got.count(("posterior", "shadowing")) == sum(r["Posterior_features"] == "shadowing" for r in here)
    assert got.count(("halo", "present")) == sum(r["Halo"] == "yes" for r in here)
    made = build_prompts(ws)
    assert made["prompts"] + made["pathology_outside_classes"] == 96


@pytest.mark.realdata
def test_the_real_release(ws: Workspace, real_data: Path) -> None:
    result = ingest_images(ws, real_data / "tiger_release", "tiger-release")
    assert (result["images"], result["nodule_masks"], result["sobel_maps_left"]) == (7, 7, 7)
    assert "unknown_values" not in result and result["descriptors"] == 17
    # Three masks have a white strip along the upper border, which is no nodule.
    assert result["rejected_by_code"] == {"NODULE_MASK:BORDER_BAND": 3}
    with ws.connect(read_only=True) as con:
        assert not any("several_parts" in flags for (flags,) in con.execute("SELECT flags FROM regions").fetchall())
    made = build_prompts(ws)
    assert made["prompts"] == 7 and made["contradiction_left_out"] == 1  # one prompt says irregular and regular
