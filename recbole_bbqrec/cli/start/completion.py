"""``python -m recbole_bbqrec completion``: a script that completes commands in the shell."""

from __future__ import annotations

import argparse

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError, pip_install

NOTES = """\
For bash, once:

  recbole-bbqrec completion bash > ~/.local/share/bash-completion/completions/recbole-bbqrec

For zsh, write it as _recbole-bbqrec into a folder of $fpath. New shells complete verbs and
arguments of `recbole-bbqrec`."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``completion``."""
    purpose = "Print a script that completes `recbole-bbqrec` in a shell."
    describe(parser, purpose, "bash", NOTES)
    parser.group("shell")("shell", None, "the shell", choices=("bash", "zsh", "tcsh"))


def main(args: argparse.Namespace) -> int:
    """Print the script.

    Raises:
        UserError: the library that writes it is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            f"Completion needs `shtab`, which is not installed: {pip_install('completion')}"
        ) from error
    from recbole_bbqrec.cli.main import VERBS, parser_of

    everything = argparse.ArgumentParser("recbole-bbqrec")
    verbs = everything.add_subparsers()
    for name, verb in VERBS.items():
        verbs.choices[name] = parser_of(name)
        verbs._choices_actions.append(verbs._ChoicesPseudoAction(name, (), verb.summary))
    print(shtab.complete(everything, args.shell))
    return 0
