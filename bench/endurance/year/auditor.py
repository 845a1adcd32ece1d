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
from math import comb
from pathlib import Path
from typing import Any

S = 10**9
DAY_NS = 86_400 * S

# A bill that is settled without a person may be wrong this often at most, of 1000; the engine's own limit is 50, which
# also holds for bills that a customer's honest answers settle.
WRONG_PER_1000, ANSWERED_WRONG_PER_1000 = 15, 50
# Most that disputes may take off by themselves, minor units: of a visit, and of one customer's visits in a month.
VISIT_REFUND_MAX, MONTH_REFUND_MAX = 2000, 3000
ANSWERED_RIGHT, ANSWERED_WRONG = "settled by honest answers, right", "settled by honest answers, wrong"
BY_ANSWER, BY_DISPUTE = "shopper's answer", "shopper's dispute"


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

    def of(self, shop: str) -> Findings:
        """The same, each sentence with the name of the shop that it is about."""
        return Findings([f"{shop}: {text}" for text in self.broken], self.counts,
                        [f"{shop}: {text}" for text in self.wrong])  # fmt: skip

    def verdict(self) -> list[str]:
        """All that is broken, with what only many bills together can show."""
        n_right, n_wrong = self.counts["settled right"], len(self.wrong)
        n_answered, n_answered_wrong = self.counts[ANSWERED_RIGHT], self.counts[ANSWERED_WRONG]
        return [
            *self.broken,
            *_too_many("settled bills", n_wrong, n_right + n_wrong, WRONG_PER_1000),
            *_too_many("bills settled by honest answers", n_answered_wrong, n_answered + n_answered_wrong,
                       ANSWERED_WRONG_PER_1000),
        ]  # fmt: skip


def _too_many(what: str, n_wrong: int, n: int, per_1000: int) -> list[str]:
    """A sentence where more are wrong than chance makes of the allowed share once in 30000 nights."""
    p, n_max, more = per_1000 / 1000.0, -1, 1.0
    while more > 1.0 / 30_000:  # the probability of more than n_max wrong ones, binomial
        n_max += 1
        more -= comb(n, n_max) * p**n_max * (1.0 - p) ** (n - n_max)
    return [f"{n_wrong} of {n} {what} are wrong; want at most {n_max}"] if n_wrong > n_max else []


