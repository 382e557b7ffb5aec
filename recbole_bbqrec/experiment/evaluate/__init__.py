"""Evaluation of finished runs under other options of ranking and measuring.

``options`` lists the options that can change, ``jobs`` finds the runs and checks that they are
comparable, ``evaluation`` ranks a split with one saved model, ``table`` lays out the results.
"""
