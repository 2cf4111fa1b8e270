"""An OpenAI-compatible endpoint that the operator named: what it says of itself, and an answer from it."""

from __future__ import annotations

import asyncio
import html
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

import openai
from openai import AsyncOpenAI

from webui.chat import completion_stream
from webui.chat.completion_stream import ChatRequest
from webui.chat.streamed_answer import ServedBy, StreamedAnswer, answer_facts, answer_summary, format_seconds
from webui.i18n.translations import N_, _
from webui.user_error import UserError, answer_cut_error, explain_error

MODELS_TIMEOUT_S = 4.0
COMPLETION_TIMEOUT = openai.Timeout(600, connect=5)
METADATA_NETWORKS = tuple(
    ipaddress.ip_network(one)
    for one in ("169.254.0.0/16", "fe80::/10", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128")
)
"""Where clouds tell a machine its secrets."""
NAT64_NETWORK = ipaddress.ip_network("64:ff9b::/96")
PORTS = {"http": 80, "https": 443}
UNREACHABLE_URL = "http://127.0.0.1:9/v1"
"""The discard port, where nothing listens: a wrong address to try a fallback with."""


@dataclass(frozen=True)
class EndpointAddress:
    """Where an endpoint is. `base_url` ends in /v1 or what stands for it there."""

    name: str
    base_url: str
    model: str = ""
    key: str = field(default="", repr=False)

    def typed(self, base_url: str, model: str, key: str) -> EndpointAddress:
        """With what a visitor typed. The key from the environment goes to its own address only."""
        url = base_url.strip().rstrip("/") or self.base_url
        own = self.key if url == self.base_url else ""
        return replace(self, base_url=url, model=model.strip() or self.model, key=key.strip() or own)


@dataclass(frozen=True)
class EndpointStatus:
    """What an endpoint said when it was looked at."""

    up: bool
    models: tuple[str, ...] = ()
    elapsed_ms: float = 0.0
    message: str = ""


def check_address(address: EndpointAddress) -> EndpointAddress:
    """Raises UserError for what is no address. Looks the name up: to be called in a thread."""
    parts = urlsplit(address.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            _("{url} is no address.", url=address.base_url or _("Nothing")),
            _("Write it like http://localhost:8080/v1, then run again."),
        )
    try:
        found = _resolve(parts.hostname)
    except (OSError, UnicodeError):
        return address  # said better by the attempt itself
    if any(one in network for one in found for network in METADATA_NETWORKS):
        raise UserError(_("Link-local addresses are not asked from here."), _("Choose another address."))
    return address


def is_same_endpoint(one: str, other: str) -> bool:
    """Whether two base URLs lead to the same port, however they are written. Looks names up: to be called in a thread."""
    first, second = urlsplit(one), urlsplit(other)
    if _port(first) != _port(second):
        return False
    names = (first.hostname or "").rstrip("."), (second.hostname or "").rstrip(".")
    if names[0] == names[1]:
        return True
    try:
        return not _resolve(names[0]).isdisjoint(_resolve(names[1]))
    except (OSError, UnicodeError):
        return False


def _port(parts: SplitResult) -> int | None:
    return parts.port or PORTS.get(parts.scheme)


def _resolve(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """All that the name stands for; an IPv4 address inside an IPv6 one as what it is."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {_unwrap_ipv4(ipaddress.ip_address(str(one[4][0]).split("%")[0])) for one in found}


def _unwrap_ipv4(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64_NETWORK:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address
    return address


async def check_endpoint(address: EndpointAddress, headers: dict[str, Any]) -> EndpointStatus:
    """Its models and how long it took to say so; never raises."""
    started_s = time.monotonic()
    try:
        await asyncio.to_thread(check_address, address)
        async with _client(address) as client:
            found = await client.models.list(timeout=MODELS_TIMEOUT_S, extra_headers=headers)
    except Exception as error:
        return EndpointStatus(
            False, elapsed_ms=_since_ms(started_s), message=str(_explain_endpoint_error(error, address))
        )
    return EndpointStatus(True, tuple(model.id for model in found.data), _since_ms(started_s))


async def stream_from_endpoint(
    address: EndpointAddress, request: ChatRequest, answer: StreamedAnswer, headers: dict[str, Any]
) -> None:
    """Streams into `answer`; a failure is put there too, never raised."""
    try:
        await asyncio.to_thread(check_address, address)
        async with _client(address) as client:
            answer.started_s = time.monotonic()
            await completion_stream.stream_completion(client, replace(request, model=address.model), answer, headers)
    except Exception as error:
        if isinstance(error, openai.APIStatusError):
            answer.served = ServedBy.from_headers(error.response.headers)
        answer.failure = answer_cut_error() if answer.chunks else _explain_endpoint_error(error, address)
    answer.end()


def _client(address: EndpointAddress) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=address.base_url,
        api_key=address.key or "none",
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False),
        timeout=COMPLETION_TIMEOUT,
        max_retries=0,
    )


def _explain_endpoint_error(error: Exception, address: EndpointAddress) -> UserError:
    if isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError):
        return UserError(
            _("{url} cannot be reached.", url=address.base_url),
            _("See whether it runs and whether the address is right."),
        )
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return UserError(
            _("{url} does not take this key.", url=address.base_url), _("Type the right key, then run again.")
        )
    return explain_error(error, address.base_url)


def _since_ms(started_s: float) -> float:
    return (time.monotonic() - started_s) * 1000


FALLBACK_UPDATE_S = 0.15

PRIMARY_AS_IT_IS = N_("Primary as it is")
PRIMARY_WRONG_ADDRESS = N_("Primary with a wrong address")
THROUGH_GATEWAY = N_("Through the gateway")
FALLBACK_MODES = (PRIMARY_AS_IT_IS, PRIMARY_WRONG_ADDRESS, THROUGH_GATEWAY)


@dataclass
class FallbackAttempt:
    address: EndpointAddress
    answer: StreamedAnswer = field(default_factory=lambda: StreamedAnswer(started_s=time.monotonic()))
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def elapsed_s(self) -> float | None:
        return None if self.ended_s is None else self.ended_s - self.started_s


def plan_attempts(
    mode: str, primary: EndpointAddress, fallback: EndpointAddress, gateway: EndpointAddress
) -> list[EndpointAddress]:
    """Whom to ask, one after the other. The gateway falls back by itself."""
    match mode:
        case "Primary with a wrong address":
            return [
                EndpointAddress(_("{name} (wrong address)", name=_(primary.name)), UNREACHABLE_URL, primary.model),
                fallback,
            ]
        case "Through the gateway":
            return [EndpointAddress(gateway.name, gateway.base_url, primary.model or gateway.model, gateway.key)]
    return [primary, fallback]


async def run_fallback(
    addresses: list[EndpointAddress], question: ChatRequest, headers: dict[str, dict[str, Any]]
) -> AsyncIterator[list[FallbackAttempt]]:
    """Yields all attempts so far, again and again while an answer comes. `headers`: by base_url."""
    attempts: list[FallbackAttempt] = []
    for address in addresses:
        attempt = FallbackAttempt(address)
        attempts.append(attempt)
        own = headers.get(address.base_url, {})
        asking = asyncio.create_task(stream_from_endpoint(address, question, attempt.answer, own))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=FALLBACK_UPDATE_S)
                yield attempts
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            attempt.ended_s = time.monotonic()
        yield attempts
        if attempt.answer.failure is None:
            return


def fallback_facts(attempts: list[FallbackAttempt]) -> dict[str, Any]:
    """For programs: who was asked, and who answered at last."""
    last = attempts[-1]
    return {
        "answered_by": None if last.answer.failure else last.address.name,
        "text": last.answer.rendered()[1],
        "attempts": [
            {
                "endpoint": attempt.address.name,
                "base_url": attempt.address.base_url,
                "model": attempt.address.model,
                "took_s": None if attempt.elapsed_s is None else round(attempt.elapsed_s, 3),
            }
            | answer_facts(attempt.answer)
            for attempt in attempts
        ],
    }


def attempts_html(attempts: list[FallbackAttempt]) -> str:
    """HTML: an attempt a row, with its error or who answered."""
    return f'<ol class="attempts">{"".join(_attempt_html(number, attempt) for number, attempt in enumerate(attempts, 1))}</ol>'


def _attempt_html(number: int, attempt: FallbackAttempt) -> str:
    failure = attempt.answer.failure
    state, word = (
        ("failed", _("failed"))
        if failure
        else ("waits", _("asking"))
        if attempt.ended_s is None
        else ("done", _("answered"))
    )
    took = "" if attempt.elapsed_s is None else _(" after {time}", time=format_seconds(attempt.elapsed_s))
    outcome = str(failure) if failure else answer_summary(attempt.answer)
    model = attempt.address.model or _("no model")
    where = f"{html.escape(attempt.address.base_url)} · {html.escape(model)}"
    return (
        f'<li class="{state}"><b>{number}. {html.escape(_(attempt.address.name))}</b> <em>{word}{took}</em>'
        f"<span>{where}</span><p>{html.escape(outcome)}</p></li>"
    )
