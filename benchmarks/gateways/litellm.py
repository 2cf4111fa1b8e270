"""LiteLLM's proxy (Python), without a database or Redis: one box, as here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from benchmarks.gateways.gateway import KEY, MODEL, BenchmarkedGateway, GatewaySetting, command
from benchmarks.install_competitors import environment_for, from_pypi, pinned

NAME = "litellm"
PRODUCTION = "https://docs.litellm.ai/docs/proxy/prod"
BALANCING = "https://docs.litellm.ai/docs/proxy/load_balancing"
TUNING = "https://docs.litellm.ai/docs/proxy/server_tuning"


def _version() -> str:
    from_pypi(NAME)
    return pinned(NAME, NAME)


def _environment() -> Mapping[str, str]:
    return {
        **environment_for(from_pypi(NAME)),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # It would fetch prices from the network when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _gateway(strategy: str, workers: int, why: str, workers_why: str, leading: bool) -> BenchmarkedGateway:
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
        program = str(from_pypi(NAME) / "bin/litellm")
        return [program, "--config", str(file), "--host=127.0.0.1", f"--port={port}", f"--num_workers={workers}"]

    return BenchmarkedGateway(
        name=f"LiteLLM {strategy}",
        product="LiteLLM",
        version=_version,
        run=command(make, _environment),
        headers=("x-litellm-session-id",),
        leading=leading,
        settings=(
            GatewaySetting(f"routing_strategy {strategy}", why, BALANCING),
            GatewaySetting(
                "session_affinity", "its stickiness by header; without the header it does nothing", BALANCING
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
GATEWAYS = (
    _gateway("least-busy", 1, "its strategy by requests in flight", ONE, leading=True),
    _gateway("simple-shuffle", CORES, "the page's recommendation", MANY, leading=False),
)
