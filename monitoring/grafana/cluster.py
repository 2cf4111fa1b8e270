"""The Cluster dashboard as data: its variables, its rows, its panels. `build.py` makes JSON of it.

Prometheus puts `engine`, `pool` and `flavour` on what it scrapes from engines; vLLM's own `engine` label, a number,
is called `exported_engine` there.
"""

from monitoring.grafana.panel import CHOSEN, Dashboard, Panel, Row

STATES = (
    (1, "unknown", "text"),
    (2, "starting", "blue"),
    (3, "warming", "yellow"),
    (4, "up", "green"),
    (5, "suspect", "orange"),
    (6, "draining", "purple"),
    (7, "sleeping", "dark-blue"),
    (8, "down", "red"),
)
"""`controller/state.py`'s states of engines, by number, because a timeline draws numbers."""


def rate(counter: str, by: str, where: str = "") -> str:
    """What the chosen engines count per second."""
    matchers = f"{CHOSEN}, {where}" if where else CHOSEN
    return f"sum by ({by}) (rate({counter}{{{matchers}}}[$__rate_interval]))"


def quantile(share: float, histogram: str) -> str:
    """The time that this share of requests stays below, per pool: that is what a pool's users see."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', 'pool, le')})"


def share(part: str, whole: str) -> str:
    """One counter's share of another, per engine. Nothing is drawn while nothing is counted."""
    return f"{rate(part, 'engine')} / {rate(whole, 'engine')}"


def state_number() -> str:
    """Per engine the number of the state it is in: each state's series is 1 or 0."""
    series = (f'{number} * manyeyes_engine_state{{{CHOSEN}, state="{state}"}}' for number, state, _ in STATES)
    return f"max by (pool, engine) ({' or '.join(series)})"


USERS = Row(
    "Are users well?",
    (
        Panel(
            "Answers per engine",
            "Requests that each engine finished, per second. "
            "Worry when engines of one pool differ for minutes under load: one is slower than the others or holds all conversations.",
            "reqps",
            {"{{engine}}": rate("vllm:request_success_total", "engine")},
        ),
        Panel(
            "Aborted and failed answers",
            "Requests that ended without a whole answer; vLLM sends an aborted one with status 200, so nginx does not see it. "
            "Worry at anything above 0 that lasts: an engine is being stopped while it has work, or it fails inside.",
            "reqps",
            {
                "{{engine}} {{finished_reason}}": rate(
                    "vllm:request_success_total", "engine, finished_reason", 'finished_reason=~"abort|error"'
                )
            },
        ),
        Panel(
            "Time to the first token",
            "How long users look at nothing, per pool, measured in the engine: the wait in its queue, the picture and the prompt. "
            "Worry when p95 grows while p50 does not: some wait in a queue (see Running and waiting).",
            "s",
            {
                "p50 {{pool}}": quantile(0.5, "vllm:time_to_first_token_seconds"),
                "p95 {{pool}}": quantile(0.95, "vllm:time_to_first_token_seconds"),
            },
        ),
        Panel(
            "Whole answer, p95",
            "From a request's arrival at its engine to its last token; 19 of 20 are faster. "
            "Worry when it grows while tokens per second do not: there are more users than the engines can serve.",
            "s",
            {"{{pool}}": quantile(0.95, "vllm:e2e_request_latency_seconds")},
        ),
        Panel(
            "Between two tokens, p95",
            "The pace at which text appears. "
            "Worry above 0.1 s, slower than people read: too many requests run at once, or long prompts come between the tokens of others.",
            "s",
            {"{{pool}}": quantile(0.95, "vllm:inter_token_latency_seconds")},
        ),
        Panel(
            "Tokens",
            "Text written and prompt read (pictures are prompt tokens too), per second: the work that is done. "
            "Worry when it stays flat while requests wait: this is all that the engines can do.",
            "suffix: tokens/s",
            {
                "generated {{pool}}": rate("vllm:generation_tokens_total", "pool"),
                "prompt {{pool}}": rate("vllm:prompt_tokens_total", "pool"),
            },
        ),
    ),
)

