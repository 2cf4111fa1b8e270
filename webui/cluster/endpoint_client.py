"""Client of the OpenAI-compatible endpoints of the Fallback tab, which the operator configures.

It checks endpoints, and sends a request to the next endpoint if one fails. It records each attempt with error and time.
"""

import asyncio
import html
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx2
import openai
from openai import AsyncOpenAI

from manyeyes.netpolicy import Address, AddressKind, classify_address, embedded_ipv4
from webui.chat import completion_stream
from webui.chat.completion_stream import COMPLETION_TIMEOUT, ChatRequest
from webui.chat.streamed_answer import StreamedAnswer, answer_facts, answer_summary, format_seconds
from webui.i18n import N_, _
from webui.settings import EndpointAddress
from webui.user_error import UserError, answer_cut_error, explain_error

MODELS_TIMEOUT_S = 4.0
REFUSED_KINDS = (AddressKind.METADATA, AddressKind.NO_HOST)
"""Addresses that are always refused. Loopback and private addresses are allowed: the operator configures them."""
PORTS = {"http": 80, "https": 443}
UNREACHABLE_URL = "http://127.0.0.1:9/v1"
"""The discard port, where nothing listens: a wrong address to demonstrate a fallback."""


@dataclass(frozen=True)
class EndpointStatus:
    up: bool
    models: tuple[str, ...] = ()
    elapsed_ms: float = 0.0
    message: str = ""


class CheckedTransport(httpx2.AsyncHTTPTransport):
    """Connects to the address that was checked. A second lookup could return another address (DNS rebinding)."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises UserError if the host resolves to a refused address."""
        host = request.url.host
        failure = httpx2.ConnectError(f"the name {host} does not resolve", request=request)
        try:
            addresses = await _resolve(host)
        except (OSError, UnicodeError):
            raise failure from None
        if any(classify_address(address) in REFUSED_KINDS for address in addresses):
            raise UserError(_("The page does not connect to link-local addresses."), _("Choose another address."))
        request.extensions["sni_hostname"] = host
        for address in addresses:
            request.url = request.url.copy_with(host=str(address))
            try:
                return await super().handle_async_request(request)
            except httpx2.ConnectError as error:
                failure = error
        raise failure


async def is_same_endpoint(first_url: str, second_url: str) -> bool:
    """Returns True if two base URLs lead to the same host and port, even if they are written differently."""
    first_parts, second_parts = urlsplit(first_url), urlsplit(second_url)
    if _port(first_parts) != _port(second_parts):
        return False
    names = (first_parts.hostname or "").rstrip("."), (second_parts.hostname or "").rstrip(".")
    if names[0] == names[1]:
        return True
    try:
        return bool(set(await _resolve(names[0])) & set(await _resolve(names[1])))
    except (OSError, UnicodeError):
        return False


def _port(parts: SplitResult) -> int | None:
    return parts.port or PORTS.get(parts.scheme)


async def _resolve(host: str) -> list[Address]:
    """Resolves a name to all its addresses. An IPv4 address embedded in IPv6 is returned as IPv4."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
    return [(isinstance(each, IPv6Address) and embedded_ipv4(each)) or each for each in addresses]


async def check_endpoint(address: EndpointAddress, headers: dict[str, Any]) -> EndpointStatus:
    """Returns the models of an endpoint and its response time. Never raises."""
    started_s = time.monotonic()
    try:
        async with _client(address) as client:
            models = await client.models.list(timeout=MODELS_TIMEOUT_S, extra_headers=headers)
    except Exception as error:
        return EndpointStatus(
            False, elapsed_ms=_since_ms(started_s), message=str(_explain_endpoint_error(error, address))
        )
    return EndpointStatus(True, tuple(model.id for model in models.data), _since_ms(started_s))


async def stream_from_endpoint(
    address: EndpointAddress, request: ChatRequest, answer: StreamedAnswer, headers: dict[str, Any]
) -> None:
    """Streams the response into `answer`. Failures are stored in `answer`, not raised."""
    answer.started_s = time.monotonic()
    try:
        async with _client(address) as client:
            await completion_stream.stream_completion(client, replace(request, model=address.model), answer, headers)
    except Exception as error:
        answer.failure = answer_cut_error() if answer.chunks else _explain_endpoint_error(error, address)
    answer.end()


def _client(address: EndpointAddress) -> AsyncOpenAI:
    http_client = openai.DefaultAsyncHttpxClient(transport=CheckedTransport(), trust_env=False, follow_redirects=False)
    return AsyncOpenAI(
        base_url=address.base_url,
        api_key=address.key or "none",
        http_client=http_client,
        timeout=COMPLETION_TIMEOUT,
        max_retries=0,
    )


def _explain_endpoint_error(error: Exception, address: EndpointAddress) -> UserError:
    if isinstance(error.__cause__, UserError):
        return error.__cause__
    if isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError):
        return UserError(
            _("{url} cannot be reached.", url=address.base_url),
            _("Check that it is running and that the address is correct."),
        )
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return UserError(
            _("{url} does not accept this key.", url=address.base_url), _("Enter the correct key, then run again.")
        )
    return explain_error(error, address.base_url)


def _since_ms(started_s: float) -> float:
    return (time.monotonic() - started_s) * 1000


FALLBACK_UPDATE_S = 0.15

PRIMARY_AS_IT_IS = N_("Primary as configured")
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
    """Returns the endpoints to try, in order. The gateway has its own fallback."""
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
    """Tries the endpoints in order. Yields all attempts so far, repeatedly. `headers`: by base_url."""
    attempts: list[FallbackAttempt] = []
    for address in addresses:
        attempt = FallbackAttempt(address)
        attempts.append(attempt)
        own = headers.get(address.base_url, {})
        sending = asyncio.create_task(stream_from_endpoint(address, question, attempt.answer, own))
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=FALLBACK_UPDATE_S)
                yield attempts
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            attempt.ended_s = time.monotonic()
        yield attempts
        if attempt.answer.failure is None:
            return


def fallback_facts(attempts: list[FallbackAttempt]) -> dict[str, Any]:
    """Returns the attempts, and the endpoint that answered, for programs."""
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
    """Returns HTML with one row per attempt: its error or its summary line."""
    return f'<ol class="attempts">{"".join(_attempt_html(number, attempt) for number, attempt in enumerate(attempts, 1))}</ol>'


def _attempt_html(number: int, attempt: FallbackAttempt) -> str:
    failure = attempt.answer.failure
    state, word = (
        ("failed", _("failed"))
        if failure
        else ("waits", _("in progress"))
        if attempt.ended_s is None
        else ("done", _("answered"))
    )
    duration = "" if attempt.elapsed_s is None else _(" after {time}", time=format_seconds(attempt.elapsed_s))
    outcome = str(failure) if failure else answer_summary(attempt.answer)
    model = attempt.address.model or _("no model")
    target = f"{html.escape(attempt.address.base_url)} · {html.escape(model)}"
    return (
        f'<li class="{state}"><b>{number}. {html.escape(_(attempt.address.name))}</b> <em>{word}{duration}</em>'
        f"<span>{target}</span><p>{html.escape(outcome)}</p></li>"
    )
