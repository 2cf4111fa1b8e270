"""`manyeyes check-config|key|keys|user` work on the configuration, the API keys file and the users file.

`manyeyes render|kubernetes|swarm|docs` write files that are generated from them.
"""

import getpass
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from manyeyes.cli import started_services
from manyeyes.cli.invocation import next_command
from manyeyes.cli.terminal import CliError, print_line, print_warning
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster, json_schema, markdown
from manyeyes.config.credentials import (
    ApiKey,
    ApiKeys,
    KeysError,
    UsersError,
    add_key,
    load_keys,
    load_users,
    set_password,
)
from manyeyes.config.loader import ConfigError, keys_path, load, users_path
from manyeyes.config.placement import DEFAULT_INVENTORY, load_inventory, place_engines
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.multi_node_clusters import clusters
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render
from manyeyes.render.swarm import select_repository_files, stack


def check_config(paths: list[Path]) -> int:
    status = 0
    for path in paths:
        problems = list(_problems(path))
        for problem in problems:
            print(problem, file=sys.stderr)
            status = 2
        if not problems:
            for warning in _warnings(load(path)):
                print_warning(f"{path}: {warning}")
            print(f"{path}: ok")
    return status


def _warnings(cluster: Cluster) -> Iterator[str]:
    for name in _pools_without_engine(cluster):
        yield (
            f"the pool '{name}' has no engine. Until one is registered, requests for it go to its fallback, and other "
            "pools do not fall back to it."
        )
    for pool in cluster.pools:
        if pool.fallback is None or (other := cluster.pool(pool.fallback)).remote:
            continue
        if other.max_model_len < pool.max_model_len:
            yield (
                f"'{other.name}' answers for '{pool.name}' but accepts less (max_model_len is {other.max_model_len}, not "
                f"{pool.max_model_len}): longer requests then get 400."
            )


def _pools_without_engine(cluster: Cluster) -> list[str]:
    """Pools for which the configuration lists no engine; none with `engines: auto`, where the host decides."""
    if cluster.engines == "auto":
        return []
    served = {engine.pool for engine in cluster.engines}
    return [pool.name for pool in cluster.pools if not pool.remote and pool.name not in served]


def _problems(path: Path) -> Iterator[ConfigError | KeysError | UsersError]:
    """Yields the problems of the configuration, of its API keys file and of its users file."""
    try:
        cluster = load(path)
    except ConfigError as error:
        yield error
        return
    try:
        load_keys(keys_path(path, cluster))
    except KeysError as error:
        yield error
    try:
        load_users(users_path(path, cluster))
    except UsersError as error:
        yield error


def make_user(config: Path, name: str) -> None:
    """Adds a user. A generated password is printed to standard output, and all other text to standard error."""
    path = users_path(config, started_services.configuration(config))
    typed = getpass.getpass("Password (empty: generate a password): ") if sys.stdin.isatty() else ""
    password = typed or secrets.token_urlsafe(12)
    is_first = not path.exists()
    is_new = set_password(path, name, password)
    if not typed:
        print(password, flush=True)
    lines = [
        f"'{name}' {'can log in to the web page' if is_new else 'has a new password'}. {path} has only its hash.",
        "A running page uses it at the next login.",
    ]
    if is_first:
        lines.append("With this first user, the page requires a login. The API under /v1 is not affected.")
    print("\n".join(lines), file=sys.stderr)


