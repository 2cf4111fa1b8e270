"""The Cluster dashboard as data: are users served well? `build.py` renders it as JSON.

Times, errors and goodput come from the gateway's log, so they are what users saw.
"""

from dataclasses import replace

from manyeyes.monitoring.grafana.panels import POOL, SELECTED, Dashboard, DashboardPanel, DashboardRow, recorded

BURN_COLOURS = ((0, "green"), (1, "orange"), (6, "red"))
"""Burn rates. At 1 the error budget lasts exactly its period; 6 is the threshold of the slow burn alerts."""


def burn(share: str, promised: str) -> str:
    """How many times faster than the objective allows an error budget is consumed: Google's SRE workbook, chapter 5."""
    return f"{recorded(share)} / on (pool) (1 - {promised}{{{POOL}}})"


FIGURES = (
    DashboardPanel(
        "Answered in time",
        "Goodput: share of requests that were answered within the pool's objective (pools[].slo), in the last five minutes. "
        "Worry when it is not green: Errors and Request time show whether requests fail or are too slow.",
        "percentunit",
        {"{{pool}}": recorded("pool:goodput:ratio_rate5m")},
        colours=((0, "red"), (0.9, "orange"), (0.94, "green")),
        decimals=1,
        no_value_text="no requests",
    ),
    DashboardPanel(
        "Error budget burn",
        "How many times more requests fail than the objective allows, in the last five minutes; at 1 the objective is just met. "
        "Worry above 1 for an hour, and immediately above 14, which consumes 2 % of a month's error budget in an hour.",
        "suffix: ×",
        {"{{pool}}": burn("pool:errors:ratio_rate5m", "manyeyes_slo_availability_ratio")},
        colours=BURN_COLOURS,
        decimals=1,
        no_value_text="no requests",
    ),
    DashboardPanel(
        "Latency budget burn",
        "How many times more answers are too slow than the objective allows, in the last five minutes; at 1 the objective is just met. "
        "Worry above 1 for an hour: there are too few engines for the load, or an engine is slow (see Engines).",
        "suffix: ×",
        {"{{pool}}": burn("pool:slow:ratio_rate5m", "manyeyes_slo_latency_objective_ratio")},
        colours=BURN_COLOURS,
        decimals=1,
        no_value_text="no requests",
    ),
    DashboardPanel(
        "Alerts firing",
        "Alerts that are firing; red spans on the panels below show since when. "
        "Worry above 0: make status lists the alerts, and each has a page in docs/runbooks.",
        "short",
        {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
        colours=((0, "green"), (1, "red")),
    ),
    DashboardPanel(
        "Requests now",
        "Completed requests per second, in the last minute. "
        "Worry when it differs much from the usual rate at this hour: users cannot reach the gateway, or a client sends too many requests.",
        "reqps",
        {"{{pool}}": recorded("pool:requests:rate1m")},
        colours=((0, "blue"),),
        decimals=1,
    ),
    DashboardPanel(
        "P95 now",
        "Time within which 19 of 20 answers of the last five minutes were complete. "
        "Worry when it exceeds the pool's objective, the dashed line of Request time below.",
        "s",
        {"{{pool}}": recorded("pool:request_seconds:p95")},
        colours=((0, "blue"),),
        decimals=2,
        no_value_text="no requests",
    ),
    DashboardPanel(
        "Errors now",
        "Share of requests that failed (5xx) in the last five minutes; 4xx are not counted. "
        "Worry above 1 %: see Status codes on the Gateway dashboard.",
        "percentunit",
        {"{{pool}}": recorded("pool:errors:ratio_rate5m")},
        colours=((0, "green"), (0.001, "orange"), (0.01, "red")),
        decimals=2,
        no_value_text="no requests",
    ),
    DashboardPanel(
        "Engines not up",
        "Engines of each pool that are known but receive no new requests. "
        "Worry when it is above 0 for longer than a start takes, unless the autoscaler stopped them: the Engines dashboard shows why.",
        "short",
        {"{{pool}}": f"{recorded('pool:engines:count')} - {recorded('pool:engines_up:sum')}"},
        colours=((0, "green"), (1, "orange")),
    ),
)
OVERVIEW = DashboardRow(
    "Are users served well?", tuple(replace(panel, kind="stat", width=6, height=4) for panel in FIGURES)
)

SERVICE_QUALITY = DashboardRow(
    "How are they served?",
    (
        DashboardPanel(
            "Requests",
            "Completed requests per second, by the pool that answered or, if none answered, the requested pool. "
            "Worry when it falls although users work as before.",
            "reqps",
            {"{{pool}}": recorded("pool:requests:rate1m")},
        ),
        DashboardPanel(
            "Request time",
            "Time from the first byte of a request to the last byte of its answer, over five minutes, including retries and fallbacks. "
            "Worry when p95 exceeds the dashed objective; if only p99 exceeds it, the cause is a few long answers.",
            "s",
            {
                "p50 {{pool}}": recorded("pool:request_seconds:p50"),
                "p95 {{pool}}": recorded("pool:request_seconds:p95"),
                "p99 {{pool}}": recorded("pool:request_seconds:p99"),
                "objective {{pool}}": f"manyeyes_slo_latency_seconds{{{POOL}}}",
            },
            dashed="objective",
        ),
        DashboardPanel(
            "Time to the first token",
            "Time until users see the first token (TTFT): the queue, image preprocessing and prefill, over five minutes. "
            "Worry when p95 exceeds the dashed objective but p50 does not: some requests wait in a queue (see Work in the engines).",
            "s",
            {
                "p50 {{pool}}": recorded("pool:first_token_seconds:p50"),
                "p95 {{pool}}": recorded("pool:first_token_seconds:p95"),
                "objective {{pool}}": f"manyeyes_slo_ttft_seconds{{{POOL}}}",
            },
            dashed="objective",
        ),
        DashboardPanel(
            "Errors",
            "Share of requests that failed (5xx), over five minutes and over an hour; the dashed line is the objective. "
            "Worry when the hour's line exceeds the dashed line: users notice the failures, and the month's error budget runs out.",
            "percentunit",
            {
                "5 min {{pool}}": recorded("pool:errors:ratio_rate5m"),
                "1 h {{pool}}": recorded("pool:errors:ratio_rate1h"),
                "allowed {{pool}}": f"1 - manyeyes_slo_availability_ratio{{{POOL}}}",
            },
            dashed="allowed",
        ),
        DashboardPanel(
            "Answered too late",
            "Share of answers that took longer than the objective, over five minutes and over an hour; the dashed line is the allowed share. "
            "Worry when the hour's line exceeds the dashed line: add an engine, or relax the objective if users do not need it.",
            "percentunit",
            {
                "5 min {{pool}}": recorded("pool:slow:ratio_rate5m"),
                "1 h {{pool}}": recorded("pool:slow:ratio_rate1h"),
                "allowed {{pool}}": f"1 - manyeyes_slo_latency_objective_ratio{{{POOL}}}",
            },
            dashed="allowed",
        ),
        DashboardPanel(
            "Rejections, fallbacks and retries",
            "Share of requests that got 429, that another pool answered, and that needed a second engine, over five minutes. "
            "Worry when any of these lasts: 429 means that a pool is too small, the others that an engine fails or a pool is empty.",
            "percentunit",
            {
                "429 {{pool}}": recorded("pool:turned_away:ratio_rate5m"),
                "fallback {{pool}}": f"{recorded('pool:fallbacks:ratio_rate5m')} or 0 * {recorded('pool:requests:rate5m')}",
                "retried {{pool}}": recorded("pool:retries:ratio_rate5m"),
            },
        ),
    ),
)

CAPACITY = DashboardRow(
    "Are there enough engines?",
    (
        DashboardPanel(
            "Engines up",
            "Engines of each pool that receive new requests, as reported by the controller; the dashed line is the number of known engines. "
            "Worry at 0: the pool answers 503 or falls back to another pool. No data: the controller is down, and nginx uses the last known engines.",
            "short",
            {"up {{pool}}": recorded("pool:engines_up:sum"), "known {{pool}}": recorded("pool:engines:count")},
            dashed="known",
        ),
        DashboardPanel(
            "Work in the engines",
            "Requests that run on the GPUs, that wait in an engine's queue, and that are hidden: the CPU preprocesses their images, and vLLM counts them in no queue. "
            "Worry when waiting or hidden grow for minutes: waiting requests need GPUs, hidden requests need CPU cores or smaller images.",
            "short",
            {
                "running {{pool}}": recorded("pool:running:sum"),
                "waiting {{pool}}": recorded("pool:waiting:sum"),
                "hidden {{pool}}": recorded("pool:hidden_queue:sum"),
            },
        ),
        DashboardPanel(
            "Tokens",
            "Generated tokens and prompt tokens (including those of images), per second: the work done. "
            "Worry when it remains constant while requests wait: the engines are at their maximum.",
            "suffix: tokens/s",
            {
                "generated {{pool}}": recorded("pool:generation_tokens:rate1m"),
                "prompt {{pool}}": recorded("pool:prompt_tokens:rate1m"),
            },
        ),
        DashboardPanel(
            "Images",
            "Images and videos in requests to engines, per second. "
            "Worry when it grows and Requests does not: users send more images per request, and each image costs CPU time and prompt tokens.",
            "suffix: /s",
            {"{{pool}}": recorded("pool:images:rate5m")},
        ),
        DashboardPanel(
            "Engines that the autoscaler waits for",
            "Desired replicas of a pool that are not up yet; 0 for a pool without autoscaling. "
            "Worry when it stays above 0 for longer than a start takes: see the pool's events and the controller's log.",
            "short",
            {"{{pool}}": f"{recorded('pool:scaling_missing:max')} or 0 * {recorded('pool:engines:count')}"},
        ),
        DashboardPanel(
            "State changes",
            "State changes of each engine, per minute. "
            "Worry about an engine that appears repeatedly: it goes up and down, or it hangs and is restarted.",
            "suffix: /min",
            {"{{engine}}": f"60 * sum by (engine) (rate(manyeyes_engine_transitions_total{{{SELECTED}}}[5m]))"},
        ),
    ),
)

DASHBOARD = Dashboard(
    "cluster",
    "Cluster",
    "Shows whether users are served well and whether there are enough engines.",
    (OVERVIEW, SERVICE_QUALITY, CAPACITY),
)
