"""The admin key: made once, of randomness, and printed only to whoever asks for it."""

import contextlib
import os
import secrets as randomness
from pathlib import Path

from manyeyes.cli import secrets
from manyeyes.cli.errors import CliError
from manyeyes.cli.invocation import next_command
from manyeyes.cli.terminal import print_ok, print_warning

FILE = "admin.key"


def ensure(config: Path) -> None:
    """Makes the key where there is none; never touches one that is there."""
    path = secrets.folder() / FILE
    if path.exists():
        return
    try:
        # Never open to others, not even for an instant.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"me-admin-{randomness.token_urlsafe(32)}\n")
        with contextlib.suppress(PermissionError):  # the folder is another group's: doctor tells what to do
            os.chown(path, -1, secrets.group())
        path.chmod(0o640)
    except OSError as error:
        # The cluster serves without it; only changes by API are refused.
        print_warning(f"no admin key could be made in {secrets.folder()}: {error}")
        return
    print_ok(f"{FILE} is new in the secrets folder; `{next_command('admin-key', config=config)}` prints it")


def read() -> str:
    """Raises Trouble."""
    try:
        return (secrets.folder() / FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"there is no admin key to print: {error}. `make up` makes one.") from error
