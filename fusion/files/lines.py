"""Lines of gate.jsonl and items.jsonl: each is a scan, a state of a door or a sighting, checked strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fusion.observations import DoorState, GateEvent, GateScan, ItemSighting, time_fault
from fusion.store.card_numbers import looks_like_card_number, without_card_number
from fusion.store.gs1 import read_code
from fusion.store.gtin import Gtin
from fusion.store.values import Identifier


def _instant(value: int) -> int:
    fault = time_fault(value)
    if fault:
        raise ValueError(fault)
    return value


def _no_card(value: str) -> str:
    if looks_like_card_number(value):
        raise ValueError("want no card number here, got a text that looks like one")
    return value


def _code(value: str) -> str:
    read_code(value)
    return value


_Instant = Annotated[int, AfterValidator(_instant)]
_NotCard = AfterValidator(_no_card)
_Name = Annotated[Identifier, _NotCard]


class _Line(BaseModel):
    # What came in may be a credential, so no error repeats it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Token(_Line):
    type: Literal["qr", "card", "face", "staff", "open"]
    token: Annotated[str, Field(max_length=1000), _NotCard] = ""

    @model_validator(mode="after")
    def _token_present(self) -> _Token:
        if self.type != "open" and not self.token:
            raise ValueError("want a token, got none")
        return self


class _Account(_Line):
    type: Literal["account"]
    account: _Name


class _DoorLine(_Line):
    time: _Instant
    gate: _Name
    kind: Literal["door"]
    open: bool


class _ScanLine(_Line):
    time: _Instant
    gate: _Name
    kind: Literal["scan"]
    credential: Annotated[_Token | _Account, Field(discriminator="type")]


class _ItemLine(_Line):
    time: _Instant
    source: _Name
    kind: Literal["read", "seen"]
    gtin: Gtin | None = None
    code: Annotated[str, AfterValidator(_code)] | None = None
    quantity: Annotated[int, Field(ge=1, le=10_000)]
    probability: float = Field(default=1.0, ge=0, le=1)
    zone: Annotated[str, _NotCard] | None = None
    plate: Annotated[str, _NotCard] | None = None

    @model_validator(mode="after")
    def _one_product(self) -> _ItemLine:
        if (self.gtin is None) == (self.code is None):
            raise ValueError("want gtin or code, one of them")
        return self


def _kind_of(line: Any) -> str | None:
    """Which model reads a line of gate.jsonl; None where it is of no known kind."""
    kind = line.get("kind") if isinstance(line, dict) else None
    return next((known for known in _GATE_KINDS if kind == known), None)


_GATE_KINDS = "scan", "door"
# A discriminator by name would repeat an unknown kind in its error, and that may be a card number.
_GATE_LINE: TypeAdapter[_ScanLine | _DoorLine] = TypeAdapter(
    Annotated[Annotated[_ScanLine, Tag("scan")] | Annotated[_DoorLine, Tag("door")], Discriminator(_kind_of)],
    config=ConfigDict(hide_input_in_errors=True),
)
_ITEM_LINE: TypeAdapter[_ItemLine] = TypeAdapter(_ItemLine)


def parse_gate_line(text: str | bytes) -> GateEvent:
    """A line of gate.jsonl. Raises pydantic's ValidationError."""
    line = _GATE_LINE.validate_json(text, strict=True)
    if isinstance(line, _DoorLine):
        return DoorState(line.time, line.gate, line.open)
    credential = line.credential
    account = credential.account if isinstance(credential, _Account) else credential.token
    return GateScan(line.time, line.gate, credential.type, account)


def parse_item_line(text: str | bytes) -> ItemSighting:
    """A line of items.jsonl. Raises pydantic's ValidationError."""
    line = _ITEM_LINE.validate_json(text, strict=True)
    gtin = read_code(line.code).gtin if line.code is not None else line.gtin or ""
    return ItemSighting(
        line.time, line.source, line.kind, gtin, line.quantity, line.probability, line.zone, line.plate, line.code
    )


def line_of(observation: GateEvent | ItemSighting) -> dict[str, Any]:
    """What gate.jsonl or items.jsonl holds for an observation, as plain JSON."""
    if isinstance(observation, GateScan):
        key = "account" if observation.credential_type == "account" else "token"
        credential = {"type": observation.credential_type, key: observation.account}
        return {"time": observation.t_ns, "gate": observation.gate, "kind": "scan", "credential": credential}
    if isinstance(observation, DoorState):
        return {"time": observation.t_ns, "gate": observation.gate, "kind": "door", "open": observation.is_open}
    line = {
        "time": observation.t_ns,
        "source": observation.source,
        "kind": observation.kind,
        **({"gtin": observation.gtin} if observation.code is None else {"code": observation.code}),
        "quantity": observation.quantity,
        "probability": observation.probability,
    }
    return line | {key: v for key in ("zone", "plate") if (v := getattr(observation, key)) is not None}


def line_faults(error: ValidationError) -> str:
    """Everything that is wrong with a line, as `key: fault; key: fault`, without card numbers."""
    faults = []
    for fault in error.errors():
        loc = fault["loc"]
        if loc[:1] in (("scan",), ("door",)):  # which of them a line of gate.jsonl is
            loc = loc[1:]
        match fault["type"]:
            case "value_error":
                text = str(fault["ctx"]["error"])
            case "union_tag_not_found" if not loc:
                has_kind = isinstance(fault["input"], dict) and "kind" in fault["input"]
                among = ", ".join(map(repr, _GATE_KINDS))
                loc, text = ("kind",), f"Input should be one of {among}" if has_kind else "Field required"
            case "union_tag_not_found":
                loc, text = (*loc, fault["ctx"]["discriminator"].strip("'")), "Field required"
            case "union_tag_invalid":
                # Without what came: it may be a credential in the wrong place.
                loc = (*loc, fault["ctx"]["discriminator"].strip("'"))
                text = f"Input should be one of {fault['ctx']['expected_tags']}"
            case _:
                text = fault["msg"]
        key = without_card_number(".".join(map(str, loc)))
        faults.append(without_card_number(f"{key}: {text}" if key else text))
    return "; ".join(faults)
