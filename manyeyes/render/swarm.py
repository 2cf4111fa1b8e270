"""Renders the file for `docker stack deploy`: the same pools on several hosts that have only Docker.

A pool is a service. Docker's DNS lists its healthy tasks as tasks.<pool>, and the gateway queries it.
"""

import hashlib
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from manyeyes.config.credentials import ApiKeys
from manyeyes.config.engines import ENGINE_PORT
from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import MODELS_DIR, serve_flags
from manyeyes.render.engine_container import (
    CACHE_DIR,
    download_environment,
    environment_of,
    image_of,
    memory_gb,
    runs_vllm,
    shm_gb,
    wanted_models,
)
from manyeyes.render.multi_node_clusters import EngineGroup, group_engines, multi_node_config
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import NginxPaths
from manyeyes.render.rendered_file import plain_yaml

Json = dict[str, Any]


@dataclass
class SwarmConfigs:
    """The configs of one stack, collected while its services are rendered.

    `own`: {path: text} of the repository's files.
    """

    own: dict[str, str]
    up: str
    """Path from the stack's file to the repository."""
    rendered: dict[str, str] = field(default_factory=dict)
    """{path next to the stack's file: text}"""
    configs: dict[str, Json] = field(default_factory=dict)

    def of_repository(self, path: str, target: str) -> Json:
        return self._config(path, f"{self.up}/{path}", self.own[path], target)

    def made(self, path: str, text: str, target: str) -> Json:
        self.rendered[path] = text
        return self._config(path, f"./{path}", text, target)

    def _config(self, path: str, file: str, text: str, target: str) -> Json:
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        key = path.replace("/", "-").replace("_", "-")
        # Names have at most 64 characters.
        self.configs[key] = {"file": file, "name": f"manyeyes-{key[-40:].lstrip('-.')}-{digest}"}
        return {"source": key, "target": target, "mode": 0o444}


HEADER = "# Made by `manyeyes swarm` from config/cluster.yaml. Do not edit: the next `manyeyes swarm` overwrites it.\n"
MEMBERS = f"tasks.{{}}:{ENGINE_PORT}"
DOCKERS_DNS = "127.0.0.11"
GPU = "NVIDIA-GPU"
"""The generic resource under which each node's daemon.json lists its GPUs (node-generic-resources)."""
LEFT_DNS_S = 5
"""Docker removes a task from DNS, waits 2 s for the other nodes, and sends TERM. Gateways query DNS once a second."""
CODE_DIR, SCRIPTS_DIR, SECRETS_DIR = "/app", "/manyeyes", "/run/secrets/manyeyes"
PROGRAM = {"cuda": ["vllm", "serve"], "cpu": ["vllm", "serve"], "emulated": ["python", "-m", "manyeyes.emulator"]}
STARTS_WITHIN = {"cuda": "30m", "cpu": "5m", "emulated": "5m"}
WAIT_FOR_CONTROLLER = "until getent hosts controller >/dev/null; do sleep 1; done; exec /bin/sh /etc/nginx/start.sh"


def read_of_repository(paths: list[str]) -> list[str]:
    """The subset of `paths` of a checkout that containers on other hosts read."""
    wanted = ("nginx/conf.d/", "nginx/njs/", "nginx/nginx.conf", "nginx/start.sh", "nginx/malloc.env")
    engines = (
        "manyeyes/engine/pod/run.sh",
        "manyeyes/engine/pod/pre_stop.py",
        "manyeyes/engine/pod/media_memory.py",
        "manyeyes/engine/pod/startup_probe.py",
        "manyeyes/engine/__init__.py",
        "manyeyes/engine/model_download.py",
    )
    logs = ("manyeyes/observability/__init__.py", "manyeyes/observability/log_format.py")
    tiny = [path for path in paths if path.startswith("manyeyes/engine/tiny/") and path.endswith((".py", ".jinja"))]
    return sorted([path for path in paths if path.startswith(wanted) or path in (*engines, *logs)] + tiny)


def stack(cluster: PlacedCluster, own: dict[str, str], keys: ApiKeys, up: str) -> dict[str, str]:
    """{file: text}: stack.yaml and the files it reads. `cluster` comes from multi_node_clusters, `own` is {path: text}
    of the repository's files, and `up` is the path to the repository."""
    files = SwarmConfigs(own, up)
    services: Json = {
        "gateway": _gateway(cluster, keys, files),
        "controller": _controller(cluster, files),
        "webui": _webui(cluster, files),
    }
    if runs_vllm(cluster):
        services["models"] = _models(cluster, files)
    for shape in group_engines(cluster):
        services[shape.name] = _engine(cluster, shape, files)
    document: Json = {
        "services": services,
        "networks": {"cluster": {"driver": "overlay"}},
        "configs": dict(sorted(files.configs.items())),
    }
    if runs_vllm(cluster):
        # One volume on each node.
        document["volumes"] = {"models": None, "compile-cache": None}
    if secrets := _secrets(cluster):
        document["secrets"] = {_secret_name(file): {"external": True} for file in secrets}
    return {"stack.yaml": HEADER + plain_yaml(document), **files.rendered}


