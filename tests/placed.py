"""A cluster from text with its engines placed, as what is rendered and served takes it."""

from manyeyes.config.loader import parse
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, PlacedCluster, place_engines


def placed(text: str) -> PlacedCluster:
    """Listed engines as they are; with `engines: auto` on two GPUs of 24 GiB."""
    cluster = parse(text)
    return place_engines(cluster, DEFAULT_INVENTORY if cluster.engines == "auto" else Inventory())
