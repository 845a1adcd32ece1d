"""Who gets in: signing in and out, the session of a request, and what its user may do in a store."""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import parse_qs

from fusion.errors import FusionError, extra, terminal_text
from fusion.show.console.audit import Action, Audit
from fusion.show.console.sessions import SHARED_TRIES, TRIES, Session, Sessions
from fusion.show.console.users import NAME_MAX, Role, StoreRights, Users
from fusion.show.page import filled
from fusion.show.web.guarding import check_origin, network_of

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import BaseRoute, Route

# Passwords that are checked at once, and those that may wait for it.
CHECKED_AT_ONCE, CHECKING_MAX = 2, 64
# A browser in which a person signed in is known for half a year.
DEVICE_MAX_S = 183 * 86400
AUDIT_FILE = "audit.jsonl"  # beside users.json
NO_AUDIT = "The audit log cannot be written at present"

_log = logging.getLogger(__name__)


class Access:
    """Signing in to the consoles of some stores.

    Attributes:
        cookie: name of the cookie that holds the session's token.
        sessions: the people who are signed in.
    """

    def __init__(
        self,
        name: str,
        stores: Mapping[str, str],
        users: Users,
        parts: Mapping[str, str],
        *,
        https: bool,
        clock_s: Callable[[], float],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare.

        Args:
            name: of the cookies: consoles on one machine need different ones, since cookies ignore ports.
            stores: names of the stores by their ids; users must be allowed to see one of them.
            users: who may sign in.
            parts: texts for the sign-in page.
            https: whether cookies are for encrypted connections only.
            clock_s: of sessions.
            clock_ns: by which codes of second factors are good, and actions are dated.
        """
        self.stores, self._users, self._parts = dict(stores), users, parts
        self._https, self._clock_s, self._clock_ns = https, clock_s, clock_ns
        self._audit = Audit(users.path.with_name(AUDIT_FILE))
        self.sessions = Sessions()
        self.cookie = "fusion-console-" + re.sub(r"[^A-Za-z0-9]", "-", name)
        self._device_cookie = self.cookie + "-device"
        # A hash takes tens of milliseconds and 32 MiB: guesses delay neither the books nor the pages.
        self._checking = ThreadPoolExecutor(CHECKED_AT_ONCE, "sign-in")
        self._n_checking = 0

    @property
    def routes(self) -> list[BaseRoute]:
        """Signing in and out."""
        return [
            Route("/sign-in", self.page),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
        ]

    def session(self, request: Request, *, touch: bool = True) -> Session | None:
        """The session of a request, None where its user is not signed in; see `Sessions.get` for `touch`.

        The users' file is looked at each time: whoever was removed or locked, or has another password or other rights,
        is not signed in any more.
        """
        token = request.cookies.get(self.cookie)
        session = self.sessions.get(token, self._clock_s(), touch=touch)
        if session is not None and not hmac.compare_digest(session.stamp, self._users.stamp(session.user)):
            self.sessions.end(token)
            return None
        return session

    def rights(self, session: Session, store: str) -> StoreRights | None:
        """What a session's user may do in a store; None: nothing, so that it does not exist for them."""
        return self._users.rights(session.user, store) if store in self.stores else None

    def may_look(self, session: Session) -> dict[str, str]:
        """Names of the stores that a session's user may see, by id."""
        return {store: name for store, name in self.stores.items() if self.rights(session, store) is not None}

    def required(self, request: Request, store: str, role: Role = Role.LOOK) -> Session:
        """The session of a request.

        Status 401 where its user is not signed in, 404 where the store is not theirs, 403 without the role.
        """
        session = self.session(request)
        if session is None:
            raise HTTPException(401, "sign in first")
        rights = self.rights(session, store)
        if rights is None:
            raise HTTPException(404)  # as for a page that does not exist
        if not rights.may(role):
            raise HTTPException(403, f"this needs the right to {role}")
        return session

    def required_for_change(self, request: Request, store: str, role: Role = Role.DECIDE) -> Session:
        """The session of a request that changes something, which only a page of this console can have made."""
        check_origin(request)
        session = self.required(request, store, role)
        self._check_token(request, session)
        return session

    @staticmethod
    def _check_token(request: Request, session: Session) -> None:
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
            raise HTTPException(403, "the request lacks the token of this session")

    # ---- who did what ------------------------------------------------------------------------------------------------

    @property
    def audit(self) -> Audit:
        """Who did what."""
        return self._audit

    async def note(self, request: Request, by: str, did: str, store: str = "", about: str = "") -> None:
        """Add to the audit log; status 503 where that fails, so that nothing is done unseen."""
        machine = network_of(request.client.host if request.client else "")
        action = Action(self._clock_ns(), by, did, store, about, machine)
        try:
            await asyncio.to_thread(self._audit.add, action)
        except FusionError as error:
            _log.warning("%s", terminal_text(str(error)))
            raise HTTPException(503, NO_AUDIT) from None

    # ---- signing in and out ------------------------------------------------------------------------------------------

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
            form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=5)
        except ValueError:
            raise HTTPException(400, "want a name and a password") from None
        name, password, code = (form.get(key, [""])[0] for key in ("name", "password", "code"))
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
            check = partial(self._check, name, password, code)
            is_right = await asyncio.get_running_loop().run_in_executor(self._checking, check)
        except FusionError as error:
            _log.warning("%s", terminal_text(str(error)))
            return self._form("The users' file cannot be written at present", 503)
        finally:
            self._n_checking -= 1
        if not is_right:
            # A name that is unknown may be a password in the wrong field.
            await self.note(request, name if name in self._users else "", "sign-in failed")
            return self._form("Name, password or code is wrong for this store", 403)
        self.sessions.succeeded(keys)
        await self.note(request, name, "signed in")
        # A new session in any case: an attacker could have planted an old one and waited for it to be signed in.
        self.sessions.end(request.cookies.get(self.cookie))
        response = RedirectResponse("/", 303)
        token = self.sessions.begin(name, now_s, self._users.stamp(name))
        set_cookie = partial(response.set_cookie, httponly=True, samesite="strict", secure=self._https)
        set_cookie(self.cookie, token)
        set_cookie(self._device_cookie, self._users.device(name), max_age=DEVICE_MAX_S)
        return response

    def _check(self, name: str, password: str, code: str) -> bool:
        """Whether name, password and code are right; a code counts only after the password."""
        is_right = self._users.check(name, password, self.stores)
        return is_right and self._users.take_code(name, code, self._clock_ns() / 1e9)

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
        check_origin(request)
        session = self.session(request)
        if session is None:
            raise HTTPException(401, "sign in first")
        self._check_token(request, session)
        self.sessions.end(request.cookies.get(self.cookie))
        await self.note(request, session.user, "signed out")
        response = JSONResponse({})
        response.delete_cookie(self.cookie, httponly=True, samesite="strict", secure=self._https)
        return response


