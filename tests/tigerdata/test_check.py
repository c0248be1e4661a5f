"""Checks: each planted fault is flagged by its own check and the clean frames are not; the gallery shows it all."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from kb.errors import UserError
from tigerdata import page
from tigerdata.check import CHECKS, check
from tigerdata.commands import data_app
from tigerdata.images import scores
from tigerdata.images.ingest import ingest_images
from tigerdata.phantom.render import render
from tigerdata.prompts import build_prompts
from tigerdata.splits import split
from tigerdata.view import view
from tigerdata.workspace import Workspace

RNG = np.random.default_rng(3)
FRAMES = [render({}, ("transverse", "longitudinal")[k % 2], "left", RNG, 192) for k in range(21)]


@pytest.fixture
def study(ws: Workspace, tmp_path: Path) -> Workspace:
    """Eleven patients of class benign with a sound frame each, and one planted fault a check beside them."""
    root = tmp_path / "set"
    root.mkdir()
    lines = ["file,mask_file,patient_id,label,plane,aspect"]

    def add(name: str, frame: np.ndarray, mask: np.ndarray, label: str = "benign", aspect: str = "") -> None:
        cv2.imwrite(str(root / f"{name}.png"), frame)
        cv2.imwrite(str(root / f"{name}.mask.png"), mask.astype(np.uint8) * 255)
        lines.append(f"{name}.png,{name}.mask.png,P-{name},{label},transverse,{aspect}")

    for k in range(11):
        add(f"sound{k:02d}", FRAMES[k].image, FRAMES[k].mask)
    # Each fault has a frame of its own, or they were copies of each other.
    others = ((frame.image, frame.mask) for frame in FRAMES[11:])
    image, mask = next(others)
    add("blur", cv2.GaussianBlur(image, (0, 0), 2), mask)
    image, mask = next(others)
    add("dark", image // 5, mask)
    image, mask = next(others)
    add("low_information", np.where(image > 96, 140, 60).astype(np.uint8), mask)
    image, mask = next(others)
    add("odd_size", cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), cv2.resize(mask * 1.0, (64, 64)) > 0.5)
    image, mask = next(others)
    cut = image.copy()
    cut[150:] = 128
    add("truncated", cut, mask)
    image, mask = next(others)
    add("few_patients", image, mask, "FTC")
    image, mask = next(others)
    speck = np.zeros_like(mask)
    speck[100:104, 100:104] = True
    add("mask", image, speck)
    image, mask = next(others)
    wide = np.zeros_like(mask)
    wide[90:110, 60:130] = True
    add("disagreement", image, wide, aspect="taller_than_wide")
    (root / "images.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ingest_images(ws, root)
    image, mask = next(others)
    # The same pixels in another format are another file.
    cv2.imwrite(str(root / "copy.bmp"), image)
    cv2.imwrite(str(root / "original.png"), image)
    (root / "images.csv").write_text(
        "file,patient_id,label\ncopy.bmp,P-duplicate,benign\noriginal.png,P-duplicate,benign\n", encoding="utf-8"
    )
    ingest_images(ws, root)
    # Cleaning takes writing away; a set that was taken in without it may have some.
    image, mask = next(others)
    lettered = np.zeros((260, 192), np.uint8)
    lettered[:192] = image
    cv2.putText(lettered, "LOGIQ E9 31.12", (5, 240), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 230, 1)
    cv2.imwrite(str(root / "text.png"), lettered)
    cv2.imwrite(str(root / "text.mask.png"), np.pad(mask, ((0, 68), (0, 0))).astype(np.uint8) * 255)
    (root / "images.csv").write_text(
        "file,mask_file,patient_id,label,plane\ntext.png,text.mask.png,P-text,benign,transverse\n", encoding="utf-8"
    )
    raw = {**ws.settings, "images": {**ws.settings["images"], "clean": False}}
    ingest_images(Workspace(ws.path, raw), root)
    build_prompts(ws)
    return ws


def flags_of(ws: Workspace) -> dict[str, set[str]]:
    """The flags of the images of each patient, as the table `checks` has them."""
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT * FROM checks").df().to_dict("records")
        who = dict(con.execute("SELECT image_id, patient_id FROM images").fetchall())
    return {who[row["image_id"]]: {name for name in CHECKS if row[f"is_{name}"] is True} for row in rows}


def test_every_planted_fault_is_flagged_by_its_own_check_and_sound_frames_are_not(study: Workspace) -> None:
    result = check(study)
    flags = flags_of(study)
    for name in CHECKS:
        assert name in flags[f"P-{name}"], name
        assert result["checks"][name]["flagged"] == (2 if name == "duplicate" else 1) + sum(
            name in found for patient, found in flags.items() if patient != f"P-{name}"
        )
    assert all(not flags[f"P-sound{k:02d}"] for k in range(11))
    assert result["images"] == len(flags) + 1 == 22 and result["flagged"] == 11
    assert result["mask_flags"]["tiny"] == 1 and "Next: tigerdata view --flag" in result["next"]
    before = flags_of(study)
    assert check(study) == result and flags_of(study) == before
    with study.connect(read_only=True) as con:
        on = con.execute("SELECT disagrees_on FROM checks WHERE is_disagreement").fetchall()
        empty = con.execute("SELECT count(*) FROM checks WHERE mask_score IS NULL").fetchall()
    assert on == [("aspect",)] and empty == [(2,)]  # no mask, no score: not flagged either


def test_a_lost_frame_is_a_truncated_one_and_the_rest_is_still_checked(small_ws: Workspace) -> None:
    with small_ws.connect(read_only=True) as con:
        image_id = con.execute("SELECT min(image_id) FROM images").fetchall()[0][0]
    small_ws.frame_path(image_id).write_bytes(b"\x89PNG")
    result = check(small_ws)
    assert result["checks"]["truncated"] | {"threshold": 0} == {
        "scored": 24, "flagged": 1, "threshold": 0, "worst": 0.0, "image": image_id,
    }  # fmt: skip
    assert result["checks"]["dark"]["scored"] == 23
    assert view(small_ws, small_ws.path / "g.html")["images"] == 24


def test_thresholds_are_settings_and_an_empty_workspace_says_what_to_do(study: Workspace, ws: Workspace) -> None:
    strict = Workspace(study.path, {**study.settings, "check": {**study.settings["check"], "dark": 1.0}})
    assert check(strict)["checks"]["dark"]["flagged"] == 22
    with pytest.raises(UserError, match="ingest images"):
        check(Workspace.create(ws.path.parent / "empty"))


def test_strict_leaves_with_code_three(small_ws: Workspace) -> None:
    words = ["check", "-w", str(small_ws.path)]
    plain = CliRunner().invoke(data_app, words)
    assert plain.exit_code == 0 and plain.stdout.strip().splitlines()[-1].startswith("Most flags:")
    done = CliRunner().invoke(data_app, [*words, "--strict", "--json"])
    assert done.exit_code == 3 and json.loads(done.stdout.splitlines()[-1])["images"] == 24


def test_scores_of_known_frames() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    assert scores.information(flat) == 0.0 and scores.sharpness(flat) == 0.0 and scores.complete(flat) == 0.0
    assert scores.light(np.zeros((64, 64), np.uint8)) == 0.0
    black = np.zeros((64, 64), np.uint8)
    black[:32] = 90
    assert scores.complete(black) == 1.0  # a black border is the display's, not a cut
    assert scores.usual_size([(100, 80)] * 9 + [(25, 80)]) == [1.0] * 9 + [0.25]


class Reader(HTMLParser):
    """What a browser would load or run, and the cards."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.cards: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.sources += [str(given[name]) for name in ("src", "href", "srcset") if given.get(name)]
        assert not [name for name in given if name.startswith("on")]
        if tag == "article":
            self.cards.append(json.loads(str(given["data-tokens"])))


