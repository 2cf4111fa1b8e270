"""The Cluster dashboard as data: are users well? `build.py` makes JSON of it.

Times, errors and goodput are what the gateway's log says, so they are what users saw.
"""

from dataclasses import replace

from manyeyes.monitoring.grafana.panels import CHOSEN, POOL, Dashboard, DashboardPanel, DashboardRow, recorded

HALF_RED = ((0, "green"), (1, "orange"), (6, "red"))
"""Burn rates: at 1 the budget lasts just as long as it is meant for; 6 is the slower of the two that wake somebody."""


def burn(share: str, promised: str) -> str:
    """How many times faster than promised a budget is used up: Google's SRE workbook, chapter 5."""
    return f"{recorded(share)} / on (pool) (1 - {promised}{{{POOL}}})"


FIGURES = (
    DashboardPanel(
        "Answered in time",
        "Share of requests that were answered, and within the pool's objective (pools[].slo), in the last five minutes. "
        "Worry when it is not green: Errors and Request time say which half of the promise is broken.",
        "percentunit",
        {"{{pool}}": recorded("pool:goodput:ratio_rate5m")},
        colours=((0, "red"), (0.9, "orange"), (0.94, "green")),
        decimals=1,
        none="nobody asks",
    ),
    DashboardPanel(
        "Error budget burn",
        "How many times faster than promised requests fail, in the last five minutes; at 1 the promise is just kept. "
        "Worry above 1 for an hour, and at once above 14: that uses up 2 % of a month's failures in an hour.",
        "suffix: ×",
        {"{{pool}}": burn("pool:errors:ratio_rate5m", "manyeyes_slo_availability_ratio")},
        colours=HALF_RED,
        decimals=1,
        none="nobody asks",
    ),
    DashboardPanel(
        "Latency budget burn",
        "How many times more answers than promised come too late, in the last five minutes; at 1 the promise is just kept. "
        "Worry above 1 for an hour: there are more users than engines for them, or an engine is slow (see Engines).",
        "suffix: ×",
        {"{{pool}}": burn("pool:slow:ratio_rate5m", "manyeyes_slo_latency_objective_ratio")},
        colours=HALF_RED,
        decimals=1,
        none="nobody asks",
    ),
    DashboardPanel(
        "Alerts firing",
        "Alerts that fire at this moment; red spans on the panels below show since when. "
        "Worry above 0: each has a page in docs/runbooks, and make status names them.",
        "short",
        {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
        colours=((0, "green"), (1, "red")),
    ),
    DashboardPanel(
        "Requests now",
        "Requests that ended, per second, in the last minute. "
        "Worry when it is far from what this hour usually has: users cannot reach the gateway, or somebody sends a flood.",
        "reqps",
        {"{{pool}}": recorded("pool:requests:rate1m")},
        colours=((0, "blue"),),
        decimals=1,
    ),
    DashboardPanel(
        "P95 now",
        "Within this time 19 of 20 answers of the last five minutes were complete. "
        "Worry when it passes the pool's objective, the dashed line of Request time below.",
        "s",
        {"{{pool}}": recorded("pool:request_seconds:p95")},
        colours=((0, "blue"),),
        decimals=2,
        none="nobody asks",
    ),
    DashboardPanel(
        "Errors now",
        "Share of requests that failed (5xx) in the last five minutes; a 4xx counts neither way. "
        "Worry above 1 %: see Status codes on the Gateway dashboard.",
        "percentunit",
        {"{{pool}}": recorded("pool:errors:ratio_rate5m")},
        colours=((0, "green"), (0.001, "orange"), (0.01, "red")),
        decimals=2,
        none="nobody asks",
    ),
    DashboardPanel(
        "Engines short",
        "Engines of each pool that are known and get no new requests. "
        "Worry when it is above 0 for longer than a start takes, unless scaling lets them rest: the Engines dashboard says why.",
        "short",
        {"{{pool}}": f"{recorded('pool:engines:count')} - {recorded('pool:engines_up:sum')}"},
        colours=((0, "green"), (1, "orange")),
    ),
)
AT_ONE_LOOK = DashboardRow(
    "Are users well?", tuple(replace(panel, kind="stat", width=6, height=4) for panel in FIGURES)
)

SERVED = DashboardRow(
    "How are they served?",
    (
        DashboardPanel(
            "Requests",
            "Requests that ended, per second, by the pool that answered or, where none did, the pool asked for. "
            "Worry when it falls while people work as before.",
            "reqps",
            {"{{pool}}": recorded("pool:requests:rate1m")},
        ),
        DashboardPanel(
            "Request time",
            "From the first byte of a request to the last of its answer, over five minutes, retries and fallbacks included. "
            "Worry when p95 passes the dashed objective; when only p99 does, it is a few long answers.",
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
            "How long users look at nothing: the wait in the engine's queue, the picture and the prompt, over five minutes. "
            "Worry when p95 passes the dashed objective while p50 does not: some wait in a queue (see Work in the engines).",
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
            "Share of requests that failed (5xx), over five minutes and over an hour; dashed is what was promised. "
            "Worry when the hour's line passes the dashed one: users notice, and the month's budget goes.",
            "percentunit",
            {
                "5 min {{pool}}": recorded("pool:errors:ratio_rate5m"),
                "1 h {{pool}}": recorded("pool:errors:ratio_rate1h"),
                "promised {{pool}}": f"1 - manyeyes_slo_availability_ratio{{{POOL}}}",
            },
            dashed="promised",
        ),
        DashboardPanel(
            "Answered too late",
            "Share of answers that took longer than the objective, over five minutes and over an hour; dashed is what was promised. "
            "Worry when the hour's line passes the dashed one: add an engine, or raise an objective that nobody needs.",
            "percentunit",
            {
                "5 min {{pool}}": recorded("pool:slow:ratio_rate5m"),
                "1 h {{pool}}": recorded("pool:slow:ratio_rate1h"),
                "promised {{pool}}": f"1 - manyeyes_slo_latency_objective_ratio{{{POOL}}}",
            },
            dashed="promised",
        ),
        DashboardPanel(
            "Turned away, fallen back, tried again",
            "Share of requests that got 429, that another pool answered, and that needed a second engine, over five minutes. "
            "Worry when any of it lasts: 429 is a pool that is too small, the others an engine that fails or a pool that is empty.",
            "percentunit",
            {
                "429 {{pool}}": recorded("pool:turned_away:ratio_rate5m"),
                "fell back {{pool}}": f"{recorded('pool:fallbacks:ratio_rate5m')} or 0 * {recorded('pool:requests:rate5m')}",
                "tried again {{pool}}": recorded("pool:retries:ratio_rate5m"),
            },
        ),
    ),
)

ENOUGH = DashboardRow(
    "Are there engines enough?",
    (
        DashboardPanel(
            "Engines up",
            "Engines of each pool that get new requests, as the controller sees it; dashed is how many are known. "
            "Worry at 0: the pool answers 503 or falls back to the next one. No data: the controller itself is gone, nginx keeps the last engines.",
            "short",
            {"up {{pool}}": recorded("pool:engines_up:sum"), "known {{pool}}": recorded("pool:engines:count")},
            dashed="known",
        ),
        DashboardPanel(
            "Work in the engines",
            "Requests that GPUs work on, that wait in an engine's queue, and that are hidden: their pictures are being prepared on the CPU, where no queue of vLLM counts them. "
            "Worry when waiting or hidden grow for minutes: waiting wants GPUs, hidden wants CPU cores (or smaller pictures).",
            "short",
            {
                "running {{pool}}": recorded("pool:running:sum"),
                "waiting {{pool}}": recorded("pool:waiting:sum"),
                "hidden {{pool}}": recorded("pool:hidden_queue:sum"),
            },
        ),
        DashboardPanel(
            "Tokens",
            "Text written and prompt read (pictures are prompt tokens too), per second: the work that is done. "
            "Worry when it stays flat while requests wait: this is all that the engines can do.",
            "suffix: tokens/s",
            {
                "written {{pool}}": recorded("pool:generation_tokens:rate1m"),
                "read {{pool}}": recorded("pool:prompt_tokens:rate1m"),
            },
        ),
        DashboardPanel(
            "Pictures",
            "Pictures and videos that engines were asked about, per second. "
            "Worry when it grows and Requests does not: the same people send more pictures each, and each costs CPU and prompt tokens.",
            "suffix: /s",
            {"{{pool}}": recorded("pool:images:rate5m")},
        ),
        DashboardPanel(
            "Engines that scaling waits for",
            "Engines that a pool's scaling wants and that do not serve yet; 0 where a pool has no scaling. "
            "Worry when it stays above 0 for longer than a start takes: see the pool's events and the log of the controller.",
            "short",
            {"{{pool}}": f"{recorded('pool:scaling_missing:max')} or 0 * {recorded('pool:engines:count')}"},
        ),
        DashboardPanel(
            "Changes of state",
            "How often engines changed their state, per minute. "
            "Worry about an engine that shows up again and again: it goes up and down, or hangs and is restarted.",
            "suffix: /min",
            {"{{engine}}": f"60 * sum by (engine) (rate(manyeyes_engine_transitions_total{{{CHOSEN}}}[5m]))"},
        ),
    ),
)

DASHBOARD = Dashboard(
    "cluster", "Cluster", "Are users well, and are there engines enough for them.", (AT_ONE_LOOK, SERVED, ENOUGH)
)
