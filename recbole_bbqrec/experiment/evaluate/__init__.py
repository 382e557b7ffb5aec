"""Evaluating finished runs again, under other options of ranking and evaluation.

``cli`` reads the command, ``options`` says what may be changed, ``jobs`` finds the runs and checks
that they go together, ``evaluation`` ranks a split with one saved model, ``table`` prints.
"""
