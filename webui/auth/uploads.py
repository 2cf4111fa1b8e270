"""Whose an upload is, and how long it is needed: read by nobody else, and deleted with the last chat that could send it.

Gradio puts an upload into a folder named after its bytes, so two visitors with the same picture share one folder. An owner is a
browser (by a cookie; all its tabs are one owner) or, without cookie, whoever calls by program. All of it is in memory, as the
uploads are: a page that starts anew has none.
"""

import filecmp
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui import samples
from webui.auth import login
from webui.auth.same_origin import discard_body
from webui.i18n import _
from webui.user_error import UserError

PROGRAMS = "programs"
_owner: ContextVar[str | None] = ContextVar("owner", default=None)


@dataclass
class UploadFolder:
    owners: set[str] = field(default_factory=set)
    fresh: Counter[str] = field(default_factory=Counter)
    """Uploads by owner that no event has used yet."""
    needed: set[tuple[str, str]] = field(default_factory=set)
    """(visit, what for)"""


_lock = threading.Lock()
_folders: dict[Path, UploadFolder] = {}
_needs: dict[tuple[str, str], set[Path]] = {}


@contextmanager
def acting_as(owner: str) -> Iterator[None]:
    """What happens inside happens for `owner`; threads and tasks that it starts know too."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def current_owner() -> str:
    return _owner.get() or ""


def record_upload(path: Path, owner: str) -> None:
    with _lock:
        folder = _folders.setdefault(path.resolve().parent, UploadFolder())
        folder.owners.add(owner)
        folder.fresh[owner] += 1


def record_created_file(path: Path) -> None:
    """`path` was made here, for whoever acts."""
    if owner := _owner.get():
        with _lock:
            _folders.setdefault(path.parent, UploadFolder()).owners.add(owner)


def may_read(path: Path, owner: str | None = None) -> bool:
    """Whether `owner` (else whoever acts) may read it. What nobody acts for is the page's own doing."""
    owner = owner or _owner.get()
    if owner is None or is_sample(path):
        return True
    with _lock:
        folder = _folders.get(path.parent)
        return folder is not None and owner in folder.owners


def hold_files(visit: str, use: str, files: Iterable[str | Path]) -> None:
    """From here on `visit` needs these files for `use`, and for it no others: what nobody else needs is deleted."""
    now = {Path(file).resolve().parent for file in files}
    with _lock:
        before = _needs.pop((visit, use), set())
        if now:
            _needs[visit, use] = now
        for parent in now - before:
            if folder := _folders.get(parent):
                folder.needed.add((visit, use))
                if folder.fresh[owner := current_owner()] > 0:
                    folder.fresh[owner] -= 1
        for parent in before - now:
            if folder := _folders.get(parent):
                folder.needed.discard((visit, use))
                _delete_unneeded(parent, folder)


def end_visit(visit: str) -> None:
    for use in [use for holder, use in list(_needs) if holder == visit]:
        hold_files(visit, use, ())
    with _lock:  # what Gradio deleted for its age
        for parent in [parent for parent in _folders if not parent.exists()]:
            del _folders[parent]


def is_sample(path: Path) -> bool:
    """Everybody's: one of the page's own samples, or Gradio's copy of it."""
    own = samples.HERE / path.name
    return path == own or (own.is_file() and path.is_file() and filecmp.cmp(path, own))


def _delete_unneeded(parent: Path, folder: UploadFolder) -> None:
    if folder.needed or any(folder.fresh.values()):
        return
    if not any(is_sample(file) for file in parent.glob("*")):
        shutil.rmtree(parent, ignore_errors=True)
        del _folders[parent]


def upload_folder() -> Path:
    """Gradio's, as it finds it itself."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def resolve_upload(path: str | Path) -> Path:
    """`path`, if a visitor may name it. Raises UserError: a browser can put any path into a request."""
    found = Path(path).resolve()
    if not (found.is_relative_to(upload_folder()) or found.is_relative_to(samples.HERE)):
        raise UserError(_("This file was not uploaded to this page."), _("Attach it again."))
    if found.is_file() and not may_read(found):
        raise UserError(_("This file was not uploaded to this page."), _("Attach it again."))
    if not found.is_file():
        raise UserError(
            _("The page no longer holds {name}.", name=found.name), _("Attach it again, or begin a new chat.")
        )
    return found


def store_upload(name: str, data: bytes) -> Path:
    """Writes `data` where uploads lie, under its own hash."""
    path = upload_folder() / hashlib.sha256(data).hexdigest() / Path(name).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    record_created_file(path)
    return path


def derived_path(path: Path, name: str) -> Path:
    """Where a file made of an upload goes: into its folder; of a sample, which all visitors share, into one for each of them."""
    if not is_sample(path):
        return path.parent / name
    made = upload_folder() / hashlib.sha256(f"{current_owner()}\0{path}".encode()).hexdigest()
    made.mkdir(parents=True, exist_ok=True)
    record_created_file(made / name)
    return made / name


VISITOR_COOKIE = "manyeyes-visitor"
UPLOAD_PATH = "/gradio_api/upload"
FILE_PATH = "/gradio_api/file="
OLD_FILE_PATH = "/gradio_api/file/"
"""Gradio's older spelling of the same, which no browser of this page uses."""
MAX_ANSWER_BYTES = 1024 * 1024
"""Of an upload's answer, which is a list of paths."""


def owner_of(cookies: Mapping[str, str]) -> str:
    """Who asks: this browser; else who is logged in; else programs, which are one."""
    cookie = cookies.get(VISITOR_COOKIE) or cookies.get(login.LOGIN_COOKIE)
    return hashlib.sha256(cookie.encode()).hexdigest() if cookie else PROGRAMS


class VisitorCookieMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = str(scope["path"])
        owner = owner_of(request.cookies)
        if refusal := _refused_file(path, owner):
            await discard_body(scope, receive)
            await refusal(scope, receive, send)
        elif path.endswith(UPLOAD_PATH) and scope["method"] == "POST":
            await self._app(scope, receive, _UploadRecorder(send, owner))
        elif VISITOR_COOKIE not in request.cookies and "text/html" in request.headers.get("accept", ""):
            await self._app(scope, receive, _with_cookie(send, request))
        else:
            await self._app(scope, receive, send)


class _UploadRecorder:
    """Passes an upload's answer on and notes the paths in it."""

    def __init__(self, send: Send, owner: str) -> None:
        self._send = send
        self._owner = owner
        self._good = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._good = message["status"] == 200
        elif message["type"] == "http.response.body" and self._good and len(self._body) < MAX_ANSWER_BYTES:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):  # before the browser knows the paths, and could use them
                for path in json.loads(self._body):
                    record_upload(Path(path), self._owner)
        await self._send(message)


def _refused_file(path: str, owner: str) -> Response | None:
    if OLD_FILE_PATH in path:
        return PlainTextResponse("Files are read at /gradio_api/file=PATH.\n", 404)
    _, named, name = path.partition(FILE_PATH)
    file = Path(name).resolve()
    if named and file.is_relative_to(upload_folder()) and not may_read(file, owner):
        return PlainTextResponse("This file was not uploaded by you.\n", 403)
    return None


def _with_cookie(send: Send, request: Request) -> Send:
    secure = "; Secure" if request.headers.get("x-forwarded-proto") == "https" else ""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = f"{VISITOR_COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax{secure}"
            MutableHeaders(scope=message).append("set-cookie", cookie)
        await send(message)

    return sending
