"""Goods that need a person: a minimum age, a weight or a reduced price that no shelf knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from money.books import COLA, STORE, TWO, receipt

from fusion.errors import ConfigError
from fusion.results import Picked, ReasonKind, ReceiptStatus, WarningKind
from fusion.store.models import Store
from fusion.store.prices import Prices
from fusion.till.restrictions import Restrictions

OTHER = next(line.gtin for line in TWO if line.gtin != COLA)


def restricted(**rule: object) -> Store:
    prices = Prices.model_validate({"restriction": [{"gtins": [COLA], **rule}]})
    return STORE.model_copy(update={"prices": prices})


def picked(gtin: str, visit: str | None = "v1") -> Picked:
    return Picked(5, "a1", gtin, 1, "p1", visit, 0.99)


@pytest.mark.parametrize("adult", [False, True])
def test_goods_with_a_minimum_age_go_to_a_person_unless_the_age_was_verified(adult: bool) -> None:
    restrictions = Restrictions(restricted(minimum_age=16), lambda account: adult)
    bill = receipt("v1", *TWO)
    judged = restrictions.judged(bill)
    assert (judged == bill) == adult
    alert = restrictions.alert(picked(COLA))
    assert (alert is None) == adult and restrictions.alert(picked(OTHER)) is None
    if not adult:
        assert judged.status is ReceiptStatus.REVIEW and judged.lines == bill.lines
        assert [(reason.kind, reason.gtin) for reason in judged.reasons] == [(ReasonKind.AGE_UNVERIFIED, COLA)]
        assert alert is not None and (alert.kind, alert.subject) == (WarningKind.AGE_RESTRICTED, "v1")


def test_weighed_goods_always_go_to_a_person() -> None:
    restrictions = Restrictions(restricted(check="weighed"), lambda account: True)
    (reason,) = restrictions.judged(receipt("v1", *TWO)).reasons
    assert (reason.kind, reason.gtin, reason.detail) == (ReasonKind.PERSON_NEEDED, COLA, "weighed")
    other = receipt("v1", *(line for line in TWO if line.gtin != COLA))
    assert restrictions.judged(other) == other and restrictions.alert(picked(COLA)) is None


def test_faults_of_a_restriction_name_file_and_row(tmp_path: Path) -> None:
    restricted(minimum_age=18).save(tmp_path)
    assert Store.load(tmp_path).prices.restriction[0].minimum_age == 18
    (tmp_path / "prices.toml").write_text('[[restriction]]\ngtins = ["2900000002227"]\nminimum_age = 18\n')
    with pytest.raises(ConfigError, match=r"prices.toml: restriction\[0\]: want a gtin listed in products.csv"):
        Store.load(tmp_path)
    (tmp_path / "prices.toml").write_text(f'[[restriction]]\ngtins = ["{COLA}"]\n')
    with pytest.raises(ConfigError, match="minimum_age or check, one of them"):
        Store.load(tmp_path)
