"""Typed settings: name, type, range, default and help of an option stand in one dataclass field.

A part of the package describes its options in a frozen dataclass and reads them at once::

    @dataclass(frozen=True)
    class EncoderSettings(Settings):
        n_items: int  # not an option: the caller of `read` gives it
        dropout: Annotated[float, fraction()] = option(0.3, "After embeddings and layers.")
        max_length: Positive = option(20, "Items of a history.", name="MAX_ITEM_LIST_LENGTH")

    settings = read(EncoderSettings, config, n_items=12)

A subclass may give an option another default, ``dropout: Annotated[...] = 0.5``; help and name
stay. Checks across fields go into ``__post_init__``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

S = TypeVar("S", bound="Settings")
_CHECKS: dict[type, dict[str, Check]] = {}


class Bounds(NamedTuple):
    """A range of numbers: in words, in symbols, and as a test."""

    words: str
    symbols: str
    accepts: Callable[[Any], bool]


class Check(NamedTuple):
    """Values that a field accepts: in words, as short as in a YAML comment, and as a test."""

    expected: str
    short: str
    accepts: Callable[[Any], bool]


class Option(NamedTuple):
    """One option: its name in a configuration and what its field says of it."""

    name: str
    check: Check
    default: Any
    help: str


def at_least(low: float) -> Bounds:
    return Bounds(f" of at least {low}", f" >= {low}", lambda v: v >= low)


def above(low: float) -> Bounds:
    return Bounds(f" above {low}", f" > {low}", lambda v: v > low)


def between(low: float, high: float, *, open_below: bool = False) -> Bounds:
    """Numbers in [low, high], or in (low, high] with ``open_below``."""
    if open_below:
        words, bracket = f" above {low} and at most {high}", "("
    else:
        words, bracket = f" of at least {low} and at most {high}", "["
    symbols = f" in {bracket}{low}, {high}]"
    return Bounds(words, symbols, lambda v: (v > low if open_below else v >= low) and v <= high)


def fraction() -> Bounds:
    return Bounds(" in [0, 1)", " in [0, 1)", lambda v: 0 <= v < 1)


Positive = Annotated[int, at_least(1)]
NotNegative = Annotated[int, at_least(0)]
PositiveNumber = Annotated[float, above(0)]
Weight = Annotated[float, at_least(0)]
Probability = Annotated[float, fraction()]
OptionalText = Optional[str]
OptionalPositive = Optional[Positive]


def option(default: Any, help: str, *, name: str | None = None) -> Any:
    """Make the dataclass field of an option.

    Args:
        default: value of the product, as in its YAML file.
        help: what the option is, as the comment in the YAML file begins.
        name: name in a configuration; None: that of the field.
    """
    return field(default=default, metadata={"help": help, "name": name})


class SettingsError(ValueError):
    """A value that a field of a settings class does not accept."""

    def __init__(self, kind: type[Settings], name: str, value: Any, expected: str) -> None:
        super().__init__(f"{kind.__name__}.{name} is {value!r}; expected {expected}")
        self.name, self.value, self.expected = name, value, expected


@dataclass(frozen=True)
class Settings:
    """Base of settings classes; every value is checked against the type of its field.

    Raises:
        SettingsError: a value out of range.
    """

    def __post_init__(self) -> None:
        for name, check in _checks(type(self)).items():
            if not check.accepts(getattr(self, name)):
                self._refuse(name, check.expected)

    def _refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error for the value of a field."""
        raise SettingsError(type(self), name, getattr(self, name), expected)

    def _require_multiple(self, name: str, of: str) -> None:
        """Refuse the field ``name`` unless it is a multiple of the field ``of``."""
        if getattr(self, name) % getattr(self, of):
            other = options_of(type(self))[of].name
            self._refuse(name, f"a multiple of `{other}`, which is {getattr(self, of)}")


def read(kind: type[S], config: RunConfig, **given: Any) -> S:
    """Return settings with the values of a configuration; ``given`` fields win over it.

    Raises:
        UserError: a value out of range, or values that do not go together.
    """
    options = {name: each for name, each in options_of(kind).items() if name not in given}
    values = {name: config[each.name] for name, each in options.items()}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    try:
        return kind(**given, **values)
    except SettingsError as error:
        named = options_of(kind).get(error.name)
        if named is None:  # a field that the program gives
            raise
        value = list(error.value) if isinstance(error.value, tuple) else error.value
        raise UserError(
            f"Option `{named.name}` is {value!r}; expected {error.expected}."
        ) from error