UP = Row(
    "Who is up?",
    (
        Panel(
            "Engines up",
            "Engines of each pool that get new requests, as the controller sees it. "
            "Worry at 0: the pool answers 503 or falls back to the next one. No data: the controller itself is gone, nginx keeps the last engines.",
            "short",
            {"{{pool}}": f'sum by (pool) (manyeyes_engine_state{{{CHOSEN}, state=~"up|suspect"}})'},
            kind="stat",
            width=5,
            colours=((0, "red"), (1, "green")),
        ),
        Panel(
            "Engines not up",
            "Engines of each pool that are known and get no new requests: starting, warming, draining, sleeping or down. "
            "Worry when it is above 0 for longer than a start takes, a minute or two.",
            "short",
            {"{{pool}}": f'sum by (pool) (manyeyes_engine_state{{{CHOSEN}, state!~"up|suspect"}})'},
            kind="stat",
            width=5,
            colours=((0, "green"), (1, "orange")),
        ),
        Panel(
            "Engine states",
            "The state of each engine over time. "
            "Worry about red, and about an engine that goes to and fro: it restarts, or it is too busy to answer its probes.",
            "short",
            {"{{engine}}": state_number()},
            kind="state-timeline",
            width=14,
            names=STATES,
        ),
    ),
)

WHY = Row(
    "Why?",
    (
        Panel(
            "Running and waiting",
            "Requests that each engine works on, and those in its queue. "
            "Worry when requests wait for minutes (the pool is too small), or wait at one engine while another has none.",
            "short",
            {
                "{{engine}} running": f"sum by (engine) (vllm:num_requests_running{{{CHOSEN}}})",
                "{{engine}} waiting": f"sum by (engine) (vllm:num_requests_waiting{{{CHOSEN}}})",
            },
        ),
        Panel(
            "KV cache in use",
            "Share of the memory for running requests' keys and values that is taken. "
            "Worry above 90 %: the next requests wait, or running ones are thrown out (see Preemptions).",
            "percentunit",
            {"{{engine}}": f"max by (engine) (vllm:kv_cache_usage_perc{{{CHOSEN}}})"},
            most=1,
            line_at=0.9,
        ),
        Panel(
            "Preemptions",
            "Requests thrown out of the KV cache and begun anew, per second. "
            "Worry above 0: users wait for the same work twice; lower max_num_seqs or max_model_len of the pool, or add an engine.",
            "suffix: /s",
            {"{{engine}}": rate("vllm:num_preemptions_total", "engine")},
        ),
        Panel(
            "Prompt tokens from cache",
            "Share of prompt tokens whose keys and values were still there from an earlier request, mostly the turns before. "
            "Worry when it drops while people chat as before: conversations no longer return to their engine, or its cache is too small.",
            "percentunit",
            {"{{engine}}": share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")},
            width=12,
            most=1,
        ),
        Panel(
            "Pictures from cache",
            "Share of pictures that the engine had prepared before, so that resizing and encoding were saved. "
            "Worry when it drops together with Prompt tokens from cache; with every picture new it is rightly 0.",
            "percentunit",
            {"{{engine}}": share("vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total")},
            width=12,
            most=1,
        ),
    ),
)

GATEWAY = Row(
    "Gateway",
    (
        Panel(
            "Connections",
            "Connections that nginx holds open: waiting for an answer or getting one (writing), sending a request (reading), idle (waiting). "
            "Worry when writing grows without end (engines do not answer), or near worker_connections in nginx.conf, 8192 per core.",
            "short",
            {
                "writing": 'sum(nginx_connections_writing{job="gateway"})',
                "reading": 'sum(nginx_connections_reading{job="gateway"})',
                "waiting": 'sum(nginx_connections_waiting{job="gateway"})',
            },
            width=12,
        ),
        Panel(
            "Requests",
            "All that nginx was asked per second, the page and health checks included, beside what the chosen engines finished. "
            "Worry when the first grows and the second does not: requests are refused or fail (nginx's log says which).",
            "reqps",
            {
                "asked of nginx": 'sum(rate(nginx_http_requests_total{job="gateway"}[$__rate_interval]))',
                "finished by engines": f"sum(rate(vllm:request_success_total{{{CHOSEN}}}[$__rate_interval]))",
            },
            width=12,
        ),
    ),
)

DASHBOARD = Dashboard("cluster", "Cluster", "Are users well, who is up, and why.", (USERS, UP, WHY, GATEWAY))
