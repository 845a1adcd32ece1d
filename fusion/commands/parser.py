"""How a command describes itself, and the parser that all commands share."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import fusion

# Every command may end with these as well; `main` returns them.
INTERRUPTED, PIPE_CLOSED = 130, 141
FAILED = 2
# How each shell completes the name of a file, as shtab's FILE; its import would cost `--help` more than all else.
_FILE_COMPLETION = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "tcsh": "f",
    "fish": "(__fish_complete_path (commandline -ct))",
    "powershell": "_shtab_powershell_compgen_files",
}


@dataclass(frozen=True)
class Command:
    """One command: what it does, how it is used, and what runs it.

    Attributes:
        name: as typed after `fusion`.
        summary: one sentence for the list of commands and the top of the command's own help.
        examples: command lines that work, without the leading `fusion NAME`.
        exit_codes: what each exit code means; 2, 130 and 141 are added where they are not listed.
        declare: adds the arguments to the command's parser.
        run: does the work and returns the exit code. It imports what it needs, so that `--help` stays fast.
    """

    name: str
    summary: str
    examples: tuple[str, ...]
    exit_codes: Mapping[int, str]
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def epilog(self) -> str:
        """Examples and exit codes, for the end of the command's help."""
        codes = {
            FAILED: "wrong usage, or an input cannot be used; the message says which",
            **self.exit_codes,
            INTERRUPTED: "interrupted by Ctrl-C",
            PIPE_CLOSED: "the reader of the output closed the pipe",
        }
        lines = ["examples:", *(f"  fusion {self.name} {example}".rstrip() for example in self.examples)]
        lines += ["", "exit codes:", *(f"  {code:<4}{meaning}" for code, meaning in sorted(codes.items()))]
        return "\n".join(lines)


@dataclass(frozen=True)
class CommandGroup:
    """Commands that are listed together."""

    title: str
    commands: tuple[Command, ...]


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command. Its errors do not repeat the usage, which may be ten lines long."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, the error and where to read more."""
        stop = "" if message.endswith((".", "?")) else "."
        self.exit(FAILED, f"{self.prog}: {message}{stop} `{self.prog} --help` shows how it is used\n")


class Program(argparse.ArgumentParser):
    """The parser of `fusion COMMAND ...`, with suggestions for misspelt commands and options."""

    def __init__(self, groups: Sequence[CommandGroup]) -> None:
        """Make the parser of all commands in the groups."""
        super().__init__(
            prog="fusion",
            description="fusion: who took what, and how sure. Runs, checks and operates checkout-free stores.",
            usage="fusion [--version] COMMAND [...]",
        )
        self._groups = groups
        self.add_argument("--version", action="version", version=f"fusion {fusion.__version__}")
        commands = self.add_subparsers(prog="fusion", dest="command", metavar="COMMAND", parser_class=_CommandParser)
        self._parsers: dict[str, argparse.ArgumentParser] = {}
        for command in (command for group in groups for command in group.commands):
            parser = commands.add_parser(
                command.name,
                help=command.summary,
                description=command.summary,
                epilog=command.epilog(),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            command.declare(parser)
            parser.set_defaults(run=command.run)
            self._parsers[command.name] = parser

    def format_help(self) -> str:
        """The commands by group, a line each."""
        lines = [f"usage: {self.usage}", "", str(self.description), ""]
        width = max(map(len, self._parsers)) + 2
        for group in self._groups:
            lines.append(f"{group.title}:")
            lines += [f"  {command.name:<{width}}{command.summary}" for command in group.commands]
            lines.append("")
        lines += [
            "options:",
            "  -h, --help  show this help; `fusion COMMAND --help` shows a command's",
            "  --version   show the version",
        ]
        return "\n".join(lines) + "\n"

    def command_line(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments. Exits with code 2 and a suggestion where a command or an option is unknown."""
        name = argv[0] if argv else ""
        if name and not name.startswith("-") and name not in self._parsers:
            known = _suggestion(name, self._parsers)
            self.exit(FAILED, f"fusion: unknown command {name!r}{known} `fusion --help` lists all\n")
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            self._refuse(self._parsers.get(arguments.command, self), unknown)
        return arguments

    def _refuse(self, parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
        options = [option for option in _option_strings(parser) if option.startswith("--")]
        misspelt = [word for word in unknown if word.startswith("-")]
        if misspelt:
            word = misspelt[0].partition("=")[0]
            parser.error(f"unknown option {word}{_suggestion(word, options)}")
        parser.error(f"unexpected argument {unknown[0]!r}")


def add_path(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, **options: Any) -> argparse.Action:
    """Add an argument that names a file or a folder; shells complete it so."""
    action = parser.add_argument(*names, **options)
    setattr(action, "complete", _FILE_COMPLETION)  # noqa: B010 shtab reads this attribute, which argparse does not declare
    return action


def _option_strings(parser: argparse.ArgumentParser) -> list[str]:
    """Every option in the parser's usage; argparse has no public list of them."""
    return [word.strip("[]|,") for word in parser.format_usage().split() if word.lstrip("[").startswith("--")]


def _suggestion(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    # Dashes are no likeness: without them `--bogus` resembles no option.
    names = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(word.lstrip("-"), list(names), n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else "."
