"""Under which host names the page is served: those that no stranger can lead to this address (DNS rebinding)."""

import asyncio
import random

import httpx
import pytest
from starlette.responses import PlainTextResponse

from webui.auth.own_hosts import OwnHostMiddleware, is_own_host

NAMES = ("eyes.example.com",)


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8080", "127.0.0.1", "192.168.1.7:8080", "8.8.8.8", "[::1]:8080", "[fd00::1]", "[fe80::1%25eth0]:80",
        "gpu", "GPU-1:8080", "gpu.local", "gpu.lan:8080", "GPU.Internal", "box.home.arpa", "gateway.manyeyes.svc",
        "gateway.manyeyes.svc.cluster.local", "eyes.example.com", "EYES.example.com.:443", "",
    ],
)  # fmt: skip
def test_a_name_that_only_this_network_has_is_served(host: str) -> None:
    assert is_own_host(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8080", "eyes.example.com.evil.net", "localhost.evil.net", "127.0.0.1.nip.io", "evillocal.net",
        "x.eyes.example.com", "[::1", "a@b:c:d", "gpu local", "gpu.local\\.evil.net",
    ],
)  # fmt: skip
def test_a_name_that_a_stranger_can_own_is_refused(host: str) -> None:
    assert not is_own_host(host, NAMES)


def test_no_host_header_fails_and_no_name_under_a_strangers_domain_is_served() -> None:
    chance = random.Random(52)
    for _ in range(5000):
        text = "".join(chance.choices("aé.-:@[]/\\%0 1\x00", k=chance.randint(0, 20)))
        is_own_host(text)
        assert not is_own_host(f"{text}.evil.net")


@pytest.mark.parametrize(
    ("host", "key", "has_login", "status"),
    [
        ("evil.example", "", False, 403), ("evil.example", "alice", False, 200), ("evil.example", "", True, 200),
        ("gpu:8080", "", False, 200),
    ],
)  # fmt: skip
def test_only_a_visitor_who_shows_nothing_else_is_judged_by_the_name(
    host: str, key: str, has_login: bool, status: int
) -> None:
    app = OwnHostMiddleware(PlainTextResponse("page"), lambda: NAMES, lambda: has_login)

    async def asking() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://page") as client:
            return await client.post("/", headers={"Host": host, "X-ManyEyes-Key": key}, content=b"x" * 1000)

    found = asyncio.run(asking())
    assert found.status_code == status
    assert status == 200 or ("evil.example" in found.text and "webui.host_names" in found.text)
