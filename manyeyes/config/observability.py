"""Settings of logs, traces, Prometheus with its exporters and alerts, and Grafana."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.fields import FileName, IsAddress, IsUrl, Port, Section

Collector = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"), IsUrl]
"""URL of a collector of OTLP over HTTP; /v1/traces is appended."""


class Loki(Section):
    """Grafana Loki, and Alloy, which sends it the containers' output. Not required for `make logs`."""

    enabled: bool = False
    """true: Loki and Alloy are started, and Loki is a data source in Grafana."""
    retention_days: int = Field(7, ge=1, le=366)
    """Days for which Loki stores log lines."""


class Logs(Section):
    """Settings of logs. Logs never contain prompts, images or keys. See docs/monitoring.md."""

    retention_mb: int = Field(60, ge=3, le=100_000)
    """Maximum disk space of one container's log, in MB. The log has three files; the oldest is deleted first."""
    engine_requests: bool = True
    """Whether engines log a line for each request, with its id but without its content. The gateway always does."""
    loki: Loki = Loki()
    """Log storage with search over all containers."""


class Tracing(Section):
    """OpenTelemetry traces of requests, with spans from the gateway and from vLLM. See docs/monitoring.md#traces."""

    enabled: bool = False
    """true: the gateway adds a trace to requests, and engines record spans in it."""
    endpoint: Collector | None = None
    """Collector that receives the spans, as OTLP over HTTP: http://tempo.example.com:4318. null: Jaeger, which `make
    up` starts."""
    sampled_percent: float = Field(10, ge=0, le=100)
    """Percentage of requests that are traced, in steps of 0.01. A client's `traceparent` header decides for its own
    requests."""
    jaeger_port: int = Field(16686, ge=1, le=65535)
    """Port of Jaeger's page, on 127.0.0.1 of this host."""

    @property
    def collector(self) -> str:
        """The configured collector, or Jaeger inside the cluster."""
        return self.endpoint or "http://jaeger:4318"

    @property
    def starts_jaeger(self) -> bool:
        return self.enabled and self.endpoint is None


Severity = Literal["page", "ticket"]


class Webhook(Section):
    """A webhook that receives alerts by HTTP POST in Alertmanager's format, such as a chat bridge or a pager."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$"), IsUrl] | None = None
    """URL of the webhook. If it contains a secret, use `url_file`."""
    url_file: FileName | None = None
    """A file in the secrets folder that contains the URL."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    """Severities of the alerts that are sent."""


class Email(Section):
    """Email through an SMTP server."""

    to: Annotated[str, StringConstraints(pattern=r"^[^@\s{}]+@[^@\s{}]+$")]
    """Address of the recipient."""
    sender: Annotated[str, StringConstraints(pattern=r"^[^@\s{}]+@[^@\s{}]+$")]
    """Address of the sender."""
    server: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"), IsAddress]
    """The SMTP server, for example mail.example.com:587."""
    user: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f{}]+$")] | None = None
    """User name at the SMTP server. null: no login."""
    password_file: FileName | None = None
    """A file in the secrets folder that contains the password."""
    tls: bool = True
    """Whether the connection must be encrypted."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    """Severities of the alerts that are sent."""


class Alerting(Section):
    """Receivers of alerts. Without a receiver, alerts are visible only in Prometheus, Alertmanager and `make
    status`."""

    webhooks: tuple[Webhook, ...] = ()
    """Webhooks that receive alerts by HTTP."""
    emails: tuple[Email, ...] = ()
    """Recipients of alerts by email."""
    repeat_interval_h: float = Field(4, gt=0, le=168)
    """Hours after which the notification of an active alert is repeated."""


class Monitoring(Section):
    """Settings of Prometheus and Grafana. They listen on the loopback address; users open Grafana at /grafana/ of the
    gateway."""

    enabled: bool = True
    """false: Prometheus, Grafana and the exporters are not started."""
    prometheus_port: Port = 9090
    """Port of Prometheus, on 127.0.0.1 of this host."""
    alertmanager_port: Port = 9093
    """Port of Alertmanager, on 127.0.0.1 of this host."""
    scrape_interval_s: int = Field(5, ge=1, le=300)
    """Scrape interval, in seconds."""
    retention_days: int = Field(15, ge=1)
    """Days for which samples are stored."""
    retention_gb: int = Field(10, ge=1)
    """Maximum disk space of the samples, in GiB."""
    gpu_exporter: bool | None = None
    """Whether NVIDIA's DCGM exporter runs, with rules and alerts for its metrics. null: only if engines run on GPUs."""
    alerting: Alerting = Alerting()
    """Receivers of alerts."""
    runbooks: str = Field("docs/runbooks", pattern=r"^[^\x00-\x1f\x7f{}]+$")
    """Location of the runbooks that alerts link to: a folder or a URL such as
    https://git.example.com/manyeyes/docs/runbooks."""
    certificate_days: int = Field(14, ge=1, le=365)
    """Days before the gateway's certificate expires at which an alert fires."""
    models_disk_gb: int = Field(20, ge=1)
    """Free space on the disk of the models below which an alert fires, in GB (10^9 bytes)."""
    gpu_hot_celsius: int = Field(87, ge=40, le=120)
    """GPU temperature above which an alert fires after five minutes, in degrees Celsius. Many GPUs throttle between 83
    and 90."""
    alert_speed: float = Field(1, ge=1, le=600)
    """Divides the time windows and waiting times of alerts. 1 is for production; alert drills use 60. A window is never
    shorter than four scrapes."""
