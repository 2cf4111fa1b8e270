"""Detects the GPUs of this host, chooses the flavour, and checks which models are available, for `engines: auto`."""

import re
import urllib.error
import urllib.request
from collections.abc import Collection
from math import inf
from pathlib import Path

from manyeyes.cli import host_info
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.host_info import OLDEST_DRIVER, Docker, Nvidia
from manyeyes.cli.terminal import CliError, print_ok, print_warning
from manyeyes.config.cluster import Cluster
from manyeyes.config.gpu_memory import UTILIZATION
from manyeyes.config.placement import HostGpu, Inventory
from manyeyes.config.pools import Flavour
from manyeyes.engine.model_download import marker

HUB_TIMEOUT_S = 6


def discover(cluster: Cluster, docker: Docker, forced: str, project: str, environment: dict[str, str]) -> Inventory:
    """Inspects the host. `forced` is the value of FLAVOUR=; if empty, cluster.yaml and the GPUs decide. Raises
    CliError."""
    gpus = host_info.gpus()
    flavour = _flavour(cluster, forced, gpus, docker)
    if gpus and flavour == "cuda":
        gpus = _without_own_use(gpus, project)
        kinds = ", ".join(dict.fromkeys(f"{gpu.name}, {gpu.memory_gb:g} GiB" for gpu in gpus))
        print_ok(f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} found ({kinds})")
    missing: list[str] = []
    if cluster.engines == "auto" and flavour != "emulated":
        for pool in cluster.pools:
            needs_weights = pool.if_weights_unavailable and flavour in pool.flavours and not pool.is_tiny
            if needs_weights and not _are_weights_available(cluster, pool.model, pool.revision, project, environment):
                missing.append(pool.model)
                print_warning(
                    f"the weights of {pool.model} are not available: {pool.if_weights_unavailable} is served instead"
                )
    return Inventory(flavour=flavour, gpus=gpus, missing_models=tuple(missing))


def _without_own_use(gpus: tuple[HostGpu, ...], project: str) -> tuple[HostGpu, ...]:
    """The GPUs with the memory that programs outside of this cluster use. Prints who uses much of it."""
    if all(gpu.utilization == UTILIZATION for gpu in gpus):
        return gpus
    own = _own_containers(project)
    processes = host_info.gpu_processes()
    cleaned = []
    for gpu in gpus:
        on_it = [process for process in processes if process.uuid == gpu.uuid]
        # Where the driver shows no processes, a running cluster may itself be the user.
        own_gb = sum(process.memory_gb for process in on_it if process.container in own) if on_it or not own else inf
        gpu = gpu.model_copy(update={"used_gb": round(max(0.0, gpu.used_gb - own_gb), 1)})
        if gpu.utilization < UTILIZATION:
            others = [process for process in on_it if process.container not in own]
            names = ", ".join(f"{one.name} (PID {one.pid}) {one.memory_gb:g} GiB" for one in others)
            print_warning(
                f"GPU {gpu.index}: other programs use {gpu.used_gb:g} of {gpu.memory_gb:g} GiB"
                f"{f': {names}' if names else ''}. Its engine gets {gpu.utilization:.0%} of the memory."
            )
        cleaned.append(gpu)
    return tuple(cleaned)


def _own_containers(project: str) -> set[str]:
    try:
        with docker_client() as client:
            filters = {"label": f"com.docker.compose.project={project}"}
            return {container["Id"] for container in client.api.containers(filters=filters)}
    except CliError:
        return set()


def _flavour(cluster: Cluster, forced: str, gpus: tuple[HostGpu, ...], docker: Docker) -> Flavour:
    if forced and forced not in ("cuda", "cpu", "emulated"):
        raise CliError(f"FLAVOUR: expected cuda, cpu or emulated, got '{forced}'")
    if cluster.engines != "auto":
        flavours = {engine.flavour for engine in cluster.engines if not engine.address}
        if forced and flavours != {forced}:
            raise CliError(
                f"FLAVOUR={forced} works only with `engines: auto`, but the configuration lists its engines "
                f"({', '.join(sorted(flavours))}). Set CONFIG= to another file, such as config/examples/{forced}.yaml."
            )
        if "cuda" in flavours:
            used_gpus = {gpu for engine in cluster.engines if engine.flavour == "cuda" for gpu in engine.gpus}
            _check_gpus(gpus, host_info.nvidia(), docker, used_gpus)
            return "cuda"
        return "cpu" if "cpu" in flavours else "emulated"
    flavour = forced or cluster.flavour
    if flavour == "auto":
        nvidia = host_info.nvidia()
        if gpus or _has_gpus(nvidia):
            _check_gpus(gpus, nvidia, docker)
            return "cuda"
        print_ok("no NVIDIA GPU found: vLLM runs on CPU (FLAVOUR=emulated starts in seconds)")
        return "cpu"
    if flavour == "cuda":
        _check_gpus(gpus, host_info.nvidia(), docker)
        return "cuda"
    return "cpu" if flavour == "cpu" else "emulated"


