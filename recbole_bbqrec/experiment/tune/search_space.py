"""Parameter files of RecBole's HyperTuning, read as data.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError

CHOICE, UNIFORM, QUNIFORM, LOGUNIFORM = "choice", "uniform", "quniform", "loguniform"
_BOUNDS = {UNIFORM: "low,high", QUNIFORM: "low,high,step", LOGUNIFORM: "low,high (exponents of e)"}
_MOST = 1_000_000  # multiples of a step
_ROUNDING = 1e-9  # 0.3 / 0.1 is a little less than 3
_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


@dataclass(frozen=True)
class Parameter:
    """An option and the values to search.

    Attributes:
        name: the option.
        kind: ``choice``, ``uniform``, ``quniform`` or ``loguniform``.
        values: the values of a choice, else low, high and, for ``quniform``, the step; the bounds
            of ``loguniform`` are natural logarithms.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {list(self.values)}"

    @property
    def grid(self) -> list[Any] | None:
        """Return the values, or None if there are infinitely many."""
        if self.kind == CHOICE:
            return list(self.values)
        if self.kind == QUNIFORM:
            low, high = self._multiples
            return [self.value(n) for n in range(low, high + 1)]
        return None

    @property
    def extremes(self) -> list[Any]:
        """Values to check in place of all: those of a choice, or the two bounds."""
        if self.kind == CHOICE:
            return list(self.values)
        bounds = self._multiples if self.kind == QUNIFORM else self.values
        return [self.value(bound) for bound in bounds]

    @property
    def _multiples(self) -> tuple[int, int]:
        """The first and last multiple of the step of ``quniform`` within its bounds."""
        low, high, step = self.values
        return math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING)

    def distribution(self) -> Any:
        """Return optuna's distribution of what :meth:`value` takes.

        Raises:
            ImportError: optuna is not installed.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == CHOICE:
            return CategoricalDistribution(range(len(self.values)))
        if self.kind == QUNIFORM:
            return IntDistribution(*self._multiples)
        return FloatDistribution(*self.values)

    def value(self, drawn: Any) -> Any:
        """Return the option's value for a drawn number.

        The number is the index of a choice, the multiple of the step of ``quniform``, the exponent
        of ``loguniform`` and the value of ``uniform``. Real numbers are rounded to six digits, so
        that they are read back as the same number; multiples of a whole step are integers.
        """
        if self.kind == CHOICE:
            return self.values[drawn]
        if self.kind == QUNIFORM:
            step = self.values[2]
            if all(float(v).is_integer() for v in self.values):
                return drawn * int(step)
            drawn = drawn * step
        return float(f"{math.exp(drawn) if self.kind == LOGUNIFORM else drawn:.6g}")


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
            raise UserError(f"{where}: `{name}` is given twice; remove one of the lines.")
        space[name] = Parameter(name, kind, _values(kind, values, where))
    if not space:
        raise UserError(f"The parameter file {path} names no parameter; nothing to search.")
    return list(space.values())


def _values(kind: str, text: str, where: str) -> tuple[Any, ...]:
    if kind == CHOICE:
        values = parse_value(text)
        if not isinstance(values, (list, tuple)) or not values:
            raise UserError(f"{where}: `{text}`; expected a list of values such as [0.1,0.2].")
        # RecBole writes a list as text ('[64,32]'), because it evaluates each value once more.
        values = tuple(parse_value(v) if isinstance(v, str) else v for v in values)
        odd = [value for value in values if not isinstance(value, _PLAIN)]
        if odd:
            raise UserError(f"{where}: `{odd[0]!r}`; expected numbers, texts, True, None or lists.")
        return values
    if kind not in _BOUNDS:
        raise UserError(f"{where}: type `{kind}`; expected one of {CHOICE}, {', '.join(_BOUNDS)}.")
    expected = _BOUNDS[kind]
    try:
        numbers = tuple(_number(word, kind) for word in text.replace(",", " ").split())
    except (ValueError, OverflowError, SyntaxError, TypeError, RecursionError, MemoryError):
        numbers = ()
    if len(numbers) != expected.count(",") + 1:
        raise UserError(f"{where}: `{text}`; expected {expected}.")
    if numbers[0] >= numbers[1] or (kind == QUNIFORM and numbers[2] <= 0):
        raise UserError(f"{where}: `{text}`; expected low < high and a step above 0.")
    if kind == QUNIFORM:
        low, high, step = numbers
        if high / step - low / step > _MOST or math.isinf(low / step):
            raise UserError(f"{where}: `{text}` has over {_MOST:,} values; use a larger step.")
        first, last = Parameter("", kind, numbers)._multiples
        if first > last:
            raise UserError(f"{where}: `{text}`; no multiple of {step} lies in this range.")
    return numbers


def _number(word: str, kind: str) -> int | float:
    value = ast.literal_eval(word.lstrip("+"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(word)
    if kind == LOGUNIFORM and math.exp(value) == 0:  # below -745; OverflowError above 709
        raise ValueError(word)
    return value


def grid(space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return every combination; the last parameter changes fastest.

    Raises:
        UserError: a parameter has infinitely many values.
    """
    for parameter in space:
        if parameter.grid is None:
            raise UserError(
                f"Parameter `{parameter.name}` is {parameter.kind}, which has infinitely many "
                "values; use --algo random or bayes, or give it as a choice."
            )
    names = [parameter.name for parameter in space]
    combinations = itertools.product(*(parameter.grid or () for parameter in space))
    return [dict(zip(names, values)) for values in combinations]
