"""Experiments of many runs: a store of finished runs, comparisons with tests, parameter search."""
