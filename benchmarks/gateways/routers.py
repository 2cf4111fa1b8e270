"""Gateways from PyPI that are started by one command.

Three take their engines as --worker-urls and are written in Rust: vllm-project/router, sgl-project's router (the package
sglang-router) and its successor, Shepherd Model Gateway. LiteLLM is written in Python and has a configuration file.
"""

import os
from collections.abc import Callable, Mapping, Sequence
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
from manyeyes.devcluster.ports import free_port


def version_of(package: str) -> Callable[[], str]:
    def version() -> str:
        from_pypi(package)
        return pinned(package, package)

    return version


def router(
    package: str,
    name: str,
    program: Sequence[str],
    flags: Sequence[str],
    settings: tuple[GatewaySetting, ...],
    headers: tuple[str, ...] = (),
    leading: bool = True,
) -> BenchmarkedGateway:
    """Defines the gateway `package` `name`. `program`: its command inside the package's environment, before --host."""

    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        executable, *arguments = program
        addresses = ["--host=127.0.0.1", f"--port={port}", f"--prometheus-port={free_port()}"]
        workers = ["--worker-urls", *(f"http://{engine}" for engine in engines)]
        return [str(from_pypi(package) / "bin" / executable), *arguments, *addresses, *flags, *workers]

    run = command(make, lambda: environment_for(from_pypi(package)))
    return BenchmarkedGateway(f"{package} {name}", package, version_of(package), run, settings, headers, leading)


def defaults(help_command: str) -> GatewaySetting:
    return GatewaySetting("everything else at its default", "the maker's choice", help_command)


VLLM_ROUTER = "vllm-router"
POLICIES = "https://github.com/vllm-project/router/blob/main/docs/load_balancing/README.md"
# In the order of docs/load_balancing; the first header present is used.
HEADERS = ("X-Session-ID", "X-User-ID")
REASONS = {
    "cache_aware": "the program's default",
    "consistent_hash": "the documentation's choice for chats; without a header it hashes the body",
    "sticky_least_loaded": "sends new sessions to the engine with the fewest requests; without a header there are no sessions",
    "power_of_two": "the documentation's choice if load matters",
    "round_robin": "the documentation's choice for stateless work",
    "random": "the documentation's choice for tests",
}
VLLM_ROUTERS = tuple(
    router(
        VLLM_ROUTER,
        policy,
        ["vllm-router"],
        [f"--policy={policy}"],
        (GatewaySetting(f"--policy {policy}", reason, POLICIES), defaults("vllm-router --help")),
        headers=HEADERS if policy in ("consistent_hash", "sticky_least_loaded") else (),
        leading=policy in ("cache_aware", "consistent_hash"),
    )
    for policy, reason in REASONS.items()
)
NOT_RUN = {f"{VLLM_ROUTER} kv_aware": "it needs engines that publish KV events over ZMQ, which emulated engines do not"}

SGLANG_DOCS = "https://github.com/sgl-project/sglang/blob/main/docs/advanced_features/sgl_model_gateway.md"
SGLANG_PROGRAM = "python -m sglang_router.launch_router"
STICKY_FLAGS = ("--policy=manual", "--assignment-mode=min_load")
SGLANG_ROUTERS = tuple(
    router(
        "sglang-router",
        name,
        SGLANG_PROGRAM.split(),
        flags,
        (GatewaySetting(" ".join(flags), reason, SGLANG_DOCS), defaults(f"{SGLANG_PROGRAM} --help")),
        headers=("X-SMG-Routing-Key",) if name == "manual" else (),
        leading=name == "cache_aware",
    )
    for name, flags, reason in (
        ("cache_aware", ("--policy=cache_aware",), "the program's default, and the documentation's choice for chats"),
        (
            "manual",
            STICKY_FLAGS,
            "its session affinity by header; new sessions go to the engine with the fewest requests",
        ),
        ("power_of_two", ("--policy=power_of_two",), "its policy by load alone"),
    )
)

BALANCING = "https://github.com/lightseekorg/smg/blob/main/docs/concepts/routing/load-balancing.md"
STICKY = "https://github.com/smg-project/smg-docs/blob/main/src/lib/content/concepts/routing/sticky-sessions.md"
SMG_REST = GatewaySetting(
    "--backend vllm; everything else at its default", "the engines have vLLM's API", "smg launch --help"
)
SMG_ROUTERS = (
    router(
        "smg",
        "cache_aware",
        ["smg", "launch"],
        ["--backend=vllm", "--policy=cache_aware", "--routing-key-override"],
        (
            GatewaySetting(
                "--policy cache_aware", "the documentation's recommendation for chats, and the default", BALANCING
            ),
            GatewaySetting(
                "--routing-key-override", "its session affinity; without the header it has no effect", STICKY
            ),
            SMG_REST,
        ),
        headers=("X-SMG-Routing-Key",),
    ),
    router(
        "smg",
        "power_of_two",
        ["smg", "launch"],
        ["--backend=vllm", "--policy=power_of_two"],
        (
            GatewaySetting("--policy power_of_two", "the documentation's choice for balance without caches", BALANCING),
            SMG_REST,
        ),
        leading=False,
    ),
)


LITELLM = "litellm"
PRODUCTION = "https://docs.litellm.ai/docs/proxy/prod"
LITELLM_BALANCING = "https://docs.litellm.ai/docs/proxy/load_balancing"
TUNING = "https://docs.litellm.ai/docs/proxy/server_tuning"


def _litellm_environment() -> Mapping[str, str]:
    return {
        **environment_for(from_pypi(LITELLM)),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # Without this setting it downloads prices when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _litellm(strategy: str, workers: int, reason: str, workers_reason: str, leading: bool) -> BenchmarkedGateway:
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
        version=version_of(LITELLM),
        run=command(make, _litellm_environment),
        headers=("x-litellm-session-id",),
        leading=leading,
        settings=(
            GatewaySetting(f"routing_strategy {strategy}", reason, LITELLM_BALANCING),
            GatewaySetting(
                "session_affinity",
                "its session affinity by header; without the header it has no effect",
                LITELLM_BALANCING,
            ),
            GatewaySetting(f"--num_workers {workers}", workers_reason, TUNING),
            GatewaySetting(
                "LITELLM_LOG=ERROR, LITELLM_MODE=PRODUCTION, request_timeout 600, a master key",
                "its documentation of production settings",
                PRODUCTION,
            ),
        ),
    )


CORES = os.cpu_count() or 1
ONE_WORKER_REASON = "the documentation's advice, and each worker counts only its own requests in flight"
MANY = "one for each core: the strategy needs no counts"
LITELLM_GATEWAYS = (
    _litellm("least-busy", 1, "its strategy based on requests in flight", ONE_WORKER_REASON, leading=True),
    _litellm("simple-shuffle", CORES, "the documentation's recommendation", MANY, leading=False),
)
