"""The page's login: what is closed, what opens it, what ends it, and who has to wait."""

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from manyeyes.config.credentials import load_users, set_password
from webui.auth.login import DEVICE_COOKIE, LOGIN_COOKIE, LoginMiddleware, users_file
from webui.auth.login_throttle import FREE_ATTEMPTS, LoginThrottle
from webui.auth.sessions import KEY_FILE, SessionStore

PASSWORD = "a good password"
HTML = {"Accept": "text/html"}


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"the page at {Request(scope).url.path}")(scope, receive, send)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    set_password(path, "alice", PASSWORD)
    return path


def ask(login: LoginMiddleware, *requests: Callable[[httpx.AsyncClient], object]) -> list[httpx.Response]:
    """The responses of one client, which keeps its cookies."""

    async def asking() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=login)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return [await request(client) for request in requests]  # type: ignore[misc]  # each is a coroutine

    return asyncio.run(asking())


def get(path: str, **headers: str) -> Callable[[httpx.AsyncClient], object]:
    return lambda client: client.get(path, headers=headers)


def post(password: str, name: str = "alice", **headers: str) -> Callable[[httpx.AsyncClient], object]:
    form = {"username": name, "password": password}
    return lambda client: client.post("/login", data=form, headers=headers)


def test_nothing_is_seen_without_a_login_and_everything_with_one(path: Path) -> None:
    login = LoginMiddleware(page, users_file(path), 1)
    closed, sent, asked, wrong, right, opened, config = ask(
        login,
        get("/config"),
        get("/", **HTML),
        get("/login", **HTML),
        post("no"),
        post(PASSWORD),
        get("/"),
        get("/config"),
    )
    assert (closed.status_code, wrong.status_code, right.status_code) == (401, 401, 200)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    assert asked.status_code == 200
    assert 'name="password"' in asked.text
    assert (opened.text, config.text) == ("the page at /", "the page at /config")
    assert [one.headers.get("cache-control") for one in (closed, sent, asked, wrong, right)] == ["no-store"] * 5
    assert "cache-control" not in opened.headers


def test_an_unknown_name_is_told_like_a_wrong_password(path: Path) -> None:
    one, two = ask(LoginMiddleware(page, users_file(path), 1), post("no"), post(PASSWORD, "bob"))
    assert (one.status_code, one.text) == (two.status_code, two.text)


def test_the_login_page_speaks_the_visitors_language(path: Path) -> None:
    [found] = ask(LoginMiddleware(page, users_file(path), 1), get("/login", **HTML, **{"Accept-Language": "zh-CN"}))
    assert "密码" in found.text


def test_a_login_ends_after_its_time_with_a_new_password_and_when_it_was_forged(path: Path) -> None:
    clock = Clock()
    login = LoginMiddleware(page, users_file(path), 1, clock)
    [welcome] = ask(login, post(PASSWORD))
    cookie = welcome.cookies[LOGIN_COOKIE]

    def status(value: str) -> int:
        cookie = f"{LOGIN_COOKIE}={value}".encode()
        [found] = ask(login, lambda client: client.get("/", headers={b"Cookie": cookie}))
        return found.status_code

    assert status(cookie) == 200
    name, until, session, signature = cookie.split(".")
    hashed = load_users(path).users[0].password
    by_hash = hmac.new(hashed.encode(), f"alice\0{until}".encode(), "sha256").hexdigest()
    forged = [
        f"{name}.{int(until) + 9999}.{session}.{signature}",
        f"{name}.{until}.other.{signature}",
        f"{name}.{until}.{by_hash}",
        f"{name}.{until}.{session}.{by_hash}",
        f"{name}.{until}.{session}.é",
        f"{name}.{until}.{session}.",
        f"{name}.nan.{session}.{signature}",
        "é.é.é.é",
        "nonsense",
    ]
    assert [status(value) for value in forged] == [401] * len(forged)
    clock.now_s += 3601
    assert status(cookie) == 401
    clock.now_s -= 3601
    set_password(path, "alice", "another password")
    assert status(cookie) == 401


def test_guessing_gets_slow_for_the_address_that_guesses_and_for_no_other(path: Path) -> None:
    login = LoginMiddleware(page, users_file(path), 1, Clock())
    guesses = ask(login, *[post("no", **{"X-Forwarded-For": "6.6.6.6, 10.0.0.9"})] * (FREE_ATTEMPTS + 1))
    assert [one.status_code for one in guesses] == [401] * FREE_ATTEMPTS + [429]
    assert int(guesses[-1].headers["Retry-After"]) >= 1
    [right, other] = ask(
        login,
        post(PASSWORD, **{"X-Forwarded-For": "7.7.7.7, 10.0.0.9"}),  # what a visitor says of itself counts for nothing
        post(PASSWORD, **{"X-Forwarded-For": "10.0.0.8"}),
    )
    assert (right.status_code, other.status_code) == (429, 200)