def test_the_gallery_loads_nothing_escapes_everything_and_knows_its_filters(
    ws: Workspace, listed: Callable[..., Path]
) -> None:
    evil = '<script>alert(1)</script>{{7*7}}"'
    rows = [{"patient_id": f"P{k}", "label": '"<script>alert(1)</script>{{7*7}}"""' if k == 0 else "benign",
             "margin": "clear" if k % 2 else "unclear"} for k in range(14)]  # fmt: skip
    ingest_images(ws, listed(rows))
    build_prompts(ws)
    split(ws)
    check(ws)
    done = view(ws, ws.path / "out" / "gallery.html")
    text = (ws.path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert done["images"] == done["of"] == 14 and done["bytes"] == len(text.encode())
    found = Reader()
    found.feed(text)
    assert found.sources and all(source.startswith("data:image/") for source in found.sources)
    assert found.tags.count("script") == 1 and "link" not in found.tags and "iframe" not in found.tags
    assert html.escape(evil, quote=False).replace('"', "&#34;") in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy and script and "default-src 'none'" in policy.group(1)
    assert html.unescape(policy.group(1)).count(page.script_source(script.group(1))) == 1
    assert len(found.cards) == 14 and sum(f"class:{evil}" in tokens for tokens in found.cards) == 1
    assert sum("margin:clear" in tokens for tokens in found.cards) == 7
    assert {t for tokens in found.cards for t in tokens if t.startswith("split:")} == {
        "split:train", "split:val", "split:test",
    }  # fmt: skip
    assert not re.search(r"\bP\d+\b", re.sub(r"data:image/[^\"]*", "", text))  # no pseudonym of a patient


def test_a_gallery_of_a_choice(study: Workspace) -> None:
    out = study.path / "g.html"
    with pytest.raises(UserError, match="not checked yet"):
        view(study, out, flag="dark")
    check(study)
    assert view(study, out, flag="dark")["images"] == 1
    assert view(study, out, label="FTC")["of"] == 1
    part = view(study, out, limit=5)
    assert (part["images"], part["of"]) == (5, 22) and "Evenly taken from 22 images" in out.read_text(encoding="utf-8")
    for wrong, sentence in (({"flag": "ugly"}, "no check 'ugly'"), ({"limit": 0}, "shows nothing")):
        with pytest.raises(UserError, match=sentence):
            view(study, out, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="choose less narrowly"):
        view(study, out, label="MTC")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_filters_work_in_a_browser(study: Workspace, tmp_path: Path) -> None:
    """The script runs under the page's own policy, reads the filters from the address, and hides what does not fit."""
    check(study)
    view(study, tmp_path / "g.html")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, f"{(tmp_path / 'g.html').as_uri()}#0=class%3AFTC"], capture_output=True, text=True, timeout=120
    )
    assert '<output id="shown">1 of 22</output>' in done.stdout
    assert len(re.findall(r"<article [^>]*hidden", done.stdout)) == 21


def test_the_scale_of_an_image_table_lets_sizes_be_compared(ws: Workspace, listed: Callable[..., Path]) -> None:
    """Drawn nodules are 16 to 30 pixels long: a middle one at half a millimetre a pixel, no middle one at a tenth."""
    rows = [{"patient_id": f"P{k}", "label": "benign", "diameter": "middle", "mm_per_pixel": scale}
            for k, scale in enumerate(["0.5", "0.1", ""])]  # fmt: skip
    root = listed(rows)
    ingest_images(ws, root)
    build_prompts(ws)
    check(ws)
    assert {p: "disagreement" in f for p, f in flags_of(ws).items()} == {"P0": False, "P1": True, "P2": False}
    table = root / "images.csv"
    table.write_text(table.read_text().replace("0.5", "five"))
    assert ingest_images(ws, root)["unknown_values"] == {"mm_per_pixel": 1}
