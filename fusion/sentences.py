"""Reasons, warnings and questions in words: the only place that turns them into sentences for people.

Everything below keeps kinds and fields, so that they can be counted, filtered and translated. A sentence contains no
semicolon, since `reason_text` joins sentences with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from fusion.errors import cut_text
from fusion.results import (
    CameraCorrection,
    Goods,
    Lesson,
    LessonCause,
    LessonKind,
    Question,
    QuestionKind,
    Reason,
    ReasonKind,
    Warning,
    WarningKind,
)
from fusion.store.models import Store

# Names and other programs' texts are cut to this length in a sentence, characters.
SHOWN_MAX, DETAIL_SHOWN_MAX = 60, 500
# Up to this many sentences of one kind stand for themselves; more become a count and the first of them.
ALIKE_MAX = 4
NAMED_MAX = 3
# Longest text about one receipt, characters: as much as the ledger takes.
REASON_TEXT_MAX = 2000

_GAP = "during this visit or shortly before"

# Templates see the fields of the reason; `product` is its name where a store is given, else its GTIN.
_REASONS = {
    ReasonKind.NO_CREDENTIAL: "no credential",
    ReasonKind.SCANNED_PERSON_LOST:
        "the person who scanned was lost from sight at the gate and may not be the one who came in",
    ReasonKind.UNSCANNED_BESIDE: "a person without a credential stood at the gate during this scan",
    ReasonKind.SCAN_UNCERTAIN:
        "the scan at '{gate}' may be that of another person who came in: probability {probability:.2f}",
    ReasonKind.SCANS_SHIFTED:
        "scans at '{gate}' do not match the people who came in there, and its clock may be off",
    ReasonKind.SCAN_UNBOUND: "the person who scanned at '{gate}' was not seen coming in",
    ReasonKind.DOOR_SHARED:
        "another credential was shown at '{gate}' before its door was closed, so whose goods these are is not known",
    ReasonKind.DOOR_UNSURE: "when the door of '{gate}' was closed is not known, since its contact did not report it",
    ReasonKind.DOOR_LEFT_OPEN: "the door of '{gate}' was open for over three minutes, so others may have reached in",
    ReasonKind.LOST_AMONG_OTHERS: "lost from sight among others",
    ReasonKind.LOST_INSIDE: "lost from sight inside the store",
    ReasonKind.CAMERAS_SILENT: "no camera delivered anything for {seconds:.0f} s of this visit",
    ReasonKind.CAMERAS_DISAGREE:
        "the cameras do not agree on where people are, so their calibration or the scale of the keypoints is wrong",
    ReasonKind.PERSON_UNCERTAIN:
        "the person is uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.GOODS_UNCERTAIN:
        "the product is uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.EVENT_UNCERTAIN: "uncertain at plate {plate}, {delta_g:+.0f} g: probability {probability:.2f}",
    ReasonKind.CART_UNCERTAIN: "the cart as a whole is right with probability {probability:.2f}, below the limit",
    ReasonKind.RETURNED_MORE_THAN_TAKEN: "more was put back than taken: {product}",
    ReasonKind.PLATE_NOT_REPORTING: "may have taken from plate {plate}, which does not report",
    ReasonKind.PLATE_UNFIT: "may have taken from plate {plate}, whose readings cannot be right",
    ReasonKind.PLATE_UNSETTLED: "may have taken from plate {plate}, whose weight did not settle",
    ReasonKind.PLATE_NOISY: "may have taken from plate {plate}, whose noise hides goods as light as those there",
    ReasonKind.LOAD_ELSEWHERE:
        "reached into plate {plate} while a load moved elsewhere, where no hand was, as if cables were exchanged",
    ReasonKind.NO_PLATE_ALIVE: "no plate of the store reported weights that can be used up to the end of this visit",
    ReasonKind.LOAD_UNEXPLAINED: "plate {plate} changed by {delta_g:+.0f} g, which no product explains",
    ReasonKind.HAND_OVER_AMBIGUOUS: "another visit put back {product}, which may be from this one",
    ReasonKind.RETURN_UNCLEAR: "whether this visit put back {product} is no longer clear",
    ReasonKind.SIGHTING_NOT_HELD: "{source} {sighting} {quantity} x {product} at '{zone}', which no visit there holds",
    ReasonKind.SIGHTING_AMBIGUOUS:
        "{source} {sighting} {quantity} x {product} at '{zone}', which several visits may have handed over",
    ReasonKind.CLOCKS_SET_BACK: "the clocks of all sensors were set back by {seconds:.1f} s during this visit",
    ReasonKind.TIME_MISSING:
        "{seconds:.1f} s are missing during this visit: no sensor sent, or all clocks were set forward",
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
    ReasonKind.AGE_UNVERIFIED: "{product} has a minimum age, and this customer's age was never verified",
    ReasonKind.PERSON_NEEDED: "{product} is {detail}: a person enters what it costs",
    ReasonKind.DOOR_RELEASED: "a door was opened by its emergency release during this visit",
    ReasonKind.STEP_FAILED: "some of the sensors' data during this visit could not be processed: {detail}",
    ReasonKind.BILL_FAILED: "the bill could not be made: {detail}",
    ReasonKind.NOT_BOOKED: "the receipt could not be booked: {detail}",
    ReasonKind.NOTE: "{detail}",
}  # fmt: skip

# Kinds of which a receipt may have one for every plate: the sentence about many at once, and the field that names each.
_MANY = {
    ReasonKind.PLATE_NOT_REPORTING: ("may have taken from {n} plates that do not report, among them {names}", "plate"),
    ReasonKind.PLATE_UNFIT: (
        "may have taken from {n} plates whose readings cannot be right, among them {names}", "plate",
    ),
    ReasonKind.PLATE_UNSETTLED: (
        "may have taken from {n} plates whose weight did not settle, among them {names}", "plate",
    ),
    ReasonKind.PLATE_NOISY: (
        "may have taken from {n} plates whose noise hides light goods, among them {names}", "plate",
    ),
}

# Kinds that may be about a number of plates, of which the first are named.
_OF_PLATES = {
    WarningKind.PLATE_SILENT, WarningKind.PLATE_STUCK, WarningKind.PLATE_OUT_OF_RANGE, WarningKind.PLATE_NOISY,
    WarningKind.PLATE_RECOVERED, WarningKind.PLATE_UNIT, WarningKind.PLATE_RATE, WarningKind.PLATE_LAGS,
    WarningKind.PLATE_FIT_AGAIN,
}  # fmt: skip

_WARNINGS = {
    WarningKind.PLATE_SILENT: "no message for {seconds:g} s",
    WarningKind.PLATE_STUCK: "the same value for {seconds:g} s",
    WarningKind.PLATE_OUT_OF_RANGE: "readings off by more than the plate carries for {seconds:g} s, which are not used",
    WarningKind.PLATE_RESTARTED: "weighs from another zero, so what was taken or put there just before is not known",
    WarningKind.PLATE_NOISY: "noise above {limit_g:g} g",
    WarningKind.PLATE_RECOVERED: "reports again",
    WarningKind.PLATE_UNIT:
        "readings tremble less than those of any scale in the store's unit, so theirs is a larger one, perhaps the "
        "kilogram: set weight_unit in store.toml to it",
    WarningKind.PLATE_RATE:
        "{rate_hz:.1f} samples a second come, which is not the store's weight_rate_hz, so loads cannot be dated",
    WarningKind.PLATE_FACTOR:
        "loads seem to read {factor:.3g} times what goods weigh: check weight_unit in store.toml, gain, polarity and "
        "load cells",
    WarningKind.PLATE_EXCHANGED: "shows the loads of plate {detail}, so their cables seem to be exchanged",
    WarningKind.PLATE_LAGS:
        "hands are there {seconds:+.2g} s from the time of its loads, so the clocks of scales and cameras differ",
    WarningKind.PLATE_FIT_AGAIN: "readings are plausible again",
    WarningKind.CAMERA_OUTAGE: "no frames for {seconds:g} s while other cameras deliver",
    WarningKind.CAMERA_BACK: "frames again",
    WarningKind.CAMERA_STILL:
        "repeats one picture for {seconds:g} s and is not used; restart its stream or its detector",
    WarningKind.CAMERA_MOVED:
        "{off_cm:.0f} cm off what other cameras see, so it was moved and is not used until it fits again",
    WarningKind.CAMERA_FITS_AGAIN: "agrees with the other cameras and is used",
    WarningKind.CAMERA_RECALIBRATED: "has a new calibration and is used",
    WarningKind.CAMERA_CORRECTED:
        "was {off_cm:.0f} cm off what other cameras see, and is used again with a pose found from people: {detail}",
    WarningKind.CAMERA_NOT_CORRECTED: "does not fit what other cameras see, and its pose is not corrected: {detail}",
    WarningKind.CAMERA_MISSES_PEOPLE:
        "misses {share:.0%} of the people in its view, other cameras {usual_share:.0%}",
    WarningKind.CAMERA_FINDS_PEOPLE: "misses {share:.0%} of the people in its view",
    WarningKind.SENSOR_AHEAD:
        "the clock of '{subject}'{others} is {seconds:g} s ahead of the other sensors, so its data are not used",
    WarningKind.SENSOR_BEHIND:
        "the data of '{subject}'{others} are {seconds:g} s behind those of the other sensors and are not used",
    WarningKind.SENSOR_IN_TIME: "agrees with the other sensors on the time and is used again",
    WarningKind.MESSAGE_OUT_OF_TIME:
        "the time of a message is {seconds:+g} s from that of the other sensors, so it is not used, {total} so far",
    WarningKind.CLOCKS_SET_BACK:
        "the clocks of all sensors were set back by {seconds:g} s, and visits of that moment go to review",
    WarningKind.TIME_MISSING:
        "no sensor sent for {seconds:g} s, or all clocks were set forward, and visits of that moment go to review",
    WarningKind.NEVER_HEARD: "has not reported yet",
    WarningKind.SENSORS_SILENT: "none of the {subject} has sent anything for {seconds:g} s, while other sensors send",
    WarningKind.SENSORS_BACK: "{subject} send again",
    WarningKind.SENSORS_NEVER_HEARD: "{count} {subject} have not reported yet, among them {detail}",
    WarningKind.UNKNOWN_CAMERA: "its frames are ignored, since cameras.toml has no camera '{subject}'",
    WarningKind.UNKNOWN_PLATE: "its weights are ignored, since plates.csv has no plate '{subject}'",
    WarningKind.UNKNOWN_SENSORS: "{count} {subject} report that the store does not have, among them {detail}",
    WarningKind.KEYPOINTS_FRACTIONS: "keypoints are fractions of the picture, but pixels are wanted",
    WarningKind.KEYPOINTS_BEYOND:
        "people lie beyond the picture of cameras.toml, as if they were detected in a larger one",
    WarningKind.KEYPOINTS_IN_CORNER:
        "all people lie in one quarter of the picture of cameras.toml, as if they were detected in a smaller one",
    WarningKind.KEYPOINTS_OTHER_SIZE:
        "keypoints fit pictures of {detail} pixels, not those of cameras.toml, so people are placed wrongly: "
        "scale the keypoints, or calibrate in the pictures that the detector gets",
    WarningKind.MACHINE_TIME_DIFFERS:
        "the sensors' time is {seconds:+g} s from this machine's, so receipts and books are dated by that much",
    WarningKind.MACHINE_TIME_AGREES: "the sensors' time is this machine's again",
    WarningKind.STEP_FAILED: "a set of frames and messages could not be processed and is lost: {detail}",
    WarningKind.BILL_FAILED: "the visit goes to review, since its bill could not be made: {detail}",
    WarningKind.UNKNOWN_GATE: "a scan was ignored, since store.toml has no gate '{subject}'",
    WarningKind.CREDENTIAL_REFUSED: "a {credential} credential is not accepted at '{subject}'",
    WarningKind.SCAN_UNBOUND:
        "no person could be bound to a scan at '{subject}', while {count} came in without a credential",
    WarningKind.DOOR_LEFT_OPEN:
        "the door of '{subject}' has been open for {seconds:.0f} s: close it, or look at its contact",
    WarningKind.LOAD_BEHIND_DOOR:
        "a load moved behind the door of '{subject}', which was reported as closed: look at its contact and lock",
    WarningKind.PERSON_LOST: "a person of this visit was lost from sight and not seen leaving",
    WarningKind.RECEIPT_CORRECTED: "the final receipt differs from the one that was shown early, and replaces it",
    WarningKind.RECEIPT_WITHDRAWN: "the receipt that was shown early does not count: the visit has not ended",
    WarningKind.OVERLOAD: "{count} dropped, {total} so far, and the overload continues",
    WarningKind.OVERLOAD_OVER: "{count} dropped, {total} so far, and the overload is over",
    WarningKind.REFUSED: "{detail}, {total} so far",
    WarningKind.DOOR_RELEASED:
        "the emergency release of '{subject}' was used: it is open, and the visits inside go to review",
    WarningKind.GUESSES:
        "{total} unknown {credential} credentials at '{subject}' so far, so its reader pauses between them",
    WarningKind.CREDENTIALS_UNREADABLE: "{detail}",
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
    WarningKind.AGE_RESTRICTED: "took {detail}, which has a minimum age, and their age was never verified",
    WarningKind.DOOR_KEPT_CLOSED: "the door '{subject}' stays closed: {detail}",
}  # fmt: skip


# Alternatives that a question names; a person cannot choose among many.
ASKED_MAX = 3
_LESSONS = {
    LessonKind.WEIGHT: "{name} weighs {after:.1f} ± {sd:.1f} g since {day} ({before:.1f} g before, label {label:g} g",
    LessonKind.GAIN: "plate {name} shows {after:.3f} ± {sd:.3f} g per gram since {day} ({before:.3f} before",
    LessonKind.HANDS: "evidence of hands counts {after:.2f} times since {day} ({before:.2f} before",
    LessonKind.IDENTITY: "the doubt about who a person is counts {after:.2f} times since {day} ({before:.2f} before",
}
_CAUSES = {
    LessonCause.LOADS: "by {n_loads} loads of {n_customers} customers",
    LessonCause.ANSWERS: "by {n_loads} loads and {n_answers} decisions about {n_customers} customers",
    LessonCause.EXCHANGED: "as if the plate was exchanged, by {n_loads} loads in a row",
    LessonCause.TAKEN_BACK: "since decisions were taken back",
    LessonCause.RESTORED: "since an earlier version was restored",
}


class _Missing:
    """A field that the kind wants and that was not given: a sentence is never an error."""

    def __format__(self, _: str) -> str:
        return "?"


def sentence(reported: Reason | Warning, store: Store | None = None) -> str:
    """A reason or a warning in plain English, of bounded length.

    Args:
        reported: what the engine or a store's process reported.
        store: where given, products are called by their names instead of their GTINs.
    """
    fields = {
        name: _Missing() if (value := getattr(reported, name)) is None else _shown(name, value)
        for name in reported.__dataclass_fields__
    }
    if isinstance(reported, Reason):
        names = _names(store)
        product = _shown("product", names[reported.gtin]) if reported.gtin in names else fields["gtin"]
        return _REASONS[reported.kind].format(**fields, product=product)
    if reported.kind is WarningKind.NO_CREDENTIAL:
        where = f"at '{fields['gate']}'" if reported.gate else "inside the store, not seen coming in"
        return f"a person without credential {where}"
    n_others = (reported.count or 1) - 1
    others = f" and {n_others} more" if n_others > 0 else ""
    text = _WARNINGS[reported.kind].format(**fields, off_cm=100.0 * (reported.off_m or 0.0), others=others)
    return f"{text}: {fields['detail']}, ..." if n_others > 0 and reported.kind in _OF_PLATES else text


def _names(store: Store | None) -> dict[str, str]:
    """Names of a store's products by GTIN; none where the store is not given."""
    return {product.gtin: product.name for product in store.products} if store is not None else {}


