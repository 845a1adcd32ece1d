"""The `fusion` command: finds the command that is asked for, runs it, and turns errors into exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

from fusion.commands import (
    books,
    calibration,
    cameras,
    chain,
    completion,
    console,
    convert,
    demo,
    detect,
    feed,
    forgetting,
    goods_in,
    learnt,
    money,
    planning,
    report,
    run,
    safekeeping,
    settlement,
    setup,
    shopper,
    users,
)
from fusion.commands.parser import FAILED, INTERRUPTED, PIPE_CLOSED, CommandGroup, Program
from fusion.runner.closed_pipe import discard_stdout, stdout_is_closed

GROUPS = (
    CommandGroup(
        "run a store",
        (
            run.RUN, chain.SERVE, chain.REPLAY, console.CONSOLE, users.USERS, shopper.SHOPPER, learnt.LEARNT,
            cameras.CAMERAS,
        ),
    ),
    CommandGroup("bring in what sensors send", (detect.DETECT, feed.FEED, convert.CONVERT)),
    CommandGroup("look at runs", (demo.DEMO, report.REPORT)),
    CommandGroup(
        "set up a store",
        (
            setup.INIT, goods_in.IMPORT, goods_in.WORKSHEET, setup.CALIBRATE, calibration.CALIBRATION, setup.CHECK,
            planning.PLAN, setup.DOCTOR,
        ),
    ),
    CommandGroup("keep the books", (books.VERIFY, books.STATEMENT, settlement.SETTLEMENT)),
    CommandGroup("keep people's data", (books.PRIVACY, forgetting.FORGET, books.RETENTION)),
    CommandGroup(
        "keep the evidence", (safekeeping.CHECKPOINT, safekeeping.BACKUP, safekeeping.RESTORE, safekeeping.RESEAL)
    ),
    CommandGroup("take payments further", (money.SETTLE, money.COLLECT, money.RECOVER, money.RESOLVE, money.CLOSE)),
    CommandGroup("bring stores together", (chain.SHIP, chain.RECONCILE, chain.CHAIN_ROLES, chain.QUARANTINE)),
    CommandGroup("set up the shell", (completion.COMPLETION,)),
)

# Commands that write layout and policy, which the user who runs the store reads. Other commands write about people.
SHARED = ("init", "import", "worksheet", "calibrate", "calibration", "completion")


_DISK_ERRORS = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO") if hasattr(errno, name)
)


def program() -> Program:
    """The parser of all commands."""
    return Program(GROUPS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The command's exit code; 0 with the list of commands where none is named; 2 after an error that has a name,
        which is one line on stderr; 130 after Ctrl-C; 141 where the reader of the output has closed the pipe.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _dispatch(words)
        finally:
            # Flush here rather than at interpreter exit, so that the error of a closed pipe can be caught.
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"fusion{_name(words)}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not stdout_is_closed():
            raise
        discard_stdout()
        return PIPE_CLOSED


def _dispatch(words: Sequence[str]) -> int:
    parser = program()
    if not words:
        parser.print_help()
        return 0
    arguments = parser.command_line(words)
    from fusion.errors import ConfigError, FusionError, terminal_text
    from fusion.files.private import private_files

    shared = contextlib.nullcontext() if arguments.command in SHARED else private_files()
    try:
        with shared:
            return int(arguments.run(arguments))
    except FusionError as error:
        # Each fault has a line of its own; what it quotes cannot make further ones.
        faults = error.faults if isinstance(error, ConfigError) and len(error.faults) > 1 else ()
        shown = [f"{len(faults)} faults:", *faults] if faults else [str(error)]
        print(f"fusion {arguments.command}: " + "\n  ".join(map(terminal_text, shown)), file=sys.stderr)
        return FAILED
    except OSError as error:
        # A file or folder that cannot be read or written. Where nothing names it, it is a write to a disk that takes no
        # more, or something else, such as a closed pipe.
        if error.filename is None and error.errno not in _DISK_ERRORS:
            raise
        used = "the disk" if error.filename is None else error.filename
        text = terminal_text(f"cannot use {used}: {_cause(error)}")
        print(f"fusion {arguments.command}: {text}", file=sys.stderr)
        return FAILED


def _cause(error: OSError) -> str:
    """The cause in words; where a folder on the way is missing, that folder."""
    folder = os.path.dirname(os.fspath(error.filename)) if isinstance(error, FileNotFoundError) else ""
    if folder and not os.path.isdir(folder):
        return f"the folder {folder} does not exist; create it first"
    return str(error.strerror).lower()


def _name(words: Sequence[str]) -> str:
    return f" {words[0]}" if words and not words[0].startswith("-") else ""
