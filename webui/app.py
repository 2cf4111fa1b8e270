"""Builds and serves the page."""

import asyncio
import html
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")  # Gradio reads this when it is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.events import api
from starlette.middleware import Middleware

from manyeyes.config.credentials import UsersError
from webui import log, samples, settings, theme
from webui.auth import uploads
from webui.auth.allowed_routes import AllowedRoutesMiddleware
from webui.auth.login import LoginMiddleware, users_file
from webui.auth.own_hosts import OwnHostMiddleware
from webui.auth.same_origin import SameOriginMiddleware
from webui.auth.sessions import SessionStore
from webui.auth.upload_quota import MB, SHARED_QUOTA
from webui.auth.uploads import VisitorCookieMiddleware
from webui.chat.chat_requester import ChatRequester, ModelLimits
from webui.cluster import cluster_view
from webui.cluster.controller_client import ControllerClient, LocustClient
from webui.cluster.gateway_client import GatewayClient
from webui.files import decoders, decoding
from webui.i18n import ENGLISH, N_, NAMES, PATHS, ZH, LanguageRedirect, _, current_language, use_language
from webui.page_calls import LocalizedPage
from webui.settings import SettingsError, WebuiSettings, current_page_texts
from webui.tabs import agent, chat, cluster, compare, controls, documents, fallback

REFRESH_S = 10
UPLOADS_CHECK_S = 600
STOP_S = 5  # how long running answers may continue after SIGTERM

TAGLINE = N_("Many GPUs, one vision endpoint")

TAB_TITLE = (
    "() => { const title = document.querySelector('#brand h1'); if (title) document.title = title.textContent; }"
)


def _end_visit(request: gr.Request) -> None:
    uploads.end_visit(request.session_hash or "")


def build_page(settings: WebuiSettings, gateway: GatewayClient, model_limits: ModelLimits) -> gr.Blocks:
    texts = current_page_texts(settings, os.environ)
    blocks: gr.Blocks
    with LocalizedPage(
        title=settings.title,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(UPLOADS_CHECK_S, round(settings.webui.upload_retention_h * 3600)),
    ) as blocks:
        with gr.Row(elem_id="header"):
            brand = gr.HTML(_brand_html(settings.title), elem_id="brand")
            states = gr.HTML(elem_id="states")
            gr.HTML(_language_link(), elem_id="languages")
            gr.HTML(
                '<button type="button" class="theme-toggle" aria-label="'
                + _("Switch between dark and light")
                + '">◐</button>',
                elem_id="theme",
            )
        notices = gr.HTML(elem_id="notices")
        concurrency = settings.webui.concurrency
        requester = ChatRequester(gateway, model_limits, settings.max_body_bytes)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(_("Chat"), id="chat"):
                chat_model, chatbot = chat.build_chat_tab(settings, requester, model_limits)
            with gr.Tab(_("Documents"), id="documents"), gr.Column(elem_classes="page"):
                documents_model = documents.build_documents_tab(requester, concurrency)
            with gr.Tab(_("Compare"), id="compare"), gr.Column(elem_classes="page"):
                compare_models = compare.build_compare_tab(requester, concurrency)
            with gr.Tab(_("Fallback"), id="fallback"), gr.Column(elem_classes="page"):
                fallback_models = fallback.build_fallback_tab(settings)
            with gr.Tab(_("Individual"), id="individual"), gr.Column(elem_classes="page"):
                individual_models = compare.build_individual_tab(requester, concurrency)
            with gr.Tab(_("Agent"), id="agent"), gr.Column(elem_classes="page"):
                agent_model = agent.build_agent_tab(requester, concurrency)
            with gr.Tab(_("Cluster"), id="cluster"), gr.Column(elem_classes="page"):
                controller = ControllerClient(settings.controller_url, settings.prometheus_url)
                cluster_timer = cluster.build_cluster_tab(
                    controller, LocustClient(settings.locust_url), concurrency.api_clients
                )
        tabs.select(_cluster_timer, None, [cluster_timer], **controls.IMMEDIATE_EVENT)
        api(gateway.models, api_name="models")

        single_model = [chat_model, documents_model, agent_model]
        in_turn = [*fallback_models, *individual_models]

        # Models are fetched only until one is selected, so that a list that the user has open does not change.
        async def refresh(model: str | None) -> tuple[object, ...]:
            pools = await gateway.pools()
            models = [] if model else await gateway.models()
            banners = cluster_view.pool_states_html(pools), cluster_view.pool_notices_html(pools, gateway.url)
            return *banners, *controls.model_choice_updates(models, len(single_model), len(in_turn), pools)

        refreshing: dict[str, Any] = {
            "inputs": [chat_model],
            "outputs": [states, notices, *single_model, compare_models, *in_turn],
            **controls.IMMEDIATE_EVENT,
        }
        blocks.load(refresh, **refreshing)

        # Reads the current cluster.yaml, because the page was built when the process started.
        def greet() -> tuple[object, object]:
            current = texts()
            return _brand_html(current.title), gr.update(placeholder=_(current.greeting))

        greeted = blocks.load(greet, outputs=[brand, chatbot], **controls.IMMEDIATE_EVENT)
        greeted.then(None, js=TAB_TITLE, **controls.IMMEDIATE_EVENT)
        gr.Timer(REFRESH_S).tick(refresh, **refreshing)
        blocks.unload(_end_visit)
    blocks.queue(default_concurrency_limit=settings.webui.concurrency.api_clients, api_open=False)
    blocks.max_threads = settings.webui.threads
    # Gradio polls its queue a thousand times a second, which uses 4 % of a core. Users do not notice 20 ms.
    blocks._queue.sleep_when_free = 0.02
    return blocks


