"""`manyeyes restart-rolling|drain|resume`: restarts and drains engines while the cluster serves requests."""

from collections.abc import Sequence
from pathlib import Path

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
    describe_error,
    restart,
)
from manyeyes.cli.invocation import next_command
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError, Step, print_line, print_ok, print_warning, step
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import load
from manyeyes.config.placement import PlacedCluster, load_inventory, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_settings
from manyeyes.render.rendered_file import write_files

IMAGES_OF_ENGINES = ("VLLM_CUDA_IMAGE", "VLLM_CPU_IMAGE", "EMULATOR_IMAGE")
MODELS = "models"
"""The Compose service that downloads models."""


def restart_rolling(config: Path, pool: str) -> None:
    """Restarts all engines that Compose runs (of one pool), one after the other, with the flags of the
    configuration."""
    cluster, compose = running_cluster(config)
    names = [engine.name for engine in cluster.started_engines if pool in ("", engine.pool)]
    if pool and pool not in [served_pool.name for served_pool in cluster.pools]:
        raise CliError(
            f"POOL: expected one of {', '.join(served_pool.name for served_pool in cluster.served_pools)}, got {pool}"
        )
    running = {row["Service"] for row in compose.containers()}
    if missing := [name for name in names if name not in running]:
        print_warning(f"not running, so not restarted: {', '.join(missing)}. `make up` starts them.")
    drained = [
        name
        for name, status in EngineContainers(cluster, compose).query_engines().items()
        if status.state == DRAINING and name in names
    ]
    if drained:
        print_warning(
            f"drained, so not restarted: {', '.join(drained)}. "
            f"`{next_command('resume', drained[0], config=config)}` ends the drain."
        )
    names = [name for name in names if name in running and name not in drained]
    if not names:
        raise CliError("there is no engine to restart. `make up` starts engines.")
    print_line(f"ManyEyes, {config}: {len(names)} engine{'s' if len(names) > 1 else ''}, one after the other")
    restart_one_by_one(cluster, compose, names)
    gateway_client.print_pending_changes(compose, cluster)


def running_cluster(config: Path) -> tuple[PlacedCluster, Compose]:
    """Returns the running cluster, and renders the files of its engines again for this host. Raises CliError."""
    file = started_services.usable_file(config)
    configured = load(file)
    compose = Compose(configured.name)
    compose.require_running()
    inventory_file = ROOT / compose.rendered / "inventory.yaml"
    if not inventory_file.exists():
        raise CliError("this cluster was not started by `make up`. Run `make up` first.")
    inventory = load_inventory(inventory_file)
    cluster = place_engines(configured, inventory)
    if compose.subnet() != str(cluster.network.subnet):
        raise CliError(
            f"network.subnet is {cluster.network.subnet}, but the cluster runs in another network. Run `make up`."
        )
    render_engines(cluster, ROOT / compose.rendered, file.read_text(encoding="utf-8"))
    return cluster, compose


def render_engines(cluster: PlacedCluster, folder: Path, configuration: str) -> None:
    """Renders the files of engines only, and stores the text of their configuration. Other changes are not rendered,
    because they wait for `make up`."""
    files = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != started_services.NAME
    }
    files["engines.yaml"] = engines_yaml(cluster)
    files[started_services.CONFIGURATION] = configuration
    images = {f"{name}=": value for name, value in compose_settings(cluster).items() if name in IMAGES_OF_ENGINES}
    lines = files["compose.env"].splitlines()
    files["compose.env"] = "".join(
        next((f"{name}{value}\n" for name, value in images.items() if line.startswith(name)), f"{line}\n")
        for line in lines
    )
    write_files(files, folder, unchanged=frozenset({started_services.NAME}))


def restart_one_by_one(cluster: PlacedCluster, compose: Compose, names: Sequence[str]) -> None:
    """Restarts `names` and reports each. Raises CliError if an engine does not come back; the others continue to
    serve."""
    _download_models(compose)
    _warn_about_single_engines(cluster, names)
    engines, times = EngineContainers(cluster, compose), restart_times(cluster)
    for number, name in enumerate(names, start=1):
        title = f"{name} ({number} of {len(names)})"
        with step(title) as current:
            reporter = _ProgressReporter(current, title)
            try:
                restart([name], times, engines, reporter)
            except RestartFailed as error:
                raise CliError(
                    f"{name} did not come back: {error.reason}. {_describe_other_engines(names[number:])}",
                    details=compose.logs(name, 25),
                ) from error
            except LeftOutOfRotation as error:
                remedy = "`make up` starts it" if error.may_be_stopped else f"`manyeyes resume {name}` puts it back"
                details = getattr(error.cause, "details", "") or getattr(error.put_back_error, "details", "")
                raise CliError(describe_left_out(error, remedy), details=details) from error
            except CliError as error:
                raise CliError(
                    f"{name} could not be restarted: {describe_error(error)}. {_describe_other_engines(names[number:])}",
                    details=error.details,
                ) from error
            except KeyboardInterrupt:
                current.title = f"{title}: interrupted; it gets requests again when it is up"
                raise
            current.outcome = f"{title} is back"
        _warn_about_unfinished(cluster, name, reporter.progress)