def _common(memory: str, pids: int) -> Json:
    return {
        "networks": ["cluster"],
        "cap_drop": ["ALL"],
        "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "3"}},
        "deploy": {
            # Names resolve to the tasks: a virtual address would require IPVS in the kernel of every node.
            "endpoint_mode": "dnsrr",
            "restart_policy": {"condition": "any", "delay": "1s"},
            "resources": {"limits": {"memory": memory, "pids": pids}},
        },
    }


def _gateway(cluster: PlacedCluster, keys: ApiKeys, files: SwarmConfigs) -> Json:
    rendered = build_generation(
        gateway_files(cluster, keys, NginxPaths(controller="controller", resolver=DOCKERS_DNS, members_of=MEMBERS))
    )[1]
    own = [path for path in files.own if path.startswith("nginx/") and not path.endswith("malloc.env")]
    service = _common("3G", 1024) | {
        "image": cluster.images.nginx,
        "user": "101:101",
        "command": ["/bin/sh", "-c", WAIT_FOR_CONTROLLER],
        # nginx resolves the address of its syslog server only when it loads its files: start.sh reloads it when the
        # address changes.
        "environment": _malloc(files.own["nginx/malloc.env"]) | {"WATCHED_NAME": "controller"},
        # Published on the node: the routing mesh would hide the client's address.
        "ports": [{"target": 8080, "published": cluster.gateway.port, "mode": "host"}],
        "configs": [
            *[files.of_repository(path, f"/etc/{path}") for path in own],
            *[
                files.made(f"gateway/{name}", rendered[name], f"/etc/nginx/offered/current/{name}")
                for name in sorted(rendered)
            ],
        ],
        "volumes": [_tmpfs("/tmp", 2048), _tmpfs("/var/cache/nginx", 1)],
        "read_only": True,
        "stop_signal": "SIGQUIT",
        "stop_grace_period": f"{cluster.shutdown.finish_s}s",
        "healthcheck": _asks(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8088/live"], "10s", "3s"),
    }
    if secrets := _secrets(cluster):
        service["secrets"] = [
            {"source": _secret_name(file), "target": f"{SECRETS_DIR}/{file}", "uid": "101", "mode": 0o400}
            for file in secrets
        ]
    service["deploy"] |= {
        # One on each manager: clients connect to the managers' addresses.
        "mode": "global",
        "placement": {"constraints": ["node.role == manager"]},
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": "rollback"},
    }
    return service


def _malloc(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _controller(cluster: PlacedCluster, files: SwarmConfigs) -> Json:
    return _common("256M", 64) | {
        "image": cluster.images.controller,
        "environment": {
            "MANYEYES_CONFIG": "/config/cluster.yaml",
            "MANYEYES_INVENTORY": "/config/inventory.yaml",
            "MANYEYES_STATE": "/tmp/state",
            "MANYEYES_SERVICES": MEMBERS,
        },
        "configs": [files.made("controller/cluster.yaml", HEADER + multi_node_config(cluster), "/config/cluster.yaml")],
        "volumes": [_tmpfs("/tmp", 32)],
        "read_only": True,
        "init": True,
        "stop_grace_period": "5s",
        "healthcheck": _asks(["python", "-c", _opens("http://127.0.0.1:8081/live")], "60s", "5s"),
    }


def _webui(cluster: PlacedCluster, files: SwarmConfigs) -> Json:
    return _common("2G", 256) | {
        "image": cluster.images.webui,
        "environment": {"MANYEYES_GATEWAY_URL": "http://gateway:8079", "MANYEYES_CONFIG": "/config/cluster.yaml"},
        "configs": [files.made("controller/cluster.yaml", HEADER + multi_node_config(cluster), "/config/cluster.yaml")],
        "volumes": [_tmpfs("/tmp", 1024)],
        "read_only": True,
        "init": True,
        "stop_grace_period": "5s",
        "healthcheck": _asks(["python", "-m", "webui.healthcheck"], "60s", "10s"),
    }


def _models(cluster: PlacedCluster, files: SwarmConfigs) -> Json:
    """Downloads the models once on each node, which stores a copy of them."""
    engine = next(engine for engine in cluster.started_engines if engine.flavour != "emulated")
    service = _common("4096M", 512) | {
        "image": image_of(cluster, engine),
        "entrypoint": ["python3", "-m", "manyeyes.engine.model_download"],
        "working_dir": CODE_DIR,
        "environment": download_environment(wanted_models(cluster))
        | {
            "HF_HUB_OFFLINE": "1" if cluster.models.offline else "0",
            "HF_TOKEN": "${HF_TOKEN:-}",
            "HF_ENDPOINT": "${HF_ENDPOINT:-https://huggingface.co}",
        },
        "configs": _code(files),
        "volumes": [f"models:{MODELS_DIR}"],
    }
    service["deploy"] |= {"mode": "global-job", "restart_policy": {"condition": "on-failure", "max_attempts": 10}}
    return service


def _code(files: SwarmConfigs) -> list[Json]:
    rooms = ("manyeyes/engine/", "manyeyes/observability/")
    paths = [path for path in files.own if path.startswith(rooms) and not path.startswith("manyeyes/engine/pod/")]
    return [files.of_repository(path, f"{CODE_DIR}/{path}") for path in paths]


def _engine(cluster: PlacedCluster, shape: EngineGroup, files: SwarmConfigs) -> Json:
    engine, pool = shape.engine, shape.pool
    vllm = engine.flavour != "emulated"
    rules, shutdown = cluster.controller, cluster.shutdown
    silent_s = ceil(max(rules.warm_up_timeout_s, rules.restart_hung_after_s or 0)) + 5
    warm = ["python3", f"{SCRIPTS_DIR}/startup_probe.py", pool.name, "--mark=/tmp/warm", f"--timeout-s={silent_s - 5}"]
    if pool.media.images_per_prompt == 0:
        warm.append("--no-picture")
    # Compose reads $$ as $.
    flags = [flag.replace("$", "$$") for flag in serve_flags(cluster, engine)]
    program = PROGRAM[engine.flavour]
    if vllm:
        waits = f'cd {CODE_DIR} && python3 -m manyeyes.engine.model_download --wait && cd / && exec {" ".join(program)} "$$@"'
        program = ["/bin/sh", "-c", waits, program[0]]
    service = _common(f"{round((memory_gb(engine, pool) + (shm_gb(engine) if vllm else 0)) * 1024)}M", 4096) | {
        "image": image_of(cluster, engine),
        "entrypoint": ["/bin/sh", f"{SCRIPTS_DIR}/run.sh", str(LEFT_DNS_S), str(shutdown.finish_s)],
        "command": [*program, *flags],
        "environment": environment_of(cluster, pool, engine)
        | (download_environment(wanted_models(cluster)) | {"PYTHONPATH": SCRIPTS_DIR} if vllm else {}),
        "configs": [
            *[
                files.of_repository(f"manyeyes/engine/pod/{name}", f"{SCRIPTS_DIR}/{name}")
                for name in ("pre_stop.py", "run.sh", "startup_probe.py", *(["media_memory.py"] if vllm else []))
            ],
            *(_code(files) if vllm else []),
        ],
        "volumes": [_tmpfs("/tmp", 2048)],
        "init": True,
        "stop_grace_period": f"{LEFT_DNS_S + shutdown.finish_s + shutdown.grace_s}s",
        # Swarm lists a task in DNS once it is healthy and kills an unhealthy task. The timeout is long: a saturated
        # vLLM answers late.
        "healthcheck": _asks(warm, "15s", f"{silent_s}s", start=STARTS_WITHIN[engine.flavour]),
        "labels": {"manyeyes.pool": pool.name, "manyeyes.flavour": engine.flavour},
    }
    if vllm:
        service["volumes"] += [
            f"models:{MODELS_DIR}:ro",
            f"compile-cache:{CACHE_DIR}",
            _tmpfs("/dev/shm", round(shm_gb(engine) * 1024)),
        ]
    else:
        service["read_only"] = True
    service["deploy"] |= {
        "replicas": shape.count,
        # There is no spare GPU for a new engine next to an old engine.
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": "pause"},
    }
    if engine.flavour == "cuda":
        service["deploy"]["resources"]["reservations"] = {
            "generic_resources": [{"discrete_resource_spec": {"kind": GPU, "value": engine.parallel}}]
        }
    # tasks.<pool>, also if the pool has several kinds of engines.
    names = [pool.name, f"{pool.name}-c{shape.most}"]
    service["networks"] = {"cluster": {"aliases": names}}
    return service


def _asks(command: list[str], interval: str, timeout: str, start: str = "60s") -> Json:
    return {
        "test": ["CMD", *command],
        "interval": interval,
        "timeout": timeout,
        "retries": 3,
        "start_period": start,
        "start_interval": "1s",
    }


def _opens(url: str) -> str:
    return f"import urllib.request; urllib.request.urlopen('{url}', timeout=3)"


def _tmpfs(target: str, megabytes: int) -> Json:
    return {"type": "tmpfs", "target": target, "tmpfs": {"size": megabytes * 1024**2}}


def _secrets(cluster: PlacedCluster) -> list[str]:
    """Files of the secrets folder that the gateway reads."""
    tls = cluster.gateway.tls
    files = [tls.certificate, tls.key] if tls else []
    for pool in cluster.served_pools:
        if pool.remote:
            files += [file for file in (pool.remote.key_file, pool.remote.ca_file) if file]
    return list(dict.fromkeys(files))


def _secret_name(file: str) -> str:
    return f"manyeyes-{file}"