def options_of(kind: type[Settings]) -> dict[str, Option]:
    """Return the options of a settings class by field name."""
    options = {}
    for each in fields(kind):
        metadata = _metadata(kind, each.name)
        if metadata is not None:
            name = metadata["name"] or each.name
            check = _checks(kind)[each.name]
            options[each.name] = Option(name, check, each.default, metadata["help"])
    return options


def _metadata(kind: type, name: str) -> Mapping[str, Any] | None:
    """Return what the nearest class says of the option in the field ``name``; None: no option."""
    for base in kind.__mro__:
        stated = vars(base).get("__dataclass_fields__", {}).get(name)
        if stated is not None and stated.metadata:
            metadata: Mapping[str, Any] = stated.metadata
            return metadata
    return None


def checks_by_option(*kinds: type[Settings]) -> dict[str, Check]:
    """Return the check of every option of ``kinds`` by its name.

    An option of several classes accepts what one of them does; each class checks it by itself when
    it is read.
    """
    checks: dict[str, Check] = {}
    for kind in kinds:
        for each in options_of(kind).values():
            known = checks.get(each.name)
            if known is None or known.expected == each.check.expected:
                checks[each.name] = each.check
            else:
                checks[each.name] = _either(known, each.check)
    return checks


def _either(first: Check, second: Check) -> Check:
    known = second.expected in first.expected
    return Check(
        first.expected if known else f"{first.expected}, or {second.expected}",
        first.short,
        lambda v: first.accepts(v) or second.accepts(v),
    )


def _checks(kind: type[Settings]) -> dict[str, Check]:
    """Return the check of every field, from its type; made once for a class."""
    if kind not in _CHECKS:
        hints = get_type_hints(kind, include_extras=True)
        _CHECKS[kind] = {each.name: check_of(hints[each.name]) for each in fields(kind)}
    return _CHECKS[kind]


def check_of(kind: Any) -> Check:
    """Return the check that a type describes.

    ``kind`` is bool, int, float or str, a ``Literal`` of texts, an ``Optional``, a
    ``tuple[x, ...]``, or one of them ``Annotated`` with :class:`Bounds`, a :class:`Check` of its
    own, or the name of the elements of a tuple.

    >>> check_of(Annotated[int, at_least(1)]).expected
    'an integer of at least 1'

    Raises:
        TypeError: another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        check = next((note for note in arguments[1:] if isinstance(note, Check)), None)
        check = check or check_of(arguments[0])
        for note in arguments[1:]:
            if isinstance(note, Bounds):
                check = _within(check, note)
            elif isinstance(note, str):
                check = check._replace(expected=f"a list of {note}")
        return check
    if origin is Literal:
        expected, short = ", ".join(arguments), " | ".join(arguments)
        return Check(f"one of {expected}", f"str {short}", lambda v: v in arguments)
    if origin is Union and type(None) in arguments:
        inner = check_of(next(part for part in arguments if part is not type(None)))
        return Check(
            f"{inner.expected}, or nothing", inner.short, lambda v: v is None or inner.accepts(v)
        )
    if origin is tuple:
        inner = check_of(arguments[0])
        return Check(
            f"a list, each {inner.expected}",
            f"list of {inner.short}",
            lambda v: isinstance(v, (list, tuple)) and all(map(inner.accepts, v)),
        )
    if kind not in _PLAIN:
        raise TypeError(f"No check is known for a settings field of the type {kind}.")
    return _PLAIN[kind]


def _within(check: Check, bounds: Bounds) -> Check:
    return Check(
        check.expected + bounds.words,
        check.short + bounds.symbols,
        lambda v: check.accepts(v) and bounds.accepts(v),
    )


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return True for an integer or float that is not NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def is_filled(value: Any, accepts: Callable[[Any], bool]) -> bool:
    """Return True for a list of one or more accepted elements."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(accepts, value))


_PLAIN: dict[Any, Check] = {
    bool: Check("True or False", "bool", lambda v: isinstance(v, bool)),
    int: Check("an integer", "int", is_integer),
    float: Check("a number", "float", is_number),
    str: Check("a text", "str", lambda v: isinstance(v, str) and v != ""),
}


def names_of(kinds: Iterable[type[Settings]]) -> set[str]:
    """Return the names of all options of ``kinds``."""
    return {each.name for kind in kinds for each in options_of(kind).values()}
