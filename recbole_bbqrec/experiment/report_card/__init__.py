"""Report card of a finished run: analyses of its metrics, codes and training.

``collect`` loads the run's model, ranks the whole test split again and calls one module per
analysis, each of which returns plain values (``report.json``). ``html`` renders only those values,
as one self-contained page (``report.html``).
"""
