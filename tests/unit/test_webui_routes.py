"""Which of Gradio's routes the page serves: those on its list, and no other that Gradio has or may get."""

import pytest

from webui.auth.allowed_routes import is_open

CLOSED = [
    "/openapi.json", "/docs", "/redoc", "/gradio_api/openapi.json", "/gradio_api/user", "/gradio_api/token",
    "/gradio_api/login_check", "/gradio_api/dev/reload", "/gradio_api/runs", "/gradio_api/deep_link", "/monitoring",
    "/monitoring/summary", "/svelte/x.js", "/pwa_icon", "/gradio_api/proxy=http://127.0.0.1/x",
    "/gradio_api/custom_component/1/client/component/index.js", "/gradio_api/queue/status", "/gradio_api/vibe-code",
    "/gradio_api/stream/a/1/2/playlist.m3u8", "/gradio_api/file//etc/passwd", "/gradio_api/file/etc/passwd",
    "/gradio_api/file=https://example.com/x", "/gradio_api/file=tmp/gradio/x", "/gradio_api//file=/tmp/gradio/x/y",
    "//gradio_api/file=/tmp/gradio/x/y", "/file=/tmp/gradio/x/y", "/file/tmp/gradio/x/y", "//config", "/config//",
    "/gradio_api/api/chat",
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "/zh"])
@pytest.mark.parametrize("path", CLOSED)
def test_a_route_that_the_page_does_not_use_is_closed_under_every_language(prefix: str, path: str) -> None:
    assert not [method for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS") if is_open(method, prefix + path)]


@pytest.mark.parametrize(
    "path", ["/", "/zh", "/zh/", "/config", "/zh/config", "/zh/gradio_api/file=/tmp/gradio/a/b.png"]
)
def test_a_route_that_the_page_uses_is_open_for_reading_only(path: str) -> None:
    assert is_open("GET", path)
    assert is_open("HEAD", path)
    assert not is_open("POST", path)
