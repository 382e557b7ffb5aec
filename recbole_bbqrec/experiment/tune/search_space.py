"""The parameter files of RecBole's HyperTuning, read as data.

One parameter a line, ``name type values``, as RecBole writes them::

    learning_rate loguniform -8,-4      # e^-8 to e^-4, even in the logarithm
    dropout       uniform    0.0,0.5
    hidden_size   quniform   64,256,64  # multiples of 64
    num_layers    choice     [1,2,3]

RecBole evaluates these lines as Python; here they are literals and nothing else. Values may also be
separated by spaces, and ``#`` starts a comment.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError

CHOICE, UNIFORM, QUNIFORM, LOGUNIFORM = "choice", "uniform", "quniform", "loguniform"
_NUMBERS = {UNIFORM: "low,high", QUNIFORM: "low,high,step", LOGUNIFORM: "low,high (exponents of e)"}


@dataclass(frozen=True)
class Parameter:
    """One option and where its values are looked for.

    Attributes:
        name: the option.
        kind: ``choice``, ``uniform``, ``quniform`` or ``loguniform``.
        values: of a choice the values, else low, high and, for ``quniform``, the step; the bounds
            of ``loguniform`` are natural logarithms.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    @property
    def grid(self) -> list[Any] | None:
        """All values, or None where there are infinitely many."""
        if self.kind == CHOICE:
            return list(self.values)
        if self.kind == QUNIFORM:
            low, high, step = self.values
            return [self.value(n * step) for n in range(round(low / step), round(high / step) + 1)]
        return None

    @property
    def extremes(self) -> list[Any]:
        """Values whose validity stands for that of all: a choice's, or the two bounds."""
        if self.kind == LOGUNIFORM:
            return [math.exp(bound) for bound in self.values]
        return self.grid or list(self.values)

    def value(self, drawn: Any) -> Any:
        """The option's value for a drawn number (of a choice: the index).

        Real numbers keep six digits, so that they are the same number when written down;
        multiples of a whole step are integers.
        """
        if self.kind == CHOICE:
            return self.values[int(drawn)]
        if self.kind == QUNIFORM and all(float(v).is_integer() for v in self.values):
            return round(drawn)
        return float(f"{drawn:.6g}")


def read_space(path: str | Path) -> list[Parameter]:
    """Read a parameter file.

    Raises:
        UserError: unreadable, empty, or a line that is not ``name type values``.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the parameter file {path}: {error}.") from error
    space: dict[str, Parameter] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split(maxsplit=2)
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) < 3:
            raise UserError(
                f"{where}: `{line.strip()}`; expected `name type values`, for example "
                "`learning_rate choice [0.001,0.003]`."
            )
        name, kind, values = words
        if name in space:
            raise UserError(f"{where}: `{name}` is given twice; leave one out.")
        space[name] = Parameter(name, kind, _values(kind, values, where))
    if not space:
        raise UserError(f"The parameter file {path} names no parameter; nothing to search.")
    return list(space.values())


def _values(kind: str, text: str, where: str) -> tuple[Any, ...]:
    if kind == CHOICE:
        found = parse_value(text)
        if not isinstance(found, (list, tuple)) or not found:
            raise UserError(f"{where}: `{text}`; expected a list of values such as [0.1,0.2].")
        # RecBole writes a list as a text ('[64,32]'), because it evaluates each value once more.
        return tuple(parse_value(v) if isinstance(v, str) else v for v in found)
    if kind not in _NUMBERS:
        raise UserError(f"{where}: type `{kind}`; expected one of {CHOICE}, {', '.join(_NUMBERS)}.")
    try:
        numbers = tuple(_number(word) for word in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    wanted = _NUMBERS[kind]
    if len(numbers) != wanted.count(",") + 1 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{where}: `{text}`; expected {wanted}.")
    if numbers[0] >= numbers[1] or (kind == QUNIFORM and numbers[2] <= 0):
        raise UserError(f"{where}: `{text}`; expected low < high and a step above 0.")
    return numbers


def _number(word: str) -> int | float:
    value = ast.literal_eval(word.lstrip("+"))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(word)
    return value


def grid(space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Every combination, the last parameter changing fastest.

    Raises:
        UserError: a parameter has infinitely many values.
    """
    grids = []
    for parameter in space:
        if parameter.grid is None:
            raise UserError(
                f"Parameter `{parameter.name}` is {parameter.kind}, which has no end of values; "
                "use --algo random or bayes, or give it as a choice."
            )
        grids.append(parameter.grid)
    return [dict(zip([p.name for p in space], values)) for values in itertools.product(*grids)]


def hyperopt_space(space: Sequence[Parameter]) -> dict[str, Any]:
    """The space for hyperopt; a choice is drawn as an index, so that its values stay what they are.

    Raises:
        ImportError: hyperopt is not installed.
    """
    from hyperopt import hp

    def node(parameter: Parameter) -> Any:
        if parameter.kind == CHOICE:
            return hp.choice(parameter.name, list(range(len(parameter.values))))
        return getattr(hp, parameter.kind)(parameter.name, *map(float, parameter.values))

    return {parameter.name: node(parameter) for parameter in space}


def drawn_values(space: Sequence[Parameter], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Option values for what hyperopt drew from :func:`hyperopt_space`."""
    return {parameter.name: parameter.value(drawn[parameter.name]) for parameter in space}
