"""Table 4: the generator's attention and the source of its embeddings."""

from __future__ import annotations

from recbole_bbqrec.experiment.reproduce.results.metric_table import MetricTable
from recbole_bbqrec.experiment.reproduce.study import Setting


class Table4(MetricTable):
    """BBQRec without similarity in the attention (S), with inherited code vectors (E)."""

    name = "table4"
    title = "Table 4, variants of the generator"
    settings = (
        Setting("BBQRec-S", "BBQRecS"),
        Setting("BBQRec-E", "BBQRecE"),
        Setting("BBQRec", "BBQRec"),
    )
