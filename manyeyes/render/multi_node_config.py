"""Cluster -> what the controller and the page of a cluster beyond one host read in place of cluster.yaml."""

from manyeyes.config.cluster import Cluster
from manyeyes.render.header import plain_yaml


def told_cluster(cluster: Cluster) -> str:
    """Engines by name, nothing that the controller does on one host alone."""
    pools = tuple(pool.model_copy(update={"scaling": None}) for pool in cluster.pools)
    document = cluster.model_copy(update={"pools": pools}).model_dump(mode="json", exclude_defaults=True)
    return plain_yaml(document)
