"""`make restart-rolling`, `make drain`, `make resume`: engines go and come back while users are on."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from config.cluster import Cluster
from config.inventory import Inventory
from config.layout import lay_out
from config.load import load
from host import controller, started
from host.command import ROOT, CommandFailed
from host.compose import Compose
from host.containers import Containers, rules
from host.restart import LeftOut, NotBack, in_words, restart
from host.rolling import HELD, Phase, Seen, Turn
from host.terminal import Step, attention, ok, say, step
from host.trouble import Trouble
from render.engines import engines_yaml
from render.environment import settings_of
from render.write import write

IMAGES_OF_ENGINES = ("VLLM_CUDA_IMAGE", "VLLM_CPU_IMAGE", "EMULATOR_IMAGE")
MODELS = "models"
"""The service that downloads."""


def restart_rolling(config: Path, pool: str) -> None:
    """Every engine that Compose runs (of one pool), one after the other, with the flags that the configuration has now."""
    cluster, compose = running(config)
    names = [one.name for one in cluster.started_engines if pool in ("", one.pool)]
    if pool and pool not in [one.name for one in cluster.pools]:
        raise Trouble(f"POOL={pool} is no pool; there are {', '.join(one.name for one in cluster.served_pools)}")
    there = {row["Service"] for row in compose.containers()}
    if missing := [name for name in names if name not in there]:
        attention(f"not started, so not restarted: {', '.join(missing)} (make up)")
    drained = [name for name, one in Containers(cluster, compose).look().items() if one.state == HELD and name in names]
    if drained:
        attention(f"drained, so left alone: {', '.join(drained)} (make resume ENGINE={drained[0]} lets it in)")
    names = [name for name in names if name in there and name not in drained]
    if not names:
        raise Trouble("there is no engine of ours to restart")
    say(f"ManyEyes, {config}: {len(names)} engine{'s' if len(names) > 1 else ''}, one after the other")
    roll(cluster, compose, names)
    controller.tell_needs(compose, cluster)


def running(config: Path) -> tuple[Cluster, Compose]:
    """The cluster that runs, with its files rendered anew for the host that `make up` found. Raises Trouble."""
    written = load(config)
    compose = Compose(written.name)
    compose.must_run()
    inventory_file = ROOT / compose.rendered / "inventory.yaml"
    if not inventory_file.exists():
        raise Trouble("this cluster was not started by `make up`; run that first")
    inventory = Inventory.model_validate(yaml.safe_load(inventory_file.read_text(encoding="utf-8")))
    cluster = lay_out(written, inventory)
    if compose.subnet() != str(cluster.network.subnet):
        raise Trouble(f"network.subnet is {cluster.network.subnet} and the cluster runs in another one: make up")
    render_engines(cluster, ROOT / compose.rendered)
    return cluster, compose


def render_engines(cluster: Cluster, folder: Path) -> None:
    """What concerns engines; everything else stays as it was applied, so that what waits for `make up` is not forgotten."""
    files = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != started.NAME
    }
    files["engines.yaml"] = engines_yaml(cluster)
    images = {f"{name}=": value for name, value in settings_of(cluster).items() if name in IMAGES_OF_ENGINES}
    lines = files["compose.env"].splitlines()
    files["compose.env"] = "".join(
        next((f"{name}{value}\n" for name, value in images.items() if line.startswith(name)), f"{line}\n")
        for line in lines
    )
    write(files, folder, kept=frozenset({started.NAME}))


def roll(cluster: Cluster, compose: Compose, names: Sequence[str]) -> None:
    """Restarts `names`, telling each. Raises Trouble when one does not come back; the others keep serving."""
    _bring_models(compose)
    _tell_alone(cluster, names)
    engines, times = Containers(cluster, compose), rules(cluster)
    for number, name in enumerate(names, start=1):
        told = f"{name} ({number} of {len(names)})"
        with step(told) as current:
            teller = _Teller(current, told)
            try:
                restart([name], times, engines, teller)
            except NotBack as error:
                raise Trouble(
                    f"{name} is not back: {error.why}. {_others(names[number:])}",
                    details=compose.logs(name, 25),
                ) from error
            except LeftOut as error:
                remedy = "make up starts it" if error.may_be_stopped else f"make resume ENGINE={name} lets it in"
                details = getattr(error.cause, "details", "") or getattr(error.again, "details", "")
                raise Trouble(left_out(error, remedy), details=details) from error
            except Trouble as error:
                raise Trouble(
                    f"{name} could not be restarted: {in_words(error)}. {_others(names[number:])}",
                    details=error.details,
                ) from error
            except KeyboardInterrupt:
                current.title = f"{told}: interrupted, and let in again as soon as it is up"
                raise
            current.outcome = f"{told} is back"
        _tell_left_behind(cluster, name, teller.turn)


def left_out(error: LeftOut, remedy: str) -> str:
    """What ended it, and what to do."""
    may = f"{error.name} may be {'stopped' if error.may_be_stopped else 'out of rotation'}: {remedy}"
    if isinstance(error.cause, KeyboardInterrupt) and isinstance(error.again, KeyboardInterrupt):
        return f"interrupted; {may}"
    return f"{error.name} could not be restarted: {in_words(error.cause)}. It could not be put back: {in_words(error.again)}. {may}"


def _others(untouched: Sequence[str]) -> str:
    return "The other engines keep serving." + (f" Not touched: {', '.join(untouched)}." if untouched else "")


class _Teller:
    """Shows where the turn is beside the step's clock."""

    def __init__(self, current: Step, title: str) -> None:
        self.current, self.title, self.turn = current, title, Turn()

    def __call__(self, turn: Turn, seen: Seen) -> None:
        self.turn = turn
        self.current.title = f"{self.title} {turn.phase.value}"
        waits = turn.phase is Phase.FINISHING and seen.in_flight
        self.current.note = f"{_requests(seen.in_flight)} in flight" if waits else ""