def build_app(settings: WebuiSettings) -> FastAPI:
    """Builds the ASGI application: the page in English at / and in Chinese at /zh/."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The default executor has four threads on a small machine: the PDF of one user would block all other users.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.webui.threads, "files"))
        yield
        decoders.SHARED_POOL.close()

    users, texts = users_file(settings.users_file), current_page_texts(settings, os.environ)
    is_required = settings.webui.login is True
    decoders.SHARED_POOL.size, decoders.SHARED_POOL.cpu_s = settings.webui.decoders, settings.webui.decode_timeout_s
    SHARED_QUOTA.visitor_bytes = settings.webui.upload_mb_per_visitor * MB
    middleware = [
        Middleware(SameOriginMiddleware),
        Middleware(OwnHostMiddleware, lambda: texts().host_names, lambda: is_required or bool(users().users)),
        Middleware(AllowedRoutesMiddleware),
        Middleware(
            LoginMiddleware,
            users,
            settings.webui.session_lifetime_h,
            sessions=SessionStore(settings.state),
            is_required=is_required,
        ),
        Middleware(VisitorCookieMiddleware),
        Middleware(LanguageRedirect),
    ]
    whole = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, middleware=middleware)
    gateway, model_limits = GatewayClient(settings), ModelLimits(settings.config)
    for language in (ZH, ENGLISH):  # / comes last, because it matches every path
        with use_language(language):
            _mount(whole, build_page(settings, gateway, model_limits), settings)
    return whole


def _mount(whole: FastAPI, blocks: gr.Blocks, settings: WebuiSettings) -> None:
    gr.mount_gradio_app(
        whole,
        blocks,
        path=PATHS[current_language()].rstrip("/") or "/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=settings.max_body_bytes,
        theme=theme.build_theme(),
        css=theme.CSS.read_text(encoding="utf-8"),
        head=theme.head_html(),
    )
    # Gradio checks that a file named by a browser was uploaded only if this is set, and mounting does not set it.
    # Without it, a crafted chat could name any file that this process can read and get a copy.
    blocks.has_launched = True
    blocks.favicon_path = str(samples.HERE / "icon.png")  # type: ignore[assignment]  # mounting sets it for / only


def main() -> int:
    try:
        page_settings = settings.read_settings(os.environ)
        users_file(page_settings.users_file)
    except (SettingsError, UsersError) as error:
        print(error, file=sys.stderr)
        return 2
    decoding.return_freed_memory()
    log.configure_logging()
    log.log_event(
        "webui_starting",
        port=page_settings.port,
        gateway=page_settings.gateway_url,
        max_body_mb=page_settings.max_body_mb,
    )
    uvicorn.run(
        build_app(page_settings),
        host="0.0.0.0",
        port=page_settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_S,
    )
    return 0


def _cluster_timer(chosen: gr.SelectData) -> gr.Timer:
    """Polls the cluster only while the Cluster tab is open."""
    return gr.Timer(active=chosen.value == _("Cluster"))


def _language_link() -> str:
    """Returns a link to the page in the other language. page.js stores the choice in a cookie."""
    other_language = ZH if current_language() == ENGLISH else ENGLISH
    return (
        f'<a class="language" href="{PATHS[other_language]}" data-language="{other_language}" lang="{other_language}" hreflang="{other_language}">{NAMES[other_language]}</a>'
        '<a class="language login-name" href="/logout" hidden></a>'
    )


def _brand_html(title: str) -> str:
    return f'<img src="favicon.ico" alt="" width="38" height="38"><div><h1>{html.escape(title)}</h1><p>{_(TAGLINE)}</p></div>'
