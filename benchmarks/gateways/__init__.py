"""The gateways of the comparison: one file each, all in `ALL`."""

from benchmarks.gateways import direct, haproxy, litellm, manyeyes, nginx_docs, sglang_router, smg, vllm_router
from benchmarks.gateways.gateway import Gateway

OURS = manyeyes.GATEWAY.name
BOUND = direct.GATEWAY.name

ALL: tuple[Gateway, ...] = (
    manyeyes.GATEWAY,
    direct.GATEWAY,
    nginx_docs.GATEWAY,
    haproxy.GATEWAY,
    *vllm_router.GATEWAYS,
    *sglang_router.GATEWAYS,
    *smg.GATEWAYS,
    *litellm.GATEWAYS,
)
