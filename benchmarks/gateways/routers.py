"""Routers that are one command from PyPI and take their engines with --worker-urls: vllm-project/router, sgl-project's router
(the package sglang-router), and Shepherd Model Gateway, what that became. All are written in Rust."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from benchmarks.gateways.gateway import (
    KEY,
    MODEL,
    BenchmarkedGateway,
    GatewaySetting,
    command,
    environment_for,
    from_pypi,
    pinned,
)
from manyeyes.devcluster.cluster import free_port


def router(
    package: str,
    name: str,
    program: Sequence[str],
    flags: Sequence[str],
    settings: tuple[GatewaySetting, ...],
    headers: tuple[str, ...] = (),
    leading: bool = True,
) -> BenchmarkedGateway:
    """The gateway `package` `name`. `program`: its command inside the package's environment, before --host."""

    def version() -> str:
        from_pypi(package)
        return pinned(package, package)

    def environment() -> Mapping[str, str]:
        return environment_for(from_pypi(package))

    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        executable, *arguments = program
        return [
            str(from_pypi(package) / "bin" / executable),
            *arguments,
            "--host=127.0.0.1",
            f"--port={port}",
            f"--prometheus-port={free_port()}",
            *flags,
            "--worker-urls",
            *(f"http://{engine}" for engine in engines),
        ]

    return BenchmarkedGateway(
        name=f"{package} {name}",
        product=package,
        version=version,
        run=command(make, environment),
        settings=settings,
        headers=headers,
        leading=leading,
    )


VLLM_ROUTER = "vllm-router"
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


def _vllm_router(policy: str) -> BenchmarkedGateway:
    return router(
        VLLM_ROUTER,
        policy,
        program=["vllm-router"],
        flags=[f"--policy={policy}"],
        settings=(
            GatewaySetting(f"--policy {policy}", WHY[policy], POLICIES),
            GatewaySetting("everything else at its default", "its maker's choice", HELP),
        ),
        headers=HEADERS if policy in ("consistent_hash", "sticky_least_loaded") else (),
        leading=policy in ("cache_aware", "consistent_hash"),
    )


VLLM_ROUTERS = tuple(_vllm_router(policy) for policy in WHY)
NOT_RUN = {
    f"{VLLM_ROUTER} kv_aware": "it needs engines that publish KV events over ZMQ, which the emulated ones do not"
}


SGLANG_ROUTER = "sglang-router"
SGLANG_DOCS = "https://github.com/sgl-project/sglang/blob/main/docs/advanced_features/sgl_model_gateway.md"


def _sglang_router(
    name: str, flags: tuple[str, ...], why: str, headers: tuple[str, ...] = (), leading: bool = True
) -> BenchmarkedGateway:
    return router(
        SGLANG_ROUTER,
        name,
        program=["python", "-m", "sglang_router.launch_router"],
        flags=flags,
        settings=(
            GatewaySetting(" ".join(flags), why, SGLANG_DOCS),
            GatewaySetting(
                "everything else at its default", "its maker's choice", "python -m sglang_router.launch_router --help"
            ),
        ),
        headers=headers,
        leading=leading,
    )


SGLANG_ROUTERS = (
    _sglang_router("cache_aware", ("--policy=cache_aware",), "the program's default, and its page's for chats"),
    _sglang_router(
        "manual",
        ("--policy=manual", "--assignment-mode=min_load"),
        "its stickiness by header; new sessions to the engine with the fewest requests",
        headers=("X-SMG-Routing-Key",),
        leading=False,
    ),
    _sglang_router("power_of_two", ("--policy=power_of_two",), "its policy by load alone", leading=False),
)


SMG = "smg"
BALANCING = "https://github.com/lightseekorg/smg/blob/main/docs/concepts/routing/load-balancing.md"
STICKY = "https://github.com/smg-project/smg-docs/blob/main/src/lib/content/concepts/routing/sticky-sessions.md"


def _smg(
    name: str, flags: tuple[str, ...], why: tuple[GatewaySetting, ...], headers: tuple[str, ...], leading: bool
) -> BenchmarkedGateway:
    return router(
        SMG,
        name,
        program=["smg", "launch"],
        flags=["--backend=vllm", *flags],
        settings=(
            *why,
            GatewaySetting(
                "--backend vllm; everything else at its default", "the engines are of vLLM's kind", "smg launch --help"
            ),
        ),
        headers=headers,
        leading=leading,
    )


SMG_ROUTERS = (
    _smg(
        "cache_aware",
        ("--policy=cache_aware", "--routing-key-override"),
        (
            GatewaySetting("--policy cache_aware", "the page's recommendation for chats, and the default", BALANCING),
            GatewaySetting("--routing-key-override", "its sticky sessions; without the header it does nothing", STICKY),
        ),
        headers=("X-SMG-Routing-Key",),
        leading=True,
    ),
    _smg(
        "power_of_two",
        ("--policy=power_of_two",),
        (GatewaySetting("--policy power_of_two", "the page's choice for balance without caches", BALANCING),),
        headers=(),
        leading=False,
    ),
)


LITELLM = "litellm"
PRODUCTION = "https://docs.litellm.ai/docs/proxy/prod"
LITELLM_BALANCING = "https://docs.litellm.ai/docs/proxy/load_balancing"
TUNING = "https://docs.litellm.ai/docs/proxy/server_tuning"


def _litellm_version() -> str:
    from_pypi(LITELLM)
    return pinned(LITELLM, LITELLM)


def _litellm_environment() -> Mapping[str, str]:
    return {
        **environment_for(from_pypi(LITELLM)),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # It would fetch prices from the network when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _litellm(strategy: str, workers: int, why: str, workers_why: str, leading: bool) -> BenchmarkedGateway:
    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        document = {
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"http://{engine}/v1", "api_key": "any"},
                }
                for engine in engines
            ],
            "router_settings": {
                "routing_strategy": strategy,
                "optional_pre_call_checks": ["session_affinity"],
            },
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"request_timeout": 600, "set_verbose": False},
        }
        file = folder / "litellm.yaml"
        file.write_text(yaml.safe_dump(document))
        program = str(from_pypi(LITELLM) / "bin/litellm")
        return [program, "--config", str(file), "--host=127.0.0.1", f"--port={port}", f"--num_workers={workers}"]

    return BenchmarkedGateway(
        name=f"LiteLLM {strategy}",
        product="LiteLLM",
        version=_litellm_version,
        run=command(make, _litellm_environment),
        headers=("x-litellm-session-id",),
        leading=leading,
        settings=(
            GatewaySetting(f"routing_strategy {strategy}", why, LITELLM_BALANCING),
            GatewaySetting(
                "session_affinity", "its stickiness by header; without the header it does nothing", LITELLM_BALANCING
            ),
            GatewaySetting(f"--num_workers {workers}", workers_why, TUNING),
            GatewaySetting(
                "LITELLM_LOG=ERROR, LITELLM_MODE=PRODUCTION, request_timeout 600, a master key",
                "its production page",
                PRODUCTION,
            ),
        ),
    )


CORES = os.cpu_count() or 1
ONE = "the page's advice, and its counts of requests in flight are each worker's own"
MANY = "as many as cores: it needs no counts"
LITELLM_GATEWAYS = (
    _litellm("least-busy", 1, "its strategy by requests in flight", ONE, leading=True),
    _litellm("simple-shuffle", CORES, "the page's recommendation", MANY, leading=False),
)
