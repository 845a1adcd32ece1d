"""Sessions of the people who are signed in, and the pause after wrong passwords: in memory, by the caller's clock."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A session lasts for a shift, and ends after an hour without a click.
SESSION_MAX_S, IDLE_MAX_S, SESSIONS_MAX = 10 * 3600.0, 3600.0, 200
# Wrong passwords in a row for a name from one machine, before further ones have to wait: a minute, then two, then four.
TRIES, WAIT_S, WAIT_MAX_S, TRIED_MAX = 5, 60.0, 3600.0, 10_000
# The same for all names from one machine, and for one name from all machines: a shop's people share an address, and a
# stranger must not lock out a person by guessing. Browsers in which a person has signed in before do not count here.
SHARED_TRIES = 50


@dataclass
class Session:
    """A person who is signed in.

    Attributes:
        user: their name.
        csrf: the token that a request which changes something must repeat; a page of another site cannot know it.
        began_s, used_s: by the clock of `Sessions`.
        stamp: what the session depends on; see `Users.stamp`.
    """

    user: str
    csrf: str
    began_s: float
    used_s: float
    stamp: str = ""


@dataclass
class _Failures:
    """Wrong passwords in a row under one key, and the time of the last one that was checked."""

    count: int
    last_s: float


class Sessions:
    """Who is signed in. A restart signs everybody out, and a token of another console is worth nothing here."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._failed: OrderedDict[str, _Failures] = OrderedDict()

    @property
    def tried(self) -> tuple[str, ...]:
        """Names and machines whose wrong passwords are remembered."""
        return tuple(self._failed)

    def begin(self, user: str, now_s: float, stamp: str = "") -> str:
        """Sign a person in. Returns the token of the session, of which only a hash is kept here."""
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = Session(user, secrets.token_urlsafe(24), now_s, now_s, stamp)
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return token

    def get(self, token: str | None, now_s: float, *, touch: bool = True) -> Session | None:
        """The session of a token; None where it is forged, ended or too old.

        Args:
            token: from the cookie.
            now_s: the time.
            touch: whether the person did something, so that the session is not idle.
        """
        key = _digest(token or "")
        session = self._sessions.get(key)
        if session is None:
            return None
        if now_s - session.began_s > SESSION_MAX_S or now_s - session.used_s > IDLE_MAX_S:
            del self._sessions[key]
            return None
        if touch:
            session.used_s = now_s
        return session

    def end(self, token: str | None) -> None:
        """Sign the person of a token out; harmless where there is no such session."""
        self._sessions.pop(_digest(token or ""), None)

    def must_wait(self, keys: Mapping[str, int], now_s: float) -> float:
        """How long a further try has to wait, in seconds; 0 where it may be made.

        Args:
            keys: what the try counts for (names, machines), and how many wrong passwords in a row each may have.
            now_s: the time.
        """
        waits_s = [0.0]
        for key, tries in keys.items():
            failures = self._failed.get(key)
            if failures is not None and failures.count >= tries:
                # Each wrong password after the pause doubles the next one.
                pause_s = min(WAIT_S * 2.0 ** min(failures.count - tries, 20), WAIT_MAX_S)
                waits_s.append(failures.last_s + pause_s - now_s)
        return max(waits_s)

    def failed(self, keys: Iterable[str], now_s: float) -> None:
        """Count a wrong password for names and machines."""
        for key in keys:
            failures = self._failed.pop(key, _Failures(0, now_s))
            count = 1 if now_s - failures.last_s > 2 * WAIT_MAX_S else failures.count + 1
            self._failed[key] = _Failures(count, now_s)
        while len(self._failed) > TRIED_MAX:
            self._failed.popitem(last=False)

    def succeeded(self, keys: Mapping[str, int]) -> None:
        """Forget wrong passwords after a right one; of what others share, take back only the try that was right."""
        for key, tries in keys.items():
            failures = self._failed.get(key)
            if failures is not None and tries == SHARED_TRIES and failures.count > 1:
                failures.count -= 1
            else:
                self._failed.pop(key, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
