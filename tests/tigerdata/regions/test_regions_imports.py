"""Masks of other tools on images of the workspace: three formats, cut like the frames, every refusal with a code."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kb.errors import UserError
from tigerdata.images.ingest import ingest_images
from tigerdata.regions import masks
from tigerdata.regions.imports import import_masks
from tigerdata.workspace import Workspace

SHAPE = (64, 80)


@pytest.fixture
def plain(ws: Workspace, listed: Callable[..., Path]) -> Workspace:
    """Three images without masks: 000.png, 001.png, 002.png."""
    ingest_images(ws, listed([{}, {}, {}], masks=False))
    return ws


@pytest.fixture
def panels(ws: Workspace, tmp_path: Path) -> Workspace:
    """A DDTI panel of two views cut at column 250 (rows 7 to 308), without a mask, and a single view."""
    rng = np.random.default_rng(0)
    root = tmp_path / "ddti"
    root.mkdir()
    for name, spans in (("7_1", ((5, 250), (250, 496))), ("8_1", ((57, 442),))):
        frame = np.zeros((315, 500), np.uint8)
        for start, stop in spans:
            texture = cv2.GaussianBlur(rng.normal(0, 60, (301, stop - start)), (0, 0), 3) * 4
            frame[7:308, start:stop] = np.clip(90 + texture, 20, 255)
        cv2.imwrite(str(root / f"{name}.a.jpg"), frame)
    columns = "image_id,composition,echogenicity,margins,calcifications,tirads,sex,age"
    (root / "labels.csv").write_text(f"{columns}\n7_1,solid,,,,,,\n8_1,solid,,,,,,\n")
    ingest_images(ws, root, "ddti")
    return ws


def ellipse(shape: tuple[int, int], centre: tuple[int, int], axes: tuple[int, int] = (12, 8)) -> np.ndarray:
    return cv2.ellipse(np.zeros(shape, np.uint8), centre, axes, 0, 0, 360, 1, -1).astype(bool)


def write(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask.astype(np.uint8) * 255)


def regions(ws: Workspace) -> dict[tuple[str, int], tuple[np.ndarray, str, str]]:
    """(file, left edge of the frame) -> mask, kind, origin."""
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT i.path, crop_left, r.path, kind, origin
               FROM regions r JOIN images i USING (image_id) JOIN cleaning USING (image_id)"""
        ).fetchall()
    return {(Path(p).name, left): (masks.load(ws, r), kind, origin) for p, left, r, kind, origin in rows}


def codes(result: dict) -> dict[str, str]:
    return {entry["where"]: entry["code"] for entry in result["rejected"]}


def test_mask_images_by_name_and_by_image_id(plain: Workspace, tmp_path: Path) -> None:
    with plain.connect(read_only=True) as con:
        by_file = {Path(p).name: i for p, i in con.execute("SELECT path, image_id FROM images").fetchall()}
    one, two, other = ellipse(SHAPE, (30, 30)), ellipse(SHAPE, (60, 40)), ellipse(SHAPE, (40, 20))
    folder = tmp_path / "m"
    write(folder / "000_mask.png", one)
    write(folder / "000_mask_1.png", two)
    write(folder / f"{by_file['001.png']}.png", other)
    write(folder / "unknown.png", one)
    write(folder / "002-seg.png", ellipse((10, 10), (5, 5), (2, 2)))
    (folder / "002.png").write_bytes(b"not an image")
    result = import_masks(plain, folder)
    assert (result["drawings"], result["masks"], result["unmatched"], result["flagged"]) == (6, 2, 1, 1)
    assert codes(result) == {"m/002-seg.png": "MASK_SIZE", "m/002.png": "UNSUPPORTED_FORMAT"}
    found = regions(plain)
    np.testing.assert_array_equal(found["000.png", 0][0], one | two)
    np.testing.assert_array_equal(found["001.png", 0][0], other)
    assert {(kind, origin) for _, kind, origin in found.values()} == {("nodule", "import:png")}
    again = import_masks(plain, folder / "000_mask.png")
    assert (again["masks"], again["replaced"]) == (1, 1)
    np.testing.assert_array_equal(regions(plain)["000.png", 0][0], one)


