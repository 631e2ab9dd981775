"""Measuring: rows of a benchmark, comparisons with intervals, and the report of a run."""
