"""Tracks ownership and lifetime of uploads. Only the owner can read a file; it is deleted with its last chat.

Gradio stores an upload in a folder named after its hash, so two users with the same image share a folder. An owner is
a browser, identified by a cookie (all its tabs are one owner). All programs without a cookie are one owner. The
records are in memory, like the uploads, so a restart of the page deletes both.
"""

import asyncio
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
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
from gradio import route_utils
from gradio.route_utils import GradioMultiPartParser
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui import samples
from webui.auth import login
from webui.auth.same_origin import discard_body
from webui.auth.upload_quota import SHARED_QUOTA, QuotaExceeded, payers_of
from webui.i18n import _
from webui.user_error import UserError

PROGRAMS = "programs"
_owner: ContextVar[str | None] = ContextVar("owner", default=None)


@dataclass
class UploadFolder:
    owners: set[str] = field(default_factory=set)
    fresh: Counter[str] = field(default_factory=Counter)
    """Number of uploads by owner that no event has used yet."""
    needed: set[tuple[str, str]] = field(default_factory=set)
    """(visit, use) pairs that need the folder."""


_lock = threading.Lock()
_folders: dict[Path, UploadFolder] = {}
_needs: dict[tuple[str, str], set[Path]] = {}


@contextmanager
def acting_as(owner: str) -> Iterator[None]:
    """Sets the owner inside the block, and in threads and tasks started there."""
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
    SHARED_QUOTA.charge(path.resolve().parent)


def record_created_file(path: Path) -> None:
    """Records that the page created `path` for the current owner."""
    if owner := _owner.get():
        with _lock:
            _folders.setdefault(path.parent, UploadFolder()).owners.add(owner)
        SHARED_QUOTA.charge(path.parent)


def may_read(path: Path, owner: str | None = None) -> bool:
    """Returns True if `owner` (default: the current owner) may read the file. Without an owner, the page reads it."""
    owner = owner or _owner.get()
    if owner is None or is_sample(path):
        return True
    with _lock:
        folder = _folders.get(path.parent)
        return folder is not None and owner in folder.owners


def hold_files(visit: str, use: str, files: Iterable[str | Path]) -> None:
    """Replaces the files that `visit` needs for `use`. Files that no visit needs are deleted."""
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
    with _lock:  # folders that Gradio deleted because of their age
        for parent in [parent for parent in _folders if not parent.exists()]:
            del _folders[parent]


def is_sample(path: Path) -> bool:
    """Returns True for a sample of the page or Gradio's copy of it. All users may read samples."""
    own = samples.HERE / path.name
    return path == own or (own.is_file() and path.is_file() and filecmp.cmp(path, own))


def _delete_unneeded(parent: Path, folder: UploadFolder) -> None:
    if folder.needed or any(folder.fresh.values()):
        return
    if not any(is_sample(file) for file in parent.glob("*")):
        shutil.rmtree(parent, ignore_errors=True)
        del _folders[parent]


