"""Table 2: every model of the paper, under one split and one evaluator."""

from __future__ import annotations

from recbole_bbqrec.experiment.reproduce.results.metric_table import MetricTable
from recbole_bbqrec.experiment.reproduce.study import Setting


class Table2(MetricTable):
    """The overall comparison; some models have other names here than in the paper."""

    name = "table2"
    title = "Table 2, all models"
    tested = True
    settings = (
        Setting("GRU4Rec", "GRU4Rec"),
        Setting("BERT4Rec", "BERT4Rec"),
        Setting("SASRec", "SASRec"),
        Setting("GRU4Rec_F", "MMGRU4Rec"),
        Setting("SASRec_F", "MMSASRec"),
        Setting("NOVA-BERT", "NOVABERT"),
        Setting("MISSRec", "MISSRec"),
        Setting("VQ-Rec", "VQRec"),
        Setting("TIGER", "TIGER"),
        Setting("LETTER", "LETTER"),
        Setting("BBQRec", "BBQRec"),
    )
