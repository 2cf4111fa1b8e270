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

from webui import banner, choices, log, samples, settings, theme
from webui.caps import Caps
from webui.controller import Controller
from webui.gateway import Gateway
from webui.load_run import LoadRun
from webui.one_answer import Asker
from webui.origin import OwnOriginOnly
from webui.settings import Settings, SettingsError
from webui.tabs import agent, chat, cluster, compare, documents, fallback, individual
from webui.tabs.model_api import model_api
from webui.texts import CurrentTexts

REFRESH_S = 10
UPLOADS_CHECK_S, UPLOADS_AGE_S = 600, 6 * 3600  # uploads lie in memory (tmpfs); a chat left open longer loses its files
STOP_S = 5  # answers still coming when the page is told to end

TAGLINE = "Many GPUs, one vision endpoint"


TAB_TITLE = (
    "() => { const title = document.querySelector('#brand h1'); if (title) document.title = title.textContent; }"
)


def page(settings: Settings, gateway: Gateway, caps: Caps) -> gr.Blocks:
    texts = CurrentTexts(settings, os.environ)
    blocks: gr.Blocks
    with gr.Blocks(
        title=settings.title,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(UPLOADS_CHECK_S, UPLOADS_AGE_S),
    ) as blocks:
        with gr.Row(elem_id="header"):
            brand = gr.HTML(_brand(settings.title), elem_id="brand")
            states = gr.HTML(elem_id="states")
            gr.HTML('<button type="button" class="theme-toggle" aria-label="Dark or light">◐</button>', elem_id="theme")
        notices = gr.HTML(elem_id="notices")
        asker = Asker(gateway, caps, settings.max_body_bytes)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat_tab = chat.tab(settings, gateway, caps)
            with gr.Tab("Documents", id="documents"), gr.Column(elem_classes="page"):
                documents_model = documents.tab(asker)
            with gr.Tab("Compare", id="compare"), gr.Column(elem_classes="page"):
                compare_models = compare.tab(asker)
            with gr.Tab("Fallback", id="fallback"), gr.Column(elem_classes="page"):
                fallback_models = fallback.tab(settings)
            with gr.Tab("Individual", id="individual"), gr.Column(elem_classes="page"):
                individual_models = individual.tab(asker)
            with gr.Tab("Agent", id="agent"), gr.Column(elem_classes="page"):
                agent_model = agent.tab(asker)
            with gr.Tab("Cluster", id="cluster"), gr.Column(elem_classes="page"):
                cluster_tab = cluster.tab(
                    Controller(settings.controller_url, settings.prometheus_url), LoadRun(settings.locust_url)
                )
        tabs.select(_watched, None, [cluster_tab.timer], queue=False, api_name="page", api_visibility="private")
        model_api(gateway)

        one_model = [chat_tab.model, documents_model, agent_model]
        in_turn = [*fallback_models, *individual_models]

        # The models are asked for until there is one, so that a list the visitor has open never changes under the hand.
        async def refresh(model: str | None) -> tuple[object, ...]:
            pools, models = await asyncio.gather(gateway.pools(), gateway.models() if not model else _none())
            said = banner.states(pools), banner.notices(pools, gateway.url)
            return *said, *choices.filled(models, len(one_model), len(in_turn), pools)

        refreshing: dict[str, Any] = {
            "inputs": [chat_tab.model],
            "outputs": [states, notices, *one_model, compare_models, *in_turn],
            "show_progress": "hidden",
            "queue": False,
            "api_name": "page",
            "api_visibility": "private",
        }
        blocks.load(refresh, **refreshing)

        # What cluster.yaml says at the moment: this page was built when the process started.
        def greet() -> tuple[object, object]:
            current = texts()
            return _brand(current.title), gr.update(placeholder=current.greeting)

        greeting: dict[str, Any] = {
            "show_progress": "hidden",
            "queue": False,
            "api_name": "page",
            "api_visibility": "private",
        }
        greeted = blocks.load(greet, outputs=[brand, chat_tab.chat], **greeting)
        greeted.then(None, js=TAB_TITLE, **greeting)
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
    log.to_stdout()
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


def _watched(chosen: gr.SelectData) -> gr.Timer:
    """The cluster is looked at only while somebody sees it."""
    return gr.Timer(active=chosen.value == "Cluster")


async def _none() -> list[str]:
    return []


def _brand(title: str) -> str:
    return (
        f'<img src="favicon.ico" alt="" width="38" height="38"><div><h1>{html.escape(title)}</h1><p>{TAGLINE}</p></div>'
    )
