"""Protocols: the events held out for validation and test, and the clock that they go by."""
