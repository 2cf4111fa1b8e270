"""The command line `manyeyes`. The Makefile calls it as `python -m manyeyes.cli`.

Exit codes: 0 success; 1 the goal was not reached, or a bug (with a traceback); 2 a problem with the host, the
configuration or the command line; 130 Ctrl-C. Each command imports its modules when it runs, so that `--help` and shell
completion are fast.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from manyeyes.cli.invocation import DEFAULT_CONFIG
from manyeyes.cli.measurement_commands import add_measurement_commands
from manyeyes.cli.options import Config, ControllerUrl, FlavourOption, PrometheusUrl

CLUSTER, HOST, CONFIGURATION, LOAD = "The cluster", "This host", "The configuration", "Load tests and measurements"


class CommandGroup(TyperGroup):
    """Turns the exceptions of a command into messages and an exit code."""

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
    help="Serves vision-language models on several GPUs behind one OpenAI-compatible address.",
    epilog="Exit codes: 0 success, 1 goal not reached, 2 problem with host, configuration or command line, 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(rich_help_panel=CLUSTER)
def up(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> None:
    """Start the cluster: check this host, get images, start containers, send a first request."""
    from manyeyes.cli.up import up

    up(config, flavour or "")


@app.command(rich_help_panel=CLUSTER)
def down(config: Config = DEFAULT_CONFIG) -> None:
    """Stop and remove all containers. Models and metrics are not deleted."""
    from manyeyes.cli.up import down

    down(config, volumes=False)


@app.command(rich_help_panel=CLUSTER)
def clean(config: Config = DEFAULT_CONFIG) -> None:
    """Same as down, and also delete models, caches and metrics."""
    from manyeyes.cli.up import down

    down(config, volumes=True)


@app.command(rich_help_panel=CLUSTER)
def status(
    config: Config = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", help="Update the output until Ctrl-C.")] = False,
    controller: ControllerUrl = "",
    prometheus: PrometheusUrl = "",
) -> int:
    """Show users, pools, engines, alerts and events. Exits with 1 if a pool has no engine."""
    from manyeyes.cli.status import status

    return status(config, watch, controller, prometheus)


@app.command(rich_help_panel=CLUSTER)
def report(
    config: Config = DEFAULT_CONFIG,
    hours: Annotated[float, typer.Option(help="Hours before now that the report covers.")] = 1.0,
    out: Annotated[str, typer.Option(metavar="FILE", help="Output file. Default: a file in build/report/.")] = "",
    controller: ControllerUrl = "",
    prometheus: PrometheusUrl = "",
) -> None:
    """Write an HTML report of the last hours."""
    from manyeyes.cli.status import report

    report(config, hours, out, controller, prometheus)


@app.command(rich_help_panel=CLUSTER)
def scale(
    engines: Annotated[str, typer.Argument(help="Number of engines, or auto.")] = "",
    pool: Annotated[str, typer.Option(help="Required if there are several pools.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> int:
    """Set the number of running engines of a pool; auto lets the load decide. Exits with 1 on a timeout."""
    from manyeyes.cli.gateway_client import scale

    return scale(config, engines, pool)


@app.command(rich_help_panel=CLUSTER)
def drain(engine: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Drain an engine: it gets no new requests until it is resumed."""
    from manyeyes.cli.rolling_restart import drain

    drain(config, engine)


