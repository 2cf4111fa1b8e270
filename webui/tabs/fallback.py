"""The Fallback tab: a primary and a fallback endpoint, the result of each attempt, and the endpoint that answered."""

import asyncio
import html
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from gradio.events import api

from webui.chat.chat_requester import SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import EndpointStatus
from webui.cluster.gateway_client import page_headers, visitor_headers
from webui.i18n import N_, _
from webui.settings import EndpointAddress, WebuiSettings
from webui.tabs import controls
from webui.theme import alert_html, hint_html

EMPTY = N_("Press Run to see which endpoints received the request, what failed, and which endpoint answered.")
EXAMPLE_PROMPT = N_("Explain in one sentence what a vision-language model is.")
NAMES = (N_("Primary"), N_("Fallback"), N_("Gateway"))


def build_fallback_tab(settings: WebuiSettings) -> list[gr.Dropdown]:
    """Builds the tab. Returns its model dropdowns, which the page fills."""
    events = FallbackHandlers(settings)
    with gr.Row(elem_classes="lanes cards"):
        primary = _endpoint_card(settings.primary, events.choices())
        fallback = _endpoint_card(settings.fallback, events.choices())
    with gr.Row(elem_classes="tools"):
        check = gr.Button(_("Check both"), size="sm", elem_classes="tool")
    way = gr.Radio(
        [(_(mode), mode) for mode in endpoint_client.FALLBACK_MODES],
        value=endpoint_client.PRIMARY_AS_IT_IS,
        label=_("Run"),
    )
    prompt = gr.Textbox(label=_("Prompt"), value=_(EXAMPLE_PROMPT), lines=2, max_lines=6)
    go = gr.Button(_("Run"), variant="primary", size="sm", elem_classes="go")
    trail = gr.HTML(hint_html(_(EMPTY)), elem_classes="text-block")
    text = gr.Markdown(elem_classes="lane", container=True, visible=False)
    typed = [*primary[:3], *fallback[:3]]
    check.click(
        events.check,
        typed,
        [primary[3], fallback[3]],
        concurrency_limit=settings.webui.concurrency.fallback,
        **controls.PRIVATE_EVENT,
    )
    go.click(
        events.run,
        [way, prompt, *typed],
        [trail, text],
        **controls.queued_event(settings.webui.concurrency.fallback, "fallback"),
    )
    events.mount_api()
    return [primary[1], fallback[1]]


def _endpoint_card(
    address: EndpointAddress, choices: list[tuple[str, str]]
) -> tuple[gr.Dropdown, gr.Dropdown, gr.Textbox, gr.HTML]:
    name = _(address.name)
    with gr.Column(elem_classes="card", min_width=260):
        return (
            gr.Dropdown(label=_("{name}: address", name=name), choices=choices, value=address.base_url),
            gr.Dropdown(
                label=_("{name}: model", name=name),
                choices=[address.model] if address.model else [],
                value=address.model or None,
                allow_custom_value=True,
            ),
            gr.Textbox(
                label=_("{name}: API key", name=name),
                type="password",
                max_lines=1,
                placeholder=_("set on the server") if address.key else _("none"),
                visible=len(choices) > 1,  # the gateway needs no key: it gets the name of the user's key
            ),
            gr.HTML('<p class="seen">' + _("Not checked yet.") + "</p>"),
        )


