"""What the controller tells Prometheus about itself and the engines."""

import contextlib

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from config.engines import Engine
from controller.state import State

# A second series for each, with the time of its first value, that nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

ENGINE_STATE = Gauge(
    "manyeyes_engine_state",
    "1 for the state an engine is in, 0 for the others.",
    ["engine", "pool", "flavour", "state"],
)
TRANSITIONS = Counter("manyeyes_engine_transitions_total", "Changes of state.", ["engine", "pool", "state"])
PROBES = Counter("manyeyes_probes_total", "Looks at /health by what was seen.", ["engine", "seen"])
PROBE_SECONDS = Histogram(
    "manyeyes_probe_seconds",
    "Time of one look at /health.",
    ["engine"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30),
)
CONFIG_REFUSED = Gauge(
    "manyeyes_config_refused", "1 while cluster.yaml or the API keys cannot be used, so that older ones are in force."
)
CONFIG_REFUSALS = Counter(
    "manyeyes_config_refusals_total", "Configurations that could not be used, by what was wrong.", ["reason"]
)
CONFIG_APPLIED = Gauge(
    "manyeyes_config_applied_timestamp_seconds", "When a configuration came into force last, as Unix time."
)
CONFIG_NEEDS = Gauge(
    "manyeyes_config_needs", "Things that the configuration in force needs a person for: GET /api/configuration."
)
GATEWAY_BEHIND = Gauge("manyeyes_gateway_behind", "1 while the gateway does not run on the files that it should.")
GATEWAY_REFUSALS = Counter(
    "manyeyes_gateway_refusals_total", "Sets of files that the gateway refused or did not take over in time."
)
DNS_ANSWERS = Counter("manyeyes_dns_answers_total", "DNS answers by pool and result code.", ["pool", "code"])


def tell_state(engine: Engine, current: State) -> None:
    """Sets the engine's state gauge, all other states to 0, and counts the change."""
    for state in State:
        ENGINE_STATE.labels(engine.name, engine.pool, engine.flavour, state.value).set(state is current)
    TRANSITIONS.labels(engine.name, engine.pool, current.value).inc()


def forget_engine(engine: Engine) -> None:
    """Drops the series of an engine that is no longer there."""
    for state in State:
        with contextlib.suppress(KeyError):
            ENGINE_STATE.remove(engine.name, engine.pool, engine.flavour, state.value)
