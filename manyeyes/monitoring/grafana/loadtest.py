"""The Load test dashboard as data: what was sent, what came of it, before and after. `build.py` makes JSON of it.

A run is marked (`manyeyes_annotation`, docs/loadtest.md): blue spans on every dashboard, and the figures by mark here.
"""

from manyeyes.monitoring.grafana.panels import POOL, Dashboard, DashboardPanel, DashboardRow, recorded

STEP = "15s"


def during(figure: str, how: str = "avg_over_time") -> str:
    """A figure of the cluster over the time of each mark in what is shown; `text` names the mark."""
    return f"{how}((({figure}) * on () group_right () manyeyes_annotation)[$__range:{STEP}])"


def worst(name: str) -> str:
    """Of the chosen pools. 0 * the number of engines gives an idle cluster a line as well."""
    return f"max({recorded(name)}) or 0 * sum({recorded('pool:engines:count')})"


RUNS = DashboardRow(
    "Before and after",
    (
        DashboardPanel(
            "Requests a second, by run",
            "The mean over each marked time that is in view; the start and the end of a run are in it. "
            "Worry when a change was to bring more and the later run has no more: look whether the generator was the limit, which the run says at its end.",
            "reqps",
            {"{{text}}": during(f"sum({recorded('pool:requests:rate1m')})")},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            none="nothing is marked",
        ),
        DashboardPanel(
            "P95, by run",
            "The mean of the P95 of the slowest chosen pool over each marked time that is in view. "
            "Worry when it grew from one run to the next at the same requests a second.",
            "s",
            {"{{text}}": during(worst("pool:request_seconds:p95"))},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            none="nothing is marked",
        ),
        DashboardPanel(
            "TTFT P95, by run",
            "The same for the wait until the first token, as the engines measure it. "
            "Worry when it grew while Requests a second did not: the cache share or the balance got worse (see below).",
            "s",
            {"{{text}}": during(worst("pool:first_token_seconds:p95"))},
            kind="bargauge",
            width=6,
            colours=((0, "blue"),),
            none="nothing is marked",
        ),
        DashboardPanel(
            "Failed, by run",
            "The mean share of requests that failed (5xx) over each marked time that is in view. "
            "Worry above 0: a run with errors measures errors.",
            "percentunit",
            {"{{text}}": during(worst("pool:errors:ratio_rate5m"))},
            kind="bargauge",
            width=6,
            colours=((0, "green"), (0.001, "red")),
            none="nothing is marked",
        ),
    ),
)

OVER_TIME = DashboardRow(
    "Over the run",
    (
        DashboardPanel(
            "Load",
            "Requests that ended, per second, and requests inside the engines. "
            "Worry when requests in the engines grow and requests a second do not: this is the most that the engines can do.",
            "short",
            {
                "{{pool}} requests/s": recorded("pool:requests:rate1m"),
                "{{pool}} in the engines": recorded("pool:in_flight:sum"),
            },
        ),
        DashboardPanel(
            "Times under load",
            "P95 of whole answers and of first tokens, over five minutes; dashed is the objective. "
            "Worry when it bends upwards while Load still grows slowly: that is the knee, and the load before it is what the cluster can promise.",
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
            "Share of requests that were answered within the objective, over five minutes: goodput over throughput. "
            "Worry below the objective's share: more load only makes more late answers.",
            "percentunit",
            {"{{pool}}": recorded("pool:goodput:ratio_rate5m")},
            most=1,
        ),
        DashboardPanel(
            "Share of each engine under load",
            "Requests of each engine, per second. "
            "Worry when lines of a pool stay apart under steady load of many people.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Where requests wait",
            "Requests in the engines' queues, and hidden ones, whose pictures are being prepared on the CPU. "
            "Worry when hidden is the larger one: more GPUs bring nothing then, more CPU cores do.",
            "short",
            {
                "{{pool}} waiting": recorded("pool:waiting:sum"),
                "{{pool}} hidden": recorded("pool:hidden_queue:sum"),
            },
        ),
        DashboardPanel(
            "Served from caches",
            "Shares of prompt tokens and of pictures that engines had from earlier requests. "
            "Worry when two runs that are compared differ here: they did not ask for the same work.",
            "percentunit",
            {
                "{{pool}} prompt tokens": recorded("pool:prefix_cache_hits:ratio_rate5m"),
                "{{pool}} pictures": recorded("pool:mm_cache_hits:ratio_rate5m"),
            },
            most=1,
        ),
        DashboardPanel(
            "Load generator",
            "Share of a core that the busiest process of a `make loadtest` on this host takes; 0 while none runs here. "
            "Worry above 85 %, the dashed line: the run then measures its generator and not the cluster.",
            "percentunit",
            {"busiest process": "max(manyeyes_loadtest_generator_cpu_share) or vector(0)"},
            line_at=0.85,
            width=24,
            height=6,
        ),
    ),
)

DASHBOARD = Dashboard(
    "loadtest", "Load test", "What was sent, what came of it, and what a change brought.", (RUNS, OVER_TIME), span="1h"
)
