"""`fusion users`: the people who may use consoles, what each may do, and who did what."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING, Any

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusion.show.console.audit import Audit
    from fusion.show.console.users import StoreRights, Users

_ACTIONS = {
    "add": "let NAME sign in to a store, or give them a new password (asked for, or one line of standard input)",
    "list": "show everybody, with what they may do",
    "remove": "remove NAME; their sessions end at once",
    "lock": "lock NAME out of all stores; their sessions end at once",
    "unlock": "let NAME in again",
    "sign-out": "end all sessions of NAME",
    "roles": "set what NAME may do in a store; without --role they lose it",
    "caps": "set the amounts above which NAME needs a second person in a store; without --cap, none",
    "totp": "give NAME a second factor for an authenticator app, in the place of an earlier one; --off takes it",
    "audit": "show who did what, and check that no line was changed",
}
_OF_STORE = ("add", "roles", "caps")


def _declare(parser: argparse.ArgumentParser) -> None:
    actions = "; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    parser.add_argument("action", choices=tuple(_ACTIONS), metavar="ACTION", help=actions)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the person")
    add_path(parser, "--users", required=True, help="file of the people, such as users.json beside the books")
    parser.add_argument("--store", metavar="ID", help="id of the store that add, roles and caps are about")
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE",
        help="look, decide (reviews), refund (what was charged) or administer (read the audit log); may be repeated",
    )
    parser.add_argument("--cap", type=int, metavar="AMOUNT", help="largest decision alone, minor units")
    parser.add_argument("--day-cap", type=int, metavar="AMOUNT", help="the same for all decisions of a day")
    parser.add_argument("--off", action="store_true", help="totp: take the second factor")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="audit: newest lines to show (50)")


def _run(arguments: argparse.Namespace) -> int:
    from fusion.errors import FusionError
    from fusion.show.console.access import AUDIT_FILE
    from fusion.show.console.audit import Audit
    from fusion.show.console.users import Users

    users = Users(arguments.users)
    audit = Audit(users.path.with_name(AUDIT_FILE))
    action = arguments.action
    if action == "list":
        return _list(users)
    if action == "audit":
        return _show(audit, arguments.last)
    if not arguments.name:
        raise FusionError(f"NAME is missing: `fusion users {action}` is about one person")
    if action in _OF_STORE and not arguments.store:
        raise FusionError(f"--store is missing: `fusion users {action}` is about one store")
    for line in _changed(users, arguments):
        print(line)
    _note(audit, arguments)
    return 0


def _note(audit: Audit, arguments: argparse.Namespace) -> None:
    import time

    from fusion.show.console.audit import Action

    did = f"users: {arguments.action}{' off' if arguments.off else ''}"
    by = f"{getpass.getuser()} of this machine"
    audit.add(Action(time.time_ns(), by, did, arguments.store or "", arguments.name))


def _changed(users: Users, arguments: argparse.Namespace) -> Iterator[str]:
    """Do what is asked for; yields lines about it."""
    name, store = arguments.name, arguments.store
    match arguments.action:
        case "add":
            users.add(name, _password(name), store, _new_rights(users, arguments))
            yield f"{name} may sign in to {store}"
        case "remove":
            users.remove(name)
            yield f"{name} is removed"
        case "lock" | "unlock":
            users.lock(name, locked=arguments.action == "lock")
            yield f"{name} is {arguments.action}ed"
        case "sign-out":
            users.sign_out(name)
            yield f"all sessions of {name} have ended"
        case "roles":
            rights = _rights(users, arguments)
            users.grant(name, store, rights)
            yield f"{name} in {store}: {', '.join(rights.roles) or 'nothing'}"
        case "caps":
            held = _held(users, name, store)
            users.grant(name, store, held.model_copy(update={"cap": arguments.cap, "day_cap": arguments.day_cap}))
            yield f"{name} in {store}: {_caps_text(arguments.cap, arguments.day_cap)}"
        case "totp":
            address = users.second_factor(name, wanted=not arguments.off)
            yield from _qr_code(address) if address else [f"{name} has no second factor any more"]


def _new_rights(users: Users, arguments: argparse.Namespace) -> StoreRights | None:
    """Rights that `add` names; None where it names none, so that a person keeps theirs."""
    given = arguments.role or arguments.cap is not None or arguments.day_cap is not None
    return _rights(users, arguments) if given else None


def _rights(users: Users, arguments: argparse.Namespace) -> StoreRights:
    from pydantic import ValidationError

    from fusion.errors import FusionError
    from fusion.show.console.users import StoreRights, roles_of

    user = users.all().get(arguments.name)
    held = user.stores.get(arguments.store, StoreRights()) if user is not None else StoreRights()
    cap = held.cap if arguments.cap is None else arguments.cap
    day_cap = held.day_cap if arguments.day_cap is None else arguments.day_cap
    roles = roles_of(arguments.role)
    if arguments.action == "add" and not roles:
        roles = held.roles
    try:
        return StoreRights(roles=roles, cap=cap, day_cap=day_cap)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FusionError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None


def _held(users: Users, name: str, store: str) -> StoreRights:
    from fusion.errors import FusionError

    user = users.all().get(name)
    if user is None or store not in user.stores:
        raise FusionError(f"{name!r} has no rights in {store!r}; `fusion users list` shows them")
    return user.stores[store]


def _password(name: str) -> str:
    on_terminal = sys.stdin.isatty()
    return getpass.getpass(f"Password for {name}: ") if on_terminal else sys.stdin.readline().rstrip("\n")


def _qr_code(address: str) -> Iterator[str]:
    """The address of a second factor for a camera and as text."""
    import io

    from fusion.errors import extra

    if sys.stdout.isatty():
        with extra("console"):
            import segno
        drawn = io.StringIO()
        segno.make(address).terminal(drawn, compact=True)
        yield drawn.getvalue()
    yield address
    yield "Show this to their authenticator app now; it is not shown again. From now on they need its code to sign in."


def _caps_text(cap: int | None, day_cap: int | None) -> str:
    amounts = {"a decision": cap, "a day": day_cap}
    texts = [f"{name} up to {amount}" for name, amount in amounts.items() if amount is not None]
    return "alone " + (" and ".join(texts) or "any amount")


def _list(users: Users) -> int:
    from fusion.errors import terminal_text

    for name, user in users.all().items():
        marks = [mark for mark, held in (("locked", user.locked), ("second factor", user.secret)) if held]
        print(terminal_text(name) + (f" ({', '.join(marks)})" if marks else ""))
        for store, rights in user.stores.items():
            print(f"  {terminal_text(store)}: {', '.join(rights.roles)}; {_caps_text(rights.cap, rights.day_cap)}")
    return 0


def _show(audit: Audit, n_lines: int) -> int:
    import datetime
    from collections import deque

    from fusion.errors import terminal_text

    newest: deque[dict[str, Any]] = deque(audit.lines(), maxlen=max(n_lines, 1))
    for row in newest:
        time = datetime.datetime.fromtimestamp(row["t_ns"] // 10**9, datetime.UTC)
        words = [row.get(key, "") for key in ("by", "did", "store", "about", "network")]
        print(f"{time:%Y-%m-%d %H:%M:%S}Z  " + terminal_text("  ".join(word or "-" for word in words)))
    fault = audit.verify()
    print(f"{audit.path}: " + ("every line is as it was written" if fault is None else "CHANGED"))
    if fault is not None:
        print(terminal_text(fault), file=sys.stderr)
        return 1
    return 0


USERS = Command(
    "users",
    "Add, change and list the people who may use consoles, and show who did what.",
    (
        "add anna --users out/users.json --store corner-shop --role decide --cap 2000",
        "audit --users out/users.json --last 20",
    ),
    {0: "done; audit: no line was changed", 1: "audit: a line of the log was changed, removed or inserted"},
    _declare,
    _run,
)
