"""The command line `manyeyes`; the Makefile calls it as `python -m manyeyes.cli`.

Exit codes: 0 done; 1 not reached (or a bug, with its traceback); 2 the host, the configuration or the command line; 130 Ctrl-C.
Commands import what they need when they run, so that `--help` and shell completion answer immediately.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from manyeyes.cli.invocation import DEFAULT_CONFIG, enter_checkout
from manyeyes.cli.measurement_commands import add_measurement_commands

CLUSTER, HOST, CONFIGURATION, LOAD = "The cluster", "This host", "The configuration", "Load and figures"


class Flavour(StrEnum):
    """What engines run on."""

    CUDA = "cuda"
    CPU = "cpu"
    EMULATED = "emulated"


class CommandGroup(TyperGroup):
    """Turns what a command raises into sentences and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            code = super().invoke(ctx)
        except KeyboardInterrupt:
            from manyeyes.cli.terminal import print_interrupted

            raise typer.Exit(print_interrupted()) from None
        except Exception as error:
            from manyeyes.cli.terminal import print_known_error

            if (code := print_known_error(error)) is None:
                raise
        if code:
            raise typer.Exit(code)


app = typer.Typer(
    cls=CommandGroup,
    help="Serves Qwen3-VL on many GPUs behind one OpenAI-compatible address.",
    epilog="Exit codes: 0 done, 1 not reached, 2 host, configuration or command line, 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", help="The cluster's configuration.", callback=enter_checkout),
]
FlavourOption = Annotated[
    Flavour | None, typer.Option("--flavour", help="What `engines: auto` runs on; default: what this host has.")
]
ControllerUrl = Annotated[str, typer.Option("--controller", metavar="URL", help="Ask this one, not this host's.")]
PrometheusUrl = Annotated[str, typer.Option("--prometheus", metavar="URL", help="Ask this one, not this host's.")]