def make_key(config: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> None:
    """Creates an API key. The key is printed to standard output, and all other text to standard error."""
    cluster = started_services.configuration(config)
    path = keys_path(config, cluster)
    was_required = cluster.gateway.requires_key(load_keys(path))
    print(add_key(path, name, requests_per_minute, in_flight), flush=True)
    lines = [
        f"This is the key of '{name}'. It is shown only once; {path} has only its hash.",
        "A running cluster accepts it within seconds.",
    ]
    if cluster.gateway.requires_key(load_keys(path)) and not was_required:
        lines.append("With this key, all requests require a key, unless gateway.anonymous is true.")
    print("\n".join(lines), file=sys.stderr)


def list_keys(config: Path) -> None:
    path = keys_path(config, started_services.configuration(config))
    keys = load_keys(path).keys
    print(f"{path}: {len(keys) or 'no'} key{'' if len(keys) == 1 else 's'}")
    for key in keys:
        print(f"  {key.name}   {_limits(key)}")


def _limits(key: ApiKey) -> str:
    limits = [f"{key.requests_per_minute} requests per minute"] if key.requests_per_minute else []
    limits += [f"{key.in_flight} concurrent"] if key.in_flight else []
    return ", ".join(limits) or "no limit"


COMPOSE_FOLDER = Path("compose/rendered/default")
KUBERNETES_FOLDER = Path("deploy/kubernetes")
SWARM_FOLDER = Path("deploy/swarm")
REFERENCES = {
    "docs/reference/metrics.md": ("manyeyes.controller.metrics",),
    "docs/reference/cli.md": ("manyeyes.cli.cli_reference",),
    "docs/reference/rules.md": ("manyeyes.monitoring.prometheus.rules", "rules"),
    "docs/reference/alerts.md": ("manyeyes.monitoring.prometheus.rules", "alerts"),
}
KUBERNETES_BY_HAND = frozenset({"README.md"})


def render_compose(config: Path, inventory_file: Path | None, out: Path) -> None:
    """Writes the files of Compose and the gateway for the host in `inventory_file`. Default: two GPUs of 24 GiB."""
    inventory = DEFAULT_INVENTORY
    if inventory_file:
        inventory = load_inventory(inventory_file)
    _write(render(place_engines(load(config), inventory), inventory, config, out), out)


def render_kubernetes(config: Path, out: Path) -> None:
    cluster = load(config)
    keys = load_keys(keys_path(config, cluster))
    if cluster.kubernetes.hostnames and not cluster.gateway.requires_key(keys):
        print_warning(
            f"no key is required from those who reach {', '.join(cluster.kubernetes.hostnames)}: "
            f"create one ({next_command('key', 'NAME', config=config)}), then run this again"
        )
    files = tree(cluster, keys, os.path.relpath(Path.cwd(), out))
    _write(files, out, KUBERNETES_BY_HAND)


def render_swarm(config: Path, out: Path) -> None:
    cluster = load(config)
    if not cluster.gateway.is_open:
        raise CliError(
            "gateway.host: expected 0.0.0.0, because a Swarm publishes gateway.port on every manager, "
            f"got {cluster.gateway.host}. Set it in {config}; clients then need a key ({next_command('key', 'NAME', config=config)}), "
            "unless gateway.anonymous is true."
        )
    _write(swarm_stacks(cluster, load_keys(keys_path(config, cluster)), out), out)


def swarm_stacks(cluster: Cluster, keys: ApiKeys, out: Path = SWARM_FOLDER) -> dict[str, str]:
    """Returns {FLAVOUR/file: text} for all flavours, to be written to `out`."""
    paths = [
        str(path.relative_to(ROOT))
        for folder in ("nginx", "manyeyes/engine", "manyeyes/observability")
        for path in (ROOT / folder).rglob("*")
    ]
    repository_files = {path: (ROOT / path).read_text(encoding="utf-8") for path in select_repository_files(paths)}
    return {
        f"{flavour}/{name}": text
        for flavour, placed in clusters(cluster).items()
        for name, text in stack(placed, repository_files, keys, os.path.relpath(ROOT, out.absolute() / flavour)).items()
    }


def write_references() -> None:
    """Writes the documents that are generated from code, the JSON Schema and Grafana's dashboards."""
    (ROOT / "docs/reference/configuration.md").write_text(markdown(), encoding="utf-8")
    (ROOT / "config/cluster.schema.json").write_text(json_schema(), encoding="utf-8")
    for page, program in REFERENCES.items():
        result = subprocess.run([sys.executable, "-m", *program], cwd=ROOT, check=True, stdout=subprocess.PIPE)
        (ROOT / page).write_bytes(result.stdout)
    subprocess.run([sys.executable, "-m", "manyeyes.monitoring.grafana.build"], cwd=ROOT, check=True)


def _write(files: Mapping[str, str], out: Path, unchanged: frozenset[str] = frozenset()) -> None:
    for name in write_files(dict(files), out, unchanged=unchanged):
        print_line(f"{out / name}: written")
