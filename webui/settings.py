"""Settings of the page from cluster.yaml and the environment. Environment variables take precedence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from manyeyes.config.cluster import Cluster
from manyeyes.config.documents import FileProblems
from manyeyes.config.gateway import Gateway, WebUi
from manyeyes.config.loader import ConfigError, load, users_path

Value = TypeVar("Value")


class ReloadedFile(Generic[Value]):
    """Content of a file, reloaded when the file changes. If it is invalid, the last valid content stays active."""

    def __init__(
        self, path: Path | None, value: Value, read: Callable[[], Value], refused: Callable[[Any], None]
    ) -> None:
        """`refused` is called with the error that `read` raised."""
        self.value = value
        self._path = path
        self._read = read
        self._refused = refused
        self._seen = (0, 0)

    def __call__(self) -> Value:
        if (now := self._written()) != self._seen:
            self._seen = now
            try:
                self.value = self._read()
            except (FileProblems, OSError, ValueError) as error:
                self._refused(error)
        return self.value

    def _written(self) -> tuple[int, int]:
        try:
            status = self._path.stat() if self._path else None
        except OSError:
            return 0, 0
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)


class SettingsError(ValueError):
    """All problems found in the environment, one per line."""


@dataclass(frozen=True)
class EndpointAddress:
    """Address of an endpoint of the Fallback tab. `base_url` is the root of its OpenAI API and usually ends in /v1."""

    name: str
    base_url: str
    model: str = ""
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class WebuiSettings:
    gateway_url: str = "http://gateway:8079"
    port: int = 7860
    title: str = WebUi().title
    greeting: str = WebUi().greeting
    max_body_mb: int = Gateway().max_body_mb
    api_key: str | None = field(default=None, repr=False)
    config: Path | None = None
    """Path of cluster.yaml, which has the limits of each model."""
    webui: WebUi = field(default_factory=WebUi)
    """The `webui` section of cluster.yaml."""
    users_file: Path | None = None
    """File of the users who may log in. None: no login is required."""
    state: Path | None = None
    """Folder for the secret of the logins and for ended sessions, shared by all copies of the page."""
    controller_url: str = "http://controller:8081"
    prometheus_url: str = "http://prometheus:9090"
    locust_url: str = "http://loadtest:8089/locust"
    primary: EndpointAddress = field(
        default_factory=lambda: EndpointAddress("Primary", "http://gateway:8079/v1", "auto")
    )
    fallback: EndpointAddress = field(
        default_factory=lambda: EndpointAddress("Fallback", "http://gateway:8079/v1", "auto")
    )
    """`primary` and `fallback` are the endpoints of the Fallback tab. Their keys stay on the server."""
    page_key: str = field(default="", repr=False)
    """Shows the gateway's internal port that a request comes from the page. Empty: there is no such key."""

    @property
    def max_body_bytes(self) -> int:
        """Body limit of the gateway. nginx counts a megabyte as 1024 * 1024 bytes."""
        return self.max_body_mb * 1024 * 1024


def read_settings(environ: Mapping[str, str]) -> WebuiSettings:
    """Reads the settings from `environ`. Unset and empty variables get their defaults.

    Raises SettingsError, which names every invalid variable.
    """
    problems: list[str] = []
    default = WebuiSettings()
    if config := environ.get("MANYEYES_CONFIG", "").strip():
        try:
            cluster = load(Path(config))
            default = _of_cluster(cluster, users_path(Path(config), cluster))
        except ConfigError as error:
            problems.append(str(error))

    def text(name: str, fallback: str) -> str:
        return environ.get(name, "").strip() or fallback

    def whole(name: str, fallback: int, highest: int) -> int:
        value = text(name, str(fallback))
        if value.isascii() and value.isdecimal() and 1 <= int(value) <= highest:
            return int(value)
        problems.append(f"{name}: expected a whole number from 1 to {highest}, got {value!r}")
        return fallback

    gateway_url = text("MANYEYES_GATEWAY_URL", default.gateway_url).rstrip("/")
    parts = urlsplit(gateway_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        problems.append(f"MANYEYES_GATEWAY_URL: expected an address like {default.gateway_url}, got {gateway_url!r}")

    def address(name: str) -> EndpointAddress:
        prefix = name.upper()
        base_url = text(f"{prefix}_BASE_URL", f"{gateway_url}/v1").rstrip("/")
        url = urlsplit(base_url)
        named = environ.get(f"{prefix}_BASE_URL", "").strip()
        if named and (url.scheme not in ("http", "https") or not url.hostname):
            problems.append(f"{prefix}_BASE_URL: expected an address like https://api.example.com/v1, got {base_url!r}")
        return EndpointAddress(
            name,
            base_url,
            text(f"{prefix}_MODEL", "auto"),
            text(f"{prefix}_API_KEY", ""),
        )

    settings = WebuiSettings(
        gateway_url=gateway_url,
        port=whole("MANYEYES_WEBUI_PORT", default.port, 65535),
        title=text("MANYEYES_WEBUI_TITLE", default.title),
        greeting=text("MANYEYES_WEBUI_GREETING", default.greeting),
        max_body_mb=whole("MANYEYES_MAX_BODY_MB", default.max_body_mb, 4096),
        api_key=environ.get("MANYEYES_API_KEY", "").strip() or None,
        config=Path(config) if config else None,
        webui=default.webui,
        users_file=default.users_file,
        state=Path(state) if (state := environ.get("MANYEYES_STATE", "").strip()) else None,
        controller_url=text("MANYEYES_CONTROLLER_URL", default.controller_url).rstrip("/"),
        prometheus_url=text("MANYEYES_PROMETHEUS_URL", default.prometheus_url).rstrip("/"),
        locust_url=text("MANYEYES_LOCUST_URL", default.locust_url).rstrip("/"),
        primary=address("Primary"),
        fallback=address("Fallback"),
        page_key=_read_page_key(environ.get("MANYEYES_PAGE_KEY_FILE", "").strip(), problems),
    )
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _read_page_key(file: str, problems: list[str]) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip() if file else ""
    except FileNotFoundError:  # on Kubernetes the Secret is optional
        return ""
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"MANYEYES_PAGE_KEY_FILE: {file} cannot be read ({type(error).__name__})")
        return ""


def _of_cluster(cluster: Cluster, users_file: Path) -> WebuiSettings:
    return WebuiSettings(
        title=cluster.webui.title,
        greeting=cluster.webui.greeting,
        max_body_mb=cluster.gateway.max_body_mb,
        webui=cluster.webui,
        users_file=users_file,
    )


@dataclass(frozen=True)
class PageTexts:
    title: str
    greeting: str
    host_names: tuple[str, ...] = ()


def current_page_texts(begin: WebuiSettings, environ: Mapping[str, str]) -> Callable[[], PageTexts]:
    """Returns a function that reads the current title, greeting and host names."""

    def read() -> PageTexts:
        current = read_settings(environ)
        return PageTexts(current.title, current.greeting, current.webui.host_names)

    return ReloadedFile(
        begin.config, PageTexts(begin.title, begin.greeting, begin.webui.host_names), read, lambda _error: None
    )
