"""The Gateway dashboard as data: who got what, how long it took, what went wrong. `build.py` makes JSON of it.

All of it is what the gateway says of its requests in its log (`manyeyes/controller/telemetry/request_metrics.py`), so it is what users saw;
the Cluster dashboard shows what the engines say. A series' `engine` is empty where the gateway or its cache answered.
"""

from manyeyes.monitoring.grafana.panels import CHOSEN, POOL, Dashboard, DashboardPanel, DashboardRow, rate, recorded


def or_zero(counter: str) -> str:
    """Per pool; 0 for a pool that has no such series, as one without a fallback has none of fallbacks."""
    return f"{rate(counter, 'pool', POOL)} or 0 * {rate('manyeyes_retries_total', 'pool', POOL)}"


WHO = DashboardRow(
    "Who got what?",
    (
        DashboardPanel(
            "Requests per pool",
            "Requests that ended, per second, by the pool that answered or, where none did, the pool asked for. "
            "Worry when it falls while people work as before: look at Status codes and at Request time.",
            "reqps",
            {"{{pool}}": recorded("pool:requests:rate1m")},
        ),
        DashboardPanel(
            "Requests per engine",
            "Requests that ended, per second, by the engine that answered last. "
            "Worry when one engine's line leaves those of its pool for minutes under load: the Engines dashboard says why.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Requests per key",
            "Requests by the name of the client's API key, per second; one line at 0 where nobody has a key. "
            "Worry when one key asks far more than it should: give it limits with manyeyes key.",
            "reqps",
            {"{{key}}": "sum by (key) (rate(manyeyes_key_requests_total[$__rate_interval])) or vector(0)"},
        ),
        DashboardPanel(
            "Answered from the cache",
            "Share of requests that the gateway answered by itself because the same was asked before; 0 where the pool's cache is off. "
            "Worry when it drops while the same questions are asked: answers no longer fit, or expire sooner than they are asked again.",
            "percentunit",
            {"{{pool}}": recorded("pool:response_cache_hits:ratio_rate5m")},
            most=1,
            none="nobody asks",
        ),
        DashboardPanel(
            "Connections",
            "Connections that nginx holds open: waiting for an answer or getting one (writing), sending a request (reading), idle (waiting). "
            "Worry when writing grows without end (engines do not answer), or near worker_connections in nginx.conf, 8192 per core.",
            "short",
            {
                "writing": 'sum(nginx_connections_writing{job="gateway"})',
                "reading": 'sum(nginx_connections_reading{job="gateway"})',
                "waiting": 'sum(nginx_connections_waiting{job="gateway"})',
            },
        ),
        DashboardPanel(
            "Asked of nginx and answered by pools",
            "All that nginx was asked per second, the page and health checks included, beside the requests that pools got. "
            "Worry when the first grows and the second does not: somebody asks for what there is not (see Refused by the gateway).",
            "reqps",
            {
                "asked of nginx": 'sum(rate(nginx_http_requests_total{job="gateway"}[$__rate_interval]))',
                "of pools": "cluster:requests:rate1m",
            },
        ),
    ),
)

HOW_LONG = DashboardRow(
    "How long did it take?",
    (
        DashboardPanel(
            "Request time",
            "From the first byte of a request to the last of its answer, successful ones only, retries and fallbacks included. "
            "Worry when p95 grows while requests per pool do not: an engine is slow, or requests are tried again (see Retries).",
            "s",
            {
                "p50 {{pool}}": recorded("pool:request_seconds:p50"),
                "p95 {{pool}}": recorded("pool:request_seconds:p95"),
                "p99 {{pool}}": recorded("pool:request_seconds:p99"),
            },
            width=12,
        ),
        DashboardPanel(
            "Time to the first byte",
            "From asking the first engine to the first byte of the answer that the client got; an answer that is not streamed begins when it is done. "
            "Worry when it is far above Time to the first token on the Cluster dashboard for streamed answers: requests fail before one succeeds.",
            "s",
            {
                "p50 {{pool}}": recorded("pool:first_byte_seconds:p50"),
                "p95 {{pool}}": recorded("pool:first_byte_seconds:p95"),
            },
            width=12,
        ),
    ),
)

WRONG = DashboardRow(
    "What went wrong?",
    (
        DashboardPanel(
            "Status codes",
            "What clients of the chosen pools got, per second; 499 is a client that left before the answer began. "
            "Worry at 5xx (no engine and no fallback could answer), and at 429 that lasts: the pool is too small.",
            "reqps",
            {"{{status}}": rate("manyeyes_requests_total", "status", POOL)},
        ),
        DashboardPanel(
            "Refused by the gateway",
            "Requests that no engine was asked for, per second, whichever pool they wanted: 4xx is the client's mistake, 429 a limit, 503 an empty pool. "
            "Worry at 429 and 503 that last; a wave of 401 or 404 is a client with a wrong key or model name.",
            "reqps",
            {"{{status}}": rate("manyeyes_requests_refused_total", "status")},
        ),
        DashboardPanel(
            "Retries and fallbacks",
            "Requests that needed a second engine of their pool, and those that another pool answered, per second: users saw nothing but a longer wait. "
            "Worry when either lasts: retries, an engine is failing (see Failed attempts); fallbacks, the pool is empty, full or failing.",
            "reqps",
            {
                "tried again {{pool}}": rate("manyeyes_retries_total", "pool", POOL),
                "fell back {{pool}}": or_zero("manyeyes_fallbacks_total"),
            },
        ),
        DashboardPanel(
            "Attempts by outcome",
            "Each time the gateway asked an engine, per second: ok, refused (no connection), lost (cut before the answer), "
            "busy (its queue is full), error (5xx), timeout, left (the client went away). "
            "Worry about lost, error and timeout: an engine crashes or hangs; refused for seconds is one that was just stopped.",
            "suffix: /s",
            {"{{outcome}}": rate("manyeyes_attempts_total", "outcome", CHOSEN)},
        ),
        DashboardPanel(
            "Failed attempts per engine",
            "Times that an engine was asked in vain, per second. "
            "Worry about an engine that stands out: it gets requests and does not answer them, though the controller takes it for up.",
            "suffix: /s",
            {"{{engine}}": rate("manyeyes_attempts_total", "engine", CHOSEN, 'outcome!~"ok|left"')},
        ),
        DashboardPanel(
            "Log lines not counted",
            "Lines of the gateway's log that the controller could not read, or that came faster than it took them, per second: they are missing from this page. "
            "Worry above 0: every other panel here is too low.",
            "suffix: /s",
            {
                "unreadable": "sum(rate(manyeyes_request_log_unreadable_total[$__rate_interval]))",
                "dropped": "sum(rate(manyeyes_request_log_dropped_total[$__rate_interval]))",
            },
        ),
        DashboardPanel(
            "Traffic",
            "Bytes of requests, mostly pictures, and of answers. "
            "Worry when requests come near what the network carries: long before that, base64 pictures take the gateway's time.",
            "Bps",
            {
                "in {{pool}}": rate("manyeyes_request_bytes_total", "pool", POOL),
                "out {{pool}}": rate("manyeyes_response_bytes_total", "pool", POOL),
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
