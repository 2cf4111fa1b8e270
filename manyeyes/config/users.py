"""Who may open the page: the file that lists people by name, with a hash in place of each password."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationError

from manyeyes.config import documents, named_entries
from manyeyes.config.base import Section
from manyeyes.config.documents import DocumentError, FileProblems

HEAD = (
    "# Who may open the page. Passwords are hashed (scrypt). `manyeyes user NAME` adds one, or gives a new password.\n"
)
LOG_N, R, P = 14, 8, 1
"""scrypt's cost: 16 MiB and some tens of milliseconds a password."""
FORM = re.compile(r"scrypt\$([0-9]{2})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
SHORTEST = 8


class UsersError(FileProblems):
    """The users file cannot be used."""


def _of_scrypt(text: str) -> str:
    """A cost beyond what is written here would let a file stop the page."""
    found = FORM.fullmatch(text)
    if not found or not 14 <= int(found[1]) <= 17 or not 1 <= int(found[2]) <= 8 or not 1 <= int(found[3]) <= 4:
        raise ValueError("not such a hash")
    try:
        sizes = [len(base64.b64decode(part, validate=True)) for part in (found[4], found[5])]
    except binascii.Error:
        raise ValueError("not base64") from None
    if sizes[0] < 16 or sizes[1] != 32:
        raise ValueError("too short")
    return text


class User(Section):
    """One person."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """What is typed to log in."""
    password: Annotated[str, AfterValidator(_of_scrypt)]
    """scrypt$log2(N)$r$p$salt$hash, the last two in base64."""


class Users(Section):
    """The whole file."""

    users: tuple[User, ...] = ()

    def named(self, name: str) -> User | None:
        return next((user for user in self.users if user.name == name), None)


WANTED = {
    "users": "a list of users",
    "name": "letters, digits and . _ @ -, at most 64, a letter or digit first",
    "password": "a hash as `manyeyes user` writes it",
}
NOBODY = "scrypt$14$8$1$" + "$".join(base64.b64encode(bytes(size)).decode() for size in (16, 32))
"""What a password is held against when nobody has the name: it takes as long."""


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, LOG_N, R, P)
    return f"scrypt${LOG_N}${R}${P}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: str, user: User | None) -> bool:
    """Whether it is the user's. Takes as long for a user that there is not; to be called in a thread."""
    found = FORM.fullmatch(user.password if user else NOBODY)
    assert found
    log_n, r, p = (int(found[nth]) for nth in (1, 2, 3))
    salt, wanted = base64.b64decode(found[4]), base64.b64decode(found[5])
    same = hmac.compare_digest(_scrypt(password, salt, log_n, r, p), wanted)
    return same and user is not None


def load_users(path: Path) -> Users:
    """The users of `path`; none when it does not exist. Raises UsersError."""
    found = documents.load_file(_parse, UsersError, path)
    return Users() if found is None else found


def parse_users(text: str, path: Path) -> Users:
    """As load_users(), from text; `path` only names it in errors. Raises UsersError and nothing else, whatever the text is."""
    return documents.parse_file(_parse, UsersError, text, path)


def _parse(text: str, path: Path) -> Users:
    try:
        document = documents.parse(text)
        users = Users.model_validate(document)
    except DocumentError as error:
        raise UsersError(path, [f"cannot be read: {error}"]) from error
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise UsersError(
            path,
            [
                f"{named_entries.entry_place(one, document, 'users')} {named_entries.describe_entry_error(one, User, WANTED, 'users')}"
                for one in found
            ],
        ) from error
    if not users.users:
        raise UsersError(
            path, ["has no user; `manyeyes user NAME` adds one, or delete the file to open the page to all"]
        )
    if problems := list(named_entries.find_repeated([user.name for user in users.users], "users")):
        raise UsersError(path, problems)
    return users


def set_password(path: Path, name: str, password: str) -> bool:
    """Writes the password's hash into `path`; whether the user is new. Raises UsersError."""
    users = load_users(path)
    if len(password) < SHORTEST:
        raise UsersError(path, [f"a password has at least {SHORTEST} characters"])
    try:
        made = User(name=name, password=hash_password(password))
    except ValidationError as error:
        raise UsersError(path, [f"name wants {WANTED['name']}, found {name!r}"]) from error
    others = [user for user in users.users if user.name != name]
    document = {"users": [one.model_dump() for one in (*others, made)]}
    named_entries.write_entries(path, HEAD, document)
    return len(others) == len(users.users)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log_n, r=r, p=p, maxmem=256 * 2**log_n * r * p, dklen=32)