class FallbackHandlers:
    def __init__(self, settings: WebuiSettings) -> None:
        self._settings = settings
        self._gateway = EndpointAddress("Gateway", f"{settings.gateway_url}/v1", "auto", settings.api_key or "")
        # Users choose a configured address and cannot type one, because the page reaches hosts that its users do not.
        self._known = {address.base_url: address for address in (settings.fallback, settings.primary, self._gateway)}

    def choices(self) -> list[tuple[str, str]]:
        """Returns the addresses to choose from as (label, base_url), with the gateway first."""
        addresses = [address for url, address in reversed(self._known.items()) if url != self._gateway.base_url]
        return [
            (_(self._gateway.name), self._gateway.base_url),
            *((f"{_(address.name)} ({urlsplit(address.base_url).netloc})", address.base_url) for address in addresses),
        ]

    async def check(self, request: gr.Request, *typed: str | None) -> tuple[str, str]:
        primary, fallback = await self._typed(*typed)
        headers = self._headers(request)
        status = await asyncio.gather(
            *(
                endpoint_client.check_endpoint(address, headers.get(address.base_url, {}))
                for address in (primary, fallback)
            )
        )
        return _status_html(status[0]), _status_html(status[1])

    async def run(
        self, request: gr.Request, way: str, prompt: str, *typed: str | None
    ) -> AsyncIterator[tuple[Any, Any]]:
        if not prompt.strip():
            gr.Info(_("Write a prompt first."))
            yield gr.skip(), gr.skip()
            return
        yield "", gr.update(value="", visible=False)
        last: list[endpoint_client.FallbackAttempt] = []
        async for last in self._attempts(request, way, prompt, *typed):
            yield endpoint_client.attempts_html(last), _answer_update(last)
        if last and last[-1].answer.failure is None:
            outcome = _("Answered by {name}.", name=_(last[-1].address.name))
            by = f'<p role="status"><b>{html.escape(outcome)}</b></p>'
        else:
            by = alert_html(_("No endpoint answered."))
        yield endpoint_client.attempts_html(last) + by, _answer_update(last)

    def mount_api(self) -> None:
        async def fallback(
            request: gr.Request,
            prompt: str,
            way: str = endpoint_client.PRIMARY_AS_IT_IS,
            primary_base_url: str = "",
            primary_model: str = "",
            primary_api_key: str = "",
            fallback_base_url: str = "",
            fallback_model: str = "",
            fallback_api_key: str = "",
        ) -> dict[str, Any]:
            """Returns each attempt with its error and time: {"answered_by", "text", "attempts"}."""
            controls.check_choice("way", way, endpoint_client.FALLBACK_MODES)
            typed = (
                primary_base_url, primary_model, primary_api_key,
                fallback_base_url, fallback_model, fallback_api_key,
            )  # fmt: skip
            updates = [made async for made in self._attempts(request, way, prompt, *typed)]
            return endpoint_client.fallback_facts(updates[-1])

        api(fallback, api_name="fallback", concurrency_limit=self._settings.webui.concurrency.api_clients)

    async def _attempts(
        self, request: gr.Request, way: str, prompt: str, *typed: str | None
    ) -> AsyncIterator[list[endpoint_client.FallbackAttempt]]:
        primary, fallback = await self._typed(*typed)
        addresses = endpoint_client.plan_attempts(way, primary, fallback, self._gateway)
        question = SamplingSettings("as addressed").build_request([{"role": "user", "content": prompt}], Visitor())
        async for made in endpoint_client.run_fallback(addresses, question, self._headers(request)):
            yield made

    async def _typed(self, *typed: str | None) -> tuple[EndpointAddress, EndpointAddress]:
        """Raises gr.Error for an address that the operator did not configure."""
        values = [str(value or "") for value in typed]
        return (
            await self._chosen(self._settings.primary, *values[:3]),
            await self._chosen(self._settings.fallback, *values[3:]),
        )

    async def _chosen(self, card: EndpointAddress, base_url: str, model: str, key: str) -> EndpointAddress:
        """Returns the endpoint with the user's input. A key from the environment is sent to its own address only."""
        url = base_url.strip().rstrip("/") or card.base_url
        if url not in self._known:
            choices = ", ".join(self._known)
            raise gr.Error(
                _("{url} is not among the addresses of this page. Choose one of: {choices}.", url=url, choices=choices)
            )
        known = card if card.base_url == url else self._known[url]
        model = model.strip() or known.model
        # Otherwise another spelling of the gateway's address would get no user headers.
        if await endpoint_client.is_same_endpoint(url, self._gateway.base_url):
            return replace(self._gateway, name=card.name, model=model)
        return replace(known, name=card.name, model=model, key=key.strip() or known.key)

    def _headers(self, request: gr.Request) -> dict[str, dict[str, Any]]:
        """Returns the headers by base_url. Only the gateway gets the identity of the user."""
        own = visitor_headers(controls.own_conversation(request)) | page_headers(self._settings)
        return {self._gateway.base_url: own}


def _answer_update(attempts: list[endpoint_client.FallbackAttempt]) -> Any:
    text = attempts[-1].answer.rendered()[1] if attempts else ""
    return gr.update(value=text, visible=bool(text))


def _status_html(status: EndpointStatus) -> str:
    if not status.up:
        return f'<p class="seen none"><i aria-hidden="true"></i>{html.escape(status.message)}</p>'
    models = ", ".join(status.models[:6]) or _("no models")
    text = _("up, responded in {time} ms: {models}", time=f"{status.elapsed_ms:.0f}", models=models)
    return f'<p class="seen up"><i aria-hidden="true"></i>{html.escape(text)}</p>'
