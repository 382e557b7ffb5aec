"""The report card of a finished run: what its metrics are made of.

``collect`` loads the run's model, ranks the whole test split again and calls one module per
analysis, each of which returns plain values (``report.json``). ``html`` renders those values, and
nothing else, as one self-contained page (``report.html``).
"""
