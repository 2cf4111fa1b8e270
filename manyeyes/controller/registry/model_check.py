"""Which names an engine answers to, asked of itself: a vLLM that was started elsewhere knows only those it was given."""

import asyncio

import httpx
import orjson

ASK_TIMEOUT_S = 3.0
MOST_BYTES = 1 << 20


async def names(address: str) -> set[str] | None:
    """The ids in its /v1/models; None where it does not tell."""
    try:
        async with (
            asyncio.timeout(ASK_TIMEOUT_S),
            # Plain HTTP only: reading the system's certificates would hold everything else up for a moment.
            httpx.AsyncClient(trust_env=False, verify=False, timeout=ASK_TIMEOUT_S) as client,
            client.stream("GET", f"http://{address}/v1/models") as response,
        ):
            if response.status_code != 200:
                return None
            raw = b""
            async for part in response.aiter_raw():
                raw += part
                if len(raw) > MOST_BYTES:
                    return None
        return {str(one["id"]) for one in orjson.loads(raw)["data"]}
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, LookupError, TypeError):
        return None


def notice(wanted: list[str], served: set[str] | None) -> str:
    """What an operator should know; empty when all is well, or nothing is known."""
    missing = [] if served is None else [name for name in wanted if name not in served]
    if not missing:
        return ""
    return (
        f"It does not answer to {', '.join(missing)}, and clients who write that in `model` get its 404. "
        f"Start it with --served-model-name {' '.join(wanted)}."
    )