class StoreAccess:
    """What the pages of one store ask: `Access` with the store's id.

    Attributes:
        shared: signing in, for all stores of the console.
        store: the store's id.
    """

    def __init__(self, shared: Access, store: str) -> None:
        """Ask about a store."""
        self.shared, self.store = shared, store

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the session's token."""
        return self.shared.cookie

    @property
    def sessions(self) -> Sessions:
        """The people who are signed in."""
        return self.shared.sessions

    def session(self, request: Request, *, touch: bool = True) -> Session | None:
        """The session of a request whose user may see the store; None otherwise."""
        session = self.shared.session(request, touch=touch)
        return session if session is not None and self.shared.rights(session, self.store) is not None else None

    def required(self, request: Request, role: Role = Role.LOOK) -> Session:
        """See `Access.required`."""
        return self.shared.required(request, self.store, role)

    def required_for_change(self, request: Request, role: Role = Role.DECIDE) -> Session:
        """See `Access.required_for_change`."""
        return self.shared.required_for_change(request, self.store, role)

    def rights(self, session: Session) -> StoreRights:
        """What a session's user may do in the store; nothing where it is not theirs."""
        return self.shared.rights(session, self.store) or StoreRights(roles=())

    async def note(self, request: Request, session: Session, did: str, about: str = "") -> None:
        """See `Access.note`."""
        await self.shared.note(request, session.user, did, self.store, about)
