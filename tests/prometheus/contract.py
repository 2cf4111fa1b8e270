"""Every metric and label that a query names, held against what a running Prometheus has got. Prometheus itself reads the queries."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from loadtest.run import TEXTFILE_FORMAT
from manyeyes.controller import metrics

Ask = Callable[..., Any]
"""ask(path, **parameters): the data of Prometheus' answer; fails with its words."""

RARE = {
    "manyeyes_fallbacks_total": "the cluster has no pool with a fallback",
    "manyeyes_remote_reachable": "no pool is served elsewhere",
    "manyeyes_certificate_expires_timestamp_seconds": "the gateway speaks HTTP",
    "manyeyes_scaling_desired_replicas": "no pool is scaled",
    "manyeyes_key_requests_total": "nobody has a key",
    "manyeyes_engine_transitions_total": "only the first change makes it",
    "manyeyes_annotation": "no load test has marked its time yet",
}
"""The controller's that this cluster has no series of: their labels are held against manyeyes/controller/metrics.py instead."""
OF_GPUS = {
    name: {"gpu", "UUID", "modelName", "device"}
    for name in (
        *("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_GPU_TEMP"),
        *("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_SM_CLOCK"),
        *("DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    )
}
"""No GPU here: names and labels as NVIDIA documents them for dcgm-exporter 4.8 (etc/default-counters.csv, and its README)."""
GIVEN = {"job", "instance", "__name__"}
"""Labels that every series has."""
LAST_S = 300
SUFFIXES = ("_total", "_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Named:
    """A metric and the labels that a query wants of it."""

    metric: str
    labels: frozenset[str]


def named(parsed: Any) -> Iterator[Named]:
    """Every selector with the labels in its braces."""
    if isinstance(parsed, list):
        for one in parsed:
            yield from named(one)
    elif isinstance(parsed, dict):
        if parsed.get("type") in ("vectorSelector", "matrixSelector"):
            yield Named(parsed["name"], frozenset(one["name"] for one in parsed["matchers"]) - GIVEN)
        for value in parsed.values():
            if isinstance(value, dict | list):
                yield from named(value)


def grouped(parsed: Any) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """(labels that a `by` or `on` names, metrics below it)."""
    if isinstance(parsed, list):
        for one in parsed:
            yield from grouped(one)
    elif isinstance(parsed, dict):
        below = frozenset(one.metric for one in named(parsed))
        if parsed.get("type") == "aggregation" and parsed["grouping"]:
            yield frozenset(parsed["grouping"]), below
        if (matching := parsed.get("matching")) and matching["on"] and matching["labels"]:
            for side in ("lhs", "rhs"):
                metrics_of_side = frozenset(one.metric for one in named(parsed[side]))
                if metrics_of_side:
                    yield frozenset(matching["labels"]), metrics_of_side
        for value in parsed.values():
            if isinstance(value, dict | list):
                yield from grouped(value)


class Contract:
    """What one Prometheus has got."""

    def __init__(self, ask: Ask, recorded: dict[str, str]) -> None:
        self.ask = ask
        self.recorded = recorded
        """Expression by the name of its recording rule."""
        self._labels: dict[str, set[str] | None] = {}

    def problems(self, query: str) -> list[str]:
        """One sentence for each metric or label in `query` that is not there."""
        parsed = self.ask("parse_query", query=query)
        found = []
        for one in named(parsed):
            labels = self.labels(one.metric)
            if labels is None:
                found.append(f"nothing tells {one.metric}, in {query}")
            elif missing := one.labels - labels:
                found.append(f"{one.metric} has no label {', '.join(sorted(missing))}, in {query}")
        for wanted, below in grouped(parsed):
            there = set[str]().union(GIVEN, *(self.labels(metric) or () for metric in below))
            if missing := wanted - there - _made_here(query):
                found.append(f"none of {', '.join(sorted(below))} has {', '.join(sorted(missing))}, in {query}")
        return found

    def labels(self, metric: str) -> set[str] | None:
        """Of all its series of the last minutes; None where there is no such metric."""
        if metric not in self._labels:
            since = f"{time.time() - LAST_S:.0f}"  # without it also what was told weeks ago
            series = self.ask("series", **{"match[]": f'{{__name__="{metric}"}}', "start": since})
            # A label that is empty in every series is none to Prometheus.
            self._labels[metric] = _declared(metric).union(*series) if series else self._said(metric)
        return self._labels[metric]

    def _said(self, metric: str) -> set[str] | None:
        """Of a metric without a series: what its maker says of it."""
        if metric in OF_GPUS:
            return OF_GPUS[metric]
        if f"\n{metric} " in TEXTFILE_FORMAT:
            return set()
        if metric in RARE:
            return _declared(metric)
        if metric in self.recorded:
            return self._of_recorded(self.recorded[metric])
        return None

    def _of_recorded(self, expr: str) -> set[str] | None:
        """A figure that has nothing to say just now has the labels that it is grouped by, provided that what it goes by is there."""
        if self.problems(expr):
            return None
        parsed = self.ask("parse_query", query=expr)
        return set[str]().union(
            *(labels for labels, _ in grouped(parsed)), *(self.labels(n.metric) or () for n in named(parsed))
        )


def _declared(metric: str) -> set[str]:
    """Labels that the controller gives it; none for what is not the controller's."""
    name = next((metric.removesuffix(end) for end in SUFFIXES if metric.endswith(end)), metric)
    return next((set(one._labelnames) for one in metrics.ALL if one._name in (name, metric)), set())


def _made_here(query: str) -> set[str]:
    """Labels that label_replace makes."""
    return set(re.findall(r'label_replace\(.*?, "(\w+)",', query))


def all_problems(ask: Ask, recorded: dict[str, str], queries: Iterable[str]) -> list[str]:
    """Of all queries, each once."""
    contract = Contract(ask, recorded)
    return list(dict.fromkeys(problem for query in queries for problem in contract.problems(query)))
