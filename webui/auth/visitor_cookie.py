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

from webui.auth import login, upload_ownership, upload_paths
from webui.auth.refusal import refuse

COOKIE = "manyeyes-visitor"
UPLOAD = "/gradio_api/upload"
FILE = "/gradio_api/file="
OLD_FILE = "/gradio_api/file/"
"""Gradio's older spelling of the same, which no browser of this page uses."""
MOST_BYTES = 1024 * 1024
"""Of an upload's answer, which is a list of paths."""


def owner(cookies: Mapping[str, str]) -> str:
    """Who asks: this browser; else who is logged in; else programs, which are one."""
    told = cookies.get(COOKIE) or cookies.get(login.COOKIE)
    return hashlib.sha256(told.encode()).hexdigest() if told else upload_ownership.PROGRAMS


class Visitors:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = str(scope["path"])
        if OLD_FILE in path:
            await refuse(PlainTextResponse("Files are read at /gradio_api/file=PATH.\n", 404), scope, receive, send)
        elif FILE in path:
            if _anothers(path.partition(FILE)[2], owner(request.cookies)):
                await refuse(PlainTextResponse("This file was not uploaded by you.\n", 403), scope, receive, send)
                return
            await self._app(scope, receive, send)
        elif path.endswith(UPLOAD) and scope["method"] == "POST":
            await self._app(scope, receive, _Noting(send, owner(request.cookies)))
        elif COOKIE not in request.cookies and "text/html" in request.headers.get("accept", ""):
            await self._app(scope, receive, _with_cookie(send, request))
        else:
            await self._app(scope, receive, send)


class _Noting:
    """Passes an upload's answer on and notes the paths in it."""

    def __init__(self, send: Send, owner: str) -> None:
        self._send = send
        self._owner = owner
        self._good = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._good = message["status"] == 200
        elif message["type"] == "http.response.body" and self._good and len(self._body) < MOST_BYTES:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):  # before the browser knows the paths, and could use them
                _note(json.loads(self._body), self._owner)
        await self._send(message)


def _note(paths: list[str], owner: str) -> None:
    for path in paths:
        upload_ownership.uploaded(Path(path).resolve(), owner)


def _anothers(path: str, owner: str) -> bool:
    file = Path(path).resolve()
    return file.is_relative_to(upload_paths.folder()) and not upload_ownership.mine(file, owner)


def _with_cookie(send: Send, request: Request) -> Send:
    secure = "; Secure" if request.headers.get("x-forwarded-proto") == "https" else ""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax{secure}"
            MutableHeaders(scope=message).append("set-cookie", cookie)
        await send(message)

    return sending
