"""An auditor of a simulated shop who shares no code with it.

It reads the books with SQL and files as bytes, knows the truth and the bank's own account, and remembers what it has
seen. Each rule that is broken is a sentence; what cannot be a single event's fault (how often a settled bill is wrong)
is counted and judged over all shops.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

S = 10**9
DAY_NS = 86_400 * S

# A bill that is settled without a person may be wrong this often at most, of 1000; the engine's own limit is 50.
WRONG_PER_1000 = 15


@dataclass(frozen=True)
class Customer:
    """What one customer of a day really did.

    Attributes:
        token: the means of payment that they showed. let_in: whether the gate opened for them.
        enter_ns, exit_ns: when they passed the gates. items: what they kept, pieces by GTIN.
    """

    token: str
    let_in: bool
    enter_ns: int
    exit_ns: int
    items: Mapping[str, int]


@dataclass
class Findings:
    """What an auditor found in one or in many shops.

    Attributes:
        broken: rules, as sentences. counts: bills and visits by what became of them. wrong: settled bills that differ
            from the truth.
    """

    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Count another shop's findings too."""
        self.broken += other.broken
        self.counts += other.counts
        self.wrong += other.wrong

    def verdict(self) -> list[str]:
        """All that is broken, with what only many bills together can show."""
        n_settled = self.counts["settled right"] + len(self.wrong)
        # Four standard deviations beyond what chance makes of the allowed share.
        allowed = n_settled * WRONG_PER_1000 / 1000.0
        limit = allowed + 4.0 * allowed**0.5
        if len(self.wrong) > limit:
            return [*self.broken, f"{len(self.wrong)} of {n_settled} settled bills are wrong; want at most {limit:.1f}"]
        return self.broken


