"""Rows of events as RecBole's data sets have them, without laying out every prefix."""