def test_a_kind_is_a_region_of_its_own(plain: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "n" / "000.png", ellipse(SHAPE, (30, 30)))
    write(tmp_path / "g" / "000.png", ellipse(SHAPE, (40, 32), (30, 20)))
    import_masks(plain, tmp_path / "n")
    import_masks(plain, tmp_path / "g", kind="gland")
    with plain.connect(read_only=True) as con:
        assert con.execute("SELECT kind, origin FROM regions ORDER BY 1").fetchall() == [
            ("gland", "import:png"), ("nodule", "import:png"),
        ]  # fmt: skip


def test_masks_are_cut_like_the_frames(panels: Workspace, tmp_path: Path) -> None:
    """A mask of the panel goes to both views; the same in all three formats; pixel for pixel that of the file."""
    whole = ellipse((315, 500), (120, 150), (40, 25)) | ellipse((315, 500), (380, 160), (30, 20))
    single = ellipse((315, 500), (200, 150), (40, 25))
    write(tmp_path / "png" / "7_1.a.png", whole)
    write(tmp_path / "png" / "8_1.a_mask.png", single)
    result = import_masks(panels, tmp_path / "png")
    assert (result["masks"], result["view_without_mask"], result["rejected"]) == (3, 0, [])
    found = regions(panels)
    for (name, left), (mask, _, _) in found.items():
        source = single if name == "8_1.a.jpg" else whole
        np.testing.assert_array_equal(mask, source[7 : 7 + mask.shape[0], left : left + mask.shape[1]])
    assert sorted(found) == [("7_1.a.jpg", 5), ("7_1.a.jpg", 250), ("8_1.a.jpg", 57)]

    counts = _runs(whole)
    coco = {
        "images": [{"id": 9, "file_name": "sub/7_1.a.jpg", "height": 315, "width": 500}],
        "annotations": [{"image_id": 9, "category_id": 1, "segmentation": {"size": [315, 500], "counts": counts}}],
        "categories": [{"id": 1, "name": "nodule"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    assert import_masks(panels, tmp_path / "c.json", "coco")["replaced"] == 2
    for place, (mask, _, _) in regions(panels).items():
        np.testing.assert_array_equal(mask, found[place][0])


def _runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[False], mask.T.ravel()])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *turns, mask.size]).tolist()


def test_a_view_that_the_mask_does_not_reach_stays_without(panels: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "7_1.a.png", ellipse((315, 500), (120, 150), (40, 25)))
    result = import_masks(panels, tmp_path / "7_1.a.png")
    assert (result["masks"], result["view_without_mask"]) == (1, 1) and list(regions(panels)) == [("7_1.a.jpg", 5)]


def test_a_mask_drawn_on_the_clean_frame_is_kept_whole(panels: Workspace, tmp_path: Path) -> None:
    with panels.connect(read_only=True) as con:
        rows = con.execute(
            "SELECT image_id, height, width, crop_left, path FROM images JOIN cleaning USING (image_id)"
        ).fetchall()
    right = next(r for r in rows if r[3] == 250)
    on_frame = ellipse((right[1], right[2]), (100, 120))
    write(tmp_path / "m" / f"{right[0]}.png", on_frame)
    one = next(r for r in rows if r[3] == 57)
    on_single = ellipse((one[1], one[2]), (90, 90))
    write(tmp_path / "m" / "8_1.a.png", on_single)
    # A panel's file has two frames: of which would a mask of a frame's size be?
    write(tmp_path / "m" / "7_1.a.png", ellipse((right[1], right[2]), (100, 120)))
    result = import_masks(panels, tmp_path / "m")
    assert codes(result) == {"m/7_1.a.png": "MASK_SIZE"}
    found = regions(panels)
    np.testing.assert_array_equal(found["7_1.a.jpg", 250][0], on_frame)
    np.testing.assert_array_equal(found["8_1.a.jpg", 57][0], on_single)


def test_a_panel_of_an_older_database_is_refused(panels: Workspace, tmp_path: Path) -> None:
    with panels.connect() as con:
        con.execute("UPDATE images SET file_width = NULL, file_height = NULL; DELETE FROM cleaning")
    write(tmp_path / "7_1.a.png", ellipse((315, 500), (120, 150)))
    assert codes(import_masks(panels, tmp_path / "7_1.a.png")) == {"7_1.a.png": "FRAME_PLACE_UNKNOWN"}
    assert not regions(panels)


