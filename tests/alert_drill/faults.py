"""Each fault: what is done, how it is undone, and which alerts it must raise. At 60 times the pace, so that minutes are seconds."""

import contextlib
import copy
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.monitored_cluster import DRILL, MonitoredCluster
from tests.integration.certificate import certificate

Act = Callable[[MonitoredCluster], None]

POOLS: list[dict[str, Any]] = [
    {"name": "big", "model": "org/Big-VL", "fallback": "small"},
    {"name": "small", "model": "org/Small-VL"},
    {"name": "tight", "model": "org/Tight-VL", "max_in_flight": 1},
]
ENGINES = {"big-0": "big", "big-1": "big", "small-0": "small", "tight-0": "tight"}


def document() -> dict[str, Any]:
    """Of the stand that faults are done to."""
    return {
        "pools": copy.deepcopy(POOLS),
        "engines": [{"name": name, "pool": pool} for name, pool in ENGINES.items()],
        # Found and let in again as quickly as alerts decide here.
        "controller": {
            "probe_interval_s": 0.5,
            "load_interval_s": 0.5,
            "flap_downs": 100,
            "containers": False,
            "register_loopback": True,
        },
        "monitoring": dict(DRILL),
    }


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    name: str
    what: str
    do: Act
    undo: Act
    raises: frozenset[tuple[str, str]]
    """(alert, what it is about)."""
    within_s: float
    """From the fault to the last of its alerts, at this pace."""
    may: frozenset[str] = frozenset()
    """Alerts that may come too, because they are about the same thing."""
    asked: str = "big"
    """The pool that users ask meanwhile."""
    users: int = 6
    heals: bool = True
    """Every engine is up again after the repair, while the gateway answers at all."""


def kill(*engines: str) -> Act:
    def do(watched: MonitoredCluster) -> None:
        for engine in engines:
            watched.local_cluster.kill(engine)

    return do


def start(*engines: str) -> Act:
    def do(watched: MonitoredCluster) -> None:
        for engine in engines:
            watched.local_cluster.start_engine(engine)

    return do


def fault(kind: str, *engines: str, **values: Any) -> Act:
    def do(watched: MonitoredCluster) -> None:
        for engine in engines:
            url = f"http://127.0.0.1:{watched.local_cluster.ports[engine]}/emulator/faults"
            assert httpx.post(url, json={"kind": kind, **values}, trust_env=False).status_code == 200

    return do


def mended(*engines: str) -> Act:
    def do(watched: MonitoredCluster) -> None:
        for engine in engines:
            httpx.delete(f"http://127.0.0.1:{watched.local_cluster.ports[engine]}/emulator/faults", trust_env=False)

    return do


def configured(change: Callable[[dict[str, Any]], None]) -> Act:
    """cluster.yaml as it was, with a change."""

    def do(watched: MonitoredCluster) -> None:
        changed = copy.deepcopy(watched.local_cluster.document)
        change(changed)
        kept = watched.local_cluster.document
        watched.local_cluster.configure(changed)
        watched.local_cluster.document = kept

    return do


def as_before(watched: MonitoredCluster) -> None:
    watched.local_cluster.configure(watched.local_cluster.document)


def flap(watched: MonitoredCluster) -> None:
    """Six times, so that three are in the quarter of a minute that is looked back on, however slow the machine is."""

    def state() -> str:
        pools = watched.local_cluster.healthz()["pools"]
        return str(next(one["state"] for pool in pools for one in pool["engines"] if one["name"] == "big-1"))

    for _ in range(6):
        watched.local_cluster.kill("big-1")
        eventually(lambda: state() == "down", 20, 0.1, "it is down")
        watched.local_cluster.start_engine("big-1")
        eventually(lambda: state() == "up", 20, 0.1, "it is up")


def refused_by_pager(watched: MonitoredCluster) -> None:
    watched.receiver.is_rejecting = True
    configured(lambda changed: changed.update(pools=[]))(watched)


