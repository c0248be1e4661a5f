"""Two readers in a real browser, one with a finger on a phone in Chinese, one with keys alone; the server is killed."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tigergen.study.conftest import ASKED, right_answer
from tests.tigergen.study.test_study_serve import Server
from tigerdata.workspace import Workspace
from tigergen.study.folder import Reader, Study, read
from tigergen.study.new import new
from tigergen.study.score import answer_rows, score

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright (extra `dev`)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WAIT_MS = 120_000


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Nothing is downloaded: playwright drives the system's own browser over a pipe.
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=False, timeout=WAIT_MS)
        yield running
        running.close()


class Person:
    """A reader at a page: answers the key, but for the trials whose number is in `wrong`."""

    def __init__(self, browser: Any, link: str, study: Study, reader: Reader, wrong: set[int], **view: Any) -> None:
        self.context = browser.new_context(**view)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.study, self.reader, self.wrong, self.touch = study, reader, wrong, view.get("has_touch", False)
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda sent: None if sent.url.startswith("http://127.0.0.1:") else
                     self.outside.append(sent.url))  # fmt: skip
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(link)

    def begin(self) -> None:
        """Leave the page that introduces a task, if it is shown."""
        self.page.locator("#start, .picture").first.wait_for()
        if self.page.locator("#start").count():
            self.act("#start", "Enter")
        self.page.locator(".picture").first.wait_for()

    def act(self, selector: str, key: str) -> None:
        """Tap, or press the key: the two ways in."""
        if self.touch:
            self.page.locator(selector).tap()
        else:
            self.page.keyboard.press(key)

    def choose(self, k: int) -> None:
        """Give the answer to trial number `k`, without going on."""
        trial = self.reader.trials[k]
        question = self.study.questions[trial.question]
        answer = right_answer(self.study, trial)
        flip = k in self.wrong
        if question.task == "source":
            real = (answer == "real") != flip
            self.act(f"[data-value='\"{'real' if real else 'generated'}\"']", "1" if real else "2")
        elif question.task == "match":
            address = next(a for a in trial.pictures if (a == answer) != flip)
            self.act(f"[data-value='\"{address}\"']", str(list(trial.pictures).index(address) + 1))
        else:
            yes = [f for f, one in enumerate(answer) if (one == 1) != (flip and f == 0)]
            for f in yes:
                self.act(f"[data-feature='{f}'][data-value='1']", str((f + 1) % 10))
            self.act("#rest", "n")
        self.page.locator("#next:enabled").wait_for()

    def go_on(self, k: int) -> None:
        """Send the answer and wait until the next trial is there, which the server gives out when it has stored it."""
        self.act("#next", "Enter")
        self.page.locator(f'#main[data-done="{k + 1}"]').wait_for()

    def answer(self, first: int, end: int) -> None:
        for k in range(first, end):
            self.begin()
            self.choose(k)
            self.go_on(k)


def test_two_readers_and_a_killed_server(ws: Workspace, run: Path, tmp_path: Path, browser: Any) -> None:
    new(ws, tmp_path / "reading", [run], counts=ASKED | {"source": 8, "mark": 4}, repeats=0.25)
    study = read(tmp_path / "reading")
    server = Server(study)
    port, links = server.port, server.links
    wrong = {"J1": {0, 3, 4, 11, 15}, "S1": {2}}
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": "zh-CN"}
    desk = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", "locale": "en-US"}
    views = {"J1": phone, "S1": desk}
    people = {
        r.reader: Person(browser, links[r.reader], study, r, wrong[r.reader], **views[r.reader]) for r in study.readers
    }
    junior, senior = people["J1"], people["S1"]
    total = len(study.readers[0].trials)
    junior.answer(0, 5)
    senior.answer(0, 3)
    assert junior.page.locator("h1").inner_text() == "真实图像还是生成图像？"
    assert "Real or generated" in senior.page.locator("h1").inner_text()
    assert junior.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "a phone need not scroll sideways"
    )

    # The server dies while both look at a picture; one sends an answer into the void, the other reloads later.
    junior.choose(5)
    server.stop(signal.SIGKILL)
    junior.act("#next", "Enter")
    junior.page.locator("#notice:visible").wait_for()
    assert "尚未保存" in junior.page.locator("#notice").inner_text()
    server = Server(study, port)
    junior.page.locator('#main[data-done="6"]').wait_for()
    assert not junior.page.locator("#notice").is_visible()
    senior.page.reload()
    senior.answer(3, total)
    server.stop(signal.SIGKILL)
    server = Server(study, port)
    junior.page.reload()
    junior.answer(6, total)
    assert junior.page.locator("h1").inner_text() == "感谢参与"
    for person in people.values():
        assert person.outside == [] and person.errors == []
    server.stop()

    scores = score(study.path)
    assert scores["progress"] == {"J1": {"answered": total, "of": total}, "S1": {"answered": total, "of": total}}
    rows = answer_rows(study)
    assert all(row["ms"] >= 0 and row["views"] >= 1 for row in rows)
    # By hand: right answers of first showings, from the list of wrong ones alone.
    for person in study.readers:
        for task in ("source", "match"):
            of_task = [(k, t) for k, t in enumerate(person.trials) if study.questions[t.question].task == task]
            right = sum(k not in wrong[person.reader] for k, t in of_task if not t.repeat)
            (row,) = [r for r in scores["shares"] if (r["task"], r["who"], r["what"], r["measure"]) ==
                      (task, person.reader, "all", "right")]  # fmt: skip
            assert (row["right"], row["n"]) == (right, sum(not t.repeat for _, t in of_task))
        marks = [r for r in rows if r["task"] == "mark" and r["reader"] == person.reader]
        for row in marks:
            trial = person.trials[row["position"] - 1]
            flip = row["position"] - 1 in wrong[person.reader] and row["feature"] == study.features[0].en
            key = dict(zip([f.en for f in study.features], right_answer(study, trial), strict=True))
            assert (row["answer"] == "yes") == (bool(key[row["feature"]]) != flip)
