"""What an owner may write into settings: each field's default, and values on either side of its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Limits:
    """A field, its default, the least and the greatest value that it takes, and values that are just beyond."""

    model: type[BaseModel]
    field: str
    default: Any
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]
    others: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.model.__name__}.{self.field}"


def rows(model: type[BaseModel], others: Mapping[str, Any], *fields: tuple[str, Any, tuple, tuple]) -> list[Limits]:
    """The rows of a model whose required fields are `others`."""
    return [Limits(model, *field, others) for field in fields]


def check(row: Limits) -> None:
    """The default holds, what is within the limits is taken, and what is beyond is refused by the field's name."""
    others = {name: value for name, value in row.others.items() if name != row.field}
    if row.field not in row.others:
        assert getattr(row.model(**others), row.field) == row.default
    for value in row.accepted:
        assert getattr(row.model(**others, **{row.field: value}), row.field) == value
    for value in row.refused:
        with pytest.raises(ValidationError) as raised:
            row.model(**others, **{row.field: value})
        assert [error["loc"][0] for error in raised.value.errors()] == [row.field], value
