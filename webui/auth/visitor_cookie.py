"""Tells browsers apart by a cookie, notes whose an upload is, and refuses a file to everybody else."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.auth import login, uploads
from webui.auth.same_origin import refuse_request

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
    return hashlib.sha256(cookie.encode()).hexdigest() if cookie else uploads.PROGRAMS


class VisitorCookieMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = str(scope["path"])
        if OLD_FILE_PATH in path:
            await refuse_request(
                PlainTextResponse("Files are read at /gradio_api/file=PATH.\n", 404), scope, receive, send
            )
        elif FILE_PATH in path:
            if _is_anothers_upload(path.partition(FILE_PATH)[2], owner_of(request.cookies)):
                await refuse_request(
                    PlainTextResponse("This file was not uploaded by you.\n", 403), scope, receive, send
                )
                return
            await self._app(scope, receive, send)
        elif path.endswith(UPLOAD_PATH) and scope["method"] == "POST":
            await self._app(scope, receive, _UploadRecorder(send, owner_of(request.cookies)))
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
                _record_uploads(json.loads(self._body), self._owner)
        await self._send(message)


def _record_uploads(paths: list[str], owner: str) -> None:
    for path in paths:
        uploads.record_upload(Path(path).resolve(), owner)


def _is_anothers_upload(path: str, owner: str) -> bool:
    file = Path(path).resolve()
    return file.is_relative_to(uploads.upload_folder()) and not uploads.may_read(file, owner)


def _with_cookie(send: Send, request: Request) -> Send:
    secure = "; Secure" if request.headers.get("x-forwarded-proto") == "https" else ""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = f"{VISITOR_COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax{secure}"
            MutableHeaders(scope=message).append("set-cookie", cookie)
        await send(message)

    return sending
