"""The gateways of the comparison: one file each, all in `ALL`."""

from benchmarks.gateways import haproxy, litellm, nginx_docs, ours, routers
from benchmarks.gateways.gateway import BenchmarkedGateway

OURS = ours.MANYEYES.name
BOUND = ours.DIRECT.name

ALL: tuple[BenchmarkedGateway, ...] = (
    ours.MANYEYES,
    ours.DIRECT,
    nginx_docs.GATEWAY,
    haproxy.GATEWAY,
    *routers.VLLM_ROUTERS,
    *routers.SGLANG_ROUTERS,
    *routers.SMG_ROUTERS,
    *litellm.GATEWAYS,
)