def alone_in_pool(cluster: Cluster) -> dict[str, str]:
    """{engine: its pool} of engines whose pool has no other."""
    pools = [engine.pool for engine in cluster.explicit_engines]
    return {engine.name: engine.pool for engine in cluster.explicit_engines if pools.count(engine.pool) == 1}


def _tell_alone(cluster: Cluster, names: Sequence[str]) -> None:
    for name, pool in alone_in_pool(cluster).items():
        if name in names:
            after = cluster.pool(pool).fallback
            instead = f"its fallback {after} answers" if after else "its users get 503"
            attention(f"{name} is alone in pool {pool}: while it is away {instead}")


def _tell_left_behind(cluster: Cluster, name: str, turn: Turn) -> None:
    if turn.left_behind != 0:
        many = _requests(turn.left_behind)
        attention(
            f"{name} was stopped with {many} in flight after {cluster.shutdown.finish_s} s (shutdown.finish_s); "
            f"vLLM gave them {cluster.shutdown.drain_s} s more"
        )


def _requests(number: int | None) -> str:
    return "an unknown number of requests" if number is None else f"{number} request{'' if number == 1 else 's'}"


def _bring_models(compose: Compose) -> None:
    """Downloads what engines will ask for, where that is something else than before."""
    folder = ROOT / compose.rendered
    wanted = started.wanted(folder).get(MODELS)
    if wanted is None or wanted == started.services(folder).get(MODELS):
        return
    with step("bringing models") as current:
        try:
            compose("up", "--no-deps", "--no-build", "--pull", "never", "--exit-code-from", MODELS, MODELS)
        except CommandFailed as error:
            said = compose.logs(MODELS).strip()
            raise Trouble("the models could not be brought here", details=said or error.output) from error
        current.outcome = "models are here"
    started.note(folder, [MODELS])


def drain(config: Path, engine: str) -> None:
    """`make drain ENGINE=`: out of rotation until `make resume`; says what it still works on."""
    cluster, compose = _named(config, engine)
    after = controller.drain(compose, cluster, engine, "make drain")
    ok(
        f"{engine} gets no new requests; {_requests(after['in_flight'])} in flight. make resume ENGINE={engine} lets it in."
    )


def resume(config: Path, engine: str) -> None:
    """`make resume ENGINE=`."""
    cluster, compose = _named(config, engine)
    after = controller.resume(compose, cluster, engine, "make resume")
    ok(f"{engine} gets requests as soon as it is up" + ("" if after["state"] != "up" else ", which it is"))


def _named(config: Path, engine: str) -> tuple[Cluster, Compose]:
    written = started.configuration(config)
    compose = Compose(written.name)
    if not engine:
        names = ", ".join(sorted(Containers(written, compose).look())) or "none that answers"
        raise Trouble(f"which engine? Say ENGINE=name; there are: {names}")
    compose.must_run()
    return written, compose
