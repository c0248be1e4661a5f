"""Bringing the vocabulary that a database holds up to date with the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kb import store

if TYPE_CHECKING:
    import duckdb

    from kb.vocabulary import KnowledgeBase


def refresh(con: duckdb.DuckDBPyConnection, base: KnowledgeBase) -> None:
    """Write the vocabulary anew; roles with corpus statistics keep these and take the role that is in force now.

    Terms that left the vocabulary and sources that nothing cites any more go.
    """
    store.fill_vocabulary(con, base)
    with store.transaction(con):
        for target, attribute, value in con.execute(store.COMPUTED).fetchall():
            model = base.attributes.get(attribute)
            key = [target, attribute, value]
            if model is None or value not in model.values:
                con.execute("DELETE FROM term_roles WHERE target = ? AND attribute = ? AND value = ?", key)
                continue
            said = [base.role(target, attribute, value), "; ".join(base.role_sources(target, attribute, value))]
            con.execute(
                "UPDATE term_roles SET role = ?, source = ? WHERE target = ? AND attribute = ? AND value = ?",
                said + key,
            )
        con.execute("DELETE FROM sources WHERE source_id NOT IN (SELECT unnest(?))", [list(base.sources)])
