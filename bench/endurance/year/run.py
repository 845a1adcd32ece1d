"""A year of shop-days in a night: the whole chain of small shops, everything that breaks, and an auditor.

    python -m bench year                          365 shop-days on two processes
    python -m bench year --days 7 --shops 1       one shop for a week
    python -m bench year --bug "lost pick"        a deliberate bug; the exit code is 0 where the auditor finds it
    python -m bench year --bugs                   each deliberate bug until it is found

One seed decides everything: customers, sensors, network, kills, provider, disk, console, who wants to be forgotten.
Every shop runs the code that a shop runs (`StoreLoop` with till, books, vault and gates), in one process and on a clock
of its own: a shop-day is its busy minutes, a closed evening and a night that passes at once. Messages are cut, late,
doubled, damaged and forged; the store is killed with people inside; its disk is full, its provider away or its answers
lost; configurations are pushed and rolled back. Customers read, answer and dispute their bills on phones, reviewers
decide at two consoles, and others send both what no page sends; these applications are asked in the same process. One
shop in four ships its rows to a chain's book on a real PostgreSQL (`pgserver`), which loses connections, its power and
its newest rows. An auditor who shares no code with the product (`auditor`) knows what every customer kept and what the
bank moved. The table shows which states were reached: a quiet night that reached few of them has not looked. Not in
it: the broker's own process and real browsers, which `bench shops` and the tests of pages have.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from bench.endurance.year.auditor import Findings
from bench.endurance.year.bugs import BUGS
from bench.endurance.year.shop import Life, Lived, lived
from bench.machine import machine

# States that a night must have reached; beginnings of their names.
WANTED = (
    "killed with people inside", "killed while empty", "closed for the night", "the disk was full",
    "the provider went away", "the provider was away at closing", "the provider was away for long",
    "authorise: no answer, nothing done",
    "authorise: done, answer lost", "capture: done, answer lost", "capture: asked again under its key", "declined",
    "refund", "a person looked at the bank's account", "the provider has no look-up", "decided: correct",
    "decided: waive", "withdrawn within ten seconds", "a review waits for another day", "erasure: done",
    "erasure: waiting", "a visit's link to its customer ended", "a configuration was rolled back after it was adopted",
    "a configuration was rolled back before it was adopted", "a decision waits for a second person", "seconded",
    "two reviewers decided one visit", "withdrawn too late", "phone: answered, settled", "phone: answered, review",
    "phone: disputed a wrong line", "phone: disputed a right line", "erasure asked for on a phone",
    "pages: another token was refused", "pages: a hostile body was refused", "chain: shipped",
    "chain: a connection was lost", "chain: the server lost its power", "chain: a copy that lagged took over",
    "a stranger at the gate", "a damaged message was refused", "network: cut", "network: slow", "network: doubled",
    "network: damaged", "network: clock", "network: hostile",
)  # fmt: skip

# A bug may show late in a shop's life: a gate that sticks after forty customers, say. Its life ends once it is found.
BUG_DAYS = 21


def main(arguments: Sequence[str] | None = None) -> int:
    """Live through the shop-days that the command line names; 1 where a rule is broken, or a bug is not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7, help="of each shop (7)")
    parser.add_argument("--shops", type=int, default=53, help="(53: with 7 days each, a year and some)")
    parser.add_argument("--minutes", type=float, default=1.5, help="of customers a day (1.5)")
    parser.add_argument("--seed", type=int, default=1, help="of the first shop (1)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--bug", choices=[name for name in BUGS if name], help="put a deliberate bug into the product")
    parser.add_argument("--bugs", action="store_true", help="try each deliberate bug, shop by shop, until it is found")
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file too")
    args = parser.parse_args(arguments)
    if args.bugs:
        return _all_bugs(args)
    lives = [_life(args, number, args.bug or "") for number in range(args.shops)]
    findings, reached, days, cpu_s, text = Findings(), Counter[str](), 0, 0.0, ""
    options = f"--shops {args.shops} --days {args.days} --minutes {args.minutes} --seed {args.seed}"
    for shop in _all_lived(lives, args.processes):
        findings.add(shop.findings)
        reached += shop.reached
        days += shop.days
        cpu_s += shop.cpu_s
        for line in (*shop.findings.broken, *shop.findings.wrong, f"{days} shop-days"):
            print(line, file=sys.stderr, flush=True)
        made = f"Made by `python -m bench year {options}`, {cpu_s / days:.1f} s of CPU time a shop-day. {machine()}."
        text = tables(findings, reached, days, made)
        if args.out:
            args.out.write_text(text, encoding="utf-8")  # a night that is cut short has its table too
    print(text)
    broken = findings.verdict()
    return int(not broken) if args.bug else int(bool(broken))


def tables(findings: Findings, reached: Counter[str], days: int, made: str) -> str:
    """What the auditor counted and found, and the states that were reached, as Markdown; `made`: by what."""
    counts, broken = findings.counts, findings.verdict()
    verdict = f"Broken rules of the auditor: {len(broken)}." if broken else "Every rule of the auditor holds."
    lines = ["# A year of shop-days", "", made, "", f"{days} shop-days. {verdict}", ""]
    lines += ["| customers and bills | |", "|---|---|"]
    lines += [f"| {what} | {n} |" for what, n in sorted(counts.items())]
    lines += [f"| settled wrong | {len(findings.wrong)} |", "", "| state reached, fault injected | times | a day |"]
    lines += ["|---|---|---|", *(f"| {state} | {n} | {n / days:.2f} |" for state, n in sorted(reached.items()))]
    lines += ["", *(f"- not reached: {state}" for state in missing(reached))]
    lines += [f"- settled wrong: {text}" for text in findings.wrong[:20]]
    lines += [f"- BROKEN: {text}" for text in broken]
    return "\n".join(lines) + "\n"


def missing(reached: Counter[str]) -> list[str]:
    """The states that were wanted and never reached."""
    return [wanted for wanted in WANTED if not any(n and state.startswith(wanted) for state, n in reached.items())]


def _life(args: argparse.Namespace, number: int, bug: str) -> Life:
    folder = Path(tempfile.mkdtemp(prefix=f"year-{args.seed + number}-"))
    return Life(args.seed + number, args.days, args.minutes, folder, bug)


def _all_lived(lives: Sequence[Life], processes: int) -> Iterator[Lived]:
    if processes == 1:
        yield from map(lived, lives)
        return
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(lived, life) for life in lives]):
            yield future.result()


def _all_bugs(args: argparse.Namespace) -> int:
    """Each deliberate bug until the auditor finds it; 1 where one is not found in all the shops."""
    missed = 0
    print("| deliberate bug | found after shop-days | minutes | by the rule |\n|---|---|---|---|")
    for name in BUGS:
        if not name:
            continue
        began_s, findings, days, broken = time.monotonic(), Findings(), 0, list[str]()
        for number in range(args.shops):
            shop = lived(replace(_life(args, number, name), days=max(args.days, BUG_DAYS)))
            findings.add(shop.findings)
            days += shop.days
            if broken := findings.verdict():
                break
        missed += not broken
        found = f"{days} | {(time.monotonic() - began_s) / 60:.1f} | {broken[0][:110] if broken else 'NOT FOUND'}"
        print(f"| {name} | {found} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
