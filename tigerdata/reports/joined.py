"""One text out of the columns of an export, with the headings by which the parser knows its sections again."""

from collections.abc import Mapping

from tigerdata.reports.text import language_of


def join_columns(findings: str, impression: str = "", description: str = "") -> str:
    """Findings and impression as one text; empty parts are left out, a part keeps its own words unchanged.

    >>> join_columns("Normal gland.", "No nodule.")
    'FINDINGS: Normal gland.\\nIMPRESSION: No nodule.'
    """
    chinese = language_of(findings + impression) == "zh"
    parts = [(("检查方法：" if chinese else "TECHNIQUE: "), description)]
    parts += [(("超声所见：" if chinese else "FINDINGS: "), findings)]
    parts += [(("超声提示：" if chinese else "IMPRESSION: "), impression)]
    return "\n".join(head + part.strip() for head, part in parts if part and part.strip())


def text_of(values: Mapping[str, str]) -> str:
    """The text of a row by canonical column names: its own text, else findings and impression as one."""
    return values.get("text") or join_columns(values.get("findings", ""), values.get("impression", ""))
