"""Evaluation: metrics, judges, classifier arms and the report."""
