"""The secret that signs cookies, and the sessions that ended before their time.

Both are in the state folder, which all copies of the page share: a login is valid at every copy and survives a restart,
and so does a logout. Without the folder they last as long as the process.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from pathlib import Path

from webui import log

KEY_FILE, ENDED_FOLDER = "session.key", "ended-sessions"
KEY_BYTES = 32


class SessionStore:
    def __init__(self, folder: Path | None = None) -> None:
        self._ended: dict[str, float] = {}
        self._folder = folder
        self._key = secrets.token_bytes(KEY_BYTES)
        if folder is not None:
            try:
                (folder / ENDED_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._key = _shared_key(folder / KEY_FILE)
            except OSError as error:
                self._folder = None
                log.log_event("session_state_unavailable", folder=str(folder), reason=str(error.strerror))

    def sign(self, *parts: str) -> str:
        return hmac.new(self._key, "\0".join(parts).encode(), "sha256").hexdigest()

    def is_signature(self, signature: str, *parts: str) -> bool:
        return hmac.compare_digest(signature.encode(), self.sign(*parts).encode())

    def end(self, session: str, until_s: float) -> None:
        """Ends a session, which would otherwise be valid until `until_s` (Unix time)."""
        now_s = time.time()
        self._ended = {each: end_s for each, end_s in self._ended.items() if end_s > now_s} | {session: until_s}
        if self._folder is None:
            return
        try:
            path = self._path(session)
            path.touch(mode=0o600)
            os.utime(path, (until_s, until_s))
            for old in path.parent.iterdir():
                if old.stat().st_mtime < now_s:
                    old.unlink(missing_ok=True)
        except OSError as error:
            log.log_event("logout_not_stored", reason=str(error.strerror))

    def is_ended(self, session: str) -> bool:
        return session in self._ended or (self._folder is not None and self._path(session).exists())

    def _path(self, session: str) -> Path:
        assert self._folder is not None
        return self._folder / ENDED_FOLDER / hashlib.sha256(session.encode()).hexdigest()


def _shared_key(path: Path) -> bytes:
    """Reads the key, or creates it: private from its first moment, and only complete under its name."""
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            with contextlib.suppress(FileExistsError):  # another copy of the page was faster
                os.link(name, path)
        finally:
            Path(name).unlink()
    key = path.read_bytes()
    if len(key) < KEY_BYTES:
        raise OSError(0, f"{path} has fewer than {KEY_BYTES} bytes; delete it")
    return key
