"""Drafts that a lawyer completes: a data-protection sheet of one store, and the notices that hang at its door.

The texts are in `drafts/`; facts come from the store's folder and from `privacy.holdings`. What only the retailer knows
is a gap in [brackets].
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from string import Template

from fusion.gates.privacy import holdings
from fusion.gates.retention import RetentionSettings
from fusion.store.models import Gate, Store

# The places whose law a notice follows, and its file.
PLACES = {"de": "notice_de.txt", "us-ny": "notice_us_ny.txt"}

_CREDENTIALS = {
    "qr": "a signed code",
    "card": "a payment card at a terminal, which hands on a token",
    "face": "the face of a customer who opted in",
    "staff": "a badge of the staff",
    "open": "open to everybody",
}
_PAYMENT = {
    "leave": "after the visit",
    "enter": "after the visit, from an amount that is authorised at the entry",
    "zone": "in a payment zone, where the basket is shown and confirmed",
    "door": "before the exit opens",
}
_WAYS = {"in": "way in", "out": "way out", "both": "way in and out"}


def sheet(store: Store, recipients: Sequence[str] = (), retention: RetentionSettings | None = None) -> str:
    """The data-protection sheet of a store, Markdown: a record of processing and a draft of an impact assessment.

    Args:
        store: the store.
        recipients: who gets data besides, and which, as the settings of the installation name them.
        retention: its age limits.
    """
    rows = (f"| {h.data} | {h.where} | {h.purpose} | {h.kept} |" for h in holdings(store, retention))
    listed = "\n".join(f"- {recipient}" for recipient in recipients)
    return _filled("sheet.md", store, recipients=listed, holdings="\n".join(rows))


def notice(store: Store, place: str) -> str:
    """The notice for the door of a store, in the language of the place.

    Args:
        store: the store.
        place: "de" (Germany: GDPR Article 13, BDSG section 4) or "us-ny" (New York City: Administrative Code 22-1201).
    """
    return _filled(PLACES[place], store)


def _filled(name: str, store: Store, **further: str) -> str:
    text = resources.files("fusion.gates").joinpath("drafts", name).read_text(encoding="utf-8")
    facts = _facts(store) | _facts_about_faces(store) | further
    # A line that is nothing but an empty fact is left out.
    lines = [line for line in text.splitlines() if facts.get(line.removeprefix("$")) != ""]
    return Template("\n".join(lines)).substitute(facts) + "\n"


def _facts(store: Store) -> dict[str, str]:
    measured, german = "points of the body", "Punkte des Körpers (Gelenke)"
    american = ["- the position and movement of your body: points such as shoulders, elbows and wrists"]
    if store.keypoints == "box2":
        measured, german = "boxes around people", "Umrisse von Menschen"
        american = ["- the position, movement and height of your body"]
    if store.appearance_dim:
        measured += " and numbers about the look of clothes and body"
        german += " und Merkmale von Kleidung und Statur"
        american.append("- the look of your clothes and body, as numbers")
    if uses_faces(store):
        american.append("- the geometry of your face, if you opted in to come in by face")
    return {
        "store": store.name,
        "id": store.id,
        "timezone": store.timezone,
        "days": str(store.privacy.unlink_after_days),
        "n_cameras": str(len(store.cameras)),
        "n_plates": str(len(store.plates)),
        "gates": "; ".join(map(_gate_text, store.gate)) or "none",
        "payment": _PAYMENT[store.payment.mode],
        "measured": measured,
        "measured_de": german,
        "measured_us": "\n".join(american),
    }


def _facts_about_faces(store: Store) -> dict[str, str]:
    if not uses_faces(store):
        none = dict.fromkeys(("face_basis", "face_risk", "face_basis_de", "faces_de"), "")
        return none | {"faces": "no customer comes in by face"}
    return {
        "faces": "customers who opted in come in by face",
        "face_basis": "; explicit consent for faces (9(2)(a))",
        "face_basis_de": "; bei Gesichtern Ihre ausdrückliche Einwilligung (Art. 9 Abs. 2 Buchst. a DSGVO)",
        "face_risk": (
            "| Faces are special categories of data | templates only of customers who opted in, encrypted, compared at "
            "the gate alone; there is another way in: [which]; consent is recorded: [where] | [low, medium, high] |"
        ),
        "faces_de": (
            "\nGesichter: Nur wer ausdrücklich eingewilligt hat, kann am Eingang mit dem Gesicht erkannt werden. "
            "Gespeichert\nist ein verschlüsseltes Merkmal, kein Bild. Die Einwilligung ist freiwillig und jederzeit "
            "widerruflich; ein\nanderer Zugang ist [welcher].\n"
        ),
    }


def uses_faces(store: Store) -> bool:
    """Whether a gate of the store lets people in by face."""
    return any(gate.direction != "out" and "face" in gate.credentials for gate in store.gate)


def _gate_text(gate: Gate) -> str:
    kinds = " or ".join(_CREDENTIALS.get(kind, kind) for kind in gate.credentials)
    return f"`{gate.id}`, {_WAYS[gate.direction]}" + (f" ({kinds})" if kinds and gate.direction != "out" else "")
