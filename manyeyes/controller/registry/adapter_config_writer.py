"""What the adapter must know, as a document in the state folder: it goes on while the controller is away."""

from typing import Any

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.state_store import StateStore
from manyeyes.openai_error import ApiError

DOCUMENT = "adapter"


class AdapterConfigWriter:
    """Writes the document whenever it changes."""

    def __init__(self, state_store: StateStore) -> None:
        self.state_store = state_store
        self._written: dict[str, Any] | None = None

    def write(self, cluster: PlacedCluster) -> None:
        """Listens to the cluster in force."""
        document = adapter_document(cluster)
        if document != self._written and self.state_store.write(DOCUMENT, document):
            self._written = document


def adapter_document(cluster: PlacedCluster) -> dict[str, Any]:
    """Limits, and every engine with an endpoint. Pure."""
    return {
        "max_body_mb": cluster.gateway.max_body_mb,
        "limits": cluster.adapter.model_dump(mode="json"),
        "engines": [
            {
                "name": engine.name,
                "port": engine.port,
                "pool": engine.pool,
                "model": cluster.pool_of(engine).model,
                "names": list(cluster.pool_of(engine).names),
                "endpoint": engine.endpoint.model_dump(mode="json", exclude_defaults=True),
            }
            for engine in cluster.engines
            if engine.endpoint
        ],
    }


def free_port(cluster: PlacedCluster) -> int:
    """The first of the adapter's ports that no engine has. Raises ApiError."""
    taken = {engine.port for engine in cluster.engines if engine.endpoint}
    first, count = cluster.adapter.first_port, cluster.adapter.ports
    for port in range(first, first + count):
        if port not in taken:
            return port
    raise ApiError(
        409, "adapter_full", f"The adapter's {count} ports are all taken; raise adapter.ports in cluster.yaml."
    )
