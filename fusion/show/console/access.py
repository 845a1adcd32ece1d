"""Who gets in: signing in and out, and the session of a request."""

from __future__ import annotations

import asyncio
import hmac
import html
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import parse_qs

from fusion.errors import extra
from fusion.show.console.sessions import SHARED_TRIES, TRIES, Session, Sessions
from fusion.show.console.users import NAME_MAX, Users
from fusion.show.page import filled
from fusion.show.web.guarding import check_origin, network_of
from fusion.store.models import Store

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

# Passwords that are checked at once, and those that may wait for it.
CHECKED_AT_ONCE, CHECKING_MAX = 2, 64
# A browser in which a person signed in is known for half a year.
DEVICE_MAX_S = 183 * 86400


class Access:
    """Signing in to a store's console.

    Attributes:
        cookie: name of the cookie that holds the session's token.
        sessions: the people who are signed in.
    """

    def __init__(
        self, store: Store, users: Users, parts: Mapping[str, str], https: bool, clock_s: Callable[[], float]
    ) -> None:
        """Prepare.

        Args:
            store: the store that users must be allowed to see.
            users: who may sign in.
            parts: texts for the sign-in page.
            https: whether cookies are for encrypted connections only.
            clock_s: of sessions.
        """
        self._store, self._users, self._parts = store, users, parts
        self._https, self._clock_s = https, clock_s
        self.sessions = Sessions()
        # Cookies ignore ports: consoles of several stores on one machine need cookies of different names.
        self.cookie = "fusion-console-" + re.sub(r"[^A-Za-z0-9]", "-", store.id)
        self._device_cookie = self.cookie + "-device"
        # A hash takes tens of milliseconds and 32 MiB: guesses delay neither the books nor the pages.
        self._checking = ThreadPoolExecutor(CHECKED_AT_ONCE, "sign-in")
        self._n_checking = 0

    def session(self, request: Request, *, touch: bool = True) -> Session | None:
        """The session of a request, None where its user is not signed in; see `Sessions.get` for `touch`."""
        return self.sessions.get(request.cookies.get(self.cookie), self._clock_s(), touch=touch)

    def required(self, request: Request) -> Session:
        """The session of a request; status 401 where its user is not signed in."""
        session = self.session(request)
        if session is None:
            raise HTTPException(401, "sign in first")
        return session

    def required_for_change(self, request: Request) -> Session:
        """The session of a request that changes something, which only a page of this console can have made."""
        check_origin(request)
        session = self.required(request)
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
            raise HTTPException(403, "the request lacks the token of this session")
        return session

    async def page(self, request: Request) -> Response:
        """The sign-in page."""
        if self.session(request) is not None:
            return RedirectResponse("/", 303)
        return self._form("", 200)

    def _form(self, message: str, status: int) -> Response:
        return HTMLResponse(filled("signin.html", {**self._parts, "message": html.escape(message)}), status)

    async def sign_in(self, request: Request) -> Response:
        """Begin a session, where name and password are right."""
        check_origin(request)
        try:
            form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=4)
        except ValueError:
            raise HTTPException(400, "want a name and a password") from None
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        name = name[: NAME_MAX + 1]  # tries are remembered by name; no user has a longer one
        keys, now_s = self._tried_by(request, name), self._clock_s()
        wait_s = self.sessions.must_wait(keys, now_s)
        if wait_s > 0.0:
            return self._form(f"Too many wrong passwords: wait {math.ceil(wait_s / 60.0)} min", 429)
        if self._n_checking >= CHECKING_MAX:
            return self._form("Too many people sign in at once: try again", 503)
        # A try counts before its password is checked, so that many tries at once count like many in a row.
        self.sessions.failed(keys, now_s)
        self._n_checking += 1
        try:
            check = partial(self._users.check, name, password, self._store.id)
            is_right = await asyncio.get_running_loop().run_in_executor(self._checking, check)
        finally:
            self._n_checking -= 1
        if not is_right:
            return self._form("Name or password is wrong for this store", 403)
        self.sessions.succeeded(keys)
        # A new session in any case: an attacker could have planted an old one and waited for it to be signed in.
        self.sessions.end(request.cookies.get(self.cookie))
        response = RedirectResponse("/", 303)
        token = self.sessions.begin(name, now_s)
        set_cookie = partial(response.set_cookie, httponly=True, samesite="strict", secure=self._https)
        set_cookie(self.cookie, token)
        set_cookie(self._device_cookie, self._users.device(name), max_age=DEVICE_MAX_S)
        return response

    def _tried_by(self, request: Request, name: str) -> dict[str, int]:
        """What a try to sign in counts for, and how many wrong ones in a row that may have."""
        device = request.cookies.get(self._device_cookie, "")
        if self._users.knows_device(name, device):
            # Others who guess, from here or elsewhere, do not lock this person out.
            return {f"device {device[:32]} {name}": TRIES}
        machine = network_of(request.client.host if request.client else "")
        return {f"{machine} {name}": TRIES, f"machine {machine}": SHARED_TRIES, f"name {name}": SHARED_TRIES}

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        self.required_for_change(request)
        self.sessions.end(request.cookies.get(self.cookie))
        response = JSONResponse({})
        response.delete_cookie(self.cookie, httponly=True, samesite="strict", secure=self._https)
        return response
