"""Signing in to the shopper's pages: by links and by guests' codes, never by a password."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fusion.errors import FusionError, extra, terminal_text
from fusion.gates.shopper_sessions import (
    IDLE_MAX_S,
    SessionKind,
    ShopperSession,
    ShopperSessions,
    new_code,
    spelled,
)
from fusion.money.ledger import Ledger
from fusion.money.links import LIFETIME_S, Link, LinkPurpose, Links
from fusion.money.mail import Mailer
from fusion.show.shopper.limits import Limits
from fusion.show.web.guarding import check_origin, network_of
from fusion.show.web.languages import catalogue, preferred
from fusion.store.models import Store
from fusion.till.customers import Customer

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

# Within ten minutes: wrong codes of one network (a shop's Wi-Fi is one), and of all. Of 29 ** 8 codes at most 200 are
# good at once: guessing as often as that finds one in 160 years. Links cannot be guessed and do not count, so that no
# stranger in the shop's Wi-Fi keeps its customers out.
WINDOW_S, WRONG_MAX, WRONG_OF_ALL_MAX = 600.0, 30, 300
# Within an hour: links by mail that are asked for one address and by one network, and that are sent altogether.
MAIL_WINDOW_S, TO_ADDRESS_MAX, OF_NETWORK_MAX, OF_ALL_MAX = 3600.0, 3, 30, 1000
MAILS_WAITING_MAX = 100
# Codes at doors that are good at once.
DOOR_CODES_MAX = 200
ADDRESS_MAX = 255

_log = logging.getLogger(__name__)


class ShopperAccess:
    """Who is signed in on a phone or a screen, and how they come in.

    Attributes:
        cookie, screen_cookie: names of the cookies that hold the tokens of a phone and of a screen.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        sessions: ShopperSessions,
        links: Links,
        *,
        at_address: Callable[[str], list[Customer]] | None,
        mailer: Mailer | None,
        https: bool,
        clock_s: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            store: the store.
            ledger: knows the addresses that receipts went to.
            sessions: who is signed in.
            links: the store's.
            at_address: the customers of an address; None where the retailer's list is not known here.
            mailer: sends links; None: none are sent.
            https: whether pages come over encrypted connections, and cookies are for these alone.
            clock_s: seconds since 1970.
        """
        self._store, self._ledger, self._sessions, self._links = store, ledger, sessions, links
        self._at_address, self._mailer, self._https, self._clock_s = at_address, mailer, https, clock_s
        # Cookies ignore ports: pages of several stores on one machine need cookies of different names.
        name = re.sub(r"[^A-Za-z0-9]", "-", store.id)
        prefix = "__Host-" if https else ""
        self.cookie, self.screen_cookie = f"{prefix}fusion-shopper-{name}", f"{prefix}fusion-screen-{name}"
        self._tries, self._mails = Limits(WINDOW_S), Limits(MAIL_WINDOW_S)
        self._written = Limits(MAIL_WINDOW_S)  # of the thread that sends
        self._sending = ThreadPoolExecutor(1, "sign-in mail")
        self._n_sending = 0
        # By a guest's code: the token of its link.
        self._door_codes: OrderedDict[str, str] = OrderedDict()

    @property
    def mails(self) -> bool:
        """Whether links can be sent by mail."""
        return self._mailer is not None and self._at_address is not None

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def session(self, request: Request) -> ShopperSession | None:
        """The session of a phone's request; None where it is signed out."""
        found = self._sessions.get(request.cookies.get(self.cookie), self._clock_s())
        return None if found is None or found.kind == "screen" else found

    def screen(self, request: Request) -> ShopperSession | None:
        """The session of a screen's request; None where the tablet is not paired."""
        found = self._sessions.get(request.cookies.get(self.screen_cookie), self._clock_s())
        return found if found is not None and found.kind == "screen" else None

    def holds(self, session: ShopperSession) -> bool:
        """Whether a session has not ended."""
        return self._sessions.holds(session, self._clock_s())

    def required(self, request: Request, *, screen: bool = False, account: bool = False) -> ShopperSession:
        """The session of a request; status 401 without one, 403 where an account's is wanted and it is a guest's."""
        session = self.screen(request) if screen else self.session(request)
        if session is None:
            raise HTTPException(401, "signed_out")
        if account and session.kind != "account":
            raise HTTPException(403, "guest")
        return session

    async def change(
        self, request: Request, *, screen: bool = False, account: bool = False
    ) -> tuple[ShopperSession, dict[str, Any]]:
        """The session and the content of a request that changes something, which only a page of ours can have made."""
        check_origin(request)
        session = self.required(request, screen=screen, account=account)
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
            raise HTTPException(403, "csrf")
        return session, await content_of(request)

    def begun(self, kind: SessionKind, subject: str, before: ShopperSession | None) -> Response:
        """A response that begins a session, in place of one that the browser had."""
        if before is not None:
            self._sessions.end(before)
        response = JSONResponse({"signed": kind})
        name = self.screen_cookie if kind == "screen" else self.cookie
        token = self._sessions.begin(kind, subject, self._clock_s())
        self._set_cookie(response, name, token, kind)
        return response

    def renew(self, request: Request, response: Response, session: ShopperSession) -> None:
        """Have the browser keep the cookie of a session for as long again, since browsers forget old ones."""
        name = self.screen_cookie if session.kind == "screen" else self.cookie
        self._set_cookie(response, name, request.cookies[name], session.kind)

    def _set_cookie(self, response: Response, name: str, token: str, kind: SessionKind) -> None:
        # Lax, since a customer comes from their mail; whatever changes something needs the page's own token as well.
        response.set_cookie(
            name, token, max_age=IDLE_MAX_S[kind], httponly=True, samesite="lax", secure=self._https
        )  # fmt: skip

    async def sign_out(self, request: Request) -> Response:
        """End the session; `everywhere`: those of all devices of the account or visit."""
        session, content = await self.change(request)
        if content.get("everywhere") is True:
            await asyncio.to_thread(self._sessions.end_all, {session.subject})
        await asyncio.to_thread(self._sessions.end, session)
        response = JSONResponse({})
        response.delete_cookie(self.cookie, httponly=True, samesite="lax", secure=self._https)
        return response

    # ---- links and codes ---------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        """Begin a session by a link's token, or by the code that a door showed to a guest."""
        check_origin(request)
        content, now_s = await content_of(request), self._clock_s()
        network = self._network(request)
        token, code = content.get("token"), content.get("code")
        is_code = False
        if not isinstance(token, str):
            is_code, reached = True, self._tries.reached
            if reached(network, WRONG_MAX, now_s) or reached("all", WRONG_OF_ALL_MAX, now_s):
                raise HTTPException(429, "wait")
            token = self._door_codes.get(spelled(code), "") if isinstance(code, str) else ""
        link = self._links.read(token, now_s)
        if link is None:
            if is_code:
                self._tries.add(network, now_s)
                self._tries.add("all", now_s)
            raise HTTPException(403, "link_unknown")
        kind, mended = _kind_of(link), link.purpose == "visit" and self._mailer is not None
        if link.expired:
            raise HTTPException(410, "link_old_again" if mended else "link_old")
        if not await asyncio.to_thread(self._sessions.use_link, link.nonce, link.until_s, now_s):
            raise HTTPException(410, "link_used_again" if mended else "link_used")
        return await asyncio.to_thread(self.begun, kind, link.subject, self.session(request))

    def door_code(self, visit: str) -> tuple[str, str]:
        """A code and a link for the guest of a visit; whichever is used first uses up both."""
        now_s = self._clock_s()
        code, token = new_code(), self._links.token("door", visit, now_s)
        self._door_codes[code] = token
        while len(self._door_codes) > DOOR_CODES_MAX:
            self._door_codes.popitem(last=False)
        return code, token

    # ---- links by mail -----------------------------------------------------------------------------------------------

    async def mail_link(self, request: Request) -> Response:
        """Have a link sent: to an address that the retailer knows, or once more to the one that a receipt went to.

        The answer is the same whether the address is known or not, and does not wait for either.
        """
        check_origin(request)
        content, now_s = await content_of(request), self._clock_s()
        mailer = self._mailer
        if mailer is None:
            raise HTTPException(404, "no_mail")
        language = preferred(request.headers.get("accept-language", ""))
        address, token = content.get("email"), content.get("token")
        link = self._links.read(token, now_s) if isinstance(token, str) else None
        key = f"visit {link.subject}" if link is not None else f"to {str(address).strip().casefold()[:ADDRESS_MAX]}"
        allowed = self._mails.take(self._network(request), OF_NETWORK_MAX, now_s)
        allowed = allowed and self._mails.take(key, TO_ADDRESS_MAX, now_s)
        if allowed and self._n_sending < MAILS_WAITING_MAX:
            self._n_sending += 1
            done = self._sending.submit(self._send, mailer, address, link, language)
            done.add_done_callback(lambda _: self._sent())
        return JSONResponse({}, 202)

    def _sent(self) -> None:
        self._n_sending -= 1

    def _send(self, mailer: Mailer, address: Any, link: Link | None, language: str) -> None:
        """Send what may be sent; what fails is logged without the address."""
        try:
            if link is not None and link.purpose == "visit":
                holder = self._ledger.customer(link.subject)
                if holder is not None and holder.email is not None:
                    self._write(mailer, holder.email, self._new("visit", link.subject), language)
            elif link is None and isinstance(address, str) and 3 <= len(address) <= ADDRESS_MAX:
                for customer in (self._at_address or (lambda _: []))(address):
                    assert customer.email is not None
                    self._write(mailer, customer.email, self._new("account", customer.account), language)
        except (OSError, ValueError, FusionError) as error:  # smtplib's errors are OSErrors
            _log.warning("a link could not be sent: %s: %s", type(error).__name__, terminal_text(str(error))[:200])

    def _new(self, purpose: LinkPurpose, subject: str) -> str:
        return self._links.link(purpose, subject, self._clock_s())

    def _write(self, mailer: Mailer, address: str, url: str, language: str) -> None:
        texts = catalogue("shopper", language)
        minutes = str(LIFETIME_S["account"] // 60)
        body = texts["mail_body"].format(store=self._store.name, url=url, minutes=minutes)
        # Counted here, so that a stranger who asks for addresses that are not known uses up nothing of the others'.
        if self._written.take("all", OF_ALL_MAX, self._clock_s()):
            mailer.write(address, texts["mail_subject"].format(store=self._store.name), body)

    def _network(self, request: Request) -> str:
        return network_of(request.client.host if request.client else "")

    def close(self) -> None:
        """Stop sending; mails that wait are not sent."""
        self._sending.shutdown(wait=False, cancel_futures=True)


def _kind_of(link: Link) -> SessionKind:
    return "account" if link.purpose in ("account", "app") else "visit"


async def content_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request; status 400 where it is none."""
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise HTTPException(400, "want a JSON object")
    return content