class Auditor:
    """Audits one shop over its days.

    Attributes:
        findings: so far.
    """

    def __init__(self, folder: Path, store: str, unlink_after_days: int) -> None:
        self.findings = Findings()
        self._folder, self._store, self._unlink_ns = folder, store, unlink_after_days * DAY_NS
        self._seen: dict[int, bytes] = {}
        self._token_of: dict[str, str] = {}

    def look(self, folder: Path) -> None:
        """Look at the books while the shop runs: what they held before must stand in them still."""
        self._folder = folder
        with self._books() as books:
            self._note_names(books)
            rows = books.execute("SELECT seq, t_ns, kind, visit, key, details FROM entry ORDER BY seq").fetchall()
            postings = defaultdict(list)
            lines = books.execute("SELECT entry, account, currency, amount FROM posting ORDER BY entry, line")
            for entry, *posting in lines:
                postings[entry].append(tuple(posting))
        digests = {row[0]: hashlib.sha256(repr((row, postings[row[0]])).encode()).digest() for row in rows}
        for seq, digest in self._seen.items():
            if digests.get(seq) != digest:
                self._broken(f"entry {seq} of the books has changed or is gone")
        self._seen = digests
        for seq, lines in postings.items():
            sums = Counter[str]()
            for _, currency, amount in lines:
                sums[currency] += amount
            if any(sums.values()):
                self._broken(f"entry {seq} does not sum to zero: {lines}")

    def audit_day(self, customers: Iterable[Customer], begin_ns: int) -> None:
        """Compare the visits of a day, which began at an instant, with what its customers did.

        A person of whom the cameras did not see the end may be billed when the shop opens again, and no later.
        """
        visits = self._visits()
        for one in visits:
            if one["status"] == "open" and one["enter"] < begin_ns:
                self._broken(f"visit {one['visit']} had no bill for a whole day")
        everyone = list(customers)
        for customer in everyone:
            own = [one for one in visits if self._token_of.get(one["visit"]) == customer.token
                   and abs(one["enter"] - customer.enter_ns) < 60 * S]  # fmt: skip
            self._compare(customer, own, everyone)

    def audit_money(self, moves: Iterable[Any], *, at_rest: bool) -> None:
        """Compare bills and books with the bank's account; at_rest: the bank has been well, and people have looked."""
        paid, captures = Counter[str](), Counter[str]()
        for move in moves:
            visit = move.key.split("/")[1]
            if move.step == "capture":
                captures[visit] += 1
                paid[visit] += move.amount
            elif move.step == "refund":
                paid[visit] -= move.amount
        due = {one["visit"]: one["total"] if one["final"] else 0 for one in self._visits()}
        for visit, amount in paid.items():
            if amount > due.get(visit, 0):
                self._broken(f"visit {visit}: {amount} taken in {captures[visit]} captures, {due.get(visit, 0)} owed")
            elif at_rest and amount < due.get(visit, 0):
                self.findings.counts["paid in part"] += 1
        with self._books() as books:
            booked = dict(books.execute("SELECT account, sum(amount) FROM posting GROUP BY account").fetchall())
        if at_rest and booked.get("provider", 0) != sum(paid.values()):
            held = booked.get("provider", 0)
            self._broken(f"the books hold {held} at the provider, which holds {sum(paid.values())}")
        self.findings.counts["minor units paid"] += sum(paid.values())

    def audit_end(self) -> None:
        """After the shop's last day: no visit is left open."""
        for one in self._visits():
            if one["status"] == "open":
                self._broken(f"visit {one['visit']} was never billed")

    def audit_privacy(self, now_ns: int, erased: Iterable[str], secrets: Iterable[str]) -> None:
        """Nothing names who was erased, or holds what may never be kept; links to visits end when the policy says."""
        hidden = [(name, name.encode()) for name in (*erased, *secrets)]
        for path in self._folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                for name, coded in hidden:
                    if coded in content:
                        self._broken(f"{path.relative_to(self._folder)} holds {name}, which must be nowhere")
        with self._books() as books:
            final = {one["visit"] for one in self._visits() if one["final"]}
            paid = dict(books.execute("SELECT visit, count(*) FROM entry WHERE kind = 'captured' GROUP BY visit"))
            for visit, enter_ns in books.execute("SELECT visit, enter_ns FROM link"):
                if visit in final and visit in paid and enter_ns < now_ns - self._unlink_ns - DAY_NS:
                    days = (now_ns - enter_ns) / DAY_NS
                    self._broken(f"visit {visit} is linked to a customer {days:.1f} days after it")

    def gate_silent(self, token: str, answer: str) -> None:
        """A customer stood at a gate that neither opened nor said why it stays closed."""
        self._broken(f"the gate had no final answer for {token}: {answer}")

    def gate_refused(self, token: str, reason: str) -> None:
        """A customer was turned away, which only what they owe can justify."""
        self.findings.counts[f"turned away: {reason}"] += 1
        if "owe" not in reason and "unpaid" not in reason:
            self._broken(f"the gate turned {token} away: {reason}")

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _books(self) -> closing[sqlite3.Connection]:
        path = self._folder / f"{self._store}.sqlite"
        return closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))

    def _note_names(self, books: sqlite3.Connection) -> None:
        """Whose visit each is, noted while the books still know."""
        rows = books.execute("SELECT visit, holder.account FROM link JOIN holder ON pseudonym = link.account")
        for visit, token in rows:
            before = self._token_of.setdefault(visit, token)
            if before != token:
                self._broken(f"visit {visit} was {before}'s and is {token}'s")

    def _visits(self) -> list[dict[str, Any]]:
        """Every visit as its entries have it."""
        found: dict[str, dict[str, Any]] = {}
        with self._books() as books:
            rows = books.execute(
                "SELECT visit, kind, details FROM entry WHERE kind = 'visit opened' OR kind LIKE 'receipt %' "
                "OR kind LIKE 'decision %' ORDER BY seq"
            ).fetchall()
        for visit, kind, details in rows:
            request = json.loads(details)["request"]
            one = found.setdefault(visit, {"visit": visit, "status": "open", "total": 0, "items": {}, "enter": 0})
            one["enter"] = one["enter"] or request.get("enter") or 0
            if kind == "visit opened":
                continue
            one["status"] = kind.split()[1] if kind.startswith("receipt") else "decided"
            if kind == "receipt review":
                one["why"] = sorted({reason["kind"] for reason in request.get("reasons", ())})
            if kind != "decision accept":
                lines = request.get("lines") or ()
                one["total"] = sum(quantity * price for _, quantity, price, *_ in lines)
                one["items"] = Counter()
                for gtin, quantity, *_ in lines:
                    one["items"][gtin] += quantity
                if request.get("total", one["total"]) != one["total"]:
                    self._broken(f"visit {visit}: lines of {one['total']} under a total of {request['total']}")
        for one in found.values():
            one["final"] = one["status"] in ("settled", "decided")
        return list(found.values())

    # ---- judging -----------------------------------------------------------------------------------------------------

    def _compare(self, customer: Customer, own: list[dict[str, Any]], everyone: list[Customer]) -> None:
        counts = self.findings.counts
        counts["customers"] += 1
        counts["let in"] += customer.let_in
        counts["let in, and no visit under their name"] += customer.let_in and not own
        wanted = {gtin: n for gtin, n in customer.items.items() if n}
        settled = [one for one in own if one["status"] == "settled" and (one["items"] or len(own) == 1)]
        for one in settled:
            if dict(one["items"]) == wanted:
                counts["settled right"] += 1
                continue
            text = f"{one['visit']} of {customer.token}: settled {dict(one['items'])}, kept {wanted}"
            self.findings.wrong.append(text)
            others = [other for other in everyone if other.token != customer.token and dict(one["items"]) == {
                gtin: n for gtin, n in other.items.items() if n} and one["items"]]  # fmt: skip
            if others:
                self._broken(f"{text}, which is what {others[0].token} kept")
        counts["in review"] += sum(one["status"] == "review" for one in own)
        for one in own:
            for why in one.get("why", ()):
                counts[f"in review: {why}"] += 1
        counts["open at closing"] += sum(one["status"] == "open" for one in own)

    def _broken(self, text: str) -> None:
        if text not in self.findings.broken:
            self.findings.broken.append(text)
