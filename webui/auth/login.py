"""Login of the page. If a users file exists, users must log in before they see the page.

The login is a signed cookie, so every replica of the page accepts it (sessions.py). The hash of the user's password is
part of what is signed, so a new password invalidates it. Programs log in like gradio_client, with POST /login.
"""

import asyncio
import base64
import html
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import gradio as gr
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from manyeyes.config.credentials import User, Users, UsersError, load_users, verify_password
from webui import i18n, log
from webui.auth.login_throttle import LoginThrottle
from webui.auth.same_origin import discard_body
from webui.auth.sessions import SessionStore
from webui.i18n import PATHS, _, use_language
from webui.settings import ReloadedFile

LOGIN_COOKIE = "manyeyes-login"
NAME_COOKIE = "manyeyes-user"
"""The user name, for display only. The server never trusts it."""
DEVICE_COOKIE = "manyeyes-device"
"""Marks a browser that a user has logged in with. It opens nothing; it only has its own count of wrong passwords."""
DEVICE_LIFETIME_S = 90 * 24 * 3600
MAX_FORM_BYTES = 4096
CONCURRENT_HASHES = 2
LOGIN_CSS = Path(__file__).parent / "login.css"


def users_file(path: Path | None) -> ReloadedFile[Users]:
    """Loads the users and reloads a changed file. If the file disappears, the users stay valid. Raises UsersError."""
    if path is None:
        return ReloadedFile(None, Users(), Users, _log_refused)
    loaded = load_users(path)

    def read() -> Users:
        nonlocal loaded
        changed = load_users(path)
        if loaded.users and not changed.users:
            raise UsersError(path, ["the file is missing; the loaded users stay valid until the page restarts"])
        loaded = changed
        return changed

    return ReloadedFile(path, loaded, read, _log_refused)


def _log_refused(error: UsersError) -> None:
    log.log_event("users_refused", problems=error.problems)


