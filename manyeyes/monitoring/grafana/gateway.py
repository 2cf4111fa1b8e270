"""The Gateway dashboard as data: requests by pool, engine and key, their times and their errors. `build.py` renders it
as JSON.

All figures come from the gateway's request log (`manyeyes/controller/telemetry/request_metrics.py`), so they are what
users saw; the Cluster dashboard also shows what the engines report. The label `engine` is empty if the gateway or its
cache answered.
"""

from manyeyes.monitoring.grafana.panels import POOL, SELECTED, Dashboard, DashboardPanel, DashboardRow, rate, recorded


def or_zero(counter: str) -> str:
    """Query for the counter's rate per pool; 0 for a pool without that series, such as fallbacks of a pool that has no
    fallback."""
    return f"{rate(counter, 'pool', POOL)} or 0 * {rate('manyeyes_retries_total', 'pool', POOL)}"


TRAFFIC = DashboardRow(
    "Who sends requests, and who answers them?",
    (
        DashboardPanel(
            "Requests per pool",
            "Completed requests per second, by the pool that answered or, if none answered, the requested pool. "
            "Worry when it falls although users work as before: see Status codes and Request time.",
            "reqps",
            {"{{pool}}": recorded("pool:requests:rate1m")},
        ),
        DashboardPanel(
            "Requests per engine",
            "Completed requests per second, by the engine that answered last. "
            "Worry when an engine differs from the others of its pool for minutes under load: the Engines dashboard shows why.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Requests per key",
            "Requests per second by the name of the client's API key; one line at 0 if there are no keys. "
            "Worry when a key sends far more requests than it should: set limits with manyeyes key.",
            "reqps",
            {"{{key}}": "sum by (key) (rate(manyeyes_key_requests_total[$__rate_interval])) or vector(0)"},
        ),
        DashboardPanel(
            "Answered from the cache",
            "Share of requests that the gateway answered from the response cache; 0 if the pool's cache is off. "
            "Worry when it drops although clients repeat the same requests: answers exceed the cache, or expire before they are requested again.",
            "percentunit",
            {"{{pool}}": recorded("pool:response_cache_hits:ratio_rate5m")},
            max_value=1,
            no_value_text="no requests",
        ),
        DashboardPanel(
            "Connections",
            "Open connections of nginx: waiting for or receiving an answer (writing), sending a request (reading), idle (waiting). "
            "Worry when writing grows without limit (engines do not answer), or near worker_connections in nginx.conf, 8192 per core.",
            "short",
            {
                "writing": 'sum(nginx_connections_writing{job="gateway"})',
                "reading": 'sum(nginx_connections_reading{job="gateway"})',
                "waiting": 'sum(nginx_connections_waiting{job="gateway"})',
            },
        ),
        DashboardPanel(
            "Requests to nginx and to pools",
            "All requests to nginx per second, including the page and health checks, and the requests that pools received. "
            "Worry when the first grows and the second does not: a client sends requests that are refused (see Refused by the gateway).",
            "reqps",
            {
                "to nginx": 'sum(rate(nginx_http_requests_total{job="gateway"}[$__rate_interval]))',
                "to pools": "cluster:requests:rate1m",
            },
        ),
    ),
)

DURATIONS = DashboardRow(
    "How long did it take?",
    (
        DashboardPanel(
            "Request time",
            "Time from the first byte of a request to the last byte of its answer, successful requests only, including retries and fallbacks. "
            "Worry when p95 grows and requests per pool do not: an engine is slow, or requests are retried (see Retries and fallbacks).",
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
            "Time from the first attempt to the first byte of the answer; an answer that is not streamed begins when it is complete. "
            "Worry when it is far above Time to the first token on the Cluster dashboard for streamed answers: attempts fail before one succeeds.",
            "s",
            {
                "p50 {{pool}}": recorded("pool:first_byte_seconds:p50"),
                "p95 {{pool}}": recorded("pool:first_byte_seconds:p95"),
            },
            width=12,
        ),
    ),
)

FAILURES = DashboardRow(
    "What went wrong?",
    (
        DashboardPanel(
            "Status codes",
            "Status codes sent to clients of the selected pools, per second; 499 is a client that disconnected before the answer began. "
            "Worry at 5xx (no engine and no fallback could answer), and at 429 that lasts: the pool is too small.",
            "reqps",
            {"{{status}}": rate("manyeyes_requests_total", "status", POOL)},
        ),
        DashboardPanel(
            "Refused by the gateway",
            "Requests per second that were not sent to any engine, for all pools: 4xx is a mistake of the client, 429 a limit, 503 an empty pool. "
            "Worry at 429 and 503 that last; many 401 or 404 come from a client with a wrong key or model name.",
            "reqps",
            {"{{status}}": rate("manyeyes_requests_refused_total", "status")},
        ),
        DashboardPanel(
            "Retries and fallbacks",
            "Requests per second that needed a second engine of their pool, and requests that another pool answered: users only waited longer. "
            "Worry when either lasts: with retries an engine is failing (see Failed attempts per engine), with fallbacks the pool is empty, full or failing.",
            "reqps",
            {
                "retried {{pool}}": rate("manyeyes_retries_total", "pool", POOL),
                "fallback {{pool}}": or_zero("manyeyes_fallbacks_total"),
            },
        ),
        DashboardPanel(
            "Attempts by outcome",
            "Attempts to send a request to an engine, per second: ok, refused (no connection), lost (cut before the answer), "
            "busy (its queue is full), error (5xx), timeout, left (the client disconnected). "
            "Worry about lost, error and timeout: an engine crashes or hangs. Refused for a few seconds is normal when an engine stops.",
            "suffix: /s",
            {"{{outcome}}": rate("manyeyes_attempts_total", "outcome", SELECTED)},
        ),
        DashboardPanel(
            "Failed attempts per engine",
            "Failed attempts to send a request to an engine, per second. "
            "Worry about an engine far above the others: it receives requests and does not answer them, although it counts as up.",
            "suffix: /s",
            {"{{engine}}": rate("manyeyes_attempts_total", "engine", SELECTED, 'outcome!~"ok|left|unprocessable"')},
        ),
        DashboardPanel(
            "Log lines not counted",
            "Lines of the gateway's log that the controller could not parse, or that arrived faster than it could read them, per second. "
            "Worry above 0: they are missing from the figures of this dashboard, which are too low.",
            "suffix: /s",
            {
                "unreadable": "sum(rate(manyeyes_request_log_unreadable_total[$__rate_interval]))",
                "dropped": "sum(rate(manyeyes_request_log_dropped_total[$__rate_interval]))",
            },
        ),
        DashboardPanel(
            "Traffic",
            "Bytes of requests, mostly images, and of answers. "
            "Worry when requests come near the network's bandwidth: long before that, base64 images cost the gateway much CPU time.",
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
    "Shows requests by pool, engine and key, their times and their errors, as users saw them.",
    (TRAFFIC, DURATIONS, FAILURES),
)
