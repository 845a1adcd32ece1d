"""Purchase profiles: kept with consent only, erased at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from money.books import BREAD, COLA, SOUP, STAMP, TWO

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
    assert profiles.bought("alice-long-name") == [(BREAD, 7), (COLA, 2)] and profiles.bought("bob-long-name") == []
    assert profiles.suggest("alice-long-name", 1) == [BREAD]
    assert sorted(profiles.accounts()) == ["alice-long-name", "bob-long-name"]
    assert profiles.erase("alice-long-name") and not profiles.erase("alice-long-name")
    assert "alice-long-name" not in profiles and "bob-long-name" in profiles
    assert b"alice" not in b"".join(one.read_bytes() for one in tmp_path.glob("profiles*"))
    assert not profiles.add("alice-long-name", TWO)


def test_what_is_bought_may_be_counted_once_more(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "profiles.sqlite")
    assert not profiles.replace("alice", TWO) and profiles.bought("alice") == []
    profiles.consent("alice")
    profiles.add("alice", TWO)
    assert profiles.replace("alice", [*TWO[:1], ReceiptLine(SOUP, 1, 1, 1.0), *TWO[:1]])
    assert profiles.bought("alice") == [(COLA, 4), (SOUP, 1)]
    # Three are suggested; of two that were bought as often, the smaller GTIN comes first.
    profiles.add("alice", [ReceiptLine(gtin, n, 1, 1.0) for gtin, n in ((STAMP, 1), (BREAD, 2))])
    assert profiles.suggest("alice") == [COLA, BREAD, SOUP] and len(profiles.suggest("alice", 9)) == 4
    # A replacement that fails changes nothing, and leaves the file free for the next.
    with pytest.raises(UnicodeEncodeError):
        profiles.replace("alice", [ReceiptLine(COLA, 1, 1, 1.0), ReceiptLine("\ud800", 1, 1, 1.0)])
    assert profiles.bought("alice")[0] == (COLA, 4) and profiles.add("alice", TWO)
