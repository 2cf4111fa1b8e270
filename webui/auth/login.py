"""Login of the page. If a users file exists, users must log in before they see the page.

The login is a signed cookie, so every replica of the page accepts it. It is signed with the hash of the user's
password, which only the server has, so a new password invalidates it. Programs log in like gradio_client, with POST
/login.
"""

import asyncio
import base64
import hmac
import html
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from manyeyes.config.credentials import User, Users, UsersError, load_users, verify_password
from webui import i18n, log
from webui.auth.same_origin import discard_body
from webui.i18n import PATHS, _, use_language
from webui.settings import ReloadedFile

LOGIN_COOKIE = "manyeyes-login"
NAME_COOKIE = "manyeyes-user"
"""The user name, for display only. The server never trusts it."""
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
    def __init__(
        self, app: ASGIApp, users: Callable[[], Users], valid_h: float, now: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._users = users
        self._valid_s = valid_h * 3600
        self._now = now
        self._patience = LoginThrottle()
        self._hashing = asyncio.Semaphore(CONCURRENT_HASHES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        users = self._users()
        if scope["type"] == "lifespan" or not users.users:
            was_login = path in _paths_ending("login")  # a bookmark from a time when a login was required
            await (RedirectResponse("/", 303) if was_login else self._app)(scope, receive, send)
            return
        request = Request(scope, receive)
        if path in _paths_ending("logout"):
            answer: Response = RedirectResponse("/login", 303)
            answer.delete_cookie(LOGIN_COOKIE)
            answer.delete_cookie(NAME_COOKIE)
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
        """Returns the user name if the cookie is genuine and not expired."""
        try:
            name, until, signature = request.cookies[LOGIN_COOKIE].split(".")
            user = users.find(_decode_name(name))
            if user is None or float(until) < self._now():
                return None
        except (KeyError, ValueError):
            return None
        return user.name if hmac.compare_digest(signature, _sign(user, until)) else None

    async def _login(self, request: Request, users: Users) -> Response:
        with use_language(i18n.requested_language(request)):
            if request.method != "POST":
                return _login_page(request, 200)
            address = _client_address(request)
            if (wait_s := self._patience.wait_s(address, self._now())) > 0:
                message = _("Too many wrong passwords. Try again in {seconds} s.", seconds=round(wait_s) + 1)
                answer = _login_refused(request, 429, message)
                answer.headers["Retry-After"] = str(round(wait_s) + 1)
                return answer
            name, password = await _read_form(request)
            user = users.find(name)
            async with self._hashing:
                right = await asyncio.to_thread(verify_password, password, user)
            if not right or user is None:
                self._patience.failed(address, self._now())
                log.log_event("login_refused", address=address)
                return _login_refused(request, 401, _("Name or password is wrong."))
            self._patience.forget(address)
            log.log_event("login", user=user.name)
            return self._welcome(request, user)

    def _welcome(self, request: Request, user: User) -> Response:
        to = PATHS[i18n.requested_language(request)]
        answer: Response = RedirectResponse(to, 303) if _accepts_html(request) else JSONResponse({"success": True})
        until = str(int(self._now() + self._valid_s))
        secure = request.headers.get("x-forwarded-proto") == "https"
        for name, value, hidden in (
            (LOGIN_COOKIE, f"{_encode_name(user.name)}.{until}.{_sign(user, until)}", True),
            (NAME_COOKIE, user.name, False),
        ):
            answer.set_cookie(name, value, max_age=int(self._valid_s), httponly=hidden, samesite="lax", secure=secure)
        return answer


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


def _sign(user: User, until: str) -> str:
    return hmac.new(user.password.encode(), f"{user.name}\0{until}".encode(), "sha256").hexdigest()


def _encode_name(name: str) -> str:
    """Encodes the name without dots, which separate the fields, and without characters that cookies forbid."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _decode_name(letters: str) -> str:
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4)).decode()


def _client_address(request: Request) -> str:
    """Returns the client address that nginx appended to X-Forwarded-For. Earlier entries can be forged."""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return forwarded or (request.client.host if request.client else "")


def _accepts_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _paths_ending(name: str) -> set[str]:
    return {f"{path}{name}" for path in PATHS.values()}


FREE_ATTEMPTS = 5
FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 120.0
FORGET_AFTER_S = 900.0
MAX_ADDRESSES = 10_000
"""Maximum number of tracked addresses. The address with the oldest failure is dropped first."""


class LoginThrottle:
    """Exponential back-off per address after five failed logins. It resets after 15 minutes."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """Returns the seconds until the next attempt is allowed; 0 or less: it is allowed."""
        count, last_s = self._failed.get(address, (0, 0.0))
        if now_s - last_s > FORGET_AFTER_S:
            self._failed.pop(address, None)
            return 0.0
        if count < FREE_ATTEMPTS:
            return 0.0
        return last_s + float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(16, count - FREE_ATTEMPTS))) - now_s

    def failed(self, address: str, now_s: float) -> None:
        count, _ = self._failed.pop(address, (0, 0.0))
        self._failed[address] = count + 1, now_s
        while len(self._failed) > MAX_ADDRESSES:
            self._failed.pop(next(iter(self._failed)))

    def forget(self, address: str) -> None:
        self._failed.pop(address, None)
