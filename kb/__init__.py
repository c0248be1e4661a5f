"""What is known: vocabulary, roles of terms with their sources, and the DuckDB store."""
