"""Records the definition with which each engine's container was started, in started.yaml next to the rendered files.

Rendered files have the desired definitions. During a rolling restart some engines still run with an older definition.
The controller reads started.yaml (manyeyes/controller/config_sync/apply_plan.py).
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from manyeyes.atomic_write import atomic_write
from manyeyes.cli.invocation import next_command
from manyeyes.config import documents
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.documents import DocumentError
from manyeyes.config.loader import ConfigError, load
from manyeyes.engine.vllm_flags import served_names_slice

NAME = "started.yaml"
CONFIGURATION = "configuration.yaml"
"""A copy of the configuration that `make up` used."""
NAMED_AFTER_POOL = ("manyeyes.pool", "MANYEYES_POOL", "OTEL_RESOURCE_ATTRIBUTES")
"""Labels and environment variables that only give the name of the pool, for logs, metrics and traces."""
HEAD = "# Written by `make up` and `make restart-rolling`: the definitions of started engines. Do not edit.\n"


def configuration(config: Path) -> Cluster:
    """Returns the configuration. If the file is invalid, returns the configuration with which the cluster was started.

    So an invalid file does not prevent commands such as status and down. Raises ConfigError if no cluster was started
    with it.
    """
    return load(usable_file(config))


def usable_file(config: Path) -> Path:
    """Returns the file, or the copy that `make up` made of it if the file is invalid. Raises ConfigError."""
    try:
        load(config)
    except ConfigError as error:
        for folder in sorted((ROOT / "compose/rendered").glob("host-*")):
            if (folder / CONFIGURATION).exists() and _is_rendered_from(folder, config):
                count = f"{len(error.problems)} problem{'' if len(error.problems) == 1 else 's'}"
                # Not to standard output, which may be a key or a log that another program reads.
                print(
                    f"{config} has {count} and is ignored: using the configuration with which the cluster was started. "
                    f"`{next_command('check-config', config=config)}` lists the problems.",
                    file=sys.stderr,
                )
                return folder / CONFIGURATION
        raise
    return config


def _is_rendered_from(folder: Path, config: Path) -> bool:
    """Whether the files in `folder` were rendered from this configuration file."""
    try:
        lines = (folder / "compose.env").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return (ROOT / values.get("CONFIG_DIR", "") / values.get("CONFIG_NAME", "")).resolve() == config.resolve()


def services(folder: Path) -> dict[str, Any]:
    """Returns the definitions of the started engines; empty before the first start."""
    return _services(folder / NAME)


def rendered_services(folder: Path) -> dict[str, Any]:
    return _services(folder / "engines.yaml")


def differ_in_names_only(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two definitions of an engine differ only in the names of the engine and its pool, which the gateway
    translates."""
    return _without_names(old) == _without_names(new)


def _without_names(service: dict[str, Any]) -> dict[str, Any]:
    result = dict(service)
    command = [str(word) for word in service.get("command", ())]
    del command[served_names_slice(command)]
    result["command"] = command
    for key in ("labels", "environment"):
        result[key] = {name: value for name, value in service.get(key, {}).items() if name not in NAMED_AFTER_POOL}
    return result


def record(folder: Path, names: Iterable[str]) -> None:
    """Records that `names` were started with their rendered definitions."""
    rendered = rendered_services(folder)
    _write(folder, services(folder) | {name: rendered[name] for name in names if name in rendered})


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Removes all engines except `names` from the record."""
    remaining = set(names)
    _write(folder, {name: service for name, service in services(folder).items() if name in remaining})


def _services(path: Path) -> dict[str, Any]:
    """Reads the definitions. A damaged file counts as empty; the next start writes it again."""
    try:
        document = documents.read(path)
        definitions = document.get("services") if document is not None else None
        return {str(name): service for name, service in (definitions or {}).items() if isinstance(service, dict)}
    except FileNotFoundError:
        return {}
    except (DocumentError, AttributeError) as error:
        print(f"{path} is invalid and is ignored: {error}. `make up` writes it again.", file=sys.stderr)
        return {}


def _write(folder: Path, definitions: dict[str, Any]) -> None:
    text = HEAD + yaml.safe_dump({"services": definitions}, sort_keys=False)
    atomic_write(folder / NAME, text, mode=0o644, fsync=True)  # fsync: the file survives a power failure
