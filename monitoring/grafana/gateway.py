"""The Gateway dashboard as data: who got what, how long it took, what went wrong. `build.py` makes JSON of it.

All of it is what the gateway says of its requests in its log (`controller/request_metrics.py`), so it is what users saw;
the Cluster dashboard shows what the engines say. A series' `engine` is empty where the gateway or its cache answered.
"""

from monitoring.grafana.panel import CHOSEN, Dashboard, Panel, Row

CHOSEN_POOL = 'pool=~"$pool"'
WINDOW = "$__rate_interval"
EVEN_OUT = "5m"
"""Long enough that chance does not look like imbalance."""
FROM_CACHE = 'cache=~"HIT|STALE|UPDATING"'


def rate(counter: str, by: str, *where: str, window: str = WINDOW) -> str:
    """What is counted per second."""
    return f"sum by ({by}) (rate({counter}{{{', '.join(where)}}}[{window}]))"


def quantile(share: float, histogram: str) -> str:
    """The time that this share of a pool's requests stays below."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', 'pool, le', CHOSEN_POOL)})"


def or_zero(counter: str) -> str:
    """Per pool; 0 for a pool that has no such series, as one without a fallback has none of fallbacks."""
    return f"{rate(counter, 'pool', CHOSEN_POOL)} or 0 * {rate('manyeyes_retries_total', 'pool', CHOSEN_POOL)}"


def share_of_pool() -> str:
    """Each engine's part of what its pool's engines answered. Nothing is drawn while nothing is asked."""
    part = rate("manyeyes_requests_total", "pool, engine", CHOSEN)
    whole = rate("manyeyes_requests_total", "pool", CHOSEN_POOL, 'engine!=""')
    return f"{part} / on (pool) group_left {whole}"


def imbalance() -> str:
    """The most requests that an engine of a pool gets, over the least; only engines that are up. An idle pool counts as 0."""
    up = f'manyeyes_engine_state{{{CHOSEN}, state=~"up|suspect"}} == 1'
    each = f"({rate('manyeyes_requests_total', 'pool, engine', CHOSEN, window=EVEN_OUT)} and on (pool, engine) {up})"
    return f"max by (pool) {each} / clamp_min(min by (pool) {each}, 0.001)"


WHO = Row(
    "Who got what?",
    (
        Panel(
            "Requests per pool",
            "Requests that ended, per second, by the pool that answered or, where none did, the pool asked for. "
            "Worry when it falls while people work as before: look at Status codes and at Request time.",
            "reqps",
            {"{{pool}}": rate("manyeyes_requests_total", "pool", CHOSEN_POOL)},
        ),
        Panel(
            "Requests per engine",
            "Requests that ended, per second, by the engine that answered last. "
            "Worry when one engine's line leaves those of its pool for minutes under load: it is slower, failing, or holds all conversations.",
            "reqps",
            {"{{engine}}": rate("manyeyes_requests_total", "engine", CHOSEN)},
        ),
        Panel(
            "Share per engine",
            "Each engine's part of what its pool's engines answered. "
            "Worry when it stays far from one over the number of engines, as long as many people ask: a few long chats are never even.",
            "percentunit",
            {"{{engine}}": share_of_pool()},
            most=1,
        ),
        Panel(
            "Balance",
            "Requests of the busiest engine of a pool over those of the least busy one that is up, in the last five minutes; 1 is even. "
            "Worry above 2 under load: see Share per engine for which it is. Hundreds mean that one that is up gets nothing.",
            "suffix: times",
            {"{{pool}}": imbalance()},
            width=12,
        ),
        Panel(
            "Answered from the cache",
            "Share of requests that the gateway answered by itself because the same was asked before; 0 where the pool's cache is off. "
            "Worry when it drops while the same questions are asked: answers no longer fit, or expire sooner than they are asked again.",
            "percentunit",
            {
                "{{pool}}": f"{rate('manyeyes_requests_total', 'pool', CHOSEN_POOL, FROM_CACHE)}"
                f" / {rate('manyeyes_requests_total', 'pool', CHOSEN_POOL)}"
            },
            width=12,
            most=1,
        ),
    ),
)

HOW_LONG = Row(
    "How long did it take?",
    (
        Panel(
            "Request time",
            "From the first byte of a request to the last of its answer, successful ones only, retries and fallbacks included. "
            "Worry when p95 grows while requests per pool do not: an engine is slow, or requests are tried again (see Retries).",
            "s",
            {
                "p50 {{pool}}": quantile(0.5, "manyeyes_request_seconds"),
                "p95 {{pool}}": quantile(0.95, "manyeyes_request_seconds"),
            },
            width=12,
        ),
        Panel(
            "Time to the first byte",
            "From asking the first engine to the first byte of the answer that the client got; an answer that is not streamed begins when it is done. "
            "Worry when it is far above Time to the first token on the Cluster dashboard for streamed answers: requests fail before one succeeds.",
            "s",
            {
                "p50 {{pool}}": quantile(0.5, "manyeyes_first_byte_seconds"),
                "p95 {{pool}}": quantile(0.95, "manyeyes_first_byte_seconds"),
            },
            width=12,
        ),
    ),
)

WRONG = Row(
    "What went wrong?",
    (
        Panel(
            "Status codes",
            "What clients of the chosen pools got, per second; 499 is a client that left before the answer began. "
            "Worry at 5xx (no engine and no fallback could answer), and at 429 that lasts: the pool is too small.",
            "reqps",
            {"{{status}}": rate("manyeyes_requests_total", "status", CHOSEN_POOL)},
        ),
        Panel(
            "Refused by the gateway",
            "Requests that no engine was asked for, per second, whichever pool they wanted: 4xx is the client's mistake, 429 a limit, 503 an empty pool. "
            "Worry at 429 and 503 that last; a wave of 401 or 404 is a client with a wrong key or model name.",
            "reqps",
            {"{{status}}": rate("manyeyes_refused_total", "status")},
        ),
        Panel(
            "Retries and fallbacks",
            "Requests that needed a second engine of their pool, and those that another pool answered, per second: users saw nothing but a longer wait. "
            "Worry when either lasts: retries, an engine is failing (see Failed attempts); fallbacks, the pool is empty, full or failing.",
            "reqps",
            {
                "tried again {{pool}}": rate("manyeyes_retries_total", "pool", CHOSEN_POOL),
                "fell back {{pool}}": or_zero("manyeyes_fallbacks_total"),
            },
        ),
        Panel(
            "Attempts by outcome",
            "Each time the gateway asked an engine, per second: ok, refused (no connection), lost (cut before the answer), "
            "busy (its queue is full), error (5xx), timeout, left (the client went away). "
            "Worry about lost, error and timeout: an engine crashes or hangs; refused for seconds is one that was just stopped.",
            "suffix: /s",
            {"{{outcome}}": rate("manyeyes_attempts_total", "outcome", CHOSEN)},
        ),
        Panel(
            "Failed attempts per engine",
            "Times that an engine was asked in vain, per second. "
            "Worry about an engine that stands out: it gets requests and does not answer them, though the controller takes it for up.",
            "suffix: /s",
            {"{{engine}}": rate("manyeyes_attempts_total", "engine", CHOSEN, 'outcome!~"ok|left"')},
        ),
        Panel(
            "Log lines not counted",
            "Lines of the gateway's log that the controller could not read, or that came faster than it took them, per second: they are missing from this page. "
            "Worry above 0: every other panel here is too low.",
            "suffix: /s",
            {
                "unreadable": "sum(rate(manyeyes_request_log_unreadable_total[$__rate_interval]))",
                "dropped": "sum(rate(manyeyes_request_log_dropped_total[$__rate_interval]))",
            },
        ),
        Panel(
            "Traffic",
            "Bytes of requests, mostly pictures, and of answers. "
            "Worry when requests come near what the network carries: long before that, base64 pictures take the gateway's time.",
            "Bps",
            {
                "in {{pool}}": rate("manyeyes_bytes_in_total", "pool", CHOSEN_POOL),
                "out {{pool}}": rate("manyeyes_bytes_out_total", "pool", CHOSEN_POOL),
            },
            width=24,
        ),
    ),
)

DASHBOARD = Dashboard(
    "gateway",
    "Gateway",
    "Who got what, how long it took, and what went wrong, as users saw it.",
    (WHO, HOW_LONG, WRONG),
)
