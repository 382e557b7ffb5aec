"""Options: YAML files, values, checks across options. All that runs RecBole reads them."""

from recbole_bbqrec.compat import require_recbole

require_recbole()
