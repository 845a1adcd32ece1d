"""`fusion completion`: the script that teaches a shell to complete commands and options."""

from __future__ import annotations

import argparse

from fusion.commands.parser import Command


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"), help="the shell that the script is for"
    )


def _run(arguments: argparse.Namespace) -> int:
    import shtab

    from fusion.commands.main import program

    print(shtab.complete(program(), shell=arguments.shell))
    return 0


COMPLETION = Command(
    "completion",
    "Print the script with which a shell completes commands, options and files.",
    (
        "bash > ~/.local/share/bash-completion/completions/fusion",
        'zsh > "${fpath[1]}/_fusion"',
    ),
    {0: "the script was printed"},
    _declare,
    _run,
)
