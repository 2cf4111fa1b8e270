"""Client of the gateway: models, pool states and chat completions."""

from dataclasses import dataclass

import openai
from openai import AsyncOpenAI
from openai._types import RequestOptions

from manyeyes.config.pools import AUTO
from webui import log
from webui.chat import completion_stream
from webui.chat.completion_stream import COMPLETION_TIMEOUT, ChatRequest, Visitor
from webui.chat.streamed_answer import StreamedAnswer
from webui.settings import WebuiSettings
from webui.user_error import explain_error

STATUS_TIMEOUT_S = 5.0

# Identifies the page, so that two users who both start with "hi" are two conversations for the gateway.
PAGE_HEADER = "X-ManyEyes-Page"
# Name of the user's API key, so that limits and logs apply to that user. nginx sets it on requests to the page and
# overwrites what a browser sends. Only the gateway's port for the page trusts it.
KEY_HEADER = "X-ManyEyes-Key"
# Value of KEY_HEADER for requests of the page itself.
NO_USER = "-"
# Shows the gateway that it may trust both headers.
PAGE_KEY_HEADER = "X-ManyEyes-Page-Key"


@dataclass(frozen=True)
class PoolStatus:
    name: str
    up: int
    total: int
    notice: str = ""
    suspect: int = 0
    """How many of the `up` engines are suspect."""


class GatewayClient:
    def __init__(self, settings: WebuiSettings) -> None:
        self.url = settings.gateway_url
        # Proxies from the environment are ignored, because only the gateway is contacted. There are no retries here,
        # because the gateway retries and a second attempt would hide a refusal.
        self._client = AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=settings.api_key or "none",
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
            timeout=COMPLETION_TIMEOUT,
            max_retries=0,
        )
        # The client requires a key. Without a configured key, the page sends none: the gateway identifies it by address.
        self._headers: dict[str, str | openai.Omit] = {
            **({} if settings.api_key else {"Authorization": openai.Omit()}),
            **page_headers(settings),
        }

    async def aclose(self) -> None:
        await self._client.close()

    async def models(self) -> list[str]:
        """Returns the available models, with `auto` last; empty if the request fails."""
        try:
            own = {**self._headers, KEY_HEADER: NO_USER}
            response = await self._client.models.list(timeout=STATUS_TIMEOUT_S, extra_headers=own)
        except openai.OpenAIError:
            return []
        return sorted((model.id for model in response.data), key=lambda name: name == AUTO)

    async def pools(self) -> list[PoolStatus] | None:
        """Returns the pools from `GET /healthz`; None if the gateway is unreachable or its response is invalid."""
        try:
            options: RequestOptions = {"timeout": STATUS_TIMEOUT_S, "headers": self._headers}
            response = await self._client.get(f"{self.url}/healthz", cast_to=object, options=options)
        except openai.APIStatusError as error:  # a gateway without healthy engines may respond with 503
            response = error.body
        except openai.OpenAIError:
            return None
        return parse_pools(response)

    async def stream(self, request: ChatRequest, answer: StreamedAnswer) -> None:
        """Streams the response into `answer`. Failures are stored there, not raised. Cancelling stops the engine."""
        try:
            own = visitor_headers(Visitor(request.page, request.key))
            await completion_stream.stream_completion(self._client, request, answer, {**self._headers, **own})
        except Exception as error:
            answer.failure = explain_error(error, self.url, begun=answer.chunks > 0)
        finally:
            _log_answer(answer)
        answer.end()


def visitor_headers(by: Visitor) -> dict[str, str]:
    return {PAGE_HEADER: by.page} | ({KEY_HEADER: by.key} if by.key else {})


def page_headers(settings: WebuiSettings) -> dict[str, str]:
    """Headers for the gateway's port for the page. No other endpoint may get them."""
    return {PAGE_KEY_HEADER: settings.page_key} if settings.page_key else {}


def _log_answer(answer: StreamedAnswer) -> None:
    """Logs the answer as the page saw it, for `make logs REQUEST=`. Stopped answers are logged, too."""
    served = answer.served
    log.log_event(
        "asked",
        request=served.request_id,
        engine=served.engine,
        pool=served.pool,
        first_token_s=None if answer.first_token_ms is None else round(answer.first_token_ms / 1000, 3),
        total_s=None if answer.total_s is None else round(answer.total_s, 3),
        tokens=answer.completion_tokens,
        finish_reason=answer.finish_reason,
        failed=answer.failure is not None,
    )


def parse_pools(document: object) -> list[PoolStatus] | None:
    """Parses the JSON of `GET /healthz`; None if it is invalid."""
    try:
        return [
            PoolStatus(
                str(pool["name"]),
                int(pool["up"]),
                int(pool["total"]),
                str(pool.get("notice") or ""),
                sum(engine["state"] == "suspect" for engine in pool.get("engines", ())),
            )
            for pool in document["pools"]  # type: ignore[index]  # any JSON may arrive; errors are caught below
        ]
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
