"""`manyeyes check-config|key|keys|user`: the configuration and the files of keys and users beside it."""

import getpass
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from manyeyes.config.credentials import ApiKey, KeysError, UsersError, add_key, load_keys, load_users, set_password
from manyeyes.config.loader import ConfigError, keys_path, load, users_path


def check_config(paths: list[Path]) -> int:
    status = 0
    for path in paths:
        problems = list(_problems(path))
        for problem in problems:
            print(problem, file=sys.stderr)
            status = 2
        if not problems:
            print(f"{path}: ok")
    return status


def _problems(path: Path) -> Iterator[ConfigError | KeysError | UsersError]:
    """Of the file, and of both files beside it."""
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
    """A password that was made here goes alone to standard output, what to do with it to the other one."""
    path = users_path(config, load(config))
    typed = getpass.getpass("Password (empty: one is made): ") if sys.stdin.isatty() else ""
    password = typed or secrets.token_urlsafe(12)
    first = not path.exists()
    new = set_password(path, name, password)
    if not typed:
        print(password, flush=True)
    say = [
        f"'{name}' {'may log in to the page' if new else 'has a new password'}. {path} holds only a hash of it.",
        "A running page takes it with the next login.",
    ]
    if first:
        say.append("From now on the page asks everybody to log in; the API under /v1 is not touched.")
    print("\n".join(say), file=sys.stderr)


def make_key(config: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> None:
    """The key alone on standard output, what to do with it on the other one."""
    cluster = load(config)
    path = keys_path(config, cluster)
    wanted_before = cluster.gateway.wants_key(load_keys(path))
    print(add_key(path, name, requests_per_minute, in_flight), flush=True)
    say = [
        f"This is the key of '{name}'. It is shown this once; {path} holds only its hash.",
        "A running cluster takes it within seconds.",
    ]
    if cluster.gateway.wants_key(load_keys(path)) and not wanted_before:
        say.append("From then on nobody is served without a key, unless gateway.anonymous is true.")
    print("\n".join(say), file=sys.stderr)


def list_keys(config: Path) -> None:
    path = keys_path(config, load(config))
    keys = load_keys(path).keys
    print(f"{path}: {len(keys) or 'no'} key{'' if len(keys) == 1 else 's'}")
    for key in keys:
        print(f"  {key.name}   {_limits(key)}")


def _limits(key: ApiKey) -> str:
    limits = [f"{key.requests_per_minute} requests a minute"] if key.requests_per_minute else []
    limits += [f"{key.in_flight} at once"] if key.in_flight else []
    return ", ".join(limits) or "no limit"
