"""The admin key: whoever holds it may change the cluster. Read anew on every check, so that replacing the file is enough."""

import secrets
from pathlib import Path

FILE = "admin.key"
LEAST_CHARACTERS = 16
"""A file that is empty, or holds a word somebody tried out, lets nobody in."""


class NoAdminKey(Exception):
    """There is no key to compare with; the message says why and what to do."""


class AdminKey:
    """The key in the secrets folder, known to the controller only by reading it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def matches(self, given: str) -> bool:
        """Whether `given` is the key, in a time that does not depend on how much of it is right. Raises NoAdminKey."""
        return secrets.compare_digest(given.encode(), self._read().encode())

    def _read(self) -> str:
        try:
            key = self.file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise NoAdminKey(
                f"There is no admin key, so nothing can be changed by API. `make up` makes one in secrets/{FILE}."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise NoAdminKey(
                f"The admin key in secrets/{FILE} cannot be read ({type(error).__name__}), so nothing can be changed by API. "
                "`make doctor` says how to open it to the controller."
            ) from error
        if len(key) < LEAST_CHARACTERS:
            raise NoAdminKey(
                f"The admin key in secrets/{FILE} has fewer than {LEAST_CHARACTERS} characters, so nothing can be changed by API. "
                "Remove the file, and `make up` makes one."
            )
        return key
