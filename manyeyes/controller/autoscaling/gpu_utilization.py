"""How busy GPUs are, as NVIDIA's DCGM exporter tells it. Pure but for one GET."""

import re
from collections.abc import Iterable

import httpx

from manyeyes.controller.bounded import NoReply, call

METRIC = "DCGM_FI_DEV_GPU_UTIL"
TIMEOUT_S = 5.0
MOST_BYTES = 4 << 20
_SAMPLE = re.compile(rf"^{METRIC}\{{(?P<labels>[^}}]*)\}}\s+(?P<value>[0-9.eE+-]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


async def ask(client: httpx.AsyncClient, url: str) -> dict[str, float]:
    """{GPU by its number, and by its UUID: busy part from 0 to 1}; empty when the exporter does not answer."""
    try:
        reply = await call(client, "GET", url, TIMEOUT_S, most_bytes=MOST_BYTES)
    except NoReply:
        return {}
    return read(reply.text) if reply.status == 200 else {}


def read(text: str) -> dict[str, float]:
    """The exporter's text."""
    found: dict[str, float] = {}
    for sample in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(sample["labels"]))
        try:
            busy = min(1.0, max(0.0, float(sample["value"]) / 100))
        except ValueError:
            continue
        for name in (labels.get("gpu"), labels.get("UUID")):
            if name:
                found[name] = busy
    return found


def of(use: dict[str, float], gpus: Iterable[str]) -> float | None:
    """The average of some GPUs; None where one is not known."""
    values = [use.get(gpu) for gpu in gpus]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
