"""Settings of logs and traces."""

from typing import Annotated

from pydantic import Field, StringConstraints

from manyeyes.config.base import Section
from manyeyes.config.hosts import IsUrl

Collector = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"), IsUrl]
"""Where OTLP over HTTP is taken; /v1/traces is added."""


class Loki(Section):
    """Grafana Loki, with Alloy to bring it what containers print. Not needed for `make logs`."""

    enabled: bool = False
    """true starts both, and Grafana gets Loki as a data source."""
    keep_days: int = Field(7, ge=1, le=366)
    """How long Loki keeps lines."""


class Logs(Section):
    """What parts write about themselves and about requests; never prompts, pictures or keys. docs/logs.md"""

    keep_mb: int = Field(60, ge=3, le=100_000)
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
