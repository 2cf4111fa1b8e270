"""The Engines dashboard as data: which one, and why? `build.py` makes JSON of it.

Prometheus puts `engine`, `pool` and `flavour` on what it scrapes from engines; vLLM's own `engine` label, a number,
is called `exported_engine` there.
"""

from manyeyes.monitoring.grafana.panels import CHOSEN, POOL, Dashboard, DashboardPanel, DashboardRow, rate, recorded

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
"""`manyeyes/controller/health/state_machine.py`'s states of engines, by number, because a timeline draws numbers."""


def state_number() -> str:
    """Per engine the number of the state it is in: each state's series is 1 or 0."""
    series = (f'{number} * manyeyes_engine_state{{{CHOSEN}, state="{state}"}}' for number, state, _ in STATES)
    return f"max by (pool, engine) ({' or '.join(series)})"


def share_of_pool() -> str:
    """Each engine's part of what its pool's engines answered. Nothing is drawn while nothing is asked."""
    whole = f"sum by (pool) (pool_engine:requests:rate1m{{{POOL}}})"
    return f"{recorded('pool_engine:requests:rate1m')} / on (pool) group_left {whole}"


WHICH = DashboardRow(
    "Which one?",
    (
        DashboardPanel(
            "Engine states",
            "The state of each engine over time. "
            "Worry about red, and about an engine that goes to and fro: it restarts, or it is too busy to answer its probes.",
            "short",
            {"{{engine}}": state_number()},
            kind="state-timeline",
            width=16,
            names=STATES,
        ),
        DashboardPanel(
            "Balance",
            "Requests of the busiest engine of a pool over those of the least busy one that is up, in the last five minutes; 1 is even. "
            "Worry above 2 under load: see Share of each engine for which it is. Hundreds mean that one that is up gets nothing.",
            "suffix: ×",
            {"{{pool}}": recorded("pool:balance:ratio")},
            none="nobody asks",
        ),
        DashboardPanel(
            "Requests of each engine",
            "Requests that ended, per second, by the engine that answered last. "
            "Worry when one line leaves those of its pool for minutes under load: it is slower, failing, or holds all conversations.",
            "reqps",
            {"{{engine}}": recorded("pool_engine:requests:rate1m")},
        ),
        DashboardPanel(
            "Share of each engine",
            "Each engine's part of what its pool's engines answered. "
            "Worry when it stays far from one over the number of engines, as long as many people ask: a few long chats are never even.",
            "percentunit",
            {"{{engine}}": share_of_pool()},
            most=1,
            none="nobody asks",
        ),
        DashboardPanel(
            "Asked in vain",
            "Share of the times that the gateway asked an engine and got no answer, over five minutes; users saw a retry or an error. "
            "Worry about one that stands out: it gets requests and does not answer them, though the controller takes it for up.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:failed_attempts:ratio_rate5m")},
        ),
        DashboardPanel(
            "Request time, p95 of each engine",
            "Within this time 19 of 20 answers of an engine were complete, over five minutes. "
            "Worry about an engine far above the others of its pool: hot, short of memory, or on a slower GPU.",
            "s",
            {"{{engine}}": recorded("pool_engine:request_seconds:p95")},
        ),
        DashboardPanel(
            "First token, p95 of each engine",
            "Wait in the queue, picture and prompt, as the engine measures it, over five minutes. "
            "Worry when one is far above the others: requests wait there (see Running and waiting).",
            "s",
            {"{{engine}}": recorded("pool_engine:first_token_seconds:p95")},
        ),
        DashboardPanel(
            "Aborted and failed answers",
            "Requests that ended without a whole answer; vLLM sends an aborted one with status 200, so nginx does not see it. "
            "Worry at anything above 0 that lasts: an engine is being stopped while it has work, or it fails inside.",
            "reqps",
            {
                "{{engine}} {{finished_reason}}": rate(
                    "vllm:request_success_total", "engine, finished_reason", CHOSEN, 'finished_reason=~"abort|error"'
                )
            },
        ),
    ),
)

WHY = DashboardRow(
    "Why?",
    (
        DashboardPanel(
            "Running and waiting",
            "Requests that each engine works on, and those in its queue. "
            "Worry when requests wait for minutes (the pool is too small), or wait at one engine while another has none.",
            "short",
            {
                "{{engine}} running": f"manyeyes_engine_running{{{CHOSEN}}}",
                "{{engine}} waiting": f"manyeyes_engine_waiting{{{CHOSEN}}}",
            },
        ),
        DashboardPanel(
            "Hidden queue",
            "Requests inside an engine that neither run nor wait: their pictures are being prepared on its CPU. "
            "Worry when it grows while the GPU has little to do: fewer or smaller pictures, more cores, or another engine.",
            "short",
            {"{{engine}}": f"manyeyes_engine_hidden_queue{{{CHOSEN}}}"},
        ),
        DashboardPanel(
            "KV cache in use",
            "Share of the memory for running requests' keys and values that is taken. "
            "Worry above 90 %: the next requests wait, or running ones are thrown out (see Preemptions).",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:kv_cache_use:max")},
            most=1,
            line_at=0.9,
        ),
        DashboardPanel(
            "Preemptions",
            "Requests thrown out of the KV cache and begun anew, per second. "
            "Worry above 0: users wait for the same work twice; lower max_num_seqs or max_model_len of the pool, or add an engine.",
            "suffix: /s",
            {"{{engine}}": recorded("pool_engine:preemptions:rate5m")},
        ),
        DashboardPanel(
            "Tokens written by each engine",
            "Tokens written per second. "
            "Worry when one writes far less than the others of its pool with as many requests running: its GPU is throttled or shared.",
            "suffix: tokens/s",
            {"{{engine}}": recorded("pool_engine:generation_tokens:rate1m")},
        ),
        DashboardPanel(
            "Between two tokens, p95",
            "The pace at which text appears, per pool, over five minutes. "
            "Worry above 0.1 s, slower than people read: too many requests run at once, or long prompts come between the tokens of others.",
            "s",
            {"{{pool}}": recorded("pool:inter_token_seconds:p95")},
        ),
        DashboardPanel(
            "Prompt tokens from cache",
            "Share of prompt tokens whose keys and values were still there from an earlier request, mostly the turns before. "
            "Worry when it drops while people chat as before: conversations no longer return to their engine, or its cache is too small.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:prefix_cache_hits:ratio_rate5m")},
            most=1,
        ),
        DashboardPanel(
            "Pictures from cache",
            "Share of pictures that the engine had prepared before, so that resizing and encoding were saved. "
            "Worry when it drops together with Prompt tokens from cache; with every picture new it is rightly 0.",
            "percentunit",
            {"{{engine}}": recorded("pool_engine:mm_cache_hits:ratio_rate5m")},
            most=1,
        ),
        DashboardPanel(
            "Answer to the health check",
            "How long an engine takes to answer the controller, or is waited for. "
            "Worry above a second without much work: its process has no CPU left, or it hangs. A busy engine may take seconds and stays up.",
            "s",
            {"{{engine}}": f"manyeyes_probe_duration_seconds{{{CHOSEN}}}"},
        ),
    ),
)

DASHBOARD = Dashboard("engines", "Engines", "Which engine is it, and why.", (WHICH, WHY))
