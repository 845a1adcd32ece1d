"""Pseudonyms and cards: behind the gate no customer has a name, and a card is authorised before the gate opens."""

from __future__ import annotations

import random
from pathlib import Path

from gates.readers import KEY, PATIENT, SECOND_NS, STORE, T_NS, request

from fusion.gates.cards import CardTerminal
from fusion.gates.codes import CodeSigner, CodeVerifier, UsedCodes
from fusion.gates.keeper import GateKeeper
from fusion.gates.pseudonyms import Pseudonyms, pseudonym
from fusion.gates.verifiers import Verified
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import InProcessProvider
from fusion.money.vault import Holder
from fusion.store.card_numbers import looks_like_card_number
from fusion.store.models import PaymentPolicy


def test_behind_the_gate_customers_have_pseudonyms(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        known = {"alice": Verified("alice", "Welcome, Alice", "tok_alice", "alice@example.org")}
        pseudonyms = Pseudonyms(ledger, customer=known.get)
        used = UsedCodes(tmp_path / "used.sqlite")
        keeper = GateKeeper(
            STORE,
            {"qr": pseudonyms.behind(CodeVerifier({"": KEY.public_key()}, "shop", used))},
            now_ns=lambda: now_ns,
            limits=PATIENT,
        )
        now_ns = T_NS
        signer = CodeSigner(KEY, "shop")

        def scan(account: str, t_ns: int = T_NS) -> tuple[str, str]:
            nonlocal now_ns
            now_ns = t_ns
            decision = keeper.scan(request(signer.code(account, t_ns), t_ns=t_ns))
            assert decision.open and decision.scan is not None
            return decision.scan.account, decision.display

        alice, greeting = scan("alice")
        assert greeting == "Welcome, Alice" and "alice" not in alice
        holder = ledger.holder(alice)
        assert holder == Holder(alice, "alice", "tok_alice", "alice@example.org", T_NS)
        assert scan("alice")[0] == alice, "her daughter, on the same account"
        bob, greeting = scan("bob")
        assert bob != alice and greeting == "Welcome"
        pseudonyms.entered(alice)
        hour_ns = 3600 * SECOND_NS
        assert scan("alice", T_NS + hour_ns)[0] == alice, "still inside"
        assert scan("bob", T_NS + hour_ns)[0] != bob, "turned back then"
        pseudonyms.left(alice)
        again = scan("alice", T_NS + hour_ns)[0]
        assert again != alice and ledger.pseudonyms("alice") == [again, alice]
        pseudonyms.forget("alice")
        pseudonyms.left(again)
        assert scan("alice", T_NS + hour_ns)[0] not in (alice, again)


def test_no_pseudonym_looks_like_a_card_number() -> None:
    names = {pseudonym(random.Random(i).choice) for i in range(20_000)}
    assert len(names) == 20_000 and not any(looks_like_card_number(name) for name in names)


def test_a_card_is_a_token_and_authorised_before_the_gate_opens(tmp_path: Path) -> None:
    store = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=3000)})
    faults = iter(["decline", None, "lost after", None])
    provider = InProcessProvider(lambda step, key: next(faults, None))  # type: ignore[arg-type, return-value]
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        checkout = Checkout(ledger, provider, store)
        pseudonyms = Pseudonyms(ledger, admit=checkout.admit)
        keeper = GateKeeper(store, {"card": pseudonyms.behind(CardTerminal())}, limits=PATIENT)
        decisions = [keeper.scan(request(f"tok_card-{card}", "card")) for card in "aabb"]
        assert [decision.open for decision in decisions] == [False, True, False, True]
        assert [decision.reason for decision in decisions[::2]] == [
            "payment declined",
            "waits for the provider",
        ]
        assert provider.held == 2 * 3000 == ledger.balances()["EUR"]["authorised"]
        for token in ("4006381333931", "4111 1111 1111 1111", "tok_", "card-a"):
            assert not keeper.scan(request(token, "card")).open
        assert provider.held == 2 * 3000
        holder = ledger.holder(decisions[1].scan.account if decisions[1].scan else "")
        assert holder is not None and holder.token == "tok_card-a"
