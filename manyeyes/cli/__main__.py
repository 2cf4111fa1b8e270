"""`python -m manyeyes.cli up|down|status|report|scale|drain|resume|restart-rolling|upgrade|backup|restore|pin-images|doctor|docker|images|admin-key|logs`: what the Makefile calls. Exit codes: 2 the host or the configuration,
130 Ctrl-C, anything else is a bug and shows a traceback."""

import argparse
import os
import sys
from pathlib import Path

from manyeyes.cli import (
    admin_key,
    docker_install,
    doctor,
    env_file,
    gpu_discovery,
    host_info,
    images,
    logs,
    started_services,
)
from manyeyes.cli.backup import backup, restore
from manyeyes.cli.compose import Compose
from manyeyes.cli.errors import CliError
from manyeyes.cli.pin_images import pin_images
from manyeyes.cli.process import ROOT, CommandFailed, end_all
from manyeyes.cli.report import report
from manyeyes.cli.rolling.command import drain, restart_rolling, resume
from manyeyes.cli.scale import scale
from manyeyes.cli.status import status
from manyeyes.cli.terminal import print_error, print_line, print_ok, step
from manyeyes.cli.up import plan, up
from manyeyes.cli.upgrade import upgrade
from manyeyes.config.keys import KeysError, load_keys
from manyeyes.config.loader import ConfigError, keys_path, load
from manyeyes.config.placement import PlacementError

ACTIONS = (
    *("up", "down", "clean", "status", "report", "scale", "drain", "resume", "restart-rolling", "upgrade"),
    *("backup", "restore", "pin-images"),
    *("doctor", "docker", "images", "admin-key", "logs"),
)


def main() -> int:
    os.chdir(ROOT)
    parser = argparse.ArgumentParser(prog="python -m manyeyes.cli", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    parser.add_argument("--flavour", default="")
    parser.add_argument("--engine", default="")
    parser.add_argument("--pool", default="")
    parser.add_argument("--engines", default="")
    parser.add_argument("--image", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--part", default="")
    parser.add_argument("--since", default="")
    parser.add_argument("--level", default="")
    parser.add_argument("--request", default="")
    parser.add_argument("--raw", default="")
    parser.add_argument("--follow", default="yes")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--out", default="")
    parser.add_argument("--controller", default="", metavar="URL")
    parser.add_argument("--prometheus", default="", metavar="URL")
    arguments = parser.parse_args()
    _adopt_environment()
    try:
        return _act(arguments)
    except (ConfigError, KeysError, PlacementError) as error:
        print_line(str(error))
        return 2
    except CliError as trouble:
        if trouble.details:
            print_line("\n".join(f"      {line}" for line in trouble.details.rstrip().splitlines()))
        for problem in trouble.problems:
            print_error(problem)
        return 2
    except CommandFailed as error:
        print_line("\n".join(f"      {line}" for line in error.output.rstrip().splitlines()[-30:]))
        print_error(f"`{' '.join(error.command[:4])}` failed: {error.last_line}")
        return 2
    except KeyboardInterrupt:
        end_all()
        print_error("interrupted")
        return 130


def _adopt_environment() -> None:
    """CA_CERTIFICATES and the like may stand in .env; the environment wins."""
    for key, value in env_file.read().items():
        os.environ.setdefault(key, value)


def _act(arguments: argparse.Namespace) -> int:
    action, config, flavour = arguments.action, arguments.config, arguments.flavour
    match action:
        case "up":
            up(config, flavour)
        case "status":
            return status(config, arguments.watch, arguments.controller, arguments.prometheus)
        case "report":
            report(config, arguments.hours, arguments.out, arguments.controller, arguments.prometheus)
        case "scale":
            return scale(config, arguments.engines, arguments.pool)
        case "drain":
            drain(config, arguments.engine)
        case "resume":
            resume(config, arguments.engine)
        case "restart-rolling":
            restart_rolling(config, arguments.pool)
        case "upgrade":
            upgrade(config, arguments.image)
        case "backup":
            backup(config, arguments.out)
        case "restore":
            restore(config, arguments.source)
        case "pin-images":
            pin_images(config)
        case "down" | "clean":
            return _down(config, everything=action == "clean")
        case "doctor":
            return _doctor(config, flavour)
        case "docker":
            docker_install.install()
        case "admin-key":
            print_line(admin_key.read())
        case "logs":
            _logs(arguments)
        case "images":
            images.provide(plan(load(config), flavour, docker_install.ensure()).cluster, pull=False)
    return 0


def _logs(asked: argparse.Namespace) -> None:
    compose = Compose(started_services.configuration(asked.config).name)
    if not (ROOT / compose.rendered).exists():
        compose = Compose(compose.project, Path("compose/rendered/default"))
    if asked.request:
        logs.show_request(compose, asked.request, raw=bool(asked.raw))
        return
    follow = asked.follow not in ("no", "0", "false")
    logs.show(compose, logs.LogFilter(asked.part, asked.since, asked.level.lower(), bool(asked.raw), follow))


def _down(config: Path, everything: bool) -> int:
    docker = host_info.docker()
    docker_install.require_access(docker)
    if not docker.server:
        print_ok("Docker does not run, so nothing of the cluster does")
        return 0
    compose = Compose(started_services.configuration(config).name)
    if not (ROOT / compose.rendered).exists():
        compose = Compose(compose.project, Path("compose/rendered/default"))
    with step("stopping the cluster") as current:
        try:
            compose.down(volumes=everything)
        except CommandFailed as error:
            raise CliError(f"the cluster could not be stopped: {error.last_line}", details=error.output) from error
        current.outcome = "the cluster is down" + (
            ", its volumes are gone" if everything else "; models and metrics are kept"
        )
    env_file.write_block({})
    return 0


def _doctor(config: Path, flavour: str) -> int:
    cluster = load(config)
    load_keys(keys_path(config, cluster))
    docker = host_info.docker()
    print_line(f"ManyEyes, {config}, {host_info.system()}")
    try:
        found = gpu_discovery.discover(cluster, docker, flavour, cluster.name, dict(os.environ))
    except CliError as trouble:
        for problem in trouble.problems:
            print_error(problem)
        return 2
    ours_runs = bool(docker.server) and Compose(cluster.name).runs()
    return 0 if doctor.show(doctor.run_checks(cluster, docker, found, ours_runs, config)) else 2


if __name__ == "__main__":
    sys.exit(main())
