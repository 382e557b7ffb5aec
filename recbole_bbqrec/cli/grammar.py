"""The grammar of all verbs: ``--name=value`` or ``--name value``, and ``--option=value``.

A name that the verb does not define is an option of the models, as in RecBole, and needs the equals
sign. Earlier spellings (``--data-path``, ``--set KEY=VALUE``, ``recommend --out``) still work and
print a hint.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

from recbole_bbqrec.errors import UserError, did_you_mean

FAILED, USER_ERROR, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141  # exit codes


class HelpFormatter(argparse.HelpFormatter):
    """Append defaults to help texts, wrap prose, and keep the lines of indented paragraphs."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if "default" in text or default in (None, argparse.SUPPRESS, [], ()):
            return text
        values = default if isinstance(default, list) else ["off" if default is False else default]
        return f"{text} (default: {','.join(map(str, values))})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for part in text.strip("\n").split("\n\n"):
            for line in part.split("\n") if part.startswith(" ") else [" ".join(part.split())]:
                first_column = re.match(r" +\S+ {2,}", line)  # of a table: indent what follows
                hang = " " * len(first_column[0]) if first_column else ""
                lines += textwrap.wrap(line, width, subsequent_indent=hang, break_on_hyphens=False)
            lines.append("")
        return textwrap.indent("\n".join(lines[:-1]), indent)


class CommandParser(argparse.ArgumentParser):
    """Parser of one verb; mistakes are UserErrors, and abbreviations are refused.

    Args:
        verb: the verb, for messages and help.
        takes_options: whether ``--option=value`` is for the models or a mistake.
    """

    def __init__(self, verb: str, takes_options: bool = False) -> None:
        super().__init__(
            f"python -m recbole_bbqrec {verb}", formatter_class=HelpFormatter, allow_abbrev=False
        )
        self.verb, self.takes_options = verb, takes_options
        self.renamed: dict[str, str] = {}  # earlier name of an argument to the current one

    def group(self, title: str, description: str | None = None) -> Callable[..., None]:
        """Start a group of arguments; return ``add(*names, metavar, help, **settings)``.

        An argument with neither a metavar nor choices is a flag.
        """
        group = self.add_argument_group(title, description)

        def add(*words: Any, **settings: Any) -> None:
            *names, metavar, text = words
            if metavar is not None:
                settings["metavar"] = metavar
            elif "choices" not in settings:
                settings["action"] = "store_true"
            group.add_argument(*names, help=text, **settings)

        return add

    def error(self, message: str) -> Any:
        raise UserError(f"{message[:1].upper()}{message[1:]}; see `{self.verb} --help`.")

    @property
    def names(self) -> list[str]:
        """Names of the verb's arguments as they are written, such as ``--models``."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the verb.

        Returns:
            The arguments of the verb; ``options`` are the words ``--option=value``, ``parser`` is
            this parser.

        Raises:
            UserError: an unknown, misspelt, abbreviated or incomplete argument.
        """
        own: list[str] = []
        options: list[str] = []
        hints: dict[str, str] = {}  # earlier spelling to the current one
        for word in _in_current_spelling(words, self.names, hints, self.renamed):
            name, equals, _ = word.partition("=")
            if not word.startswith("--") or name in self.names:
                own.append(word)
            elif equals and self.takes_options:
                options.append(word)
            else:
                raise self.unknown(word)
        try:
            args, rest = self.parse_known_intermixed_args(own)
        except UserError:  # if an argument is missing, name one that was misspelt
            for word in options:
                if did_you_mean(word.partition("=")[0], self.names):
                    raise self.unknown(word) from None
            raise
        if rest:
            raise UserError(
                f"Cannot read the argument `{rest[0]}`;{_split_by_shell(words, rest[0])} see "
                f"`{self.verb} --help`."
            )
        for old, new in hints.items():
            print(f"hint: `{old}` is now `{new}`", file=sys.stderr)
        args.options, args.parser = options, self
        return args

    def unknown(self, word: str) -> UserError:
        """Return the error for an argument that the verb does not have."""
        name, equals, _ = word.partition("=")
        full = " or ".join(f"`{known}`" for known in self.names if known.startswith(name))
        hint = f" Write it in full: {full}." if full else did_you_mean(name, self.names)
        if self.takes_options and not equals and not hint:
            return UserError(
                f"Cannot read the argument `{word}`; expected --key=value, with equals sign."
            )
        return UserError(
            f"Unknown argument `{word}` of `{self.verb}`.{hint} See `{self.verb} --help`."
        )


class ListAction(argparse.Action):
    """Values as one list: ``--models=BBQRec,TIGER``, ``--models BBQRec TIGER``.

    Args:
        item: converts one value, ``str`` or ``int``.
        separators: regular expression of what divides the values of one word.
    """

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        item: type[str] | type[int] = str,
        separators: str = r"[,\s]+",
        **settings: Any,
    ) -> None:
        super().__init__(option_strings, dest, nargs="+", **settings)
        self.item, self.separators = item, separators

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        texts = [text for word in values for text in re.split(self.separators, word.strip())]
        try:
            items = [self.item(text) for text in texts if text]
        except ValueError as error:
            raise argparse.ArgumentError(self, f"expected integers, not {values}") from error
        if not items and (self.required or self.default):
            raise argparse.ArgumentError(self, "expected at least one value")
        setattr(namespace, self.dest, items)


def _split_by_shell(words: Sequence[str], rest: str) -> str:
    """Return a hint if ``rest`` belongs to an option before it, divided at a blank by the shell."""
    before = list(words)[: list(words).index(rest)] if rest in words else []
    if not before or before[-1].count("[") + before[-1].count("{") <= before[-1].count("]") + (
        before[-1].count("}")
    ):
        return ""
    return f" put quotes around the whole option, '{before[-1]} {rest}', or leave the blank out;"


def _in_current_spelling(
    words: Sequence[str], names: Sequence[str], hints: dict[str, str], renamed: Mapping[str, str]
) -> Iterator[str]:
    """Yield ``--set a=1`` as ``--a=1``, ``--data-path`` as ``--data_path``, and the rest as is.

    Args:
        words: the command line after the verb.
        names: the arguments of the verb.
        hints: takes each earlier spelling with the current one.
        renamed: earlier names of the verb's arguments, with the current ones.
    """
    in_set = False  # between --set and the next argument
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            in_set = name == "--set"
            if in_set:
                hints["--set KEY=VALUE"] = "--KEY=VALUE"
                name, equals, value = value.partition("=")  # of --set=KEY=VALUE
                if not name and not equals:
                    continue
        if in_set:
            if not name or not equals:
                raise UserError(f"Option `--set` holds `{word}`; expected KEY=VALUE.")
            name = f"--{name}"
        current = renamed.get(name, "--" + name[2:].replace("-", "_"))
        if name.startswith("--") and name != current and (equals or current in names):
            hints[name] = current
            name = current
        yield f"{name}{equals}{value}"
