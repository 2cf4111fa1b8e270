"""Renders the file for `docker stack deploy`: the same pools on several hosts that have only Docker.

A pool is a service. Docker's DNS lists its healthy tasks as tasks.<pool>, and the gateway queries it.
"""

from math import ceil
from typing import Any

from manyeyes.config.checkout import PAGE_KEY
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
    models_to_download,
    runs_vllm,
    shm_gb,
)
from manyeyes.render.multi_node_clusters import EngineGroup, group_engines, multi_node_config
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import NginxPaths
from manyeyes.render.rendered_file import plain_yaml
from manyeyes.render.swarm_configs import SwarmConfigs

Json = dict[str, Any]


HEADER = "# Made by `manyeyes swarm` from config/cluster.yaml. Do not edit: the next `manyeyes swarm` overwrites it.\n"
MEMBERS = f"tasks.{{}}:{ENGINE_PORT}"
DOCKERS_DNS = "127.0.0.11"
GPU = "NVIDIA-GPU"
"""The generic resource under which each node's daemon.json lists its GPUs (node-generic-resources)."""
DNS_REMOVAL_S = 5
"""Docker removes a task from DNS, waits 2 s for the other nodes, and sends TERM. Gateways query DNS once a second."""
CODE_DIR, SCRIPTS_DIR, SECRETS_DIR = "/app", "/manyeyes", "/run/secrets/manyeyes"
PROGRAM = {"cuda": ["vllm", "serve"], "cpu": ["vllm", "serve"], "emulated": ["python", "-m", "manyeyes.emulator"]}
START_PERIOD = {"cuda": "30m", "cpu": "5m", "emulated": "5m"}
WAIT_FOR_CONTROLLER = "until getent hosts controller >/dev/null; do sleep 1; done; exec /bin/sh /etc/nginx/start.sh"


def select_repository_files(paths: list[str]) -> list[str]:
    """The subset of `paths` of a checkout that containers on other hosts read."""
    prefixes = ("nginx/conf.d/", "nginx/njs/", "nginx/nginx.conf", "nginx/start.sh", "nginx/malloc.env")
    engine_files = (
        "manyeyes/engine/pod/run.sh",
        "manyeyes/engine/pod/pre_stop.py",
        "manyeyes/engine/pod/media_memory.py",
        "manyeyes/engine/pod/startup_probe.py",
        "manyeyes/engine/__init__.py",
        "manyeyes/engine/model_download.py",
    )
    log_files = ("manyeyes/observability/__init__.py", "manyeyes/observability/log_format.py")
    tiny_files = [
        path for path in paths if path.startswith("manyeyes/engine/tiny/") and path.endswith((".py", ".jinja"))
    ]
    return sorted(
        [path for path in paths if path.startswith(prefixes) or path in (*engine_files, *log_files)] + tiny_files
    )


