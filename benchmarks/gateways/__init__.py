"""The gateways of the comparison, all in `ALL`."""

from benchmarks.gateways import proxies, routers
from benchmarks.gateways.gateway import BenchmarkedGateway

OURS = proxies.MANYEYES.name
BOUND = proxies.DIRECT.name

ALL: tuple[BenchmarkedGateway, ...] = (
    proxies.MANYEYES,
    proxies.DIRECT,
    proxies.NGINX_DOCS,
    proxies.HAPROXY,
    *routers.VLLM_ROUTERS,
    *routers.SGLANG_ROUTERS,
    *routers.SMG_ROUTERS,
    *routers.LITELLM_GATEWAYS,
)
