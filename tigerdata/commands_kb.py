"""The commands that read reports and the knowledge base. Thin: parse the arguments, call one function, print.

`tigerdata/commands.py` puts those of `TOP_LEVEL` and the group `kb` into the program.
"""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kb.errors import UsageError
from tigerdata.console import APP, JsonOption, WorkspaceOption, open_workspace, show
from tigerdata.progress import reporter

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

kb_app = typer.Typer(help="Look into the knowledge base.", **APP)
DomainOption = Annotated[
    str | None,
    typer.Option(help="Organ, or the path of its YAML file or of an overlay; default: the workspace's, else thyroid."),
]


def parse(
    file: Annotated[str, typer.Argument(help="Plain text (one report), JSONL with id and text, or - for stdin.")],
    pathology: Annotated[
        bool, typer.Option("--pathology", help="Read pathology texts instead: id and subtype.")
    ] = False,
    domain: Annotated[str, typer.Option(help="Organ, or the path of its YAML file or of an overlay.")] = "thyroid",
    computed: Annotated[
        bool,
        typer.Option("--computed", help="Also the risk scores that the attributes make, apart from what is stated."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes for JSONL; the result does not depend on it.")] = 1,
) -> None:
    """Parse reports without a workspace: one JSON object a line, every value with its place in the text.

    Example: tigerdata parse report.txt
    """
    from tigerdata.reports.stream import parse_stream

    for row in parse_stream(file, domain, pathology, computed, workers):
        typer.echo(json.dumps(row, ensure_ascii=False))


def explain(
    report: Annotated[str, typer.Argument(help="Report id of the workspace, a text file, or - for stdin.")],
    html: Annotated[Path | None, typer.Option(help="Write one offline HTML file instead.")] = None,
    target: Annotated[str | None, typer.Option(help="Show roles as seen from this class.")] = None,
    domain: DomainOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was read in one report: coloured words by attribute, nodules, prompts, denied, doubtful, unread.

    Example: tigerdata explain report.txt --html explained.html
    """
    from kb.files import atomic_write
    from tigerdata.reports import explain as explaining
    from tigerdata.reports import explain_views as views

    ws = _maybe_workspace(workspace)
    name, text = explaining.load_report(report, ws)
    if domain is None and ws is not None:
        found = explaining.explain(text, name, ws.domain, ws.kb, target)
    else:
        found = explaining.explain(text, name, domain or "thyroid", target=target)
    if html is not None:
        with atomic_write(html) as temporary:
            temporary.write_text(views.to_html(found), encoding="utf-8")
        counts = {"nodules": len(found.nodules), "values": len(found.marks) + len(found.other)}
        show({"html": str(html), **counts, "unread": len(found.unread)}, as_json)
    elif as_json:
        show(found.to_json(), True)
    else:
        from tigerdata.tables import show_renderables

        show_renderables(views.to_terminal(found))


def stats(
    subtype: Annotated[str | None, typer.Option(help="Co-occurrence within this class only.")] = None,
    pairs: Annotated[int, typer.Option(min=0, help="How many pairs of values that go together to show.")] = 15,
    least: Annotated[int, typer.Option(min=1, help="Nodules that a pair needs, seen or expected.")] = 5,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count attributes by class, with shares of the nodules described, and values that go together or apart.

    Example: tigerdata stats -w study
    """
    from tigerdata.reports import statistics

    ws = open_workspace(workspace)
    counted = statistics.attribute_counts(ws)
    together = statistics.co_occurrence(ws, subtype, least)[:pairs]
    if as_json:
        show({**counted, "co_occurrence": together}, True)
        return
    from tigerdata.tables import show_table

    show({name: count for name, count in counted.items() if isinstance(count, int)}, False)
    labels = list(counted["classes"])
    rows = []
    for attribute, values in counted["attributes"].items():
        for value, found in values.items():
            shares = counted["shares"][attribute][value]
            cells = {label: f"{found[label]} ({shares[label]:.0%})" for label in labels if label in found}
            rows.append({"attribute": attribute, "value": value, **cells})
    show_table("Nodules by class (share of those whose attribute is described)", rows, ["attribute", "value", *labels])
    columns = ["one", "two", "both", "first", "second", "nodules", "lift", "log_odds", "low", "high"]
    show_table(f"Values on one nodule{f' of {subtype}' if subtype else ''}, 95 % interval", together, columns)


def terms(
    target: Annotated[str | None, typer.Option(help="The rare class whose terms get a role.")] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Frequent words that the vocabulary lacks.")] = False,
    least: Annotated[int, typer.Option(min=2, help="Patients that an unknown word needs.")] = 5,
    limit: Annotated[int, typer.Option(min=1, help="How many unknown words to show.")] = 30,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Weigh the terms of a class: literature and corpus, role, frequency, weight of equation 9; or list unknown words.

    The roles go to the table `term_roles`; those that the corpus contradicts are in force from then on.

    Example: tigerdata terms --target FTC -w study
    """
    if (target is None) != unknown:
        raise UsageError("`tigerdata terms` needs either --target CLASS or --unknown; give one of the two.")
    ws = open_workspace(workspace)
    if target is None:
        from tigerdata.reports.unknown import unknown_words

        words = unknown_words(ws, least, limit, reporter())
        _rows(
            "Unread words of nodule clauses", words, ["word", "patients", "reports", "occurrences", "example"], as_json
        )
        return
    from tigerdata.reports.roles import term_table

    table = term_table(ws, target, store=True)
    if as_json:
        show(table, True)
        return
    from tigerdata.tables import show_table

    for row in table:
        for c in row["against"]:
            row[c["against"]] = f"{c['log_odds']:+.2f} [{c['low']:.2f}, {c['high']:.2f}] q {c['q']:.2g} {c['is']}"
        row["patients"] = f"{row['patients']}/{row['of_patients']}"
    others = list(dict.fromkeys(c["against"] for row in table for c in row["against"]))
    columns = ["phrase", "role", "decided_by", "literature", "tau", "weight", "patients", *others]
    show_table(f"Terms of {target}; log-odds against each class with 95 % interval", table, columns)
    if not others:
        typer.echo("the corpus has no say yet: a class takes part with 10 patients")
    for decided in sorted({row["decided_by"] for row in table}):
        sources = {row["source"] for row in table if row["decided_by"] == decided} - {""}
        typer.echo(f"{decided}: {'; '.join(sorted(sources)) or 'nothing is known of this class'}")


@kb_app.command("show")
def kb_show(
    domain: DomainOption = None,
    attribute: Annotated[str | None, typer.Option(help="Only this attribute, with all its words.")] = None,
    subtype: Annotated[str | None, typer.Option(help="The role of every term for this class.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an organ's vocabulary: attributes, values, words, prompt phrases, sources, or the roles for a class.

    Example: tigerdata kb show --domain thyroid
    """
    import kb
    from kb.show import describe, role_rows, value_rows

    ws = _maybe_workspace(workspace) if domain is None else None
    base = ws.kb if ws else kb.load(domain or "thyroid")
    if subtype is not None:
        _rows(f"Roles for {subtype}", role_rows(base, subtype), ["value", "phrase", "role", "sources"], as_json)
    elif as_json and attribute is None:
        show(describe(base), True)
    else:
        columns = ["attribute", "value", "side", "phrase", "en", "zh", "sources"]
        rows = value_rows(base, attribute, None if attribute or as_json else 1)
        _rows(f"{base.domain}: subtypes {', '.join(base.subtypes)}", rows, columns, as_json)


@kb_app.command("query")
def kb_query(
    sql: Annotated[str, typer.Argument(help="One SELECT statement.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the workspace's database one read-only question in SQL.

    Example: tigerdata kb query "SELECT attribute, count(*) AS n FROM findings GROUP BY ALL ORDER BY n DESC" -w study
    """
    from kb.query import query
    from tigerdata.workspace import DATABASE_FILE

    names, rows = query(open_workspace(workspace).path / DATABASE_FILE, sql, limit)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        return
    unique = [name if name not in names[:k] else f"{name}_{k + 1}" for k, name in enumerate(names)]
    _rows(f"{len(rows)} rows", [dict(zip(unique, row, strict=True)) for row in rows], unique, as_json)


@kb_app.command("diff")
def kb_diff(
    old: Annotated[str | None, typer.Argument(help="Organ or YAML file; default: what the workspace stores.")] = None,
    new: Annotated[str | None, typer.Argument(help="Organ or YAML file; default: the workspace's files.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two vocabularies, or between the files and what the workspace stores of them.

    Example: tigerdata kb diff -w study
    """
    import kb
    from kb.diff import difference, facts, only_stored, stored_facts

    if old is not None:
        after = kb.load(new) if new is not None else open_workspace(workspace).kb
        rows = difference(facts(kb.load(old)), facts(after))
    else:
        ws = open_workspace(workspace)
        with ws.connect(read_only=True) as con:
            stored = stored_facts(con)
        rows = difference(stored, only_stored(facts(ws.kb)))
    if as_json:
        show(rows, True)
    elif not rows:
        typer.echo("no difference")
    else:
        from tigerdata.tables import show_table

        show_table(f"{len(rows)} differences", rows, ["change", "kind", "name", "old", "new"])
        if old is None:
            typer.echo("next: tigerdata kb update stores the files' vocabulary")


@kb_app.command("update")
def kb_update(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Store the vocabulary of the files, overlay included, in the workspace's database.

    Example: tigerdata kb update -w study
    """
    from kb.refresh import refresh

    ws = open_workspace(workspace)
    base = ws.kb
    with ws.connect() as con:
        refresh(con, base)
    show({"domain": base.domain, "phrases": len(base.phrases()), "sources": len(base.sources)}, as_json)


@kb_app.command("export")
def kb_export(
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    format: Annotated[str, typer.Option(help="csv, json or parquet.")] = "csv",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export terms, roles, sources and findings, one file a table.

    Example: tigerdata kb export knowledge --format csv -w study
    """
    from kb.export import export
    from tigerdata.workspace import DATABASE_FILE

    show(export(open_workspace(workspace).path / DATABASE_FILE, out, format), as_json)


TOP_LEVEL: dict[str, Callable[..., None]] = {"parse": parse, "explain": explain, "stats": stats, "terms": terms}


def _maybe_workspace(named: Path | None) -> "Workspace | None":
    """The workspace that `-w` names, else the nearest one, else none: these commands work without."""
    from tigerdata.workspace import SETTINGS_FILE

    here = Path.cwd()
    inside = any((folder / SETTINGS_FILE).is_file() for folder in (here, *here.parents))
    return open_workspace(named) if named is not None or inside else None


def _rows(title: str, rows: list[dict[str, Any]], columns: list[str], as_json: bool) -> None:
    if as_json:
        show(rows, True)
        return
    from tigerdata.tables import show_table

    show_table(title, rows, columns)