def stack(
    cluster: PlacedCluster, repository_files: dict[str, str], keys: ApiKeys, repository_path: str
) -> dict[str, str]:
    """{file: text}: stack.yaml and the files it reads. `cluster` comes from multi_node_clusters.

    `repository_files`: {path: text}. `repository_path`: path from the stack's file to the repository.
    """
    files = SwarmConfigs(repository_files, repository_path)
    services: Json = {
        "gateway": _gateway(cluster, keys, files),
        "controller": _controller(cluster, files),
        "webui": _webui(cluster, keys, files),
    }
    if runs_vllm(cluster):
        services["models"] = _models(cluster, files)
    for group in group_engines(cluster):
        services[group.name] = _engine(cluster, group, files)
    document: Json = {
        "services": services,
        "networks": {"cluster": {"driver": "overlay"}},
        "configs": dict(sorted(files.configs.items())),
    }
    if runs_vllm(cluster):
        document["volumes"] = {"models": None, "compile-cache": {"name": "cache-{{.Service.Name}}-{{.Task.Slot}}"}}
    if secrets := _secrets(cluster, keys):
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
    nginx_files = [
        path for path in files.repository_files if path.startswith("nginx/") and not path.endswith("malloc.env")
    ]
    service = _common("3G", 1024) | {
        "image": cluster.images.nginx,
        "user": "101:101",
        "command": ["/bin/sh", "-c", WAIT_FOR_CONTROLLER],
        # nginx resolves the address of its syslog server only when it loads its files: start.sh reloads it when the
        # address changes.
        "environment": _malloc(files.repository_files["nginx/malloc.env"]) | {"WATCHED_NAME": "controller"},
        # Published on the node: the routing mesh would hide the client's address.
        "ports": [{"target": 8080, "published": cluster.gateway.port, "mode": "host"}],
        "configs": [
            *[files.add_repository_file(path, f"/etc/{path}") for path in nginx_files],
            *[
                files.add_rendered_file(f"gateway/{name}", rendered[name], f"/etc/nginx/offered/current/{name}")
                for name in sorted(rendered)
            ],
        ],
        "volumes": [_tmpfs("/tmp", 2048), _tmpfs("/var/cache/nginx", 1)],
        "read_only": True,
        "stop_signal": "SIGQUIT",
        "stop_grace_period": f"{cluster.shutdown.finish_s}s",
        "healthcheck": _healthcheck(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8088/live"], "10s", "3s"),
    }
    if secrets := _secrets(cluster, keys):
        service["secrets"] = [_secret(file, "101") for file in secrets]
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
            "MANYEYES_LOG_SENDERS": "tasks.gateway",
        },
        "configs": [
            files.add_rendered_file(
                "controller/cluster.yaml", HEADER + multi_node_config(cluster), "/config/cluster.yaml"
            )
        ],
        "volumes": [_tmpfs("/tmp", 32)],
        "read_only": True,
        "init": True,
        "stop_grace_period": "5s",
        "healthcheck": _healthcheck(["python", "-c", _open_command("http://127.0.0.1:8081/live")], "60s", "5s"),
    }


def _webui(cluster: PlacedCluster, keys: ApiKeys, files: SwarmConfigs) -> Json:
    service = _common("2G", 256) | {
        "image": cluster.images.webui,
        "environment": {
            "MANYEYES_GATEWAY_URL": "http://gateway:8079",
            "MANYEYES_CONFIG": "/config/cluster.yaml",
            "MANYEYES_PAGE_KEY_FILE": f"{SECRETS_DIR}/{PAGE_KEY}",
            "MANYEYES_STATE": "/tmp/state",
        },
        "configs": [
            files.add_rendered_file(
                "controller/cluster.yaml", HEADER + multi_node_config(cluster), "/config/cluster.yaml"
            )
        ],
        "volumes": [_tmpfs("/tmp", 1024)],
        "read_only": True,
        "init": True,
        "stop_grace_period": "5s",
        "healthcheck": _healthcheck(["python", "-m", "webui.healthcheck"], "60s", "10s"),
    }
    if cluster.gateway.requires_key(keys):
        service["secrets"] = [_secret(PAGE_KEY, "10001")]
    return service


