"""Builds the page and serves it."""

from __future__ import annotations

import asyncio
import html
import os
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")  # before Gradio is imported: it reads this at import
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI

from manyeyes.config.users import UsersError
from webui import log, samples, settings
from webui.auth import upload_ownership, upload_paths, visitor_cookie
from webui.auth.csp_middleware import OwnOriginOnly
from webui.auth.login import CurrentUsers, Login
from webui.auth.visitor_cookie import Visitors
from webui.chat import model_choices
from webui.chat.model_limits import Caps
from webui.chat.single_request import Asker
from webui.cluster.controller_client import Controller
from webui.cluster.gateway_client import Gateway
from webui.cluster.locust_client import LoadRun
from webui.files import decoding
from webui.i18n.language import ENGLISH, NAMES, ZH, later, say, speaking, spoken
from webui.i18n.language_redirect import ByLanguage
from webui.settings import Settings, SettingsError
from webui.tabs import agent, chat, cluster, compare, documents, fallback, individual
from webui.tabs.model_api import model_api
from webui.ui import banner, theme
from webui.ui.page_texts import CurrentTexts

REFRESH_S = 10
UPLOADS_CHECK_S = 600
STOP_S = 5  # answers still coming when the page is told to end

TAGLINE = later("Many GPUs, one vision endpoint")
TABS = (
    later("Chat"),
    later("Documents"),
    later("Compare"),
    later("Fallback"),
    later("Individual"),
    later("Agent"),
    later("Cluster"),
)

TAB_TITLE = (
    "() => { const title = document.querySelector('#brand h1'); if (title) document.title = title.textContent; }"
)


class Page(gr.Blocks):
    """The page in one language: whatever an event says, it says in that."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.language = spoken()

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        request = named.get("request")
        who = visitor_cookie.owner(request.cookies if request else {})
        with speaking(self.language), upload_ownership.acting(who):
            inputs = named.get("inputs") or given[1:2]
            _refuse_components(inputs)
            for path in _named(inputs):
                _refuse_anothers(path)
            return await super().process_api(*given, **named)


def _named(value: Any) -> Iterator[Path]:
    """The files that a browser names in an event."""
    if isinstance(value, dict):
        if isinstance(path := value.get("path"), str):
            yield Path(path).resolve()
        for one in value.values():
            yield from _named(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _named(one)


def _refuse_components(value: Any) -> None:
    """A message of a chat may be one of Gradio's components, which Gradio then makes and lets read a file. No browser sends one."""
    if isinstance(value, dict):
        if isinstance(value.get("component"), str):
            raise gr.Error(say("This is no message of a chat."))
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            _refuse_components(one)


def _refuse_anothers(path: Path) -> None:
    """Gradio checks that a file was uploaded, not by whom."""
    if path.is_relative_to(upload_paths.folder()) and path.exists() and not upload_ownership.mine(path):
        raise gr.Error(say("This file was not uploaded to this page."))


def _ended(request: gr.Request) -> None:
    upload_ownership.ended(request.session_hash or "")