@app.command(rich_help_panel=CLUSTER)
def up(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> None:
    """Bring everything up: look at this host, get images, start, send a first request."""
    from manyeyes.cli.up import up

    up(config, flavour or "")


@app.command(rich_help_panel=CLUSTER)
def down(config: Config = DEFAULT_CONFIG) -> None:
    """Stop and remove everything; models and metrics stay."""
    from manyeyes.cli.up import down

    down(config, volumes=False)


@app.command(rich_help_panel=CLUSTER)
def clean(config: Config = DEFAULT_CONFIG) -> None:
    """As down, and remove models, caches and metrics too."""
    from manyeyes.cli.up import down

    down(config, volumes=True)


@app.command(rich_help_panel=CLUSTER)
def status(
    config: Config = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", help="Until Ctrl-C.")] = False,
    controller: ControllerUrl = "",
    prometheus: PrometheusUrl = "",
) -> int:
    """Users, pools, engines, alerts and events. 1: a pool has no engine."""
    from manyeyes.cli.status import status

    return status(config, watch, controller, prometheus)


@app.command(rich_help_panel=CLUSTER)
def report(
    config: Config = DEFAULT_CONFIG,
    hours: Annotated[float, typer.Option(help="How far back.")] = 1.0,
    out: Annotated[str, typer.Option(metavar="FILE", help="Default: build/report/.")] = "",
    controller: ControllerUrl = "",
    prometheus: PrometheusUrl = "",
) -> None:
    """One page of the last hours."""
    from manyeyes.cli.status import report

    report(config, hours, out, controller, prometheus)


@app.command(rich_help_panel=CLUSTER)
def scale(
    engines: Annotated[str, typer.Argument(help="How many, or auto.")] = "",
    pool: Annotated[str, typer.Option(help="Needed where there are several.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> int:
    """How many engines of a pool run; auto lets the load decide. 1: not within its time."""
    from manyeyes.cli.gateway_client import scale

    return scale(config, engines, pool)


@app.command(rich_help_panel=CLUSTER)
def drain(engine: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Give an engine no new requests until it is resumed."""
    from manyeyes.cli.rolling_restart import drain

    drain(config, engine)


@app.command(rich_help_panel=CLUSTER)
def resume(engine: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Let a drained engine in again."""
    from manyeyes.cli.rolling_restart import resume

    resume(config, engine)


@app.command(rich_help_panel=CLUSTER)
def restart_rolling(
    pool: Annotated[str, typer.Option(help="Only this one's engines.")] = "", config: Config = DEFAULT_CONFIG
) -> None:
    """Restart engines one after the other, with no lost request."""
    from manyeyes.cli.rolling_restart import restart_rolling

    restart_rolling(config, pool)


@app.command(rich_help_panel=CLUSTER)
def upgrade(image: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Give engines another image, one after the other."""
    from manyeyes.cli.upgrade import upgrade

    upgrade(config, image)


@app.command(rich_help_panel=CLUSTER)
def backup(
    out: Annotated[str, typer.Option(metavar="FILE", help="Default: build/backup/.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Configuration, secrets, keys, state and Grafana in one file."""
    from manyeyes.cli.backup import backup

    backup(config, out)


@app.command(rich_help_panel=CLUSTER)
def restore(source: Annotated[str, typer.Argument(metavar="FILE")] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Put a backup back, while the cluster is down."""
    from manyeyes.cli.backup import restore

    restore(config, source)


@app.command(rich_help_panel=CLUSTER)
def logs(
    part: Annotated[str, typer.Option(help="gateway, controller, an engine's name, engine for all.")] = "",
    since: Annotated[str, typer.Option(help="10m, 2h, or a date.")] = "",
    level: Annotated[str, typer.Option(help="debug, info, warning, error: this and above.")] = "",
    request: Annotated[str, typer.Option(metavar="ID", help="What happened to one request.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Lines as they were written.")] = False,
    follow: Annotated[bool, typer.Option(help="Until Ctrl-C.")] = True,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Follow what every part logs, or trace one request."""
    from manyeyes.cli.logs import LogFilter, show, show_request, started_compose

    compose = started_compose(config)
    if request:
        show_request(compose, request, raw=raw)
    else:
        show(compose, LogFilter(part, since, level.lower(), raw, follow))


@app.command(rich_help_panel=CLUSTER)
def locust(config: Config = DEFAULT_CONFIG) -> None:
    """Start Locust's page, at /locust/ of the running cluster."""
    from manyeyes.cli.compose import Compose
    from manyeyes.config.loader import load

    compose = Compose(load(config).name)
    compose.must_run()
    compose("--profile", "loadtest", "up", "--detach", "--wait", "--no-recreate", "loadtest")


@app.command(rich_help_panel=HOST)
def doctor(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> int:
    """Needed X, found Y: what this host has; changes nothing."""
    from manyeyes.cli.doctor import doctor

    return doctor(config, flavour or "")


@app.command(rich_help_panel=HOST)
def docker(config: Config = DEFAULT_CONFIG) -> None:
    """Install Docker and Compose (Debian, Ubuntu, as root) and start the engine."""
    from manyeyes.cli.docker_install import install

    install()


@app.command(rich_help_panel=HOST)
def images(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> None:
    """Build every image here from Debian packages and PyPI, where none can be pulled."""
    from manyeyes.cli import docker_install
    from manyeyes.cli.images import provide
    from manyeyes.cli.up import plan
    from manyeyes.config.loader import load

    cluster, _ = plan(load(config), flavour or "", docker_install.ensure())
    provide(cluster, pull=False)


@app.command(rich_help_panel=HOST)
def pin_images(config: Config = DEFAULT_CONFIG) -> None:
    """Write third-party images with today's digests into the configuration."""
    from manyeyes.cli.upgrade import pin_images

    pin_images(config)


@app.command(rich_help_panel=CONFIGURATION)
def check_config(
    files: Annotated[list[Path] | None, typer.Argument(help="Instead of --config.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> int:
    """Every problem of the configuration, its keys and its users."""
    from manyeyes.cli.config_commands import check_config

    return check_config(files or [config])


@app.command(rich_help_panel=CONFIGURATION)
def key(
    name: str,
    requests_per_minute: Annotated[int | None, typer.Option(help="Its limit.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Its limit.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Make an API key and print it once."""
    from manyeyes.cli.config_commands import make_key

    make_key(config, name, requests_per_minute, in_flight)


@app.command(rich_help_panel=CONFIGURATION)
def keys(config: Config = DEFAULT_CONFIG) -> None:
    """The API keys by name, and their limits."""
    from manyeyes.cli.config_commands import list_keys

    list_keys(config)


@app.command(rich_help_panel=CONFIGURATION)
def user(name: str, config: Config = DEFAULT_CONFIG) -> None:
    """Let a person log in to the page, or set a new password."""
    from manyeyes.cli.config_commands import make_user

    make_user(config, name)


@app.command(rich_help_panel=CONFIGURATION)
def admin_key(config: Config = DEFAULT_CONFIG) -> None:
    """Print the key for changes of the running cluster (docs/api.md)."""
    from manyeyes.cli import secrets
    from manyeyes.cli.terminal import print_line

    print_line(secrets.read_admin_key())


@app.command(rich_help_panel=CONFIGURATION)
def render(
    inventory: Annotated[Path | None, typer.Option(help="What the host has; default: two GPUs of 24 GiB.")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("compose/rendered/default"),
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write what a plain `docker compose up` reads."""
    from manyeyes.cli.config_commands import render_compose

    render_compose(config, inventory, out)


@app.command(rich_help_panel=CONFIGURATION)
def kubernetes(
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("deploy/kubernetes"), config: Config = DEFAULT_CONFIG
) -> None:
    """Write the Kustomize tree for Kubernetes (docs/kubernetes.md)."""
    from manyeyes.cli.config_commands import render_kubernetes

    render_kubernetes(config, out)


@app.command(rich_help_panel=CONFIGURATION)
def swarm(
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("deploy/swarm"), config: Config = DEFAULT_CONFIG
) -> None:
    """Write the stacks for `docker stack deploy` (docs/kubernetes.md)."""
    from manyeyes.cli.config_commands import render_swarm

    render_swarm(config, out)


@app.command(rich_help_panel=CONFIGURATION)
def docs(config: Config = DEFAULT_CONFIG) -> None:
    """Write the generated documents, the JSON Schema and the dashboards."""
    from manyeyes.cli.config_commands import write_references
    from manyeyes.cli.measurement_commands import require_group

    require_group("docs", "test")
    write_references()


add_measurement_commands(app, LOAD)


def run() -> None:
    """The console script. Exits."""
    app(prog_name="manyeyes")


if __name__ == "__main__":
    run()
