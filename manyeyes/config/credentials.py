"""API keys, and who may open the page: files that list them by name, with a hash in place of each key and each password."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from manyeyes.atomic_write import atomic_write
from manyeyes.config import checkout, documents
from manyeyes.config.documents import DocumentError, FileProblems
from manyeyes.config.fields import Section

Whole = TypeVar("Whole", bound=Section)
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
NAME = "letters, digits and . _ @ -, at most 64, a letter or digit first"
KEYS_HEAD = "# API keys by name; sha256 is of the key itself, which is nowhere kept. `manyeyes key NAME` adds one.\n"


class KeysError(FileProblems):
    """The keys file cannot be used."""


class ApiKey(Section):
    """Who may ask, and how much."""

    name: EntryName
    """Its name in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hexadecimal."""
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    """null: no limit. A minute's worth may come at once."""
    in_flight: int | None = Field(None, ge=1, le=65_535)
    """Requests at the same time. null: no limit."""


class ApiKeys(Section):
    """The whole file."""

    keys: tuple[ApiKey, ...] = ()


WANTED_OF_KEYS = {
    "keys": "a list of keys",
    "name": NAME,
    "sha256": "64 hexadecimal digits, the SHA-256 of the key",
    "requests_per_minute": "a whole number from 1 to 1000000",
    "in_flight": "a whole number from 1 to 65535",
}


def load_keys(path: Path) -> ApiKeys:
    """The keys of `path`; none when it does not exist. Raises KeysError."""
    found = documents.load_file(_parse_keys, KeysError, path)
    return ApiKeys() if found is None else found


def parse_keys(text: str, path: Path) -> ApiKeys:
    """As load_keys(), from text; `path` only names it in errors. Raises KeysError and nothing else, whatever the text is."""
    return documents.parse_file(_parse_keys, KeysError, text, path)


def _parse_keys(text: str, path: Path) -> ApiKeys:
    keys = _validated(text, path, ApiKeys, ApiKey, KeysError, WANTED_OF_KEYS)
    if problems := list(_repetitions(keys)):
        raise KeysError(path, problems)
    return keys


def add_key(path: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> str:
    """Writes a new key's hash into `path` and returns the key, which is shown once. Raises KeysError."""
    keys = load_keys(path)
    if any(key.name == name for key in keys.keys):
        raise KeysError(path, [f"there is a key named '{name}' already; remove its lines to make another"])
    if problems := list(_case_collisions([*(key.name for key in keys.keys), name], "keys")):
        raise KeysError(path, problems)
    key = f"me-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        made = ApiKey(name=name, sha256=digest, requests_per_minute=requests_per_minute, in_flight=in_flight)
    except ValidationError as error:
        problems = [
            f"{one['loc'][0]} {_problem(one, ApiKey, WANTED_OF_KEYS, 'keys')}, found {one['input']!r}"
            for one in error.errors()
        ]
        raise KeysError(path, problems) from error
    document = {"keys": [one.model_dump(exclude_none=True) for one in (*keys.keys, made)]}
    _write(path, KEYS_HEAD, document)
    return key


def _repetitions(keys: ApiKeys) -> Iterator[str]:
    names, digests = [key.name for key in keys.keys], [key.sha256 for key in keys.keys]
    yield from find_repeated(names, "keys")
    yield from _case_collisions(names, "keys")
    for digest in sorted({digest for digest in digests if digests.count(digest) > 1}):
        same = " and ".join(f"keys[{key.name}]" for key in keys.keys if key.sha256 == digest)
        yield f"{same} have the same sha256, so they are one key"


USERS_HEAD = (
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

    name: EntryName
    """What is typed to log in."""
    password: Annotated[str, AfterValidator(_of_scrypt)]
    """scrypt$log2(N)$r$p$salt$hash, the last two in base64."""


class Users(Section):
    """The whole file."""

    users: tuple[User, ...] = ()

    def named(self, name: str) -> User | None:
        return next((user for user in self.users if user.name == name), None)


WANTED_OF_USERS = {
    "users": "a list of users",
    "name": NAME,
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
    found = documents.load_file(_parse_users, UsersError, path)
    return Users() if found is None else found


def parse_users(text: str, path: Path) -> Users:
    """As load_users(), from text; `path` only names it in errors. Raises UsersError and nothing else, whatever the text is."""
    return documents.parse_file(_parse_users, UsersError, text, path)


def _parse_users(text: str, path: Path) -> Users:
    users = _validated(text, path, Users, User, UsersError, WANTED_OF_USERS)
    if not users.users:
        raise UsersError(
            path, ["has no user; `manyeyes user NAME` adds one, or delete the file to open the page to all"]
        )
    if problems := list(find_repeated([user.name for user in users.users], "users")):
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
        raise UsersError(path, [f"name wants {NAME}, found {name!r}"]) from error
    others = [user for user in users.users if user.name != name]
    document = {"users": [one.model_dump() for one in (*others, made)]}
    _write(path, USERS_HEAD, document)
    return len(others) == len(users.users)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log_n, r=r, p=p, maxmem=256 * 2**log_n * r * p, dklen=32)


def _validated(
    text: str, path: Path, whole: type[Whole], item: type[Section], error: type[FileProblems], wanted: Mapping[Any, str]
) -> Whole:
    """The document of a file that lists things by name; its one key is the first of `wanted`. Raises `error`."""
    section = next(iter(wanted))
    try:
        document = documents.parse(text)
        return whole.model_validate({} if document is None and whole is ApiKeys else document)
    except DocumentError as problem:
        raise error(path, [f"cannot be read: {problem}"]) from problem
    except ValidationError as wrong:
        found = wrong.errors(include_url=False)
        raise error(
            path,
            [
                f"{documents.place_of(one['loc'], document) or 'the file'} {_problem(one, item, wanted, section)}"
                for one in found
            ],
        ) from wrong


def _problem(error: ErrorDetails, item: type[Section], wanted: Mapping[Any, str], section: str) -> str:
    """What was found is not shown: it may be a secret that somebody wrote where its hash belongs."""
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "extra_forbidden":
        return "is not a setting; there are " + ", ".join(item.model_fields)
    last = error["loc"][-1] if error["loc"] else ""
    if isinstance(last, int):
        return f"wants {', '.join(item.model_fields)}"
    return f"wants {wanted.get(last, f'`{section}:` and a list of {section}')}"


def find_repeated(names: Sequence[str], section: str) -> Iterator[str]:
    """One sentence for each name that stands there more than once."""
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{section} has {names.count(name)} entries named '{name}'; names must differ"


def _case_collisions(names: Sequence[str], section: str) -> Iterator[str]:
    """One sentence for each two names that differ in case only."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if (other := first.setdefault(name.lower(), name)) != name:
            yield f"{section}[{other}] and {section}[{name}] differ in case only; nginx takes them for one name, so choose another"


def _write(path: Path, head: str, document: Mapping[str, Any]) -> None:
    """`document` below the comment `head`, in one step: a reader finds the old file or the new one. Closed to others."""
    new = not path.exists()
    atomic_write(path, head + yaml.safe_dump(document, sort_keys=False))
    checkout.grant_container_access(path, new=new)
