"""Payment providers: the protocol that `Checkout` speaks, and one adapter per module."""

from fusion.money.providers.in_process import InProcessProvider, SeededFaults
from fusion.money.providers.plain_http import HttpProvider
from fusion.money.providers.provider import Answer, CannotLookUp, PaymentError, Provider, Step, Terms, UnknownOutcome
from fusion.money.providers.stripe import StripeProvider

__all__ = [
    "Answer",
    "CannotLookUp",
    "HttpProvider",
    "InProcessProvider",
    "PaymentError",
    "Provider",
    "SeededFaults",
    "Step",
    "StripeProvider",
    "Terms",
    "UnknownOutcome",
]