def lesson_text(lesson: Lesson, store: Store | None = None) -> str:
    """What a store has taught its engine, in plain English; with a store, products are called by their names."""
    names = _names(store)
    fields = {name: getattr(lesson, name) for name in lesson.__dataclass_fields__}
    fields["name"] = cut_text(names.get(lesson.subject, lesson.subject), SHOWN_MAX)
    fields["day"] = datetime.fromtimestamp(lesson.t_ns // 10**9, UTC).strftime("%A %Y-%m-%d")
    return f"{_LESSONS[lesson.kind]}, {_CAUSES[lesson.cause]}), version {{version}}".format(**fields)


def correction_text(correction: CameraCorrection) -> str:
    """What became of a camera that was moved, in plain English with its figures."""
    when, noticed = (
        datetime.fromtimestamp(t_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for t_ns in (correction.t_ns, correction.noticed_ns)
    )
    parts = [f"{when} UTC: camera {cut_text(correction.camera, SHOWN_MAX)}: {correction.status}"]
    if correction.reason is not None:
        parts.append(cut_text(correction.reason, DETAIL_SHOWN_MAX))
    if correction.turn_deg is not None and correction.turn_sd_deg is not None:
        parts.append(f"turned by {correction.turn_deg:.2f} degrees (standard deviation {correction.turn_sd_deg:.2f})")
    if correction.shift_m is not None and correction.shift_sd_m is not None:
        parts.append(f"shifted by {100 * correction.shift_m:.1f} cm ({100 * correction.shift_sd_m:.1f})")
    if correction.off_before_m is not None and correction.off_after_m is not None:
        before_cm, after_cm = 100 * correction.off_before_m, 100 * correction.off_after_m
        parts.append(f"{before_cm:.0f} cm off before and {after_cm:.0f} cm after, from {correction.n_people} people")
    return ", ".join([*parts, f"noticed {noticed} UTC"])


def _shown(name: str, value: object) -> object:
    """A field's value as a sentence shows it."""
    if type(value) is not str:
        return value
    return cut_text(value, DETAIL_SHOWN_MAX if name == "detail" else SHOWN_MAX)


def question_text(question: Question, store: Store | None = None) -> str:
    """A question in plain English, of bounded length: "Did you take 1 x A or 1 x B at shelf p1, at 12:03:20?".

    Args:
        question: about a receipt.
        store: where given, products are called by their names and the time of day is named.
    """
    names = _names(store)
    named = [one.moved for one in question.alternatives if one.moved][:ASKED_MAX]
    at = f"at shelf {_shown('plate', question.plate)}"
    at += f", at {store.local_time(question.t_ns):%H:%M:%S}" if store is not None else ""
    goods = " or ".join(dict.fromkeys(_goods_text(moved, names) for moved in named))
    puts = bool(named) and all(one.quantity > 0 for moved in named for one in moved)
    takes = all(one.quantity < 0 for moved in named for one in moved)
    verb = "put back" if puts else "take" if takes else "take or put back"
    if not named or (question.event_id is None and question.kind is QuestionKind.MOVED):
        examples = f", such as {goods}" if goods else ""
        return f"Did you take or put back anything {at}{examples}?"
    nothing = " or nothing" if any(not one.moved for one in question.alternatives) else ""
    return f"Did you {verb} {goods}{nothing} {at}?"


def _goods_text(moved: Sequence[Goods], names: Mapping[str, str]) -> str:
    return " and ".join(f"{abs(one.quantity)} x {_shown('product', names.get(one.gtin, one.gtin))}" for one in moved)


def sentences(reasons: Iterable[Reason], store: Store | None = None) -> list[str]:
    """Reasons in words, each sentence once; many of one kind are a count and the first of them."""
    by_text: dict[str, Reason] = {}
    for reason in reasons:
        by_text.setdefault(sentence(reason, store), reason)
    unique = list(by_text.items())
    n_of_kind = Counter(reason.kind for _, reason in unique)
    texts: list[str] = []
    summarised: set[ReasonKind] = set()
    for text, reason in unique:
        if n_of_kind[reason.kind] <= ALIKE_MAX:
            texts.append(text)
        elif reason.kind not in summarised:
            summarised.add(reason.kind)
            texts += _summary([(t, r) for t, r in unique if r.kind == reason.kind])
    return texts


def _summary(alike: Sequence[tuple[str, Reason]]) -> Iterator[str]:
    """The sentences about many reasons of one kind."""
    kind = alike[0][1].kind
    if kind in _MANY:
        template, field = _MANY[kind]
        names = [str(_shown(field, getattr(reason, field))) for _, reason in alike[:NAMED_MAX]]
        yield template.format(n=len(alike), names=", ".join(names))
        return
    yield from (text for text, _ in alike[:NAMED_MAX])
    yield f"{len(alike) - NAMED_MAX} more of the kind '{kind.replace('_', ' ')}'"


def reason_text(reasons: Iterable[Reason], store: Store | None = None) -> str | None:
    """All reasons of a receipt in one line, as in `reason` of receipts.jsonl; None where there is none.

    It has at most REASON_TEXT_MAX characters: reasons come worst first, and those that do not fit are counted.
    """
    texts = sentences(reasons, store)
    text = "; ".join(texts)
    for n in range(len(texts) - 1, 0, -1):
        if len(text) <= REASON_TEXT_MAX:
            break
        text = "; ".join([*texts[:n], f"{len(texts) - n} more reasons"])
    return text or None
