"""The table of faults, and what each may cost; the report compares that with what was counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Action = Literal["kill", "pause", "stop"]
FaultCosts = Literal["nothing", "begun", "in flight"]
"""Allowed cost of a fault: nothing; answers that had begun on the failed engine; all requests in flight and until recovery."""


@dataclass(frozen=True)
class FaultPart:
    """A running service. For engines, `pool` is the name of the pool."""

    service: str
    pool: str = ""


@dataclass(frozen=True)
class Fault:
    """`hold_s`: how long a pause or stop lasts before it is undone."""

    name: str
    title: str
    action: Action
    services: tuple[str, ...]
    costs: FaultCosts
    hold_s: float = 0.0


KILLED = "kill -9 of its main process; Docker restarts it"
QUIET = (
    "prometheus",
    "nginx-exporter",
    "grafana",
    "webui",
    "containers",
    "adapter",
    "media",
    "alertmanager",
    "node-exporter",
)
"""Services that no request passes through."""
HUNG_S = 15.0
"""Longer than the 10 s within which a hung engine must be detected."""
STOPPED_S = 10.0
SHORT_S = 3.0


def fault_table(parts: Sequence[FaultPart]) -> list[Fault]:
    engines = [part for part in parts if part.pool]
    running = [part.service for part in parts]
    faults: list[Fault] = []

    def kill(service: str, costs: FaultCosts) -> None:
        faults.append(Fault(f"kill-{service}", f"{service}: {KILLED}", "kill", (service,), costs))

    def add_timed(name: str, title: str, action: Action, service: str, costs: FaultCosts, hold_s: float) -> None:
        faults.append(Fault(name, title.format(f"for {hold_s:.0f} s"), action, (service,), costs, hold_s))

    for part in engines:
        alone = sum(engine.pool == part.pool for engine in engines) == 1
        kill(part.service, "in flight" if alone else "begun")
    if engines:
        of_pool = tuple(part.service for part in engines if part.pool == engines[0].pool)
        # Different engines: an engine that goes down three times in ten minutes is observed for longer before it is used again.
        costs: FaultCosts = "in flight" if len(of_pool) == 1 else "begun"
        first, last = of_pool[0], of_pool[-1]
        add_timed(f"hang-{first}", f"{first} hangs {{}} (docker pause)", "pause", first, costs, HUNG_S)
        add_timed(f"stop-{last}", f"{last} is stopped {{}} (docker stop)", "stop", last, costs, STOPPED_S)
        if len(of_pool) > 2:
            title = f"all of {engines[0].pool} but one: {KILLED}"
            faults.append(Fault("kill-all-but-one", title, "kill", of_pool[:-1], "begun"))
    if "controller" in running:
        kill("controller", "nothing")
        add_timed(
            "dns-silent", "DNS gives no answer {} (controller paused)", "pause", "controller", "nothing", STOPPED_S
        )
        add_timed("dns-away", "DNS is unreachable {} (controller stopped)", "stop", "controller", "nothing", STOPPED_S)
    for name in QUIET:
        if name in running:
            kill(name, "nothing")
    if "prometheus" in running:
        add_timed("stop-prometheus", "prometheus is stopped {}", "stop", "prometheus", "nothing", SHORT_S)
    if "gateway" in running:
        kill("gateway", "in flight")
        add_timed("hang-gateway", "gateway hangs {} (docker pause)", "pause", "gateway", "nothing", SHORT_S)
        add_timed("stop-gateway", "gateway is stopped {} (docker stop)", "stop", "gateway", "in flight", SHORT_S)
    return faults


def choose_faults(faults: Sequence[Fault], names: str) -> list[Fault]:
    """The faults in `names`, separated by commas; all if it is empty. Raises ValueError with a one-sentence message."""
    if not names:
        return list(faults)
    requested = [name.strip() for name in names.split(",") if name.strip()]
    known = {fault.name: fault for fault in faults}
    if unknown := [name for name in requested if name not in known]:
        raise ValueError(f"unknown fault {', '.join(unknown)}. Use {', '.join(known)}")
    return [known[name] for name in requested]
