"""Experiments of many runs: the run store, comparisons, parameter search, reports."""