def upload_folder() -> Path:
    """Returns Gradio's upload folder, found in the same way as Gradio finds it."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def resolve_upload(path: str | Path) -> Path:
    """Resolves `path` if the user may read it, else raises UserError. A browser can send any path in a request."""
    resolved = Path(path).resolve()
    if not (resolved.is_relative_to(upload_folder()) or resolved.is_relative_to(samples.HERE)):
        raise UserError(_("This file was not uploaded to this page."), _("Attach it again."))
    if resolved.is_file() and not may_read(resolved):
        raise UserError(_("This file was not uploaded to this page."), _("Attach it again."))
    if not resolved.is_file():
        raise UserError(
            _("{name} is no longer on the server.", name=resolved.name), _("Attach it again, or start a new chat.")
        )
    return resolved


def store_upload(name: str, data: bytes) -> Path:
    """Writes `data` to the upload folder, in a folder named after its hash."""
    path = upload_folder() / hashlib.sha256(data).hexdigest() / Path(name).name
    _check_space(len(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    record_created_file(path)
    return path


def derived_path(path: Path, name: str) -> Path:
    """Returns the path of a file derived from an upload: in its folder, or for a sample in a folder per owner."""
    _check_space(0)
    if not is_sample(path):
        return path.parent / name
    made = upload_folder() / hashlib.sha256(f"{current_owner()}\0{path}".encode()).hexdigest()
    made.mkdir(parents=True, exist_ok=True)
    record_created_file(made / name)
    return made / name


def _check_space(needed_bytes: int) -> None:
    """Raises UserError if the current visitor has no space for another file."""
    try:
        with SHARED_QUOTA.reserving(needed_bytes, upload_folder()):
            pass
    except QuotaExceeded as error:
        raise UserError(error.summary, error.advice) from None


VISITOR_COOKIE = "manyeyes-visitor"
UPLOAD_PATH = "/gradio_api/upload"
FILE_PATH = "/gradio_api/file="
MAX_ANSWER_BYTES = 1024 * 1024
"""Maximum size of an upload response, which is a list of paths."""


def owner_of(cookies: Mapping[str, str]) -> str:
    """Returns the owner of a request: the browser, else the logged-in user, else all programs together."""
    cookie = cookies.get(VISITOR_COOKIE) or cookies.get(login.LOGIN_COOKIE)
    return hashlib.sha256(cookie.encode()).hexdigest() if cookie else PROGRAMS


class VisitorCookieMiddleware:
    """ASGI middleware that sets the visitor cookie, records uploads and refuses files of other owners."""

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
            await self._upload(request, receive, send)
        elif VISITOR_COOKIE not in request.cookies and "text/html" in request.headers.get("accept", ""):
            await self._app(scope, receive, _with_cookie(send, request))
        else:
            await self._app(scope, receive, send)

    async def _upload(self, request: Request, receive: Receive, send: Send) -> None:
        length = request.headers.get("content-length", "")
        refusal = PlainTextResponse("An upload must have a Content-Length.\n", 411)
        if length.isdecimal():
            try:
                with ExitStack() as stack:
                    stack.enter_context(SHARED_QUOTA.paying(payers(request)))
                    reserving = SHARED_QUOTA.reserving(int(length), upload_folder())
                    await asyncio.to_thread(stack.enter_context, reserving)  # it reads the whole upload folder
                    stack.enter_context(remove_unfinished_files())
                    await self._app(request.scope, receive, _UploadRecorder(send, owner_of(request.cookies)))
                return
            except QuotaExceeded as error:
                refusal = PlainTextResponse(f"{error.summary} {error.advice}\n", error.status)
        await discard_body(request.scope, receive)
        await refusal(request.scope, receive, send)


def payers(request: Request | gr.Request) -> tuple[str, str]:
    """Returns who pays for the files of this request: see upload_quota.py."""
    owner = owner_of(request.cookies)
    return payers_of(owner, login.client_address(request), owner == PROGRAMS)


_received: ContextVar[list[Path] | None] = ContextVar("received", default=None)


class _TrackedParser(GradioMultiPartParser):
    """Notes the file of each part. Gradio leaves it behind if the sender goes away, or names no field that it reads."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if (part := self._current_part.file) is not None and (received := _received.get()) is not None:
            received.append(Path(str(part.file.name)))


route_utils.GradioMultiPartParser = _TrackedParser  # type: ignore[misc]


@contextmanager
def remove_unfinished_files() -> Iterator[None]:
    """Deletes files that Gradio received inside the block and did not move to their folders."""
    received: list[Path] = []
    token = _received.set(received)
    try:
        yield
    finally:
        _received.reset(token)
        for path in received:
            path.unlink(missing_ok=True)


class _UploadRecorder:
    """Forwards an upload response and records the paths in it."""

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
            if not message.get("more_body", False):  # before the browser gets the paths and can use them
                for path in json.loads(self._body):
                    record_upload(Path(path), self._owner)
        await self._send(message)


def _refused_file(path: str, owner: str) -> Response | None:
    """Refuses every file but this visitor's uploads and the samples. Gradio would also fetch a URL, for anybody."""
    _, named, name = path.partition(FILE_PATH)
    if not named or (os.path.normpath(name) == name and _is_servable(Path(name).resolve(), owner)):
        return None
    return PlainTextResponse("This file was not uploaded by you.\n", 403)


def _is_servable(file: Path, owner: str) -> bool:
    return (file.is_relative_to(upload_folder()) or file.is_relative_to(samples.HERE)) and may_read(file, owner)


def _with_cookie(send: Send, request: Request) -> Send:
    secure = "; Secure" if request.headers.get("x-forwarded-proto") == "https" else ""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = f"{VISITOR_COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax{secure}"
            MutableHeaders(scope=message).append("set-cookie", cookie)
        await send(message)

    return sending
