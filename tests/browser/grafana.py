"""Whether the cluster under test has Grafana: its image can only be pulled (docs/no-registry.md)."""

import os

import httpx

GATEWAY = os.environ.get("MANYEYES_URL", "")
PROMETHEUS = os.environ.get("MANYEYES_PROMETHEUS_URL", "")


def runs() -> bool:
    try:
        return bool(GATEWAY) and httpx.get(f"{GATEWAY}/grafana/api/health", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def has_gpus() -> bool:
    """Whether an exporter tells of GPUs, so that the GPU dashboard has something to show."""
    try:
        query = {"query": "count(DCGM_FI_DEV_GPU_UTIL)"}
        return bool(httpx.get(f"{PROMETHEUS}/api/v1/query", params=query, timeout=10).json()["data"]["result"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return False
