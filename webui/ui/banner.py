"""The banner: how many engines are up, and what a visitor has to know about a pool."""

from __future__ import annotations

import html

from webui.cluster.gateway_client import Pool
from webui.i18n.language import counted, say
from webui.user_error import unreachable


def states(pools: list[Pool] | None) -> str:
    """HTML: 'qwen3-vl-8b 3 of 3 engines up' for each pool."""
    return f'<div class="pools" role="status">{"".join(_state(pool) for pool in pools or [])}</div>'


def notices(pools: list[Pool] | None, gateway_url: str) -> str:
    """HTML, empty when there is nothing to say; `pools` is None when the gateway cannot be reached."""
    if pools is None:
        return _notice(unreachable(gateway_url).what, "failure")
    if not pools:
        return _notice(say("The gateway knows no pool of engines."), "failure")
    said: dict[str, list[str]] = {}
    for pool in pools:
        if pool.notice:
            said.setdefault(pool.notice, []).append(pool.name)
    return "".join(_notice(f"{', '.join(names)}: {notice}") for notice, names in said.items())


def _state(pool: Pool) -> str:
    level = "up" if pool.up == pool.total and not pool.suspect else "some" if pool.up else "none"
    words = say("{up} of {engines} up", up=pool.up, engines=counted(pool.total, "{count} engine", "{count} engines"))
    words += say(", {count} suspect", count=pool.suspect) if pool.suspect else ""
    return f'<span class="pool {level}"><i aria-hidden="true"></i><b>{html.escape(pool.name)}</b> {words}</span>'


def _notice(text: str, kind: str = "warning") -> str:
    return f'<div class="notice {kind}" role="alert">{html.escape(text)}</div>'
