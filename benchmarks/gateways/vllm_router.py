"""vllm-project/router (Rust), with each policy that works in front of plain engines."""

from benchmarks.gateways.gateway import Gateway, Setting
from benchmarks.gateways.router import router

NAME = "vllm-router"
POLICIES = "https://github.com/vllm-project/router/blob/main/docs/load_balancing/README.md"
HELP = "vllm-router --help"
# docs/load_balancing orders them so; the first one present wins.
HEADERS = ("X-Session-ID", "X-User-ID")

WHY = {
    "cache_aware": "the program's default",
    "consistent_hash": "the page's choice for chats; without a header it hashes the body",
    "sticky_least_loaded": "new sessions to the engine with the fewest; without a header it keeps no sessions",
    "power_of_two": "the page's choice where load matters",
    "round_robin": "the page's choice for work without state",
    "random": "the page's choice for tests",
}


def _gateway(policy: str) -> Gateway:
    return router(
        NAME,
        policy,
        program=["vllm-router"],
        flags=[f"--policy={policy}"],
        settings=(
            Setting(f"--policy {policy}", WHY[policy], POLICIES),
            Setting("everything else at its default", "its maker's choice", HELP),
        ),
        headers=HEADERS if policy in ("consistent_hash", "sticky_least_loaded") else (),
        leading=policy in ("cache_aware", "consistent_hash"),
    )


GATEWAYS = tuple(_gateway(policy) for policy in WHY)
NOT_RUN = {f"{NAME} kv_aware": "it needs engines that publish KV events over ZMQ, which the emulated ones do not"}
