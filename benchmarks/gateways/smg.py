"""Shepherd Model Gateway (Rust), what sglang-router became."""

from benchmarks.gateways.gateway import Gateway, Setting
from benchmarks.gateways.router import router

NAME = "smg"
BALANCING = "https://github.com/lightseekorg/smg/blob/main/docs/concepts/routing/load-balancing.md"
STICKY = "https://github.com/smg-project/smg-docs/blob/main/src/lib/content/concepts/routing/sticky-sessions.md"


def _gateway(
    name: str, flags: tuple[str, ...], why: tuple[Setting, ...], headers: tuple[str, ...], leading: bool
) -> Gateway:
    return router(
        NAME,
        name,
        program=["smg", "launch"],
        flags=["--backend=vllm", *flags],
        settings=(
            *why,
            Setting(
                "--backend vllm; everything else at its default", "the engines are of vLLM's kind", "smg launch --help"
            ),
        ),
        headers=headers,
        leading=leading,
    )


GATEWAYS = (
    _gateway(
        "cache_aware",
        ("--policy=cache_aware", "--routing-key-override"),
        (
            Setting("--policy cache_aware", "the page's recommendation for chats, and the default", BALANCING),
            Setting("--routing-key-override", "its sticky sessions; without the header it does nothing", STICKY),
        ),
        headers=("X-SMG-Routing-Key",),
        leading=True,
    ),
    _gateway(
        "power_of_two",
        ("--policy=power_of_two",),
        (Setting("--policy power_of_two", "the page's choice for balance without caches", BALANCING),),
        headers=(),
        leading=False,
    ),
)
