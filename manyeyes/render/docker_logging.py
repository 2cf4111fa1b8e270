"""Cluster -> how Docker keeps what a container prints.

`non-blocking`: a container whose lines cannot be written (a full or a slow disk) goes on, and lines are lost.
"""

from typing import Any

from manyeyes.config.cluster import Cluster

FILES = 3
"""As the hand-written Compose files have it."""


def file_size(cluster: Cluster) -> str:
    """Of one of them, as Docker spells sizes."""
    return f"{cluster.logs.keep_mb * 1000 // FILES}k"


def container_logs(cluster: Cluster) -> dict[str, Any]:
    """A service's `logging`."""
    kept = {"max-size": file_size(cluster), "max-file": str(FILES)}
    labels = "com.docker.compose.project,com.docker.compose.service"
    return {
        "driver": "json-file",
        "options": {**kept, "mode": "non-blocking", "max-buffer-size": "4m", "labels": labels},
    }
