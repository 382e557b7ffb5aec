"""Verbs that put finished runs to work."""