class Auditor:
    """Audits one shop over its days.

    Attributes:
        findings: so far.
        links_ended: how many visits no longer lead to a customer.
    """

    def __init__(self, folder: Path, store: str, unlink_after_days: int) -> None:
        self.findings = Findings()
        self._folder, self._store, self._unlink_ns = folder, store, unlink_after_days * DAY_NS
        self._seen: dict[int, bytes] = {}
        self._token_of: dict[str, str] = {}
        self._enter_of: dict[str, int] = {}
        self._linked: set[str] = set()
        self.links_ended = 0
        self._customers: dict[str, list[Customer]] = defaultdict(list)
        # By visit: whether each word of its customer about it was honest.
        self._words: dict[str, list[bool]] = defaultdict(list)

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
        for _, _, kind, visit, _, details in rows:
            if kind == "visit opened":
                self._enter_of[visit] = json.loads(details)["request"].get("enter") or 0
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
            self._customers[customer.token].append(customer)
        for customer in everyone:
            own = [one for one in visits if self._token_of.get(one["visit"]) == customer.token
                   and abs(one["enter"] - customer.enter_ns) < 60 * S]  # fmt: skip
            self._compare(customer, own, everyone)

    def audit_goods(self, before_ns: int) -> None:
        """What a settled bill charges went into its cart, by the shop's own account of its goods.

        That account follows with the next snapshot, so only visits before an instant are compared.
        """
        carts = defaultdict[str, Counter[str]](Counter)
        with closing(sqlite3.connect(f"file:{self._folder / 'outbox.sqlite'}?mode=ro", uri=True)) as outbox:
            for debit, credit, gtin, quantity in outbox.execute("SELECT debit, credit, gtin, quantity FROM goods"):
                carts[debit][gtin] += quantity
                carts[credit][gtin] -= quantity
        for one in self._visits():
            held = {gtin: n for gtin, n in carts[f"cart {one['visit']}"].items() if n}
            if one["status"] == "settled" and one["enter"] < before_ns and dict(one["items"]) != held:
                self._broken(f"visit {one['visit']} is settled for {dict(one['items'])}, and its cart got {held}")

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
            if amount < 0:
                self._broken(f"visit {visit}: {-amount} more was given back than was taken")
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

    def audit_chain(self, rows: list[Any], postings: list[Any], goods: list[Any]) -> None:
        """Everything was shipped: the chain's book holds the shop's entries, each once, and names no customer."""
        with self._books() as books:
            entries = books.execute("SELECT seq, t_ns, kind, visit, key, details FROM entry ORDER BY seq").fetchall()
            sums = books.execute("SELECT entry, account, currency, amount FROM posting ORDER BY entry, line").fetchall()
        for what, ours, theirs in (("entries", entries, rows), ("postings", sums, postings)):
            if ours != theirs:
                n = sum(one != other for one, other in zip(ours, theirs)) + abs(len(ours) - len(theirs))
                self._broken(f"{n} {what} differ between the shop's books and the chain's")
        text = repr((rows, goods))
        for token in sorted(set(self._token_of.values())):
            if token in text:
                self._broken(f"the chain's book names the customer {token}")

    def gate_silent(self, token: str, answer: str) -> None:
        """A customer stood at a gate that neither opened nor said why it stays closed."""
        self._broken(f"the gate had no final answer for {token}: {answer}")

    def gate_refused(self, token: str, reason: str) -> None:
        """A customer was turned away, which only what they owe can justify."""
        self.findings.counts[f"turned away: {reason}"] += 1
        if "owe" not in reason and "unpaid" not in reason:
            self._broken(f"the gate turned {token} away: {reason}")

    # ---- what people at pages know and meet --------------------------------------------------------------------------

    def kept_on(self, visit: str) -> dict[str, int] | None:
        """What the customer of a visit really kept; None where that is not known of this visit alone."""
        token, enter_ns = self._token_of.get(visit), self._enter_of.get(visit, 0)
        same = [other for other, whose in self._token_of.items()
                if whose == token and abs(self._enter_of.get(other, 0) - enter_ns) < 60 * S]  # fmt: skip
        own = [one for one in self._customers.get(token or "", ()) if abs(one.enter_ns - enter_ns) < 60 * S]
        return {gtin: n for gtin, n in own[0].items.items() if n} if len(same) == len(own) == 1 else None

    def visits_of_others(self, token: str) -> list[str]:
        """Visits that a customer may not see."""
        return sorted(visit for visit, whose in self._token_of.items() if whose != token)

    def n_entries(self) -> int:
        """How many entries the books hold."""
        with self._books() as books:
            return int(books.execute("SELECT count(*) FROM entry").fetchone()[0])

    def word(self, visit: str, *, honest: bool) -> None:
        """A customer answered or disputed something about their visit."""
        self._words[visit].append(honest)

    def page_showed(self, token: str, visit: str, total: int) -> None:
        """A customer was shown a bill."""
        owner = self._token_of.get(visit)
        if owner not in (None, token):
            self._broken(f"{token} was shown visit {visit} of {owner}")
        due = next((one["total"] for one in self._visits() if one["visit"] == visit), 0)
        if total != due:
            self._broken(f"{token} was shown {total} for visit {visit}, which costs {due} by the books")

    def page_took(self, what: str) -> None:
        """A page accepted what it must refuse, or refused what it must accept."""
        self._broken(f"page: {what}")

    def page_failed(self, what: str) -> None:
        """A page answered with an error of its own."""
        self._broken(f"page: {what}")

    def audit_words(self, caps: Mapping[str, int]) -> None:
        """After the last day: decisions by customers' words and by reviewers with a limit, against the entries."""
        refunds = Counter[str]()
        with self._books() as books:
            rows = books.execute("SELECT visit, kind, key, details FROM entry ORDER BY seq").fetchall()
        total, proposed, seconded, decided = Counter[str](), dict[tuple[str, int], Any](), set[str](), set[Any]()
        for visit, kind, key, details in rows:
            request = json.loads(details)["request"]
            now = sum(quantity * price for _, quantity, price, *_ in request.get("lines") or ())
            if kind == "proposal made":
                proposed[visit, request["revision"]] = key, request
            elif kind == "proposal seconded":
                seconded.add((key.removesuffix("/second"), request["by"]))
            elif kind.startswith("decision "):
                by, revision = request.get("by"), request.get("revision")
                if (visit, revision) in decided:
                    self._broken(f"visit {visit} was decided twice in revision {revision}")
                decided.add((visit, revision))
                if by in caps:
                    self._check_cap(visit, by, caps[by], proposed.get((visit, revision)), seconded)
                if by == BY_DISPUTE:
                    refunds[visit] += total[visit] - now
            if kind.startswith("receipt ") or (kind.startswith("decision ") and kind != "decision accept"):
                total[visit] = now
        self._check_refunds(refunds)
        self._check_answers()

    def _check_cap(self, visit: str, by: str, cap: int, made: Any, seconded: set[Any]) -> None:
        if made is None:
            self._broken(f"visit {visit} was decided by {by}, who had asked for nothing")
            return
        key, request = made
        others = {other for of, other in seconded if of == key} - {by}
        if request["amount"] > cap and not others:
            self._broken(f"visit {visit}: {by} decided {request['amount']} alone, with a limit of {cap}")

    def _check_refunds(self, refunds: Counter[str]) -> None:
        of_customer = Counter[str]()
        for visit, amount in refunds.items():
            of_customer[self._token_of.get(visit, visit)] += amount
            if amount > VISIT_REFUND_MAX:
                self._broken(f"disputes took {amount} off visit {visit} by themselves; want {VISIT_REFUND_MAX} at most")
        for token, amount in of_customer.items():
            if amount > MONTH_REFUND_MAX:
                self._broken(f"disputes of {token} took off {amount} by themselves; want {MONTH_REFUND_MAX} at most")

    def _check_answers(self) -> None:
        for one in self._visits():
            kept = self.kept_on(one["visit"])
            if one.get("by") == BY_ANSWER and all(self._words[one["visit"]]) and kept is not None:
                right = dict(one["items"]) == kept
                self.findings.counts[ANSWERED_RIGHT if right else ANSWERED_WRONG] += 1

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _books(self) -> closing[sqlite3.Connection]:
        path = self._folder / f"{self._store}.sqlite"
        return closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))

    def _note_names(self, books: sqlite3.Connection) -> None:
        """Whose visit each is, noted while the books still know."""
        question = "SELECT visit, holder.account FROM link JOIN holder ON pseudonym = link.account"
        rows = books.execute(question).fetchall()
        linked = {visit for visit, _ in rows}
        self.links_ended += len(self._linked - linked)
        self._linked = linked
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
            one["by"] = request.get("by")
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
