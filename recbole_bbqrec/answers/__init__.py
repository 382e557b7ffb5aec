"""Answers of a loaded model: the best items after a history, filtered, with reasons."""
