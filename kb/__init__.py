"""What is known: vocabulary, roles of terms with their sources, and the DuckDB store."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase, load

__all__ = ["KnowledgeBase", "load"]


def __getattr__(name: str) -> Any:
    # PEP 562: pydantic is imported on first use, so that `tigerdata --help` stays fast.
    if name in __all__:
        from kb import vocabulary

        return getattr(vocabulary, name)
    raise AttributeError(f"module 'kb' has no attribute {name!r}")
