"""What is rendered is accepted by the programs that read it: Compose, nginx, vLLM's own parser, promtool."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.gateway import Images
from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.engine.vllm_flags import serve_flags
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render
from tests.integration.certificate import certificate

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
IMAGES = Images()
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
for name, flags in json.load(sys.stdin).items():
    parsed = make_arg_parser(FlexibleArgumentParser(prog=name)).parse_args(flags)
    validate_parsed_serve_args(parsed)
    print(name, parsed.model_tag, parsed.max_model_len)
"""


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda path: path.stem)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    cluster = place_engines(load(request.param), DEFAULT_INVENTORY)
    keys = ApiKeys(keys=(ApiKey(name="alice", sha256="a" * 64, requests_per_minute=60, in_flight=4),))
    _, gateway = build_generation(gateway_files(cluster, keys))
    files = render(cluster, DEFAULT_INVENTORY, request.param, folder) | {
        f"nginx/{name}": text for name, text in gateway.items()
    }
    write_files(files, folder)
    return folder


def test_compose_accepts_it(rendered: Path) -> None:
    environment = {**os.environ, "MANYEYES_RENDERED": str(rendered), "MANYEYES_PROJECT": "try"}
    told = subprocess.run(
        ["docker", "compose", "config", "--format", "json"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    services = json.loads(told.stdout)["services"]
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"]["options"]["max-size"], name
        assert service.get("restart"), name
        assert "no-new-privileges:true" in service["security_opt"] or name == "mps", name
        published = [port for port in service.get("ports", []) if port.get("host_ip") not in ("127.0.0.1",)]
        assert not published or name == "gateway", (name, published)


def test_nginx_accepts_it(rendered: Path, tmp_path: Path) -> None:
    certificate(tmp_path)  # for configurations with TLS
    mounts = [
        f"{tmp_path}:/run/secrets/manyeyes:ro",
        f"{ROOT}/nginx/nginx.conf:/etc/nginx/nginx.conf:ro",
        f"{ROOT}/nginx/conf.d:/etc/nginx/conf.d:ro",
        f"{ROOT}/nginx/njs:/etc/nginx/njs:ro",
        f"{rendered}/nginx:/etc/nginx/rendered:ro",
    ]
    volumes = [argument for mount in mounts for argument in ("-v", mount)]
    told = subprocess.run(
        ["docker", "run", "--rm", "--network=none", *volumes, IMAGES.nginx, "nginx", "-t", "-p", "/etc/nginx/"],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "warn" not in told.stderr


def test_promtool_accepts_it(rendered: Path) -> None:
    told = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "-v", f"{rendered}/prometheus:/p:ro", "--entrypoint", "promtool",
         IMAGES.prometheus, "check", "config", "/p/prometheus.yml"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr


def test_vllms_own_parser_accepts_every_command_line() -> None:
    lines = {}
    for path in CONFIGS:
        cluster = place_engines(load(path), DEFAULT_INVENTORY)
        for engine in cluster.engines:
            if engine.flavour != "emulated":
                lines[f"{path.stem}/{engine.name}"] = serve_flags(cluster, engine)
    assert len(lines) > 10
    told = subprocess.run(
        ["docker", "run", "--rm", "-i", "--network=none", "--entrypoint", "python", IMAGES.vllm_cpu, "-c", PARSE],
        input=json.dumps(lines), capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    assert [line.split()[0] for line in told.stdout.splitlines() if "/" in line.split()[0]] == list(lines)


def test_the_parser_test_can_fail() -> None:
    told = subprocess.run(
        ["docker", "run", "--rm", "-i", "--network=none", "--entrypoint", "python", IMAGES.vllm_cpu, "-c", PARSE],
        input=json.dumps({"bad": ["model", "--no-such-flag=1"]}), capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode != 0
    assert "no-such-flag" in told.stderr


def test_a_plain_compose_call_takes_the_committed_default(tmp_path: Path) -> None:
    """As a new user's `docker compose up` does, before any `make`: two engines, one GPU each."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "build", ".env", "host-*", "*cache*"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MANYEYES_")}
    told = subprocess.run(["docker", "compose", "config"], cwd=clone, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    document = yaml.safe_load(told.stdout)
    assert document["name"] == "manyeyes"
    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in document["services"].items()
        if "device_ids" in str(service["deploy"]["resources"].get("reservations"))
    }
    assert devices == {"gpu-0": ["0"], "gpu-1": ["1"]}
