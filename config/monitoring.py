"""Prometheus, its exporters and alerts, and Grafana."""

from pydantic import Field

from config.section import Port, Section


class Monitoring(Section):
    """Prometheus and Grafana, on the loopback address; people reach Grafana through the gateway at /grafana/."""

    enabled: bool = True
    """false leaves Prometheus, Grafana and the exporters out."""
    prometheus_port: Port = 9090
    """Prometheus on 127.0.0.1 of this host."""
    scrape_interval_s: int = Field(5, ge=1, le=300)
    """Pause between two scrapes."""
    retention_days: int = Field(15, ge=1)
    """How long samples are kept."""
    retention_gb: int = Field(10, ge=1)
    """Most disk that samples may take, in GiB."""
    gpu_exporter: bool | None = None
    """Whether NVIDIA's DCGM exporter runs, and its figures have rules and alerts. null: where engines run on GPUs."""
    alert_speed: float = Field(1, ge=1, le=600)
    """How many times faster alerts decide: what they look back on and wait for is divided by it. 1 is for people; drills take 60.
    Four scrapes are the least that they look back on."""
