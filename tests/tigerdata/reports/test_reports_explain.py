"""An explained report: marks at their characters, nodules as prompts, nothing of the report obeyed by a browser."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import kb
from kb.errors import UserError
from tigerdata.reports.explain import attributes_of, explain, load_report, visible
from tigerdata.reports.explain_views import hue, to_html, to_terminal
from tigerdata.reports.ingest import ingest_reports
from tigerdata.reports.parser import parse
from tigerdata.workspace import Workspace

TEXT = (
    "超声所见：甲状腺右叶大小约48×16×15mm。右叶中部见一低回声结节，大小约12×8×7mm，实性，边界不清，伴爆米花征。"
    "左叶下极见一囊实混合回声结节，大小约22×15mm，未见粗大钙化，未见声晕，可疑侵犯包膜。"
    "颈部未见明显肿大淋巴结。超声提示：右叶结节，C-TIRADS 4C类。"
)
EVIL = '左叶见一低回声结节，<script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;" onmouseover="x，边界清。'


class Tags(HTMLParser):
    """Names of all elements and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def tags(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    return parser


def test_every_mark_covers_the_characters_that_the_parser_named() -> None:
    found = explain(TEXT)
    evidence = [(row["start"], row["end"]) for row in parse(TEXT)["evidence"]]
    assert sorted((mark.start, mark.end) for mark in [*found.marks, *found.other]) == sorted(evidence)
    assert "".join(piece for piece, _, _ in found.pieces()) == TEXT
    at = {TEXT[m.start : m.end]: m for m in found.marks}
    assert (at["低回声"].attribute, at["低回声"].nodule, at["低回声"].side) == ("echogenicity", 1, "fg")
    assert (at["右叶"].attribute, at["右叶"].value, at["右叶"].side) == ("nodule_location", "right", "bg")
    assert [TEXT[a:b] for a, b, _ in found.unread] == ["爆米花征"]


def test_denials_and_doubt_are_told_apart() -> None:
    found = explain(TEXT)
    at = {TEXT[m.start : m.end]: m for m in found.marks}
    assert (at["粗大钙化"].attribute, at["粗大钙化"].denied) == ("calcification", True)
    assert (at["声晕"].attribute, at["声晕"].value, at["声晕"].denied) == ("halo", "absent", True)
    assert any(m.certainty == "uncertain" and m.attribute == "extension" for m in found.marks)
    assert not at["低回声"].denied


def test_each_value_of_a_nodule_is_in_one_prompt_and_in_one_only() -> None:
    base, found = kb.load("thyroid"), explain(TEXT, target="FTC")
    for nodule, entry in zip(parse(TEXT)["nodules"], found.nodules, strict=True):
        attributes = attributes_of(nodule, base)
        expected = {base.phrase(name, value) for name, values in attributes.items() for value in values}
        fg, bg = {phrase for phrase, _ in entry.fg}, set(entry.bg)
        assert fg | bg == expected and not fg & bg
    assert dict(found.nodules[0].fg)["solid"] == "joint"
    assert found.nodules[0].bg == ["right lobe", "middle pole"]
    assert (found.nodules[0].size, found.nodules[0].tirads) == ("12 × 8 × 7 mm", "C-TIRADS 4C")
    assert found.nodules[1].negated == ["macrocalcification"]


@pytest.mark.parametrize("text", [EVIL, EVIL + TEXT, "</div></body>" + TEXT, "{{ 7*7 }}{% raw %}" + TEXT])
def test_nothing_in_a_report_becomes_mark_up(text: str) -> None:
    page = to_html(explain(text, name="<script>name</script>"))
    found = tags(page)
    assert not {"script", "img", "b", "iframe", "link", "object"} & set(found.tags)
    assert not [name for name in found.attributes if name.startswith("on")]
    assert (
        visible(text) in re.sub(r"(?<=\S)\d(?=<)", "", found.text)
        or "".join(piece for piece, *_ in explain(text).pieces()) == text
    )
    assert "default-src 'none'" in page and "49" not in tags(page).text.split("explained")[0]


def test_the_page_is_one_offline_file_for_light_dark_and_paper() -> None:
    page = to_html(explain(TEXT))
    assert "http:" not in page and "https:" not in page and "url(" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    assert page.count('<section class="card">') == 2
    for word in ("denied", "doubtful", "unread", "爆米花征"):
        assert word in page


def test_the_terminal_shows_the_same_and_obeys_no_control_characters() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO(), color_system="truecolor")
    for part in to_terminal(explain("左叶见一低回声结节，\x1b[31m[bold]红[/bold]\x07，边界清。" + TEXT)):
        console.print(part)
    shown = console.export_text(styles=False)
    assert "\x1b" not in shown and "\x07" not in shown
    assert "[bold]红[/bold]" in shown and "hypoechoic" in shown and "爆米花征" in shown
    assert visible("a\x1b[1m\r\nb\x7f") == "a␛[1m\nb␡"


def test_colours_of_neighbouring_attributes_differ() -> None:
    hues = [hue(k) for k in range(14)]
    gaps = [min(abs(a - b), 360 - abs(a - b)) for k, a in enumerate(hues) for b in hues[:k]]
    assert min(gaps) >= 8


def test_a_report_comes_from_a_file_a_pipe_or_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    ws = Workspace.create(tmp_path / "ws")
    (tmp_path / "a.csv").write_text(f"report_id,text\nR-17,{TEXT}\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "a.csv")
    with ws.connect(read_only=True) as con:
        stored, text = con.execute("SELECT report_id, text FROM reports").fetchall()[0]
    assert stored != "R-17"
    assert load_report(stored, ws)[1] == load_report("R-17", ws)[1] == text
    (tmp_path / "gbk.txt").write_bytes(TEXT.encode("gb18030"))
    assert load_report(str(tmp_path / "gbk.txt"), None) == ("gbk.txt", TEXT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert load_report("-", None)[1] == TEXT
    with pytest.raises(UserError, match="neither a file nor a report 'R-18'"):
        load_report("R-18", ws)
    with pytest.raises(UserError, match="no file R-17 and no workspace"):
        load_report("R-17", None)


def test_an_export_without_report_ids_is_asked_by_examination(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")
    rows = ["E-1,P-1,左叶见低回声结节", "E-2,P-1,右叶见囊肿", "E-2,P-2,左叶见囊肿"]
    (tmp_path / "a.csv").write_text("\n".join(["检查号,病人编号,检查所见", *rows]), encoding="utf-8")
    ingest_reports(ws, tmp_path / "a.csv")
    assert load_report("E-1", ws)[1].endswith("左叶见低回声结节")
    with pytest.raises(UserError, match="examination 'E-2' has 2 reports"):
        load_report("E-2", ws)


def test_roles_are_shown_for_known_classes_only() -> None:
    assert explain(TEXT, target="FTC").target == "FTC"
    with pytest.raises(UserError, match="no subtype 'XYZ'"):
        explain(TEXT, target="XYZ")


def test_an_empty_report_can_be_explained() -> None:
    assert explain("").pieces() == []
    assert "0 nodules" in to_html(explain(""))