def taken_by_pager(watched: MonitoredCluster) -> None:
    watched.receiver.is_rejecting = False
    as_before(watched)


def with_short_certificate(watched: MonitoredCluster) -> None:
    secrets = watched.local_cluster.folder / "secrets"
    secrets.mkdir(exist_ok=True)
    certificate(secrets)  # for two days
    configured(lambda changed: changed.update(gateway={"tls": {}}))(watched)


def limit(value: int) -> Act:
    def do(watched: MonitoredCluster) -> None:
        (watched.textfile / "loadtest.prom").write_text(f"manyeyes_loadtest_limit {value}\n")

    return do


def elsewhere_gone(watched: MonitoredCluster) -> None:
    """A pool that is served elsewhere comes, is reached, and goes."""
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    away = {"name": "away", "model": "org/Away-VL", "remote": {"url": url}}
    configured(
        lambda changed: (
            changed["pools"].append(away),
            changed["controller"].update(remote_interval_s=0.5),
        )[0]
    )(watched)
    reachable = 'manyeyes_remote_reachable{pool="away"} == 1'
    eventually(lambda: watched.ask("query", query=reachable)["result"], 20, 0.2, "it is reached")
    server.close()


TAKING_OVER = frozenset({"GatewayConfigOutdated"})
"""nginx takes over other files in seconds, which are minutes at this pace."""

