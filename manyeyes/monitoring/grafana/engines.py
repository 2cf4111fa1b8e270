"""The Engines dashboard as data: which engine has a problem, and why? `build.py` renders it as JSON.

Prometheus adds the labels `engine`, `pool` and `flavour` to engines' metrics; vLLM's own `engine` label, a number,
becomes `exported_engine`.
"""

from manyeyes.monitoring.grafana.panels import POOL, SELECTED, Dashboard, DashboardPanel, DashboardRow, rate, recorded

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
"""The engine states of `manyeyes/controller/health/state_machine.py` as numbers, because a timeline draws numbers."""


def state_number() -> str:
    """Query for the number of each engine's state; the series of a state is 1 or 0."""
    series = (f'{number} * manyeyes_engine_state{{{SELECTED}, state="{state}"}}' for number, state, _ in STATES)
    return f"max by (pool, engine) ({' or '.join(series)})"


def share_of_pool() -> str:
    """Query for each engine's share of the requests that its pool's engines answered.

    It has no value while there are no requests.
    """
    pool_total = f"sum by (pool) (pool_engine:requests:rate1m{{{POOL}}})"
    return f"{recorded('pool_engine:requests:rate1m')} / on (pool) group_left {pool_total}"


COMPARISON = DashboardRow(
    "Which engine?",
    (
        DashboardPanel(
            "Engine states",
            "The state of each engine over time. "
            "Worry about red, and about an engine that changes its state repeatedly: it restarts, or it is too busy to answer its probes.",
            "short",
            {"{{engine}}": state_number()},
            kind="state-timeline",
            width=16,
            names=STATES,
        ),
        DashboardPanel(
            "Balance",
            "Requests of the busiest engine of a pool divided by those of the least busy engine that is up, in the last five minutes; 1 is balanced. "
            "Worry above 2 under load: Share of each engine shows which engine it is. Values in the hundreds mean that an engine is up but gets no requests.",
            "suffix: ×",
            {"{{pool}}": recorded("pool:balance:ratio")},
            no_value_text="no requests",
        ),
        DashboardPanel(
            "Requests of each engine",
            "Completed requests per second, by the engine that answered last. "
            "Worry when an engine differs from the others of its pool for minutes under load: it is slower, it fails, or it has most conversations.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Share of each engine",
            "Each engine's share of the requests that its pool's engines answered. "
            "Worry when it differs much from 1 / number of engines while many users send requests: a few long chats are never balanced.",
            "percentunit",
            {"{{engine}}": share_of_pool()},
            max_value=1,
            no_value_text="no requests",
        ),
        DashboardPanel(
            "Failed attempts",
            "Share of attempts in which the gateway got no answer from an engine, over five minutes; users saw a retry or an error. "
            "Worry about an engine with a much higher share: it receives requests and does not answer them, although it counts as up.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:failed_attempts:ratio_rate5m")},
        ),
        DashboardPanel(
            "Request time, p95 of each engine",
            "Time within which 19 of 20 answers of an engine were complete, over five minutes. "
            "Worry about an engine far above the others of its pool: it is hot, short of memory, or on a slower GPU.",
            "s",
            {"{{engine}}": recorded("pool_engine:request_seconds:p95")},
        ),
        DashboardPanel(
            "First token, p95 of each engine",
            "TTFT measured by the engine: the queue, image preprocessing and prefill, over five minutes. "
            "Worry when an engine is far above the others: requests wait there (see Running and waiting).",
            "s",
            {"{{engine}}": recorded("pool_engine:first_token_seconds:p95")},
        ),
        DashboardPanel(
            "Aborted and failed answers",
            "Requests that ended without a complete answer; vLLM sends an aborted answer with status 200, so nginx does not notice it. "
            "Worry at any value above 0 that lasts: an engine is stopped while it has requests, or it has internal errors.",
            "reqps",
            {
                "{{engine}} {{finished_reason}}": rate(
                    "vllm:request_success_total", "engine, finished_reason", SELECTED, 'finished_reason=~"abort|error"'
                )
            },
        ),
    ),
)

CAUSES = DashboardRow(
    "Why?",
    (
        DashboardPanel(
            "Running and waiting",
            "Requests that run in each engine, and requests in its queue. "
            "Worry when requests wait for minutes (the pool is too small), or wait at one engine while another engine has none.",
            "short",
            {
                "{{engine}} running": f"manyeyes_engine_running{{{SELECTED}}}",
                "{{engine}} waiting": f"manyeyes_engine_waiting{{{SELECTED}}}",
            },
        ),
        DashboardPanel(
            "Hidden queue",
            "Requests inside an engine that neither run nor wait: the CPU preprocesses their images. "
            "Worry when it grows while the GPU has little to do: send fewer or smaller images, or add cores or an engine.",
            "short",
            {"{{engine}}": f"manyeyes_engine_hidden_queue{{{SELECTED}}}"},
        ),
        DashboardPanel(
            "KV cache in use",
            "Used share of the KV cache, the memory for the keys and values of running requests. "
            "Worry above 90 %: the next requests wait, or running requests are preempted (see Preemptions).",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:kv_cache_use:max")},
            max_value=1,
            line_at=0.9,
        ),
        DashboardPanel(
            "Preemptions",
            "Requests that were removed from the KV cache and are computed again, per second. "
            "Worry above 0: users wait for the same work twice; lower max_num_seqs or max_model_len of the pool, or add an engine.",
            "suffix: /s",
            {"{{engine}}": recorded("pool_engine:preemptions:rate5m")},
        ),
        DashboardPanel(
            "Tokens generated by each engine",
            "Generated tokens per second. "
            "Worry when an engine generates far fewer than the others of its pool with as many running requests: its GPU is throttled or shared.",
            "suffix: tokens/s",
            {"{{engine}}": recorded("pool_engine:generation_tokens:rate1m")},
        ),
        DashboardPanel(
            "Inter-token latency, p95",
            "Time between two tokens (ITL), per pool, over five minutes. "
            "Worry above 0.1 s, slower than people read: too many requests run concurrently, or long prefills delay the tokens of other requests.",
            "s",
            {"{{pool}}": recorded("pool:inter_token_seconds:p95")},
        ),
        DashboardPanel(
            "Prompt tokens from cache",
            "Prefix cache hits: share of prompt tokens whose keys and values were cached by an earlier request, mostly the previous turn. "
            "Worry when it drops although users chat as before: session affinity fails, or the engine's cache is too small.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:prefix_cache_hits:ratio_rate5m")},
            max_value=1,
        ),
        DashboardPanel(
            "Images from cache",
            "Share of images that the engine had already preprocessed, which saves resizing and encoding. "
            "Worry when it drops together with Prompt tokens from cache; if every image is new, 0 is normal.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:mm_cache_hits:ratio_rate5m")},
            max_value=1,
        ),
        DashboardPanel(
            "Duration of the health check",
            "Time in which an engine answers the controller's health check, or until its timeout. "
            "Worry above a second without much load: the process lacks CPU time, or it hangs. A busy engine may take seconds and stays up.",
            "s",
            {"{{engine}}": f"manyeyes_probe_duration_seconds{{{SELECTED}}}"},
        ),
    ),
)

DASHBOARD = Dashboard("engines", "Engines", "Shows which engine has a problem, and why.", (COMPARISON, CAUSES))
