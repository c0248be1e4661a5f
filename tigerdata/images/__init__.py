"""Images in: reading files that cannot be trusted, clean grey frames, and the ingest of a whole set."""