@app.command(rich_help_panel=CLUSTER)
def resume(engine: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Send requests to a drained engine again."""
    from manyeyes.cli.rolling_restart import resume

    resume(config, engine)


@app.command(rich_help_panel=CLUSTER)
def restart_rolling(
    pool: Annotated[str, typer.Option(help="Restart only the engines of this pool.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Restart engines one after the other, without lost requests."""
    from manyeyes.cli.rolling_restart import restart_rolling

    restart_rolling(config, pool)


@app.command(rich_help_panel=CLUSTER)
def upgrade(image: Annotated[str, typer.Argument()] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Restart engines with another image, one after the other."""
    from manyeyes.cli.upgrade import upgrade

    upgrade(config, image)


@app.command(rich_help_panel=CLUSTER)
def backup(
    out: Annotated[str, typer.Option(metavar="FILE", help="Output file. Default: a file in build/backup/.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Save configuration, secrets, keys, state and Grafana's data in one file."""
    from manyeyes.cli.backup import backup

    backup(config, out)


@app.command(rich_help_panel=CLUSTER)
def restore(source: Annotated[str, typer.Argument(metavar="FILE")] = "", config: Config = DEFAULT_CONFIG) -> None:
    """Restore a backup. The cluster must be down."""
    from manyeyes.cli.backup import restore

    restore(config, source)


@app.command(rich_help_panel=CLUSTER)
def logs(
    part: Annotated[str, typer.Option(help="gateway, controller, an engine's name, or engine for all engines.")] = "",
    since: Annotated[str, typer.Option(help="Start time: 10m, 2h, or a date.")] = "",
    level: Annotated[str, typer.Option(help="Minimum level: debug, info, warning or error.")] = "",
    request: Annotated[str, typer.Option(metavar="ID", help="Trace the request with this id.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Print lines unformatted.")] = False,
    follow: Annotated[bool, typer.Option(help="Print new lines until Ctrl-C.")] = True,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Show the logs of all parts, or trace one request."""
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
    from manyeyes.cli.started_services import configuration

    compose = Compose(configuration(config).name)
    compose.require_running()
    compose("--profile", "loadtest", "up", "--detach", "--wait", "--no-recreate", "loadtest")


@app.command(rich_help_panel=HOST)
def doctor(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> int:
    """Check this host: needed X, found Y. Changes nothing."""
    from manyeyes.cli.doctor import doctor

    return doctor(config, flavour or "")


@app.command(rich_help_panel=HOST)
def docker(config: Config = DEFAULT_CONFIG) -> None:
    """Install Docker and Compose (Debian or Ubuntu, as root) and start Docker's engine."""
    from manyeyes.cli.docker_install import install

    install()


@app.command(rich_help_panel=HOST)
def images(config: Config = DEFAULT_CONFIG, flavour: FlavourOption = None) -> None:
    """Build missing images on this host, from Debian packages and PyPI."""
    from manyeyes.cli import docker_install
    from manyeyes.cli.images import provide
    from manyeyes.cli.up import plan
    from manyeyes.config.loader import load

    cluster, _ = plan(load(config), flavour or "", docker_install.ensure())
    provide(cluster, pull=False, config=config)


@app.command(rich_help_panel=HOST)
def pin_images(config: Config = DEFAULT_CONFIG) -> None:
    """Write the current digests of third-party images into the configuration."""
    from manyeyes.cli.upgrade import pin_images

    pin_images(config)


@app.command(rich_help_panel=CONFIGURATION)
def check_config(
    files: Annotated[list[Path] | None, typer.Argument(help="Files to check instead of --config.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> int:
    """Check the configuration, the API keys and the users, and report all problems."""
    from manyeyes.cli.config_commands import check_config

    return check_config(files or [config])


@app.command(rich_help_panel=CONFIGURATION)
def key(
    name: str,
    requests_per_minute: Annotated[int | None, typer.Option(help="Maximum requests per minute.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Maximum concurrent requests.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Create an API key and print it once."""
    from manyeyes.cli.config_commands import make_key

    make_key(config, name, requests_per_minute, in_flight)


@app.command(rich_help_panel=CONFIGURATION)
def keys(config: Config = DEFAULT_CONFIG) -> None:
    """List the API keys and their limits."""
    from manyeyes.cli.config_commands import list_keys

    list_keys(config)


@app.command(rich_help_panel=CONFIGURATION)
def user(name: str, config: Config = DEFAULT_CONFIG) -> None:
    """Add a user of the web page, or set a new password."""
    from manyeyes.cli.config_commands import make_user

    make_user(config, name)


@app.command(rich_help_panel=CONFIGURATION)
def admin_key(config: Config = DEFAULT_CONFIG) -> None:
    """Print the admin key, which changes of the running cluster require (docs/api.md)."""
    from manyeyes.cli import secrets
    from manyeyes.cli.terminal import print_line

    print_line(secrets.read_admin_key())


@app.command(rich_help_panel=CONFIGURATION)
def render(
    inventory: Annotated[Path | None, typer.Option(help="The host's hardware. Default: two GPUs of 24 GiB.")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("compose/rendered/default"),
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write the files for a plain `docker compose up`."""
    from manyeyes.cli.config_commands import render_compose

    render_compose(config, inventory, out)


@app.command(rich_help_panel=CONFIGURATION)
def kubernetes(
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("deploy/kubernetes"), config: Config = DEFAULT_CONFIG
) -> None:
    """Write the Kustomize files for Kubernetes (docs/beyond-one-box.md)."""
    from manyeyes.cli.config_commands import render_kubernetes
    from manyeyes.cli.secrets import ensure_page_key

    ensure_page_key()
    render_kubernetes(config, out)


@app.command(rich_help_panel=CONFIGURATION)
def swarm(
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("deploy/swarm"), config: Config = DEFAULT_CONFIG
) -> None:
    """Write the stacks for `docker stack deploy` (docs/beyond-one-box.md)."""
    from manyeyes.cli.config_commands import render_swarm
    from manyeyes.cli.secrets import ensure_page_key

    ensure_page_key()
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
    """Runs the console script and exits."""
    app(prog_name="manyeyes")


if __name__ == "__main__":
    run()