def _models(cluster: PlacedCluster, files: SwarmConfigs) -> Json:
    """Downloads the models once on each node, which stores a copy of them."""
    engine = next(engine for engine in cluster.started_engines if engine.flavour != "emulated")
    service = _common("4096M", 512) | {
        "image": image_of(cluster, engine),
        "entrypoint": ["python3", "-m", "manyeyes.engine.model_download"],
        "working_dir": CODE_DIR,
        "environment": download_environment(models_to_download(cluster))
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
    folders = ("manyeyes/engine/", "manyeyes/observability/")
    paths = [
        path
        for path in files.repository_files
        if path.startswith(folders) and not path.startswith("manyeyes/engine/pod/")
    ]
    return [files.add_repository_file(path, f"{CODE_DIR}/{path}") for path in paths]


def _engine(cluster: PlacedCluster, group: EngineGroup, files: SwarmConfigs) -> Json:
    engine, pool = group.engine, group.pool
    is_vllm = engine.flavour != "emulated"
    controller, shutdown = cluster.controller, cluster.shutdown
    timeout_s = ceil(max(controller.warm_up_timeout_s, controller.restart_hung_after_s or 0)) + 5
    probe = [
        "python3",
        f"{SCRIPTS_DIR}/startup_probe.py",
        pool.name,
        "--mark=/tmp/warm",
        f"--timeout-s={timeout_s - 5}",
    ]
    if pool.media.images_per_prompt == 0:
        probe.append("--no-picture")
    # Compose reads $$ as $.
    flags = [flag.replace("$", "$$") for flag in serve_flags(cluster, engine)]
    program = PROGRAM[engine.flavour]
    if is_vllm:
        wait_and_start = f'cd {CODE_DIR} && python3 -m manyeyes.engine.model_download --wait && cd / && exec {" ".join(program)} "$$@"'
        program = ["/bin/sh", "-c", wait_and_start, program[0]]
    service = _common(f"{round((memory_gb(engine, pool) + (shm_gb(engine) if is_vllm else 0)) * 1024)}M", 4096) | {
        "image": image_of(cluster, engine),
        "entrypoint": ["/bin/sh", f"{SCRIPTS_DIR}/run.sh", str(DNS_REMOVAL_S), str(shutdown.finish_s)],
        "command": [*program, *flags],
        "environment": environment_of(cluster, pool, engine)
        | (download_environment(models_to_download(cluster)) | {"PYTHONPATH": SCRIPTS_DIR} if is_vllm else {}),
        "configs": [
            *[
                files.add_repository_file(f"manyeyes/engine/pod/{name}", f"{SCRIPTS_DIR}/{name}")
                for name in ("pre_stop.py", "run.sh", "startup_probe.py", *(["media_memory.py"] if is_vllm else []))
            ],
            *(_code(files) if is_vllm else []),
        ],
        "volumes": [_tmpfs("/tmp", 2048)],
        "init": True,
        "stop_grace_period": f"{DNS_REMOVAL_S + shutdown.finish_s + shutdown.grace_s}s",
        # Swarm lists a task in DNS once it is healthy and kills an unhealthy task. The timeout is long: a saturated
        # vLLM answers late.
        "healthcheck": _healthcheck(probe, "15s", f"{timeout_s}s", start=START_PERIOD[engine.flavour]),
        "labels": {"manyeyes.pool": pool.name, "manyeyes.flavour": engine.flavour},
    }
    if is_vllm:
        service["volumes"] += [
            f"models:{MODELS_DIR}:ro",
            f"compile-cache:{CACHE_DIR}",
            _tmpfs("/dev/shm", round(shm_gb(engine) * 1024)),
        ]
    else:
        service["read_only"] = True
    service["deploy"] |= {
        "replicas": group.count,
        # There is no spare GPU for a new engine next to an old engine.
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": "pause"},
    }
    if engine.flavour == "cuda":
        service["deploy"]["resources"]["reservations"] = {
            "generic_resources": [{"discrete_resource_spec": {"kind": GPU, "value": engine.parallel}}]
        }
    # tasks.<pool>, also if the pool has several kinds of engines.
    aliases = [pool.name, f"{pool.name}-c{group.max_in_flight}"]
    service["networks"] = {"cluster": {"aliases": aliases}}
    return service


def _healthcheck(command: list[str], interval: str, timeout: str, start: str = "60s") -> Json:
    return {
        "test": ["CMD", *command],
        "interval": interval,
        "timeout": timeout,
        "retries": 3,
        "start_period": start,
        "start_interval": "1s",
    }


def _open_command(url: str) -> str:
    return f"import urllib.request; urllib.request.urlopen('{url}', timeout=3)"


def _tmpfs(target: str, megabytes: int) -> Json:
    return {"type": "tmpfs", "target": target, "tmpfs": {"size": megabytes * 1024**2}}


def _secrets(cluster: PlacedCluster, keys: ApiKeys) -> list[str]:
    """Files of the secrets folder that the gateway reads. The page's key is only needed if clients need keys."""
    tls = cluster.gateway.tls
    files = [tls.certificate, tls.key] if tls else []
    files += [PAGE_KEY] if cluster.gateway.requires_key(keys) else []
    for pool in cluster.served_pools:
        if pool.remote:
            files += [file for file in (pool.remote.key_file, pool.remote.ca_file) if file]
    return list(dict.fromkeys(files))


def _secret(file: str, user: str) -> Json:
    return {"source": _secret_name(file), "target": f"{SECRETS_DIR}/{file}", "uid": user, "mode": 0o400}


def _secret_name(file: str) -> str:
    return f"manyeyes-{file}"