def _has_gpus(nvidia: Nvidia) -> bool:
    """Whether the host has an NVIDIA GPU although nvidia-smi lists none. Prints a warning if this is uncertain."""
    if nvidia.device == host_info.WSL_DEVICE and not nvidia.has_program:
        print_warning("WSL shows a GPU. If it is an NVIDIA GPU, install its driver on Windows, then run this again.")
        return False
    if nvidia.problem and not nvidia.device:
        print_warning(f"nvidia-smi fails: {_sentence(nvidia.problem)} This host shows no NVIDIA GPU.")
    return bool(nvidia.device)


def _check_gpus(gpus: tuple[HostGpu, ...], nvidia: Nvidia, docker: Docker, used_gpus: Collection[str] = ()) -> None:
    """Raises CliError if the GPUs cannot be used. `used_gpus`: the GPUs that the listed engines use."""
    if not gpus:
        if nvidia.problem:
            raise CliError(
                f"nvidia-smi fails: {_sentence(nvidia.problem)} {_remedy(nvidia.problem)} "
                "Or run without GPUs: FLAVOUR=cpu or FLAVOUR=emulated."
            )
        if nvidia.device:
            raise CliError(
                f"this host has an NVIDIA GPU ({nvidia.device}) but no driver: nvidia-smi was not found. "
                f"Install NVIDIA driver {OLDEST_DRIVER} or newer, or run without GPUs: FLAVOUR=cpu or FLAVOUR=emulated."
            )
        raise CliError(
            "flavour cuda requires an NVIDIA GPU, but nvidia-smi shows none. "
            "Install the driver, or try FLAVOUR=cpu or FLAVOUR=emulated."
        )
    if nvidia.problem:
        lost = sorted(name for name in used_gpus if name.isdigit() and int(name) not in {gpu.index for gpu in gpus})
        if lost:
            raise CliError(
                f"the configuration has an engine on GPU {', '.join(lost)}, but nvidia-smi fails: "
                f"{_sentence(nvidia.problem)} {_remedy(nvidia.problem)} Or remove that engine from the configuration."
            )
        gpu_count = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
        print_warning(f"nvidia-smi lists {gpu_count} but fails: {_sentence(nvidia.problem)} Only these GPUs are used.")
    if not docker.nvidia:
        raise CliError(
            "this host has GPUs, but Docker cannot use them: install nvidia-container-toolkit, run "
            "`nvidia-ctk runtime configure --runtime=docker`, restart Docker. Or try FLAVOUR=cpu."
        )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!")) else f"{text}."


def _remedy(problem: str) -> str:
    if "mismatch" in problem:
        return "The driver was upgraded, but the old kernel module is still loaded: restart this host."
    if "did not exit" in problem:
        return "The driver hangs (dmesg shows the reason, usually an Xid): restart this host."
    if re.search(r"fallen off|is lost|device handle|Unknown Error|requires reset", problem, re.IGNORECASE):
        return "A GPU does not answer (dmesg shows the reason, usually an Xid): restart this host, or remove the GPU."
    return f"Install NVIDIA driver {OLDEST_DRIVER} or newer and load it (modprobe nvidia), then test nvidia-smi."


def _are_weights_available(
    cluster: Cluster, model: str, revision: str | None, project: str, environment: dict[str, str]
) -> bool:
    return are_in_volume(cluster, model, revision, project) or (
        not cluster.models.offline and _are_on_hub(model, environment)
    )


def are_in_volume(cluster: Cluster, model: str, revision: str | None, project: str) -> bool:
    """Whether the weights were downloaded."""
    folder = cluster.models.volume
    if not folder.startswith("/"):
        try:
            with docker_client() as client:
                folder = client.api.inspect_volume(f"{project}_{folder}")["Mountpoint"]
        except CliError:
            return False
    try:
        return marker(Path(folder), model, revision).exists()
    except PermissionError:  # the volume belongs to root; the downloader checks again
        return False


def _are_on_hub(model: str, environment: dict[str, str]) -> bool:
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    request = urllib.request.Request(f"{endpoint}/api/models/{model}", method="GET")
    if token := environment.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