def test_a_guesser_locks_out_neither_other_names_at_its_address_nor_a_browser_that_was_logged_in(path: Path) -> None:
    set_password(path, "bob", PASSWORD)
    login = LoginMiddleware(page, users_file(path), 1, Clock())
    [welcome] = ask(login, post(PASSWORD))
    ask(login, *[post("no")] * FREE_ATTEMPTS)
    returns = f"{DEVICE_COOKIE}={welcome.cookies[DEVICE_COOKIE]}"
    guesser, bob, alice, forged = ask(
        login,
        post("no"),
        post(PASSWORD, "bob"),
        post(PASSWORD, Cookie=returns),
        post("no", Cookie=f"{DEVICE_COOKIE}=made.up"),
    )
    assert [one.status_code for one in (guesser, bob, alice, forged)] == [429, 200, 200, 429]


def test_guesses_that_arrive_together_are_counted_before_they_are_checked(path: Path) -> None:
    login = LoginMiddleware(page, users_file(path), 1, Clock())

    async def guessing() -> list[int]:
        transport = httpx.ASGITransport(app=login)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            form = {"username": "alice", "password": "no"}
            found = await asyncio.gather(*(client.post("/login", data=form) for _ in range(20)))
        return [one.status_code for one in found]

    assert sorted(asyncio.run(guessing())) == [401] * FREE_ATTEMPTS + [429] * (20 - FREE_ATTEMPTS)


def test_a_logout_ends_the_session_at_every_copy_of_the_page_and_after_a_restart(path: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def copy() -> LoginMiddleware:
        return LoginMiddleware(page, users_file(path), 1, sessions=SessionStore(state))

    one, other = copy(), copy()
    [welcome], [second] = ask(one, post(PASSWORD)), ask(one, post(PASSWORD))
    cookie, stays = (f"{LOGIN_COOKIE}={each.cookies[LOGIN_COOKIE]}" for each in (welcome, second))

    def status(login: LoginMiddleware, cookie: str) -> int:
        return ask(login, get("/", Cookie=cookie))[0].status_code

    assert [status(login, cookie) for login in (one, other, copy())] == [200] * 3
    ask(other, get("/logout", Cookie=cookie))
    assert [status(login, cookie) for login in (one, other, copy())] == [401] * 3
    assert [status(login, stays) for login in (one, other, copy())] == [200] * 3
    assert (state / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_without_a_state_folder_a_login_works_until_the_page_stops(path: Path) -> None:
    login = LoginMiddleware(page, users_file(path), 1, sessions=SessionStore(Path("/proc/no-such-folder")))
    _, opened, out, closed = ask(login, post(PASSWORD), get("/"), get("/logout"), get("/"))
    assert [one.status_code for one in (opened, out, closed)] == [200, 303, 401]


def test_a_login_that_is_required_lets_nobody_in_without_users(tmp_path: Path) -> None:
    login = LoginMiddleware(page, users_file(tmp_path / "users.yaml"), 1, is_required=True)
    opened, sent, tried = ask(login, get("/config"), get("/", **HTML), post(PASSWORD))
    assert [one.status_code for one in (opened, sent, tried)] == [401, 303, 401]


def test_waiting_doubles_and_is_forgotten() -> None:
    patience = LoginThrottle()
    for _ in range(FREE_ATTEMPTS):
        assert patience.wait_s("a", 100) <= 0
        patience.failed("a", 100)
    assert patience.wait_s("a", 100) == 2
    patience.failed("a", 102)
    assert patience.wait_s("a", 102) == 4
    assert patience.wait_s("b", 102) <= 0
    assert patience.wait_s("a", 102 + 901) <= 0


def test_a_wrong_or_missing_file_leaves_the_users_in_force_and_without_one_nobody_is_asked(path: Path) -> None:
    users = users_file(path)
    path.write_text("users: 3")
    assert [user.name for user in users().users] == ["alice"]
    path.unlink()
    assert [user.name for user in users().users] == ["alice"]
    [opened] = ask(LoginMiddleware(page, users_file(path), 1), get("/"))
    assert opened.status_code == 200
