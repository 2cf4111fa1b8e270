"""sgl-project's router (Rust), as the package sglang-router; smg.py has its successor."""

from benchmarks.gateways.gateway import Gateway, Setting
from benchmarks.gateways.router import router

NAME = "sglang-router"
DOCS = "https://github.com/sgl-project/sglang/blob/main/docs/advanced_features/sgl_model_gateway.md"


def _gateway(
    name: str, flags: tuple[str, ...], why: str, headers: tuple[str, ...] = (), leading: bool = True
) -> Gateway:
    return router(
        NAME,
        name,
        program=["python", "-m", "sglang_router.launch_router"],
        flags=flags,
        settings=(
            Setting(" ".join(flags), why, DOCS),
            Setting(
                "everything else at its default", "its maker's choice", "python -m sglang_router.launch_router --help"
            ),
        ),
        headers=headers,
        leading=leading,
    )


GATEWAYS = (
    _gateway("cache_aware", ("--policy=cache_aware",), "the program's default, and its page's for chats"),
    _gateway(
        "manual",
        ("--policy=manual", "--assignment-mode=min_load"),
        "its stickiness by header; new sessions to the engine with the fewest requests",
        headers=("X-SMG-Routing-Key",),
        leading=False,
    ),
    _gateway("power_of_two", ("--policy=power_of_two",), "its policy by load alone", leading=False),
)