FAULTS: tuple[Fault, ...] = (
    Fault(
        "engine-killed", "one engine of two is killed", kill("big-0"), start("big-0"),
        frozenset({("EngineDown", "big-0")}), 30,
    ),
    Fault(
        "pool-killed-with-fallback", "all engines of a pool are killed, another pool is the fallback",
        kill("big-0", "big-1"), start("big-0", "big-1"),
        frozenset({("EngineDown", "big-0"), ("EngineDown", "big-1"), ("RunningOnFallback", "big")}), 30,
    ),
    Fault(
        "pool-killed", "the only engine of a pool without a fallback is killed", kill("small-0"), start("small-0"),
        frozenset({("EngineDown", "small-0"), ("PoolEmpty", "small"), ("ErrorBurnFast", "small")}), 30, may=frozenset({"ErrorBurnSlow"}),
        asked="small",
    ),
    Fault(
        "errors", "the only engine of a pool answers every other request with 500",
        fault("errors", "small-0", rate=0.5), mended("small-0"),
        frozenset({("ErrorBurnFast", "small")}), 45,
        may=frozenset({"ErrorBurnSlow", "EngineFailing", "PoolEmpty", "EngineDown", "EngineFlapping"}), asked="small",
    ),
    Fault(
        "some-errors", "one engine of two answers every fourth request with 500; users see none of it",
        fault("errors", "big-1", rate=0.25), mended("big-1"),
        frozenset({("EngineFailing", "big-1")}), 60, may=frozenset({"EngineDown", "EngineFlapping"}), users=12,
    ),
    Fault(
        "slow", "both engines of a pool are a hundred times slower", fault("slow", "big-0", "big-1", factor=100),
        mended("big-0", "big-1"), frozenset({("LatencyBurnFast", "big")}), 120, may=frozenset({"LatencyBurnSlow"}),
        users=12,
    ),
    Fault(
        "flapping", "an engine dies and comes back six times", flap, lambda watched: None,
        frozenset({("EngineFlapping", "big-1"), ("EngineRestarts", "big-1")}), 30,
        may=frozenset({"EngineDown", "EngineFailing"}),
    ),
    Fault(
        "full", "a pool that takes one request at a time is asked by eight users", lambda watched: None, lambda watched: None,
        frozenset({("TurnedAway", "tight")}), 40, asked="tight", users=8,
    ),
    Fault(
        "configuration", "cluster.yaml without a pool", configured(lambda changed: changed.update(pools=[])), as_before,
        frozenset({("ConfigRefused", "controller")}), 30, may=TAKING_OVER,
    ),
    Fault(
        "gateway-behind", "TLS is switched on and its certificate is missing",
        configured(lambda changed: changed.update(gateway={"tls": {}})), as_before,
        frozenset({("GatewayConfigOutdated", "controller")}), 60,
    ),
    Fault(
        "controller-killed", "the controller is killed", lambda watched: watched.local_cluster.kill("controller"),
        lambda watched: watched.local_cluster.start_controller(), frozenset({("TargetMissing", "controller")}), 30,
    ),
    Fault(
        "gateway-killed", "nginx is killed", lambda watched: watched.local_cluster.kill("nginx", signal.SIGKILL),
        lambda watched: watched.local_cluster.restart_nginx(), frozenset({("GatewayDown", "gateway")}), 30, may=TAKING_OVER, users=0,
    ),
    Fault(
        "exporter-killed", "the gateway's exporter is killed", lambda watched: watched.kill("gateway"),
        lambda watched: watched.start("gateway"), frozenset({("TargetMissing", "gateway")}), 30,
    ),
    Fault(
        "elsewhere-gone", "nothing listens any more where a pool is served", elsewhere_gone, as_before,
        frozenset({("RemoteUnreachable", "away")}), 15, may=TAKING_OVER,
    ),
    Fault(
        "pager-refuses", "the webhook answers 404 while an alert fires", refused_by_pager, taken_by_pager,
        frozenset({("ConfigRefused", "controller"), ("AlertsNotDelivered", "webhook")}), 60, may=TAKING_OVER,
    ),
    Fault(
        "generator", "the load test says that its generator is at its limit", limit(1), limit(0),
        frozenset({("LoadGeneratorLimit", "node")}), 15,
    ),
    Fault(
        "certificate", "the gateway's certificate ends in two days", with_short_certificate, as_before,
        frozenset({("CertificateEndsSoon", "tls.crt")}), 30, may=TAKING_OVER, users=0, heals=False,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Drilled:
    """What came of one fault. Seconds at the drill's pace."""

    fault: str
    raised_s: dict[str, float]
    """By alert and what it is about."""
    others: list[str]
    cleared_s: float


def drill(watched: MonitoredCluster, one: Fault, seen: Callable[[], object] = lambda: True) -> Drilled:
    """Does it, waits for its alerts, undoes it, waits until none is left. Raises AssertionError where one does not come, or stays.

    The fault lasts until `seen()` is true: who watches Alertmanager sees an alert later than who watches Prometheus.
    """
    eventually(lambda: not watched.firing(), 120, 0.5, "no alert before the fault")
    raised: dict[tuple[str, str], float] = {}
    load = chat_load(watched.local_cluster.url, one.asked, users=one.users) if one.users else contextlib.nullcontext()

    def look(began_s: float) -> set[tuple[str, str]]:
        for alert in watched.firing():
            raised.setdefault(alert, time.monotonic() - began_s)
        return set(raised)

    with load:
        began_s = time.monotonic()
        one.do(watched)
        eventually(lambda: one.raises <= look(began_s), one.within_s, 0.2, f"{one.name} raises {sorted(one.raises)}")
        eventually(seen, 60, 0.2, f"{one.name} is seen")
        others = look(began_s) - one.raises
        one.undo(watched)
        undone_s = time.monotonic()
    if one.heals:
        watched.local_cluster.all_up(set(ENGINES))
    eventually(lambda: look(began_s) and not watched.firing(), 150, 0.5, f"{one.name} is over")
    others |= set(raised) - one.raises
    return Drilled(
        one.name,
        {f"{name} {thing}": round(raised[name, thing], 1) for name, thing in sorted(one.raises)},
        sorted(f"{name} {thing}" for name, thing in others if name not in one.may),
        round(time.monotonic() - undone_s, 1),
    )