def describe_left_out(error: LeftOutOfRotation, remedy: str) -> str:
    """Returns a sentence with the cause and what to do."""
    consequence = f"{error.name} may be {'stopped' if error.may_be_stopped else 'out of rotation'}: {remedy}"
    if isinstance(error.cause, KeyboardInterrupt) and isinstance(error.put_back_error, KeyboardInterrupt):
        return f"interrupted; {consequence}"
    return (
        f"{error.name} could not be restarted: {describe_error(error.cause)}. "
        f"It could not be put back into rotation: {describe_error(error.put_back_error)}. {consequence}"
    )


def _describe_other_engines(untouched: Sequence[str]) -> str:
    skipped = f" Not restarted: {', '.join(untouched)}." if untouched else ""
    return f"The other engines continue to serve.{skipped}"


class _ProgressReporter:
    """Shows the phase of the restart in the title of the step."""

    def __init__(self, current: Step, title: str) -> None:
        self.current, self.title, self.progress = current, title, Restart()

    def __call__(self, progress: Restart, observation: Observation) -> None:
        self.progress = progress
        self.current.title = f"{self.title} {progress.phase.value}"
        is_waiting = progress.phase is Phase.FINISHING and observation.in_flight
        self.current.note = f"{_format_request_count(observation.in_flight)} in flight" if is_waiting else ""


def _warn_about_single_engines(cluster: PlacedCluster, names: Sequence[str]) -> None:
    for name, pool in cluster.engines_alone_in_pool.items():
        if name in names:
            fallback = cluster.pool(pool).fallback
            consequence = f"its fallback {fallback} answers" if fallback else "clients get 503"
            print_warning(f"{name} is the only engine of pool {pool}: while it restarts, {consequence}")


def _warn_about_unfinished(cluster: PlacedCluster, name: str, progress: Restart) -> None:
    if progress.unfinished_requests != 0:
        requests = _format_request_count(progress.unfinished_requests)
        print_warning(
            f"{name} was stopped with {requests} in flight after {cluster.shutdown.finish_s} s (shutdown.finish_s); "
            f"vLLM gave the requests {cluster.shutdown.drain_s} s more"
        )


def _format_request_count(number: int | None) -> str:
    return "an unknown number of requests" if number is None else f"{number} request{'' if number == 1 else 's'}"


def _download_models(compose: Compose) -> None:
    """Downloads the models of the engines, if they changed."""
    folder = ROOT / compose.rendered
    rendered = started_services.rendered_services(folder).get(MODELS)
    if rendered is None or rendered == started_services.services(folder).get(MODELS):
        return
    with step("downloading models") as current:
        try:
            compose("up", "--no-deps", "--no-build", "--pull", "never", "--exit-code-from", MODELS, MODELS)
        except CommandFailed as error:
            output = compose.logs(MODELS).strip()
            raise CliError("the models could not be downloaded", details=output or error.output) from error
        current.outcome = "models are present"
    started_services.record(folder, [MODELS])


def drain(config: Path, engine: str) -> None:
    """Takes the engine out of rotation until it is resumed, and prints its number of requests in flight."""
    cluster, compose = _open_cluster(config, engine)
    engine_status = gateway_client.drain(compose, cluster, engine, "manyeyes drain")
    print_ok(
        f"{engine} gets no new requests; {_format_request_count(engine_status['in_flight'])} in flight. "
        f"`{next_command('resume', engine, config=config)}` ends the drain."
    )


def resume(config: Path, engine: str) -> None:
    cluster, compose = _open_cluster(config, engine)
    engine_status = gateway_client.resume(compose, cluster, engine, "manyeyes resume")
    print_ok(f"{engine} gets requests again" + ("" if engine_status["state"] == "up" else " when it is up"))


def _open_cluster(config: Path, engine: str) -> tuple[Cluster, Compose]:
    configured = started_services.configuration(config)
    compose = Compose(configured.name)
    if not engine:
        names = (
            ", ".join(sorted(EngineContainers(configured, compose).query_engines()))
            or "unknown, the gateway does not answer"
        )
        raise CliError(f"no engine was given. The engines are: {names}")
    compose.require_running()
    return configured, compose
