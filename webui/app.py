"""Builds the page and serves it."""

from __future__ import annotations

import asyncio
import html
import os
import sys
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")  # before Gradio is imported: it reads this at import
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI

from webui import banner, log, samples, settings, theme
from webui.caps import Caps
from webui.gateway import Gateway
from webui.origin import OwnOriginOnly
from webui.settings import Settings, SettingsError
from webui.tabs import chat

REFRESH_S = 10
UPLOADS_CHECK_S, UPLOADS_AGE_S = 600, 6 * 3600  # uploads lie in memory (tmpfs); a chat left open longer loses its files
STOP_S = 5  # answers still coming when the page is told to end

TAGLINE = "Many GPUs, one vision endpoint"


def page(settings: Settings, gateway: Gateway, caps: Caps) -> gr.Blocks:
    blocks: gr.Blocks
    with gr.Blocks(
        title=settings.title,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(UPLOADS_CHECK_S, UPLOADS_AGE_S),
    ) as blocks:
        with gr.Row(elem_id="header"):
            gr.HTML(_brand(settings), elem_id="brand")
            states = gr.HTML(elem_id="states")
            gr.HTML('<button type="button" class="theme-toggle" aria-label="Dark or light">◐</button>', elem_id="theme")
        notices = gr.HTML(elem_id="notices")
        with gr.Tabs(elem_id="tabs"), gr.Tab("Chat", id="chat"):
            chat_tab = chat.tab(settings, gateway, caps)

        # The models are asked for until there is one, so that a list the visitor has open never changes under the hand.
        async def refresh(model: str | None) -> tuple[object, ...]:
            pools, models = await asyncio.gather(gateway.pools(), gateway.models() if not model else _none())
            choices = gr.update(choices=models, value=models[0]) if models else gr.skip()
            return banner.states(pools), banner.notices(pools, gateway.url), choices

        refreshing: dict[str, Any] = {
            "inputs": [chat_tab.model],
            "outputs": [states, notices, chat_tab.model],
            "show_progress": "hidden",
            "queue": False,
            "api_visibility": "private",
        }
        blocks.load(refresh, **refreshing)
        gr.Timer(REFRESH_S).tick(refresh, **refreshing)
    blocks.queue(default_concurrency_limit=chat.CONCURRENCY, api_open=False)
    # Gradio looks for work a thousand times a second, which costs 4 % of a core all day; 20 ms are not felt.
    blocks._queue.sleep_when_free = 0.02
    return blocks


def app(settings: Settings) -> OwnOriginOnly:
    """The ASGI application."""
    blocks = page(settings, Gateway(settings), Caps(settings.config))
    mounted = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=settings.max_body_bytes,
        favicon_path=str(samples.HERE / "icon.png"),
        theme=theme.theme(),
        css=theme.CSS.read_text(encoding="utf-8"),
        head="".join(f"<script>{script.read_text(encoding='utf-8')}</script>" for script in theme.SCRIPTS),
    )
    # Gradio checks that a file named by a browser was uploaded only once this is set, and mounting does not set it:
    # without it a crafted chat could name any file of this process and be served a copy.
    blocks.has_launched = True
    return OwnOriginOnly(mounted)


def main() -> int:
    try:
        found = settings.read(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    log.to_stderr()
    log.event("webui_starting", port=found.port, gateway=found.gateway_url, max_body_mb=found.max_body_mb)
    uvicorn.run(
        app(found),
        host="0.0.0.0",
        port=found.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_S,
    )
    return 0


async def _none() -> list[str]:
    return []


def _brand(settings: Settings) -> str:
    return (
        '<img src="favicon.ico" alt="" width="38" height="38">'
        f"<div><h1>{html.escape(settings.title)}</h1><p>{TAGLINE}</p></div>"
    )
