"""Table 3: the tokenizer without one of its parts."""

from __future__ import annotations

from recbole_bbqrec.experiment.reproduce.results.metric_table import MetricTable
from recbole_bbqrec.experiment.reproduce.study import Setting


class Table3(MetricTable):
    """BBQRec without mutual information, the contrastive task or the shared codebook."""

    name = "table3"
    title = "Table 3, variants of the tokenizer"
    settings = (
        Setting("w/o MIM", "BBQRecNoMIM"),
        Setting("w/o Rec", "BBQRecNoRec"),
        Setting("w/o U", "BBQRecNoU"),
        Setting("BBQRec", "BBQRec"),
    )
