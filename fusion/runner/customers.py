"""The customers of a simulated store as its readers see them: names, credentials, faces, memberships."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.gates.cards import CardTerminal
from fusion.gates.codes import CodeSigner, CodeVerifier, UsedCodes, private_key
from fusion.gates.faces import FaceGallery, face_token
from fusion.gates.marks import Marks
from fusion.gates.verifiers import Verifier
from fusion.runner.example import Example
from fusion.simulation import Scenario
from fusion.simulation.kinds import visitors_of
from fusion.store.models import Store
from fusion.till.customers import Customer

FACE_DIM = 128
# Length of the noise in a face seen at the reader, against an enrolled face of length 1.
FACE_NOISE = 0.6


class SimulatedCustomers:
    """Everybody who comes in the simulated minutes, and what they show at a reader.

    Attributes:
        people: all people of the simulation, staff and unscanned ones too.
    """

    def __init__(
        self, store: Store, example: Example, scenario: Scenario, shared_random: random.Random, folder: Path
    ) -> None:
        """Make the customers of a scenario.

        Args:
            store: the store that they visit.
            example: which credential they use, and how many are members or gave an address.
            scenario: who comes.
            shared_random: the run's random numbers.
            folder: for keys, used codes and faces.
        """
        self.people = visitors_of(store, scenario)
        self._example, self._seed, self._random, self._folder = example, scenario.seed, shared_random, folder
        self._store_id = store.id
        self._signer: CodeSigner | None = None
        self._by_account = {person.account: self._customer(person.account) for person in self.people if person.account}

    def of(self, account: str) -> Customer | None:
        """The customer of an account, or of a card's payment token; see `fusion.till.customers.Customers`."""
        return self._by_account.get(account.removeprefix("tok_"))

    def listed(self, names: Container[str]) -> Sequence[str]:
        """See `fusion.till.customers.Customers`: there is no list."""
        return ()

    def employees(self) -> set[str]:
        """Accounts that let staff in."""
        return {person.account for person in self.people if person.is_staff and person.account}

    def arriving_before(self, t_s: float) -> set[str]:
        """Accounts of people who arrive earlier than this many seconds after the start."""
        return {person.account for person in self.people if person.account and person.arrival_s < t_s}

    def is_member(self, account: str | None) -> bool:
        """Whether a customer is a member; the same for every run with this seed."""
        chance = random.Random(f"{self._seed} {account} member")
        return account is not None and chance.random() < self._example.members

    def verifier(self) -> Verifier:
        """Checks what customers show; call it once, before anybody shows anything."""
        match self._example.credential:
            case "qr":
                key = private_key(self._folder / "app_server.pem")
                self._signer = CodeSigner(key, self._store_id)
                return CodeVerifier({"": key.public_key()}, self._store_id, UsedCodes(self._folder / "used.sqlite"))
            case "card":
                return CardTerminal()
            case "face":
                faces = FaceGallery(
                    self._folder / "faces", self._random.randbytes(32), dim=FACE_DIM, effective_dim=FACE_DIM,
                    false_accept_rate=1e-6, marks=Marks(self._folder / "used.sqlite"),
                )  # fmt: skip
                for account in self._by_account:
                    faces.enrol(account, _name(account), _face(account))
                return faces

    def shown(self, account: str, t_ns: int) -> str:
        """What the customer's phone, card or face gives the reader at an instant."""
        match self._example.credential:
            case "qr":
                if self._signer is None:
                    raise RuntimeError("verifier() makes the key with which codes are signed; call it first")
                return self._signer.code(account, t_ns)
            case "card":
                return f"tok_{account}"
            case "face":
                noise = np.random.default_rng(self._random.getrandbits(32)).normal(size=FACE_DIM)
                return face_token(_face(account) + FACE_NOISE * noise / np.linalg.norm(noise))

    def _customer(self, account: str) -> Customer:
        chance = random.Random(f"{self._seed} {account}")
        email = f"{account}@mail.example" if chance.random() < self._example.email else None
        greeting = f"Welcome, {_name(account)}" if self._example.credential == "face" else "Welcome"
        return Customer(account, f"tok_{account}", email, self.is_member(account), greeting=greeting)


def _name(account: str) -> str:
    return account.partition("-")[2].capitalize()


def _face(account: str) -> NDArray[np.float64]:
    """(FACE_DIM,) unit vector of a customer's face, the same in every run."""
    vector: NDArray[np.float64] = np.random.default_rng(list(account.encode())).normal(size=FACE_DIM)
    return vector / np.linalg.norm(vector)
