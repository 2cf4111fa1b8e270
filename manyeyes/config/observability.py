"""Settings of logs, traces, Prometheus with its exporters and alerts, and Grafana."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.fields import FileName, IsAddress, IsUrl, Port, Section

Collector = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"), IsUrl]
"""Where OTLP over HTTP is taken; /v1/traces is added."""


class Loki(Section):
    """Grafana Loki, with Alloy to bring it what containers print. Not needed for `make logs`."""

    enabled: bool = False
    """true starts both, and Grafana gets Loki as a data source."""
    retention_days: int = Field(7, ge=1, le=366)
    """How long Loki keeps lines."""


class Logs(Section):
    """What parts write about themselves and about requests; never prompts, pictures or keys. docs/logs.md"""

    retention_mb: int = Field(60, ge=3, le=100_000)
    """Most disk that the log of one container may take, in MB, in three files of which the oldest goes first."""
    engine_requests: bool = True
    """Whether engines write a line for each request, with its id and without its content. The gateway always does."""
    loki: Loki = Loki()
    """A place to search in them all."""


class Tracing(Section):
    """OpenTelemetry spans of requests: from the gateway's log by the controller, and from vLLM. docs/logs.md#traces"""

    enabled: bool = False
    """true: requests carry a trace from the gateway on, and engines tell what they did with it."""
    endpoint: Collector | None = None
    """Who takes the spans, as OTLP over HTTP: http://tempo.example.com:4318. null: Jaeger, which `make up` starts."""
    sampled_percent: float = Field(10, ge=0, le=100)
    """So many of a hundred requests are traced, in steps of 0.01. A client that sends a `traceparent` decides for its own."""
    jaeger_port: int = Field(16686, ge=1, le=65535)
    """Jaeger's page, on 127.0.0.1 of this host."""

    @property
    def collector(self) -> str:
        """The endpoint, or Jaeger's inside the cluster."""
        return self.endpoint or "http://jaeger:4318"

    @property
    def starts_jaeger(self) -> bool:
        return self.enabled and self.endpoint is None


Severity = Literal["page", "ticket"]


class Webhook(Section):
    """Something that takes alerts by HTTP POST, as Alertmanager writes them: a chat's bridge, a pager."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$"), IsUrl] | None = None
    """Where to. With a secret in it use `url_file`."""
    url_file: FileName | None = None
    """A file in the secrets folder that holds the URL."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    """Which alerts it gets."""


class Email(Section):
    """Mail through an SMTP server."""

    to: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$")]
    """Address that gets the mail."""
    sender: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$")]
    """Address that it comes from."""
    server: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"), IsAddress]
    """The SMTP server: mail.example.com:587."""
    user: str | None = None
    """Name at that server. null: it wants none."""
    password_file: FileName | None = None
    """A file in the secrets folder that holds the password."""
    tls: bool = True
    """Whether the connection must be encrypted."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    """Which alerts it gets."""


class Alerting(Section):
    """Who is told of alerts. With nobody they are seen in Prometheus, Alertmanager and `make status` only."""

    webhooks: tuple[Webhook, ...] = ()
    """Things that take alerts by HTTP."""
    emails: tuple[Email, ...] = ()
    """People who get mail."""
    repeat_interval_h: float = Field(4, gt=0, le=168)
    """An alert that lasts is told again after so many hours."""


class Monitoring(Section):
    """Prometheus and Grafana, on the loopback address; people reach Grafana through the gateway at /grafana/."""

    enabled: bool = True
    """false leaves Prometheus, Grafana and the exporters out."""
    prometheus_port: Port = 9090
    """Prometheus on 127.0.0.1 of this host."""
    alertmanager_port: Port = 9093
    """Alertmanager on 127.0.0.1 of this host."""
    scrape_interval_s: int = Field(5, ge=1, le=300)
    """Pause between two scrapes."""
    retention_days: int = Field(15, ge=1)
    """How long samples are kept."""
    retention_gb: int = Field(10, ge=1)
    """Most disk that samples may take, in GiB."""
    gpu_exporter: bool | None = None
    """Whether NVIDIA's DCGM exporter runs, and its figures have rules and alerts. null: where engines run on GPUs."""
    alerting: Alerting = Alerting()
    """Who is told of alerts."""
    runbooks: str = Field("docs/runbooks", min_length=1)
    """Where the pages lie that alerts name, as a folder or a URL: https://git.example.com/manyeyes/docs/runbooks."""
    certificate_days: int = Field(14, ge=1, le=365)
    """An alert comes when the gateway's certificate has so many days left."""
    models_disk_gb: int = Field(20, ge=1)
    """An alert comes when less is left on the disk of the models, in GB (10^9 bytes)."""
    gpu_hot_celsius: int = Field(87, ge=40, le=120)
    """An alert comes when a GPU is hotter than this for five minutes. Many slow down from 83 to 90 on."""
    alert_speed: float = Field(1, ge=1, le=600)
    """How many times faster alerts decide: what they look back on and wait for is divided by it. 1 is for people; drills take 60.
    Four scrapes are the least that they look back on."""
