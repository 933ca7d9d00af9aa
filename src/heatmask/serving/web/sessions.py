"""Scans that a client sent for a while, under random ids of ours."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatmask.errors import NotFoundError
from heatmask.serving.store import Store


@dataclass
class Session:
    """One scan, sent by one person.

    Attributes
    ----------
    id, person, client, image : the session's id, whose it is, as whom the store knows it, our id
    expiry_s : how long it is kept while it is not used
    created, used : time in s since 1970
    """

    id: str
    person: str
    client: str
    image: str
    expiry_s: float
    created: float = field(default_factory=time.time)
    used: float = field(default_factory=time.time)

    def describe(self) -> dict[str, Any]:
        """Return what MONAI Label's clients know of a session, without paths."""
        return {
            "name": self.id,
            "path": "",
            "image": self.image,
            "meta": {},
            "create_ts": int(self.created),
            "last_access_ts": int(self.used),
            "expiry": int(self.expiry_s),
        }


class Sessions:
    """All sessions of a server; after a restart there are none, and the store deletes the scans."""

    def __init__(self, store: Store, longest_s: float) -> None:
        self._store, self._longest_s = store, longest_s
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self, file: Path, name: str, person: str, expiry_s: float = 0) -> Session:
        """Keep a scan for a while.

        Raises
        ------
        HeatmaskError
            The store does not take it.
        """
        session_id = secrets.token_hex(16)
        client = f"{person}/session-{session_id}"
        image = self._store.send_image(file, name, client)
        expiry_s = min(expiry_s or self._longest_s, self._longest_s)
        session = Session(session_id, person, client, image, expiry_s)
        with self._lock:
            self._sessions[session_id] = session
        return session

    def get(self, session_id: str, person: str) -> Session:
        """Return a person's session, and keep it for longer.

        Raises
        ------
        NotFoundError
            There is none, or it has expired.
        """
        self.expire()
        session = self._sessions.get(session_id)
        if session is None or session.person != person:
            raise NotFoundError("There is no such session. If it has expired, open a new session.")
        self._store.resolve(session.image, session.client)  # is in use
        session.used = time.time()
        return session

    def remove(self, session_id: str, person: str) -> Session:
        """End a person's session and delete its scan.

        Raises
        ------
        NotFoundError
            There is none.
        """
        session = self.get(session_id, person)
        self._end(session)
        return session

    def expire(self) -> None:
        """End what was not used for long."""
        now = time.time()
        for session in list(self._sessions.values()):
            if session.used + session.expiry_s < now:
                self._end(session)

    def _end(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)
        self._store.end_session(session.client)
