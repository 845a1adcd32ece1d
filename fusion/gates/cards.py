"""Payment cards at the gate: a terminal's tokens are accepted, never a card's number."""

from __future__ import annotations

from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier


class CardTerminal(Verifier):
    """Admits payment cards: the terminal sends a token for the card, never its number.

    The token is the account, since nothing else is known about the customer; `Pseudonyms` authorises before the gate
    opens.
    """

    def __init__(self, prefix: str = "tok_") -> None:
        """Accept tokens that begin with `prefix`, as the terminal's do, so that nothing else passes for one."""
        self._prefix = prefix

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the request holds a token of the terminal."""
        if not request.token.startswith(self._prefix) or not 8 <= len(request.token) <= 255:
            return Refused("not a payment token", "Please try again", guess=True)
        return Verified(request.token, token=request.token)
