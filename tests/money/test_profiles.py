"""Purchase profiles: kept with consent only, erased at once."""

from __future__ import annotations

from pathlib import Path

from money.books import BREAD, COLA, TWO

from fusion.money.profiles import Profiles
from fusion.results import ReceiptLine


def test_a_profile_is_kept_with_consent_only_and_erased_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    profiles = Profiles(path)
    assert not profiles.add("alice-long-name", TWO) and b"alice" not in path.read_bytes()
    profiles.consent("alice-long-name")
    profiles.consent("bob-long-name")
    assert profiles.add("alice-long-name", TWO) and profiles.add("alice-long-name", TWO[1:])
    assert profiles.add("alice-long-name", [ReceiptLine(BREAD, 5, 1, 1.0)])
    assert profiles.suggest("alice-long-name") == [BREAD, COLA] and profiles.suggest("bob-long-name") == []
    assert profiles.erase("alice-long-name") and not profiles.erase("alice-long-name")
    assert "alice-long-name" not in profiles and "bob-long-name" in profiles
    assert b"alice" not in b"".join(one.read_bytes() for one in tmp_path.glob("profiles*"))
    assert not profiles.add("alice-long-name", TWO)
