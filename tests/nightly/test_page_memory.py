"""Large pictures, many at once: the page's process stays within its container. tests/integration has the limit itself."""

import asyncio

import httpx

from manyeyes.devcluster.cluster import LocalCluster
from tests.integration.test_page_uploads import ask_all, bomb, cluster, peak_mb

__all__ = ["cluster"]
SIDE = 7000
MOST_MB = 1300
"""compose/webui.yaml gives 2 GB, of which uploads in its /tmp may take a part."""


def test_many_large_pictures_at_once_are_answered_one_after_the_other(cluster: LocalCluster) -> None:
    found = asyncio.run(ask_all(cluster.url, [bomb(SIDE, SIDE) for _ in range(3)]))
    assert [text for text in found if "event: complete" not in text] == []
    assert peak_mb(cluster) < MOST_MB
    assert httpx.get(cluster.url, follow_redirects=True).status_code == 200