class LoginMiddleware:
    """`is_required`: without users all visitors are refused. Otherwise the page is open to everybody until there is a user."""

    def __init__(
        self,
        app: ASGIApp,
        users: Callable[[], Users],
        valid_h: float,
        now: Callable[[], float] = time.time,
        sessions: SessionStore | None = None,
        is_required: bool = False,
    ) -> None:
        self._app = app
        self._users = users
        self._valid_s = valid_h * 3600
        self._now = now
        self._sessions = sessions or SessionStore()
        self._is_required = is_required
        self._throttle = LoginThrottle()
        self._hashing = asyncio.Semaphore(CONCURRENT_HASHES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        users = self._users()
        if scope["type"] == "lifespan" or not (users.users or self._is_required):
            was_login = path in _paths_ending("login")  # a bookmark from a time when a login was required
            await (RedirectResponse("/", 303) if was_login else self._app)(scope, receive, send)
            return
        request = Request(scope, receive)
        if path in _paths_ending("logout"):
            answer = self._logout(request, users)
        elif path in _paths_ending("login"):
            answer = await self._login(request, users)
        elif self.user(request, users):
            await self._app(scope, receive, send)
            return
        else:
            await discard_body(scope, receive)
            answer = _require_login(request)
        answer.headers["Cache-Control"] = "no-store"
        await answer(scope, receive, send)

    def user(self, request: Request, users: Users) -> str | None:
        """Returns the user name if the cookie is genuine, not expired and not logged out."""
        found = self._session(request, users)
        return found and found[0]

    def _session(self, request: Request, users: Users) -> tuple[str, str, int] | None:
        """Returns (user name, session, end in Unix time) of a valid cookie."""
        try:
            name, until, session, signature = request.cookies[LOGIN_COOKIE].split(".")
            user = users.find(_decode_name(name))
            if user is None or int(until) < self._now():
                return None
        except (KeyError, ValueError):
            return None
        is_genuine = self._sessions.is_signature(signature, user.name, until, session, user.password)
        return (user.name, session, int(until)) if is_genuine and not self._sessions.is_ended(session) else None

    def _logout(self, request: Request, users: Users) -> Response:
        if found := self._session(request, users):
            self._sessions.end(found[1], found[2])
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(LOGIN_COOKIE)
        answer.delete_cookie(NAME_COOKIE)
        return answer

    async def _login(self, request: Request, users: Users) -> Response:
        with use_language(i18n.requested_language(request)):
            no_users = _("No user exists. The operator adds one with `manyeyes user NAME`.") if not users.users else ""
            if request.method != "POST":
                return _login_page(request, 200, no_users)
            name, password = await _read_form(request)
            address = client_address(request)
            key = self._device(request, name) or f"{name[:100]} {address}"
            wait_s = self._throttle.wait_s(key, self._now())
            if wait_s > 0 or self._throttle.is_busy(address):
                seconds = max(0, round(wait_s)) + 1
                message = _("Too many wrong passwords. Try again in {seconds} s.", seconds=seconds)
                answer = _login_refused(request, 429, message)
                answer.headers["Retry-After"] = str(seconds)
                return answer
            self._throttle.failed(key, self._now())
            user = users.find(name)
            with self._throttle.checking(address):
                async with self._hashing:
                    right = await asyncio.to_thread(verify_password, password, user)
            if not right or user is None:
                log.log_event("login_refused", address=address)
                return _login_refused(request, 401, no_users or _("Name or password is wrong."))
            self._throttle.forget(key)
            log.log_event("login", user=user.name)
            return self._welcome(request, user)

    def _welcome(self, request: Request, user: User) -> Response:
        to = PATHS[i18n.requested_language(request)]
        answer: Response = RedirectResponse(to, 303) if _accepts_html(request) else JSONResponse({"success": True})
        until, session, device = str(int(self._now() + self._valid_s)), secrets.token_hex(16), secrets.token_hex(16)
        signature = self._sessions.sign(user.name, until, session, user.password)
        secure = request.headers.get("x-forwarded-proto") == "https"
        for name, value, hidden, lifetime_s in (
            (LOGIN_COOKIE, f"{_encode_name(user.name)}.{until}.{session}.{signature}", True, self._valid_s),
            (DEVICE_COOKIE, f"{device}.{self._sessions.sign('device', user.name, device)}", True, DEVICE_LIFETIME_S),
            (NAME_COOKIE, user.name, False, self._valid_s),
        ):
            answer.set_cookie(name, value, max_age=int(lifetime_s), httponly=hidden, samesite="lax", secure=secure)
        return answer

    def _device(self, request: Request, name: str) -> str | None:
        """Returns the browser's own key for the throttle if this user has logged in with it before."""
        device, _dot, signature = request.cookies.get(DEVICE_COOKIE, "").partition(".")
        return device if self._sessions.is_signature(signature, "device", name, device) else None


def _require_login(request: Request) -> Response:
    if request.method == "GET" and _accepts_html(request):
        return RedirectResponse("/login", 303)
    with use_language(i18n.requested_language(request)):
        return JSONResponse({"detail": "Not authenticated", "message": _("Log in first, at /login.")}, 401)


def _login_refused(request: Request, status: int, message: str) -> Response:
    return (
        _login_page(request, status, message) if _accepts_html(request) else JSONResponse({"detail": message}, status)
    )


def _login_page(request: Request, status: int, message: str = "") -> HTMLResponse:
    alert = f'<p role="alert">{html.escape(message)}</p>' if message else ""
    title, name, password = _("Log in"), _("Name"), _("Password")
    return HTMLResponse(
        f'<!doctype html><html lang="{i18n.requested_language(request)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{LOGIN_CSS.read_text(encoding='utf-8')}</style></head><body>"
        f'<form method="post" action="/login"><h1>{title}</h1>{alert}'
        f'<label>{name}<input name="username" autocomplete="username" autofocus required></label>'
        f'<label>{password}<input name="password" type="password" autocomplete="current-password" required></label>'
        f"<button>{title}</button></form></body></html>",
        status,
    )


async def _read_form(request: Request) -> tuple[str, str]:
    """Returns the name and password of a form; empty if they are missing."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            return "", ""
    fields = parse_qs(body.decode(errors="replace"))
    return fields.get("username", [""])[0].strip(), fields.get("password", [""])[0]


def _encode_name(name: str) -> str:
    """Encodes the name without dots, which separate the fields, and without characters that cookies forbid."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _decode_name(letters: str) -> str:
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4)).decode()


def client_address(request: Request | gr.Request) -> str:
    """Returns the client address that nginx appended to X-Forwarded-For. Earlier entries can be forged."""
    forwarded = str(request.headers.get("x-forwarded-for", "")).rpartition(",")[2].strip()
    return forwarded or (str(request.client.host) if request.client else "")


def _accepts_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _paths_ending(name: str) -> set[str]:
    return {f"{path}{name}" for path in PATHS.values()}
