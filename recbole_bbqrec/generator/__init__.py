"""Phase two: from the semantic IDs of a history to the next item.

Read the rooms in this order; each knows only those before it.

* ``settings``: every option of the network.
* ``items``: the items that exist. ``trie``: their semantic IDs; ``catalogue``: all that phase two
  knows of them; ``neighbour_bonus``: items close to those of the history.
* ``batch``: the layout of a batch. ``checks`` at the border, ``packing`` (no work on padding),
  ``token_table``, ``encoded_history``, ``trie_paths`` (levels that leave a choice).
* ``head``: scores and their loss. ``losses``: -log P of Eq. 1 over codes or over items;
  ``item_head`` and ``item_scores``: scores of whole items, spread over the trie; ``head_loss`` and
  ``normaliser``: the two large sums, with their gradients.
* ``network``: the network itself. ``embedding``; ``attention``: Eq. 14 and 15 (similarity
  buckets), 16 and 17 (gated attention); ``layers``; ``history_encoder``; ``code_decoder``;
  ``seq2seq``: the :class:`Generator` that composes them (Eq. 1).
* ``inference``: the same network without gradients, fast. ``compiled_weights``, ``encoding``,
  ``decoding``, ``beam`` (search over the trie), ``exact`` (scores of all items), ``ranking``.
"""