def test_two_files_of_one_name_are_told_apart_by_their_folders(ws: Workspace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "s" / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "s" / name), rng.integers(0, 255, SHAPE, dtype=np.uint8))
    ingest_images(ws, tmp_path / "s", "imagefolder")
    write(tmp_path / "m" / "b" / "1.png", ellipse(SHAPE, (30, 30)))
    write(tmp_path / "m" / "1.png", ellipse(SHAPE, (30, 30)))
    result = import_masks(ws, tmp_path / "m")
    assert result["masks"] == 1 and codes(result) == {"m/1.png": "AMBIGUOUS_NAME"}
    with ws.connect(read_only=True) as con:
        (path,) = con.execute("SELECT i.path FROM regions r JOIN images i USING (image_id)").fetchone()
    assert Path(path).parent.name == "b"


def test_yolo_polygons(plain: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    square = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    (folder / "000.txt").write_text(f"{square}\n\n0 0.0 0.0 0.125 0.0 0.125 0.125 0.0 0.125\n")
    (folder / "001.txt").write_text(
        "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.2\n0 10 10 20 10 20 20\n0 a b c d e f\n0 nan 0 1 0 1 1\n"
    )
    (folder / "002.txt").write_text("")
    (folder / "999.txt").write_text(square)
    (folder / "classes.txt").write_text("nodule\n")
    result = import_masks(plain, folder, "yolo")
    assert (result["drawings"], result["masks"], result["unmatched"]) == (3, 1, 1)
    assert codes(result) == {
        "001.txt:1": "BOX_NO_OUTLINE", "001.txt:2": "BROKEN_LINE", "001.txt:3": "NOT_NORMALISED",
        "001.txt:4": "BROKEN_LINE", "001.txt:5": "BROKEN_LINE",
    }  # fmt: skip
    expected = np.zeros(SHAPE, bool)
    expected[16:48, 20:60] = expected[0:8, 0:10] = True
    mask, kind, origin = regions(plain)["000.png", 0]
    np.testing.assert_array_equal(mask, expected)
    assert (kind, origin) == ("nodule", "import:yolo")


def test_several_classes_need_a_choice(plain: Workspace, tmp_path: Path) -> None:
    (tmp_path / "000.txt").write_text("0 0.2 0.2 0.4 0.2 0.4 0.4\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n")
    with pytest.raises(UserError, match=r"several classes \(0, 1\)"):
        import_masks(plain, tmp_path, "yolo")
    with pytest.raises(UserError, match="no class '7'"):
        import_masks(plain, tmp_path, "yolo", only="7")
    assert import_masks(plain, tmp_path, "yolo", kind="gland", only="1")["masks"] == 1
    assert regions(plain)["000.png", 0][0].mean() == pytest.approx(0.64, abs=0.02)
    with pytest.raises(UserError, match="no classes"):
        import_masks(plain, tmp_path, "png", only="1")


def coco(images: list[dict], annotations: list[dict], *names: str) -> str:
    categories = [{"id": k, "name": name} for k, name in enumerate(names or ("nodule",))]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def test_coco_polygons_run_lengths_and_what_is_wrong(plain: Workspace, tmp_path: Path) -> None:
    height, width = SHAPE
    size = {"height": height, "width": width}
    images = [
        {"id": "a", "file_name": "set\\000.png", **size}, {"id": 2, "file_name": "001.png", **size},
        {"id": 3, "file_name": "002.png", "height": 10, "width": 10}, {"id": 4, "file_name": "elsewhere.png", **size},
        {"id": 5, "file_name": "002.png", "height": 10**6, "width": 10**6},
    ]  # fmt: skip
    inside = ellipse(SHAPE, (40, 30))
    runs = {"size": [height, width], "counts": _runs(inside)}

    def one(image: object, segmentation: object, category: int = 0) -> dict:
        return {"image_id": image, "category_id": category, "segmentation": segmentation}

    annotations = [
        one("a", [[10, 10, 30, 10, 30, 20, 10, 20], [40, 40, 50, 40, 50, 50, 40, 50]]),
        one(2, runs),
        one(3, [[1, 1, 5, 1, 5, 5]]),
        one(4, runs),
        one(5, [[1, 1, 5, 1, 5, 5]]),
        one(2, {"size": [height, width], "counts": [1, 2]}),
        one(2, {"size": [3, 3], "counts": [9]}),
        one(2, {"size": [height, width], "counts": "\x01"}),
        one(2, [[1, 1, 5, 1]]),
        one(2, [[500, 500, 510, 500, 510, 510]]),
        one(2, "polygon"),
        one(77, runs),
        "no annotation",
        {"image_id": 2},
    ]
    (tmp_path / "c.json").write_text(coco(images, annotations))
    result = import_masks(plain, tmp_path / "c.json", "coco")
    assert (result["masks"], result["unmatched"]) == (2, 1)
    found = regions(plain)
    expected = np.zeros(SHAPE, bool)
    expected[10:20, 10:30] = expected[40:50, 40:50] = True
    np.testing.assert_array_equal(found["000.png", 0][0], expected)
    np.testing.assert_array_equal(found["001.png", 0][0], inside)
    assert {int(where.split()[-1]): code for where, code in codes(result).items()} == {
        2: "MASK_SIZE", 4: "TOO_LARGE", 5: "BROKEN_ANNOTATION", 6: "MASK_SIZE", 7: "BROKEN_ANNOTATION",
        8: "BROKEN_ANNOTATION", 9: "MASK_EMPTY", 10: "BROKEN_ANNOTATION", 11: "BROKEN_ANNOTATION",
        12: "BROKEN_ANNOTATION", 13: "BROKEN_ANNOTATION",
    }  # fmt: skip


def test_coco_categories_are_chosen_by_name(plain: Workspace, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "000.png", "height": SHAPE[0], "width": SHAPE[1]}]
    shapes = [
        {"image_id": 1, "category_id": k, "segmentation": [[0, 0, 8 * k + 8, 0, 8 * k + 8, 8, 0, 8]]} for k in (0, 1)
    ]
    (tmp_path / "c.json").write_text(coco(images, shapes, "nodule", "thyroid"))
    with pytest.raises(UserError, match="nodule, thyroid"):
        import_masks(plain, tmp_path / "c.json", "coco")
    import_masks(plain, tmp_path / "c.json", "coco", kind="gland", only="thyroid")
    mask, kind, _ = regions(plain)["000.png", 0]
    assert kind == "gland" and mask.sum() == 16 * 8