def page(settings: Settings, gateway: Gateway, caps: Caps) -> gr.Blocks:
    texts = CurrentTexts(settings, os.environ)
    blocks: gr.Blocks
    with Page(
        title=settings.title,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(UPLOADS_CHECK_S, round(settings.webui.uploads_kept_h * 3600)),
    ) as blocks:
        with gr.Row(elem_id="header"):
            brand = gr.HTML(_brand(settings.title), elem_id="brand")
            states = gr.HTML(elem_id="states")
            gr.HTML(_other_language(), elem_id="languages")
            gr.HTML(
                f'<button type="button" class="theme-toggle" aria-label="{say("Dark or light")}">◐</button>',
                elem_id="theme",
            )
        notices = gr.HTML(elem_id="notices")
        at_once = settings.webui.at_once
        asker = Asker(gateway, caps, settings.max_body_bytes)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(say("Chat"), id="chat"):
                chat_tab = chat.tab(settings, gateway, caps)
            with gr.Tab(say("Documents"), id="documents"), gr.Column(elem_classes="page"):
                documents_model = documents.tab(asker, at_once)
            with gr.Tab(say("Compare"), id="compare"), gr.Column(elem_classes="page"):
                compare_models = compare.tab(asker, at_once)
            with gr.Tab(say("Fallback"), id="fallback"), gr.Column(elem_classes="page"):
                fallback_models = fallback.tab(settings)
            with gr.Tab(say("Individual"), id="individual"), gr.Column(elem_classes="page"):
                individual_models = individual.tab(asker, at_once)
            with gr.Tab(say("Agent"), id="agent"), gr.Column(elem_classes="page"):
                agent_model = agent.tab(asker, at_once)
            with gr.Tab(say("Cluster"), id="cluster"), gr.Column(elem_classes="page"):
                cluster_tab = cluster.tab(
                    Controller(settings.controller_url, settings.prometheus_url),
                    LoadRun(settings.locust_url),
                    at_once.programs,
                )
        tabs.select(_watched, None, [cluster_tab.timer], queue=False, api_name="page", api_visibility="private")
        model_api(gateway)

        one_model = [chat_tab.model, documents_model, agent_model]
        in_turn = [*fallback_models, *individual_models]

        # The models are asked for until there is one, so that a list the visitor has open never changes under the hand.
        async def refresh(model: str | None) -> tuple[object, ...]:
            pools, models = await asyncio.gather(gateway.pools(), gateway.models() if not model else _none())
            said = banner.states(pools), banner.notices(pools, gateway.url)
            return *said, *model_choices.filled(models, len(one_model), len(in_turn), pools)

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
            return _brand(current.title), gr.update(placeholder=say(current.greeting))

        greeting: dict[str, Any] = {
            "show_progress": "hidden",
            "queue": False,
            "api_name": "page",
            "api_visibility": "private",
        }
        greeted = blocks.load(greet, outputs=[brand, chat_tab.chat], **greeting)
        greeted.then(None, js=TAB_TITLE, **greeting)
        gr.Timer(REFRESH_S).tick(refresh, **refreshing)
        blocks.unload(_ended)
    blocks.queue(default_concurrency_limit=settings.webui.at_once.programs, api_open=False)
    blocks.max_threads = settings.webui.threads
    # Gradio looks for work a thousand times a second, which costs 4 % of a core all day; 20 ms are not felt.
    blocks._queue.sleep_when_free = 0.02
    return blocks


def app(settings: Settings) -> OwnOriginOnly:
    """The ASGI application: the page in English at /, in Chinese at /zh/."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # asyncio.to_thread's own, of which a small machine has four: one visitor's PDF would keep all others waiting.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.webui.threads, "files"))
        yield

    whole = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    gateway, caps = Gateway(settings), Caps(settings.config)
    for language in (ZH, ENGLISH):  # / takes whatever no path before it took
        with speaking(language):
            _mount(whole, page(settings, gateway, caps), settings)
    users = CurrentUsers(settings.users_file)
    return OwnOriginOnly(Login(Visitors(ByLanguage(whole)), users, settings.webui.login_h))


def _mount(whole: FastAPI, blocks: gr.Blocks, settings: Settings) -> None:
    gr.mount_gradio_app(
        whole,
        blocks,
        path="/" if spoken() == ENGLISH else f"/{spoken()}",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=settings.max_body_bytes,
        theme=theme.theme(),
        css=theme.CSS.read_text(encoding="utf-8"),
        head=theme.head(),
    )
    # Gradio checks that a file named by a browser was uploaded only once this is set, and mounting does not set it:
    # without it a crafted chat could name any file of this process and be served a copy.
    blocks.has_launched = True
    blocks.favicon_path = str(samples.HERE / "icon.png")  # type: ignore[assignment]  # mounting takes it for / only


def main() -> int:
    try:
        found = settings.read(os.environ)
        CurrentUsers(found.users_file)
    except (SettingsError, UsersError) as error:
        print(error, file=sys.stderr)
        return 2
    decoding.give_memory_back()
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
    return gr.Timer(active=chosen.value == say("Cluster"))


async def _none() -> list[str]:
    return []


def _other_language() -> str:
    """A link to the page in the other language, which page.js remembers."""
    other = ZH if spoken() == ENGLISH else ENGLISH
    path = "/" if other == ENGLISH else f"/{other}/"
    return (
        f'<a class="language" href="{path}" data-language="{other}" lang="{other}" hreflang="{other}">{NAMES[other]}</a>'
        '<a class="language who" href="/logout" hidden></a>'
    )


def _brand(title: str) -> str:
    return f'<img src="favicon.ico" alt="" width="38" height="38"><div><h1>{html.escape(title)}</h1><p>{say(TAGLINE)}</p></div>'
