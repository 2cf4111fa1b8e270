"""What a recording rule, an alert and a group of either are here, before they are Prometheus' YAML."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RecordingRule:
    """A figure that Prometheus works out ahead of time."""

    name: str
    """level:metric:operations, as Prometheus advises: https://prometheus.io/docs/practices/rules/"""
    expr: str
    """PromQL, with the ranges that it has in production."""
    help: str
    """What it says, in a sentence, and its unit."""


@dataclass(frozen=True)
class AlertRule:
    """Something that a person has to do something about."""

    name: str
    expr: str
    for_: str
    """How long it must hold: 2m."""
    severity: Literal["page", "ticket"]
    """page: somebody is woken. ticket: it can wait for the morning."""
    summary: str
    """One sentence, with the pool or the engine in it."""
    keep: str = "0s"
    """How long it goes on after it last held, so that it does not flutter."""


@dataclass(frozen=True)
class RuleGroup:
    """Rules that are worked out together, one after the other."""

    name: str
    rules: tuple[RecordingRule | AlertRule, ...]
    slow: bool = False
    """Worked out every 30 s and not at every scrape: it looks at hours."""
    gpu: bool = False
    """Only where NVIDIA's exporter runs."""
