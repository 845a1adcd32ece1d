"""A small shop with gates, and what its readers send; for tests of the gates."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fusion.gates.keeper import GateLimits
from fusion.gates.verifiers import AskWorld, GateRequest, Refused, Verified
from fusion.store.models import Gate, Product, Store

T_NS = 1_772_528_646_000_000_000
SECOND_NS = 10**9
KEY = Ed25519PrivateKey.generate()
# Whether an answer comes in time is no question in most tests, so no gate gives up on a busy machine.
PATIENT = GateLimits(deadline_s=60.0)
STORE = Store(
    format_version=1,
    id="shop",
    name="Shop",
    currency="EUR",
    timezone="Europe/Berlin",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
    keypoints="coco17",
    gate=(
        Gate(id="in", direction="in", line=((0, 1), (0, 0)), credentials=("qr", "card", "face", "staff")),
        Gate(id="door", direction="both", line=((2, 0), (3, 0)), credentials=("open",)),
        Gate(id="out", direction="out", line=((4, 1), (4, 0)), credentials=("open",)),
    ),
    products=(Product(gtin="96385074", name="Bread", weight_g=500, weight_sd_g=1, price=199, vat_rate=7),),
)


def request(token: str, kind: str = "qr", t_ns: int = T_NS, gate: str = "in", **more: Any) -> GateRequest:
    """A credential shown at the entry."""
    return GateRequest(t_ns, gate, kind, token, **more)


def reason(answer: Verified | Refused | AskWorld) -> str:
    """Why a verifier refused, or "good"."""
    return answer.reason if isinstance(answer, Refused) else "good"
