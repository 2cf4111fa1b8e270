"""Asks the gateway: which models there are, how the engines are, and for an answer."""

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

# Says which page asks, so that two people who both begin with "hi" are two conversations to the gateway.
PAGE_HEADER = "X-ManyEyes-Page"
# Says whose key the visitor logged in with, by name, so that limits and the log count for that person. nginx sets it on
# requests to the page and replaces what a browser sends; only the port for the page believes it.
KEY_HEADER = "X-ManyEyes-Key"


@dataclass(frozen=True)
class PoolStatus:
    name: str
    up: int
    total: int
    notice: str = ""
    suspect: int = 0
    """Of those that are up: something is odd about them."""


class GatewayClient:
    def __init__(self, settings: WebuiSettings) -> None:
        self.url = settings.gateway_url
        # Nothing but the gateway is to be reached, so proxies from the environment are not heeded;
        # retries are the gateway's work, and a second try here would hide a refusal.
        self._client = AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=settings.api_key or "none",
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
            timeout=COMPLETION_TIMEOUT,
            max_retries=0,
        )
        # The client insists on a key; without one of its own the page is told apart by its address, not by "none".
        self._headers: dict[str, str | openai.Omit] = {} if settings.api_key else {"Authorization": openai.Omit()}

    async def aclose(self) -> None:
        await self._client.close()

    async def models(self) -> list[str]:
        """The models there are, `auto` last; empty when the gateway cannot tell."""
        try:
            found = await self._client.models.list(timeout=STATUS_TIMEOUT_S, extra_headers=self._headers)
        except openai.OpenAIError:
            return []
        return sorted((model.id for model in found.data), key=lambda name: name == AUTO)

    async def pools(self) -> list[PoolStatus] | None:
        """The pools as `GET /healthz` tells them; None when the gateway cannot be reached or says something else."""
        try:
            options: RequestOptions = {"timeout": STATUS_TIMEOUT_S, "headers": self._headers}
            response = await self._client.get(f"{self.url}/healthz", cast_to=object, options=options)
        except openai.APIStatusError as error:  # a gateway with no engine up may say so with a 503
            response = error.body
        except openai.OpenAIError:
            return None
        return parse_pools(response)

    async def ask(self, request: ChatRequest, answer: StreamedAnswer) -> None:
        """Streams the answer into `answer`; a failure is put there too, never raised. Cancel it to stop the engine."""
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


def _log_answer(answer: StreamedAnswer) -> None:
    """For `make logs REQUEST=`: what the page saw of it, also where the visitor stopped it."""
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


def parse_pools(found: object) -> list[PoolStatus] | None:
    """`found` is the JSON of `GET /healthz`; None when it is not of that form."""
    try:
        return [
            PoolStatus(
                str(pool["name"]),
                int(pool["up"]),
                int(pool["total"]),
                str(pool.get("notice") or ""),
                sum(engine["state"] == "suspect" for engine in pool.get("engines", ())),
            )
            for pool in found["pools"]  # type: ignore[index]  # any shape may come; a wrong one is caught below
        ]
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
