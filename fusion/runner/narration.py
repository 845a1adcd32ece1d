"""A run in words: a line for each thing that happens, and a summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fusion import results
from fusion.money.ledger import Ledger
from fusion.results import Receipt, Result, RunSummary, ShelfCount, ShelfStatus
from fusion.runner.truth import TrueVisit
from fusion.sentences import reason_text, sentence
from fusion.store.models import Store


def opening_line(store: Store, origin: str) -> str:
    """The first line of a run: the store, what it holds, and where its observations come from."""
    holds = f"{len(store.cameras)} cameras, {len(store.plates)} plates, {len(store.products)} products"
    return f"{store.name}: {holds}; {origin}"


def describe(store: Store, result: Result, start_ns: int) -> str | None:
    """One line for a result, with minutes and seconds since `start_ns`; None for results that come all the time."""
    text = _sentence(store, result)
    if text is None:
        return None
    t_ns = result.issued_ns if isinstance(result, Receipt) else result.t_ns
    minutes, seconds = divmod((t_ns - start_ns) / 1e9, 60.0)
    return f"{int(minutes):3d}:{seconds:04.1f}  {text}"


def _sentence(store: Store, result: Result) -> str | None:
    match result:
        case results.Warning():
            return f"warning: {result.kind}: {sentence(result, store)}"
        case results.PersonEntered(staff=True):
            return "staff came in"
        case results.PersonEntered():
            action = " came in" + (f" at {result.gate}" if result.gate else "")
        case results.PersonLeft():
            action = " left" + (f" at {result.gate}" if result.gate else "")
        case results.Picked():
            action = f" took {_goods(store, result)} from {_plate(result)}"
        case results.PutBack():
            action = f" put back {_goods(store, result)} on {_plate(result)}"
        case results.Receipt():
            n_pieces = sum(line.quantity for line in result.lines)
            action = f": {store.price_text(result.total)} for {n_pieces} pieces, {result.status}"
            action += f" ({reason_text(result.reasons, store)})" if result.reasons else ""
        case results.EarlyReceipt(receipt=early):
            n_pieces = sum(line.quantity for line in early.lines)
            action = f": probably {store.price_text(early.total)} for {n_pieces} pieces, {early.status}"
            action += f" (to be corrected with probability {result.correction_probability:.1%})"
        case results.Evidence():
            action = f": {len(result.events)} shelf events for the reviewer to look at"
        case _:
            return None
    return _who(result.account, result.visit) + action


def _who(account: str | None, visit: str | None) -> str:
    return account or ("a person without credential" if visit else "an unidentified person")


def _goods(store: Store, result: results.Picked | results.PutBack) -> str:
    name = next(product.name for product in store.products if product.gtin == result.gtin)
    return f"{result.quantity} x {name}"


def _plate(result: results.Picked | results.PutBack) -> str:
    return f"{result.plate} ({result.probability:.0%})"


# ---- the end ---------------------------------------------------------------------------------------------------------


def receipt_table(store: Store, receipts: Sequence[Receipt], visits: Sequence[TrueVisit] | None) -> list[str]:
    """The receipts in columns, beside the truth where there is one."""
    left = list(visits or [])
    rows = []
    for receipt in receipts:
        n_pieces = sum(line.quantity for line in receipt.lines)
        row = [receipt.account or "(none)", str(receipt.status), str(n_pieces), store.price_text(receipt.total)]
        if visits is not None:
            row += _beside_truth(store, receipt, left)
        rows.append([*row, reason_text(receipt.reasons) or ""])
    for visit in left:
        rows.append([visit.account or "(none)", "missing", "", "", "", "no receipt", ""])
    heads = ["account", "status", "pieces", "total", *(["truth", ""] if visits is not None else []), "reason"]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    ruled = [heads, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in ruled]


def _beside_truth(store: Store, receipt: Receipt, left: list[TrueVisit]) -> list[str]:
    """The true total and whether the receipt is right; takes its visit from those that are left."""
    same = [visit for visit in left if visit.account == receipt.account and visit.enter_ns <= receipt.exit_ns]
    if not same:
        return ["-", "no such visit"]
    visit = same[0]
    left.remove(visit)
    prices = {product.gtin: product.price for product in store.products}
    billed: Counter[str] = Counter()
    for line in receipt.lines:
        billed[line.gtin] += line.quantity
    items = {gtin: n for gtin, n in visit.items.items() if n}
    total = visit.total if visit.total is not None else sum(prices[gtin] * n for gtin, n in items.items())
    right = items == billed and total == receipt.total
    return [store.price_text(total), "right" if right else "WRONG"]


def delay_lines(receipts: Sequence[Receipt]) -> list[str]:
    """Lines that state how long after the exits the receipts came."""
    delays_s = sorted((receipt.issued_ns - receipt.exit_ns) / 1e9 for receipt in receipts)
    if not delays_s:
        return []
    median_s = delays_s[len(delays_s) // 2]
    return [f"from the exit to the receipt: median {median_s:.1f} s, at most {delays_s[-1]:.1f} s of store time"]


def shelf_line(shelves: Sequence[ShelfCount]) -> str:
    """How many shelf counts are empty, misplaced or overdrawn."""
    n = Counter(count.status for count in shelves)
    counts = ", ".join(
        f"{n[status]} {status}" for status in (ShelfStatus.EMPTY, ShelfStatus.MISPLACED, ShelfStatus.OVERDRAWN)
    )
    return f"shelves: {counts} of {len(shelves)}"


def ledger_line(store: Store, ledger: Ledger, receipts: Sequence[Receipt]) -> str:
    """What the books hold, and whether they are whole."""
    balances = ledger.balances().get(store.currency, {})
    return (
        f"ledger: {sum(receipt.status == 'settled' for receipt in receipts)} receipts booked, "
        f"{len(ledger.reviews())} waiting for review, {len(ledger.open_visits())} visits open; "
        f"all accounts sum to {sum(balances.values())}; {ledger.verify() or 'its chain holds'}"
    )


def engine_lines(store: Store, summary: RunSummary) -> list[str]:
    """What the run cost, and what was not used."""
    step_us = summary.step_us
    sets_per_s = summary.frames / max(len(store.cameras), 1) / max(summary.engine_cpu_s, 1e-9)
    cost = (
        f"engine: {summary.frames} frames and {summary.messages} weight messages in {summary.engine_cpu_s:.1f} s CPU "
        f"({sets_per_s:.0f} sets of frames a second), step p50 {step_us['p50']:.0f} us, p99 {step_us['p99']:.0f} us, "
        f"worst {step_us['max'] / 1e3:.1f} ms; {summary.wall_s:.1f} s in all"
    )
    return [cost, *(f"not used: {n} x {reason}" for reason, n in summary.ignored.items())]
