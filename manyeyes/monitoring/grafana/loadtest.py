"""The Load test dashboard as data: the load, its results, and a comparison of runs. `build.py` renders it as JSON.

A run is marked by `manyeyes_annotation` (docs/load-testing.md): marks are blue spans on every dashboard, and this
dashboard has figures for each mark.
"""

from manyeyes.monitoring.grafana.panels import POOL, Dashboard, DashboardPanel, DashboardRow, recorded

STEP = "15s"


def during(figure: str, aggregation: str = "avg_over_time") -> str:
    """Query for a figure of the cluster over the time of each mark in view; the label `text` names the mark."""
    return f"{aggregation}((({figure}) * on () group_right () manyeyes_annotation)[$__range:{STEP}])"


def highest(name: str) -> str:
    """Query for the highest value of the selected pools.

    Adding 0 * the number of engines draws a line for an idle cluster too.
    """
    return f"max({recorded(name)}) or 0 * sum({recorded('pool:engines:count')})"


RUN_COMPARISON = DashboardRow(
    "Runs compared",
    (
        DashboardPanel(
            "Requests per second, by run",
            "The mean over each marked time in view, including the start and the end of the run. "
            "Worry when a change should increase it but the later run is not higher: check in the run's output whether the generator was the limit.",
            "reqps",
            {"{{text}}": during(f"sum({recorded('pool:requests:rate1m')})")},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            no_value_text="no marks",
        ),
        DashboardPanel(
            "P95, by run",
            "The mean P95 of the slowest selected pool over each marked time in view. "
            "Worry when it grew from one run to the next at the same requests per second.",
            "s",
            {"{{text}}": during(highest("pool:request_seconds:p95"))},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            no_value_text="no marks",
        ),
        DashboardPanel(
            "TTFT P95, by run",
            "The same for the time to the first token, measured by the engines. "
            "Worry when it grew and the requests per second did not: cache hits or the balance became worse (see below).",
            "s",
            {"{{text}}": during(highest("pool:first_token_seconds:p95"))},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            no_value_text="no marks",
        ),
        DashboardPanel(
            "Failed, by run",
            "The mean share of requests that failed (5xx) over each marked time in view. "
            "Worry above 0: the times of a run with errors are not valid.",
            "percentunit",
            {"{{text}}": during(highest("pool:errors:ratio_rate5m"))},
            kind="bargauge",
            width=6,
            colours=((0, "green"), (0.001, "red")),
            no_value_text="no marks",
        ),
    ),
)

TIME_COURSE = DashboardRow(
    "Over the run",
    (
        DashboardPanel(
            "Load",
            "Completed requests per second, and requests inside the engines. "
            "Worry when the requests in the engines grow and the requests per second do not: the engines are at their maximum.",
            "short",
            {
                "{{pool}} requests/s": recorded("pool:requests:rate1m"),
                "{{pool}} in the engines": recorded("pool:in_flight:sum"),
            },
        ),
        DashboardPanel(
            "Times under load",
            "P95 of complete answers and of first tokens, over five minutes; the dashed line is the objective. "
            "Worry when it rises sharply while Load grows slowly: that is the knee, and the load before it is the cluster's capacity.",
            "s",
            {
                "p95 {{pool}}": recorded("pool:request_seconds:p95"),
                "TTFT p95 {{pool}}": recorded("pool:first_token_seconds:p95"),
                "objective {{pool}}": f"manyeyes_slo_latency_seconds{{{POOL}}}",
            },
            dashed="objective",
        ),
        DashboardPanel(
            "Answered in time under load",
            "Share of requests that were answered within the objective, over five minutes: goodput divided by throughput. "
            "Worry below the objective's share: more load only produces more late answers.",
            "percentunit",
            {"{{pool}}": recorded("pool:goodput:ratio_rate5m")},
            max_value=1,
        ),
        DashboardPanel(
            "Share of each engine under load",
            "Requests of each engine, per second. "
            "Worry when the lines of a pool stay apart under a constant load of many users.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Where requests wait",
            "Requests in the engines' queues, and hidden requests, whose images the CPU preprocesses. "
            "Worry when hidden is larger: more CPU cores help then, more GPUs do not.",
            "short",
            {
                "{{pool}} waiting": recorded("pool:waiting:sum"),
                "{{pool}} hidden": recorded("pool:hidden_queue:sum"),
            },
        ),
        DashboardPanel(
            "Served from caches",
            "Shares of prompt tokens and of images that were in the engines' caches. "
            "Worry when two runs that you compare differ here: they did not have the same workload.",
            "percentunit",
            {
                "{{pool}} prompt tokens": recorded("pool:prefix_cache_hits:ratio_rate5m"),
                "{{pool}} images": recorded("pool:mm_cache_hits:ratio_rate5m"),
            },
            max_value=1,
        ),
        DashboardPanel(
            "Load generator",
            "Share of a core that the busiest process of a `make loadtest` on this host uses; 0 while none runs on this host. "
            "Worry above 85 %, the dashed line: the run then measures the generator and not the cluster.",
            "percentunit",
            {"busiest process": "max(manyeyes_loadtest_generator_cpu_share) or vector(0)"},
            line_at=0.85,
            width=24,
            height=6,
        ),
    ),
)

DASHBOARD = Dashboard(
    "loadtest",
    "Load test",
    "Shows the load of load tests, its results, and a comparison of runs.",
    (RUN_COMPARISON, TIME_COURSE),
    span="1h",
)
