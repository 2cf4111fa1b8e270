"""`manyeyes restart-rolling|drain|resume`: engines go and come back while users are on."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from manyeyes.cli import gateway_client, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.engine_containers import EngineContainers, restart_times
from manyeyes.cli.engine_restart import (
    DRAINING,
    LeftOutOfRotation,
    Observation,
    Phase,
    Restart,
    RestartFailed,
    in_words,
    restart,
)
from manyeyes.cli.invocation import next_command
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError, Step, print_line, print_ok, print_warning, step
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory, PlacedCluster, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_settings
from manyeyes.render.rendered_file import write_files

IMAGES_OF_ENGINES = ("VLLM_CUDA_IMAGE", "VLLM_CPU_IMAGE", "EMULATOR_IMAGE")
MODELS = "models"
"""The service that downloads."""


def restart_rolling(config: Path, pool: str) -> None:
    """Every engine that Compose runs (of one pool), one after the other, with the flags that the configuration has now."""
    cluster, compose = running_cluster(config)
    names = [one.name for one in cluster.started_engines if pool in ("", one.pool)]
    if pool and pool not in [one.name for one in cluster.pools]:
        raise CliError(f"POOL={pool} is no pool; there are {', '.join(one.name for one in cluster.served_pools)}")
    there = {row["Service"] for row in compose.containers()}
    if missing := [name for name in names if name not in there]:
        print_warning(f"not started, so not restarted: {', '.join(missing)} (make up)")
    drained = [
        name
        for name, one in EngineContainers(cluster, compose).look().items()
        if one.state == DRAINING and name in names
    ]
    if drained:
        print_warning(
            f"drained, so left alone: {', '.join(drained)} ({next_command('resume', drained[0], config=config)} lets it in)"
        )
    names = [name for name in names if name in there and name not in drained]
    if not names:
        raise CliError("there is no engine of ours to restart")
    print_line(f"ManyEyes, {config}: {len(names)} engine{'s' if len(names) > 1 else ''}, one after the other")
    restart_one_by_one(cluster, compose, names)
    gateway_client.print_pending_changes(compose, cluster)


def running_cluster(config: Path) -> tuple[PlacedCluster, Compose]:
    """The cluster that runs, with its files rendered anew for the host that `make up` found. Raises CliError."""
    written = load(config)
    compose = Compose(written.name)
    compose.must_run()
    inventory_file = ROOT / compose.rendered / "inventory.yaml"
    if not inventory_file.exists():
        raise CliError("this cluster was not started by `make up`; run that first")
    inventory = Inventory.model_validate(yaml.safe_load(inventory_file.read_text(encoding="utf-8")))
    cluster = place_engines(written, inventory)
    if compose.subnet() != str(cluster.network.subnet):
        raise CliError(f"network.subnet is {cluster.network.subnet} and the cluster runs in another one: make up")
    render_engines(cluster, ROOT / compose.rendered)
    return cluster, compose


def render_engines(cluster: PlacedCluster, folder: Path) -> None:
    """What concerns engines; everything else stays as it was applied, so that what waits for `make up` is not forgotten."""
    files = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != started_services.NAME
    }
    files["engines.yaml"] = engines_yaml(cluster)
    images = {f"{name}=": value for name, value in compose_settings(cluster).items() if name in IMAGES_OF_ENGINES}
    lines = files["compose.env"].splitlines()
    files["compose.env"] = "".join(
        next((f"{name}{value}\n" for name, value in images.items() if line.startswith(name)), f"{line}\n")
        for line in lines
    )
    write_files(files, folder, kept=frozenset({started_services.NAME}))


def restart_one_by_one(cluster: PlacedCluster, compose: Compose, names: Sequence[str]) -> None:
    """Restarts `names`, telling each. Raises CliError when one does not come back; the others keep serving."""
    _bring_models(compose)
    _tell_alone(cluster, names)
    engines, times = EngineContainers(cluster, compose), restart_times(cluster)
    for number, name in enumerate(names, start=1):
        told = f"{name} ({number} of {len(names)})"
        with step(told) as current:
            teller = _Teller(current, told)
            try:
                restart([name], times, engines, teller)
            except RestartFailed as error:
                raise CliError(
                    f"{name} is not back: {error.why}. {_others(names[number:])}",
                    details=compose.logs(name, 25),
                ) from error
            except LeftOutOfRotation as error:
                remedy = "make up starts it" if error.may_be_stopped else f"manyeyes resume {name} lets it in"
                details = getattr(error.cause, "details", "") or getattr(error.again, "details", "")
                raise CliError(left_out(error, remedy), details=details) from error
            except CliError as error:
                raise CliError(
                    f"{name} could not be restarted: {in_words(error)}. {_others(names[number:])}",
                    details=error.details,
                ) from error
            except KeyboardInterrupt:
                current.title = f"{told}: interrupted, and let in again as soon as it is up"
                raise
            current.outcome = f"{told} is back"
        _tell_left_behind(cluster, name, teller.turn)


def left_out(error: LeftOutOfRotation, remedy: str) -> str:
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
        self.current, self.title, self.turn = current, title, Restart()

    def __call__(self, turn: Restart, seen: Observation) -> None:
        self.turn = turn
        self.current.title = f"{self.title} {turn.phase.value}"
        waits = turn.phase is Phase.FINISHING and seen.in_flight
        self.current.note = f"{_requests(seen.in_flight)} in flight" if waits else ""


def _tell_alone(cluster: PlacedCluster, names: Sequence[str]) -> None:
    for name, pool in cluster.engines_alone_in_pool.items():
        if name in names:
            after = cluster.pool(pool).fallback
            instead = f"its fallback {after} answers" if after else "its users get 503"
            print_warning(f"{name} is alone in pool {pool}: while it is away {instead}")


def _tell_left_behind(cluster: PlacedCluster, name: str, turn: Restart) -> None:
    if turn.left_behind != 0:
        many = _requests(turn.left_behind)
        print_warning(
            f"{name} was stopped with {many} in flight after {cluster.shutdown.finish_s} s (shutdown.finish_s); "
            f"vLLM gave them {cluster.shutdown.drain_s} s more"
        )


def _requests(number: int | None) -> str:
    return "an unknown number of requests" if number is None else f"{number} request{'' if number == 1 else 's'}"


def _bring_models(compose: Compose) -> None:
    """Downloads what engines will ask for, where that is something else than before."""
    folder = ROOT / compose.rendered
    wanted = started_services.rendered_services(folder).get(MODELS)
    if wanted is None or wanted == started_services.services(folder).get(MODELS):
        return
    with step("bringing models") as current:
        try:
            compose("up", "--no-deps", "--no-build", "--pull", "never", "--exit-code-from", MODELS, MODELS)
        except CommandFailed as error:
            said = compose.logs(MODELS).strip()
            raise CliError("the models could not be brought here", details=said or error.output) from error
        current.outcome = "models are here"
    started_services.record(folder, [MODELS])


def drain(config: Path, engine: str) -> None:
    """Out of rotation until it is resumed; says what it still works on."""
    cluster, compose = _named(config, engine)
    after = gateway_client.drain(compose, cluster, engine, "manyeyes drain")
    print_ok(
        f"{engine} gets no new requests; {_requests(after['in_flight'])} in flight. {next_command('resume', engine, config=config)} lets it in."
    )


def resume(config: Path, engine: str) -> None:
    cluster, compose = _named(config, engine)
    after = gateway_client.resume(compose, cluster, engine, "manyeyes resume")
    print_ok(f"{engine} gets requests as soon as it is up" + ("" if after["state"] != "up" else ", which it is"))


def _named(config: Path, engine: str) -> tuple[Cluster, Compose]:
    written = started_services.configuration(config)
    compose = Compose(written.name)
    if not engine:
        names = ", ".join(sorted(EngineContainers(written, compose).look())) or "none that answers"
        raise CliError(f"which engine? Name one of these: {names}")
    compose.must_run()
    return written, compose
