"""An explained report for the eye: one offline HTML file, or coloured text in the terminal."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

from tigerdata import page
from tigerdata.reports.explain import Explanation, Mark, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

GOLDEN = 0.381966  # hues a golden section apart stay apart, however many attributes a domain has
CERTAINTY = {"positive": "", "uncertain": " (doubtful)", "negated": " (denied)"}
TITLES = {"nodule_location": "location", "sonogram_direction": "plane", "lymph_nodes": "lymph nodes"}


def hue(position: int) -> int:
    """Hue in degrees of the attribute at a position of the vocabulary."""
    return round(360 * ((0.58 + position * GOLDEN) % 1))


def title(attribute: str) -> str:
    """An attribute as people read it."""
    return TITLES.get(attribute, attribute.replace("_", " "))


def of_no_nodule(explained: Explanation) -> list[Mark]:
    """What is said of no single nodule; a risk category that a nodule has taken is left out."""
    taken = {(mark.start, mark.end) for mark in explained.marks if mark.attribute == "tirads"}
    return [m for m in explained.other if m.attribute != "tirads" or (m.start, m.end) not in taken]


def attributes_in(explained: Explanation) -> dict[str, int]:
    """Attributes that occur, in order of their first character, with their hue."""
    marks = sorted([*explained.marks, *explained.other], key=lambda mark: mark.start)
    names = list(dict.fromkeys(mark.attribute for mark in marks))
    order = [*explained.attributes, *sorted(name for name in names if name not in explained.attributes)]
    return {name: hue(order.index(name)) for name in names}


def to_html(explained: Explanation) -> str:
    """One HTML file without scripts, fonts or links; everything from the report is escaped by the template.

    Its content policy forbids scripts and loading, so that text which slipped through could do nothing.
    """
    hues = attributes_in(explained)
    marks = [*explained.marks, *explained.other]
    facts = dict(
        e=explained,
        hues=hues,
        title=title,
        rest=[(title(m.attribute), m.value + CERTAINTY[m.certainty]) for m in of_no_nodule(explained)],
        pieces=[_piece(piece, covering, missed, hues) for piece, covering, missed in explained.pieces()],
        unread=list(dict.fromkeys(visible(surface) for _, _, surface in explained.unread)),
        several=len(explained.nodules) > 1,
        certain=sum(mark.certainty == "positive" and not mark.denied for mark in marks),
        doubtful=sum(mark.certainty == "uncertain" for mark in marks),
        denied=sum(mark.denied for mark in marks),
    )
    return page.render("tigerdata.reports", "explain.html", facts)


def _piece(piece: str, marks: list[Mark], missed: bool, hues: dict[str, int]) -> dict[str, Any]:
    """One piece of text for the template: CSS classes, colours, and what hovering says."""
    names = list(dict.fromkeys(mark.attribute for mark in marks))
    numbers = sorted({mark.nodule for mark in marks if mark.nodule})
    kinds = [f"n{number}" for number in numbers] + (["rest"] if marks and not numbers else [])
    if marks and all(mark.denied for mark in marks):
        kinds.append("negated")
    elif any(mark.certainty == "uncertain" for mark in marks):
        kinds.append("uncertain")
    says = [
        f"{f'nodule {m.nodule}: ' if m.nodule else ''}{title(m.attribute)} = {m.value}"
        f"{CERTAINTY[m.certainty]}"
        f"{f', because of “{visible(m.cue)}”' if m.cue else ''}"
        for m in marks
    ]
    return {
        "text": visible(piece),
        "classes": " ".join(kinds),
        "hues": [hues[name] for name in names[:2]],
        "says": "\n".join(dict.fromkeys(says)),
        "numbers": numbers,
        "missed": missed and not marks,
    }


def to_terminal(explained: Explanation) -> list[RenderableType]:
    """The same as Rich renderables: legend, text, a table a nodule, what is unread."""
    from rich.table import Table
    from rich.text import Text

    hues = attributes_in(explained)
    legend = Text()
    for name, degrees in hues.items():
        legend.append(f" {title(name)} ", style=_style(degrees)).append(" ")
    legend.append("denied", style="strike").append(" ").append("doubtful?", style="underline").append(" ")
    legend.append("unread", style="reverse dim")
    body = Text()
    last: list[Mark] = []
    several = len(explained.nodules) > 1
    for piece, marks, missed in explained.pieces():
        if several and set(last) - set(marks):
            body.append(_numbers([mark for mark in last if mark not in marks]), style="bold")
        style = _style(hues[marks[0].attribute]) if marks else "reverse dim" if missed else ""
        if marks and all(mark.denied for mark in marks):
            style += " strike"
        elif any(mark.certainty == "uncertain" for mark in marks):
            style += " underline"
        body.append(visible(piece), style=style)
        last = marks
    if several:
        body.append(_numbers(last), style="bold")
    shown: list[RenderableType] = [legend, Text(), body, Text()]
    for entry in explained.nodules:
        heading = Text(f"Nodule {entry.number}: {entry.place}, {entry.size}", style="bold")
        table = Table(box=None, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        phrases = [f"{phrase} ({role})" if role else phrase for phrase, role in entry.fg]
        rows = [("foreground", ", ".join(phrases)), ("background", ", ".join(entry.bg))]
        rows += [("denied", ", ".join(entry.negated)), ("doubtful", ", ".join(entry.uncertain))]
        for label, words in [*rows, ("category", entry.tirads)]:
            if words:
                table.add_row(Text(label), Text(words))
        shown += [heading, table, Text()]
    for mark in of_no_nodule(explained):
        shown.append(Text(f"{title(mark.attribute)}: {mark.value}{CERTAINTY[mark.certainty]}"))
    unread = dict.fromkeys(visible(surface) for _, _, surface in explained.unread)
    shown.append(Text(f"unread: {', '.join(unread) if unread else 'nothing'}"))
    return shown


def _numbers(marks: list[Mark]) -> str:
    return "".join(f"[{number}]" for number in sorted({mark.nodule for mark in marks if mark.nodule}))


def _style(degrees: int) -> str:
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(degrees / 360, 0.82, 0.7))
    return f"black on #{red:02x}{green:02x}{blue:02x}"
