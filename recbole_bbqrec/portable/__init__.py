"""Loads exported models with torch, NumPy and safetensors alone: neither RecBole nor pandas.

``model`` ranks as a run does, with the same code. ``reference`` is the same network in plain tensor
operations, for one history at a time, with a beam search of a few lines; its two steps are what an
export holds as programs of ``torch.export``.
"""
