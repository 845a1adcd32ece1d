"""Reasons and warnings in words: the only place that turns them into sentences for people.

Everything below keeps kinds and fields, so that they can be counted, filtered and translated. A sentence contains no
semicolon, since `reason_text` joins sentences with one.
"""

from __future__ import annotations

from collections.abc import Iterable

from fusion.results import Reason, ReasonKind, Warning, WarningKind
from fusion.store.models import Store

_GAP = "during this visit or shortly before"

# Templates see the fields of the reason; `product` is its name where a store is given, else its GTIN.
_REASONS = {
    ReasonKind.NO_CREDENTIAL: "no credential",
    ReasonKind.SCANNED_PERSON_LOST:
        "the person who scanned was lost from sight at the gate and may not be the one who came in",
    ReasonKind.UNSCANNED_BESIDE: "a person without a credential stood at the gate during this scan",
    ReasonKind.LOST_AMONG_OTHERS: "lost from sight among others",
    ReasonKind.LOST_INSIDE: "lost from sight inside the store",
    ReasonKind.PERSON_UNCERTAIN:
        "the person is uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.GOODS_UNCERTAIN:
        "the product is uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.EVENT_UNCERTAIN: "uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.CART_UNCERTAIN: "the cart as a whole is right with probability {probability:.2f}, below the limit",
    ReasonKind.RETURNED_MORE_THAN_TAKEN: "more was put back than taken: {product}",
    ReasonKind.PLATE_NOT_REPORTING: "may have taken from plate {plate}, which does not report",
    ReasonKind.HAND_OVER_AMBIGUOUS: "another visit put back {product}, which may be from this one",
    ReasonKind.RETURN_UNCLEAR: "whether this visit put back {product} is no longer clear",
    ReasonKind.SIGHTING_NOT_HELD: "{source} {sighting} {quantity} x {product} at '{zone}', which no visit there holds",
    ReasonKind.SIGHTING_AMBIGUOUS:
        "{source} {sighting} {quantity} x {product} at '{zone}', which several visits may have handed over",
    ReasonKind.DATA_LOST: f"{{seconds:.1f}} s of the sensors' data were lost {_GAP}",
    ReasonKind.DATA_DROPPED: f"{{seconds:.1f}} s of a sensor's data were dropped under overload {_GAP}",
    ReasonKind.DATA_LOST_AT_END: f"{{seconds:.1f}} s of the sensors' data at the end were lost {_GAP}",
    ReasonKind.DATA_ENDED: "the store's data ended during this visit",
    ReasonKind.SCANS_DROPPED: f"scans were dropped under overload {_GAP}",
    ReasonKind.MESSAGES_DROPPED: f"messages were dropped under overload {_GAP}",
    ReasonKind.STREAM_NOT_RESUMED: "a sensor's data have not resumed since a restart",
    ReasonKind.RESTARTED: "the store was restarted during this visit",
    ReasonKind.STATE_LOST: f"the store was started without its earlier state {_GAP}",
    ReasonKind.SNAPSHOT_UNUSABLE: "the store's snapshot could not be used during this visit",
    ReasonKind.LAYOUT_CHANGED: "the store's sensors or shelves were changed during this visit",
    ReasonKind.DOUBTS_UNREADABLE: "what was doubted before a restart cannot be read",
    ReasonKind.ACCOUNT_CHANGED: "before a restart this visit was another account's",
    ReasonKind.NEIGHBOUR_REBILLED: f"the bill of another visit changed {_GAP}",
    ReasonKind.NOTE: "{detail}",
}  # fmt: skip

_WARNINGS = {
    WarningKind.PLATE_SILENT: "no message for {seconds:g} s",
    WarningKind.PLATE_STUCK: "the same value for {seconds:g} s",
    WarningKind.PLATE_NOISY: "noise above {limit_g:g} g",
    WarningKind.PLATE_RECOVERED: "reports again",
    WarningKind.CAMERA_OUTAGE: "no frames for {seconds:g} s while other cameras deliver",
    WarningKind.CAMERA_BACK: "frames again",
    WarningKind.CAMERA_MOVED:
        "{off_cm:.0f} cm off what other cameras see, so it was moved and is not used until it fits again",
    WarningKind.CAMERA_FITS_AGAIN: "agrees with the other cameras and is used",
    WarningKind.CAMERA_RECALIBRATED: "has a new calibration and is used",
    WarningKind.CAMERA_MISSES_PEOPLE:
        "misses {share:.0%} of the people in its view, other cameras {usual_share:.0%}",
    WarningKind.CAMERA_FINDS_PEOPLE: "misses {share:.0%} of the people in its view",
    WarningKind.UNKNOWN_GATE: "a scan was ignored, since store.toml has no gate '{subject}'",
    WarningKind.CREDENTIAL_REFUSED: "a {credential} credential is not accepted at '{subject}'",
    WarningKind.PERSON_LOST: "a person of this visit was lost from sight and not seen leaving",
    WarningKind.OVERLOAD: "{count} dropped, {total} so far, and the overload continues",
    WarningKind.OVERLOAD_OVER: "{count} dropped, {total} so far, and the overload is over",
    WarningKind.REFUSED: "{detail}, {total} so far",
    WarningKind.BROKER_LOST: "{detail}",
    WarningKind.BROKER_BACK: "connected again",
    WarningKind.PUBLISHER_LOST: "the connection of '{subject}' broke, so its sensors send nothing",
    WarningKind.PUBLISHER_BACK: "'{subject}' is connected again",
    WarningKind.PUBLISHER_STOPPED: "'{subject}' has ended in order",
    WarningKind.PUBLISHER_SILENT: "'{subject}' did not come back in {seconds:g} s",
    WarningKind.PUBLISHER_DROPPED: "'{subject}' has dropped {total} messages so far, since its queue was full",
    WarningKind.MESSAGES_MISSING: "{total} messages of {subject} were published and never arrived",
    WarningKind.MESSAGES_DROPPED: "{total} {subject} dropped so far, since the queue to the engine was full",
    WarningKind.MESSAGE_REFUSED: "{subject}: {detail}, {total} so far",
}  # fmt: skip


class _Missing:
    """A field that the kind wants and that was not given: a sentence is never an error."""

    def __format__(self, _: str) -> str:
        return "?"


def sentence(reported: Reason | Warning, store: Store | None = None) -> str:
    """A reason or a warning in plain English.

    Args:
        reported: what the engine or a store's process reported.
        store: where given, products are called by their names instead of their GTINs.
    """
    fields = {
        name: _Missing() if (value := getattr(reported, name)) is None else value
        for name in reported.__dataclass_fields__
    }
    if isinstance(reported, Reason):
        names = {product.gtin: product.name for product in store.products} if store is not None else {}
        return _REASONS[reported.kind].format(**fields, product=names.get(reported.gtin or "", fields["gtin"]))
    if reported.kind is WarningKind.NO_CREDENTIAL:
        where = f"at '{reported.gate}'" if reported.gate else "inside the store, not seen coming in"
        return f"a person without credential {where}"
    return _WARNINGS[reported.kind].format(**fields, off_cm=100.0 * (reported.off_m or 0.0))


def sentences(reasons: Iterable[Reason], store: Store | None = None) -> list[str]:
    """Reasons in words, each sentence once."""
    return list(dict.fromkeys(sentence(reason, store) for reason in reasons))


def reason_text(reasons: Iterable[Reason], store: Store | None = None) -> str | None:
    """All reasons of a receipt in one line, as in `reason` of receipts.jsonl; None where there is none."""
    return "; ".join(sentences(reasons, store)) or None