def test_nothing_to_read_is_said(plain: Workspace, ws: Workspace, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for format, said in (("png", "no mask image"), ("yolo", "no .txt"), ("coco", "no COCO file")):
        with pytest.raises(UserError, match=said):
            import_masks(plain, empty, format)
    with pytest.raises(UserError, match="does not exist"):
        import_masks(plain, tmp_path / "gone.json", "coco")
    with pytest.raises(UserError, match="png, coco, yolo"):
        import_masks(plain, empty, "voc")
    (tmp_path / "x.json").write_text("[1, 2")
    with pytest.raises(UserError, match="no COCO file"):
        import_masks(plain, tmp_path / "x.json", "coco")
    fresh = Workspace.create(tmp_path / "fresh")
    write(empty / "000.png", ellipse(SHAPE, (30, 30)))
    with pytest.raises(UserError, match="holds no images"):
        import_masks(fresh, empty)


def test_a_strip_along_a_border_is_taken_off(plain: Workspace, tmp_path: Path) -> None:
    nodule = ellipse(SHAPE, (40, 30))
    banded, only, reaching = nodule.copy(), np.zeros(SHAPE, bool), ellipse(SHAPE, (40, 6))
    banded[:2] = only[:2] = reaching[:2] = True  # a nodule that reaches into the strip cannot be told from it
    for name, mask in (("000", banded), ("001", only), ("002", reaching)):
        write(tmp_path / "m" / f"{name}.png", mask)
    result = import_masks(plain, tmp_path / "m")
    assert [(e["where"], e["code"]) for e in result["rejected"]] == [
        ("m/000.png", "BORDER_BAND"), ("m/001.png", "BORDER_BAND"), ("m/001.png", "MASK_EMPTY"),
    ]  # fmt: skip
    found = regions(plain)
    np.testing.assert_array_equal(found["000.png", 0][0], nodule)
    np.testing.assert_array_equal(found["002.png", 0][0], reaching)


def test_a_link_out_of_the_folder_is_not_followed(plain: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "outside.png", ellipse(SHAPE, (30, 30)))
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "000.png").symlink_to(tmp_path / "outside.png")
    assert codes(import_masks(plain, folder)) == {"m/000.png": "PATH_OUTSIDE_ROOT"}
