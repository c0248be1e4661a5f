"""Data in and out: reports and images become structured cases, cases become exported data sets."""
