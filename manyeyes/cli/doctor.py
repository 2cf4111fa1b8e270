"""`make doctor`: checks whether this host fulfils the requirements (needed X, found Y). It changes nothing."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manyeyes.cli import (
    docker_api,
    docker_install,
    env_file,
    gpu_discovery,
    host_info,
    network_access,
    secrets,
    started_services,
)
from manyeyes.cli.compose import Compose
from manyeyes.cli.host_info import Docker
from manyeyes.cli.invocation import next_command
from manyeyes.cli.required_images import BUILT, SOURCES
from manyeyes.cli.terminal import EXIT_UNUSABLE, CliError, print_error, print_line
from manyeyes.config.checkout import PAGE_KEY, ROOT, secrets_folder
from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import load_keys, load_users
from manyeyes.config.documents import FileProblems
from manyeyes.config.gateway import Images
from manyeyes.config.gpu_memory import kv_cache_tokens, model_memory
from manyeyes.config.loader import keys_path, load, users_path
from manyeyes.config.placement import Inventory, PlacedCluster, PlacementError, assign_gpus, place_engines
from manyeyes.render.engine_container import image_of

IMAGE_GB = {"cuda": 40.0, "cpu": 4.5, "emulated": 1.5}
"""Disk space of images, measured (cpu, emulated) or published (cuda: vllm-openai has 28 GB uncompressed, and Docker's
containerd store keeps its 12 GB compressed as well)."""
SCRATCH_GB = 1.0
"""Logs, metrics and compile caches."""

COMPATIBILITY = "VLLM_ENABLE_CUDA_COMPATIBILITY"
"""A setting of vLLM for engines on GPUs."""
DATA_CENTRE = re.compile(
    r"Tesla|\b(A2|A10G?|A16|A30|A40|A100|A800|L4|L20|L40S?|H20|H100|H200|H800|B200|B300|GH200|GB200|GB300|T4|V100|P100)\b"
)
"""GPUs with NVIDIA's CUDA forward compatibility. GeForce GPUs do not have it."""
FIRST_ON_CUDA_13 = (0, 32)
"""First version of vLLM whose image requires CUDA 13."""

MOUNTED = [ROOT / name for name in ("config", "nginx", "monitoring", "manyeyes/engine", "manyeyes/observability")]
"""Folders of this checkout that containers read. The containers run as other users."""


@dataclass(frozen=True)
class Check:
    """One line of the table: what is needed, what was found, and how to fix a difference."""

    name: str
    needed: str
    found: str
    remedy: str = ""
    """Empty if the check passes."""


def doctor(config: Path, flavour: str) -> int:
    """Prints all checks and returns the exit code: 2 if the cluster cannot run on this host."""
    cluster = started_services.configuration(config)
    docker = host_info.docker()
    print_line(f"ManyEyes, {config}, {host_info.system()}")
    try:
        inventory = gpu_discovery.discover(cluster, docker, flavour, cluster.name, dict(os.environ))
    except CliError as error:
        for problem in error.problems:
            print_error(problem)
        return EXIT_UNUSABLE
    is_running = bool(docker.server) and Compose(cluster.name).runs()
    checks = [*_contents(cluster, config), *run_checks(cluster, docker, inventory, is_running, config)]
    return 0 if show(checks) else EXIT_UNUSABLE


def run_checks(
    cluster: Cluster, docker: Docker, inventory: Inventory, is_running: bool, config: Path | None = None
) -> list[Check]:
    """Returns all checks of this configuration on this host. `is_running`: the cluster runs and uses its ports
    itself."""
    checks = [*_docker(docker), *_gpus(docker, inventory, cluster)]
    try:
        placed = place_engines(cluster, inventory)
    except PlacementError as error:
        return [*checks, Check("engines", "a host for all engines", "none", str(error))]
    return [
        *checks,
        *_memory(placed, is_running),
        *_disk(placed, docker),
        *_vllm_cpu(placed),
        *_ports(placed, is_running),
        *_paths(placed),
        *_secrets(placed),
        *_own_keys(),
        *_certificate(placed),
        *(_configuration_files(cluster, config) if config else ()),
        *_readable(
            [*MOUNTED, *([config.parent] if config else [])],
            private=(cluster.gateway.keys_file, cluster.webui.users_file, env_file.PATH.name),
        ),
    ]


def fail_on_blockers(checks: list[Check]) -> None:
    """Raises CliError with all failed checks."""
    if problems := [
        f"{check.name}: needed {check.needed}, found {check.found}. {check.remedy}" for check in checks if check.remedy
    ]:
        raise CliError(*problems)


def show(checks: list[Check]) -> bool:
    """Prints the table. Returns whether all checks pass."""
    widths = [max(len(getattr(check, field)) for check in checks) for field in ("name", "needed")]
    print_line(f"      {'':{widths[0]}}  {'needed':{widths[1]}}  found")
    for check in checks:
        mark = "no" if check.remedy else "ok"
        print_line(f"  {mark}  {check.name:{widths[0]}}  {check.needed:{widths[1]}}  {check.found}")
        if check.remedy:
            print_line(f"      {'':{widths[0]}}  -> {check.remedy}")
    return not any(check.remedy for check in checks)


def _docker(docker: Docker) -> Iterator[Check]:
    oldest = ".".join(map(str, docker_install.OLDEST_ENGINE))
    remedy = ""
    if not docker.client:
        remedy = "`make up` as root installs it on Debian and Ubuntu."
    elif not docker.server:
        remedy = "The engine does not answer; `make up` as root starts it."
    elif docker_install.too_old(Docker(server=docker.server)):
        remedy = "`make docker` as root installs a newer one."
    yield Check("Docker Engine", oldest, docker.server or ("not running" if docker.client else "none"), remedy)
    oldest = ".".join(map(str, docker_install.OLDEST_COMPOSE))
    is_too_old = not docker.compose or docker_install.too_old(Docker(compose=docker.compose))
    yield Check("Compose", oldest, docker.compose or "none", "`make docker` as root installs it." if is_too_old else "")


def _driver(found: str, inventory: Inventory, images: Images) -> tuple[str, str]:
    """Returns the driver version that vLLM's image needs, and how to fix an older driver."""
    if not _is_for_cuda_13(images.vllm_cuda):
        return "depends on the image", ""
    needed = f"{host_info.OLDEST_DRIVER} (CUDA 13)"
    if not found or int(found.split(".")[0]) >= host_info.OLDEST_DRIVER:
        return needed, ""
    remedy = f"Install NVIDIA driver {host_info.OLDEST_DRIVER} or newer (CUDA 13) and restart this host."
    if not all(DATA_CENTRE.search(gpu.name) for gpu in inventory.gpus):
        return needed, remedy
    if os.environ.get(COMPATIBILITY) == "1":
        return f"{needed}, or {COMPATIBILITY}=1", ""
    return needed, (
        f"{remedy} These data-centre GPUs also support CUDA's forward compatibility: "
        f"set {COMPATIBILITY}=1 in .env, then run this again."
    )


def _is_for_cuda_13(image: str) -> bool:
    """Whether the image needs CUDA 13: false for a tag with CUDA 12 or an older vLLM."""
    tag = image.partition("@")[0].rpartition(":")[2]
    version = re.match(r"v?(\d+)\.(\d+)", tag)
    return "cu12" not in tag and not (version and (int(version[1]), int(version[2])) < FIRST_ON_CUDA_13)


def _gpus(docker: Docker, inventory: Inventory, cluster: Cluster) -> Iterator[Check]:
    if inventory.flavour != "cuda":
        yield Check("GPUs", "none", f"{len(inventory.gpus)} (flavour {inventory.flavour})")
        return
    count = len(inventory.gpus)
    found = host_info.driver()
    needed, remedy = _driver(found, inventory, cluster.images) if count else ("any", "Install NVIDIA's driver.")
    yield Check("NVIDIA driver", needed, found or "unknown", remedy)
    yield Check("GPUs", "1 or more", str(count), "" if count else "Try FLAVOUR=cpu or FLAVOUR=emulated.")
    if count and cluster.engines == "auto":
        yield from _models_on_gpus(cluster, inventory)
    yield Check(
        "container toolkit",
        "nvidia",
        "present" if docker.nvidia else "none",
        "" if docker.nvidia else "Install nvidia-container-toolkit and restart Docker.",
    )


def _models_on_gpus(cluster: Cluster, inventory: Inventory) -> Iterator[Check]:
    """What runs on each GPU: model, context, tokens of KV cache (an estimate)."""
    try:
        pool_by_gpu, unused = assign_gpus(cluster, inventory)
    except PlacementError:
        return  # reported with the engines
    for gpu in inventory.gpus:
        name = f"GPU {gpu.index}"
        card = f"{gpu.name}, {gpu.memory_gb:g} GiB"
        if gpu.index in unused:
            yield Check(name, card, f"no engine: {unused[gpu.index].partition(': ')[2]}")
            continue
        pool = cluster.pool(pool_by_gpu[gpu.index])
        tokens = kv_cache_tokens(pool, gpu.memory_gb, gpu.utilization)
        room = "its size is unknown" if tokens is None else f"about {tokens:,} tokens of KV cache"
        yield Check(name, card, f"{pool.name}, {pool.max_model_len:,} tokens per request, {room}")


def _memory(cluster: PlacedCluster, is_running: bool) -> Iterator[Check]:
    per_engine = {"cuda": 8.0, "cpu": 1.7, "emulated": 0.05}
    needed = 1.0
    for engine in cluster.started_engines:
        if engine.time_shares_with:
            continue  # it runs only while the other engine does not
        big_cpu = engine.flavour == "cpu" and not cluster.pool(engine.pool).is_tiny
        needed += 9.0 if big_cpu else per_engine[engine.flavour]
    free = host_info.memory_gb()
    remedy = (
        "Use fewer engines (cpu_engines), a smaller model, or FLAVOUR=emulated."
        if free < needed and not is_running
        else ""
    )
    yield Check("free memory", f"{needed:.1f} GiB", f"{free:.1f} GiB", remedy)


def _disk(cluster: PlacedCluster, docker: Docker) -> Iterator[Check]:
    """Space for what is not there yet: images, and weights of known size."""
    images = {image_of(cluster, engine): IMAGE_GB[engine.flavour] for engine in cluster.started_engines}
    images_gb = max((size_gb for image, size_gb in images.items() if not docker_api.has_image(image)), default=0.0)
    weights_gb = _missing_weights_gb(cluster)
    folder = cluster.models.volume if cluster.models.volume.startswith("/") else ""
    here_gb = SCRATCH_GB + images_gb + (0.0 if folder else weights_gb)
    contents = " and ".join(part for part, size in (("images", images_gb), ("weights", weights_gb)) if size)
    remedy = "Free disk space (docker system prune), or move Docker's data-root."
    yield _space(
        docker.root_dir, here_gb, f"{remedy} {contents.capitalize()} are not here yet." if contents else remedy
    )
    if folder and weights_gb:
        yield _space(folder, weights_gb, "Free disk space, or set models.volume to another folder.")


def _space(path: str, needed_gb: float, remedy: str) -> Check:
    free_gb = host_info.disk_gb(path)
    enough = free_gb >= needed_gb
    return Check(f"free disk in {path}", f"{needed_gb:.1f} GiB", f"{free_gb:.1f} GiB", "" if enough else remedy)


def _missing_weights_gb(cluster: PlacedCluster) -> float:
    pools = {engine.pool for engine in cluster.started_engines if engine.flavour != "emulated"}
    sizes = {
        (pool.model, pool.revision): memory.weights_gb
        for pool in map(cluster.pool, pools)
        if not (pool.is_tiny or pool.is_local) and (memory := model_memory(pool))
    }
    return sum(
        size_gb
        for (model, revision), size_gb in sizes.items()
        if not gpu_discovery.are_in_volume(cluster, model, revision, cluster.name)
    )


def _vllm_cpu(cluster: PlacedCluster) -> Iterator[Check]:
    image = cluster.images.vllm_cpu
    if image == BUILT.vllm_cpu and any(engine.flavour == "cpu" for engine in cluster.started_engines):
        yield Check("vLLM for CPUs", "an image", f"{image}: {SOURCES[image]}")


def _ports(cluster: PlacedCluster, is_running: bool) -> Iterator[Check]:
    ports = [("gateway.port", str(cluster.gateway.host), cluster.gateway.port)]
    if cluster.monitoring.enabled:
        ports.append(("monitoring.prometheus_port", "127.0.0.1", cluster.monitoring.prometheus_port))
    if cluster.tracing.starts_jaeger:
        ports.append(("tracing.jaeger_port", "127.0.0.1", cluster.tracing.jaeger_port))
    for key, host, port in ports:
        free = is_running or host_info.port_free(host, port)
        remedy = (
            ""
            if free
            else f"Stop the program that uses it (ss -ltnp shows it), or choose another {key} in the configuration."
        )
        yield Check(f"port {port}", "free", "ours" if is_running else "free" if free else "taken", remedy)


def _paths(cluster: PlacedCluster) -> Iterator[Check]:
    for pool in cluster.served_pools:
        if pool.is_local and any(engine.pool == pool.name for engine in cluster.started_engines):
            exists = (Path(pool.model) / "config.json").exists()
            remedy = "" if exists else f"pools[{pool.name}].model must be a folder with config.json and the weights."
            yield Check(f"model of {pool.name}", pool.model, "present" if exists else "missing", remedy)
    for key in ("volume", "cache_volume"):
        folder = getattr(cluster.models, key)
        if folder.startswith("/"):
            exists = Path(folder).is_dir()
            found, remedy = ("present", "") if exists else ("missing", f"mkdir -p {folder}")
            yield Check(f"models.{key}", folder, found, remedy)


def _secrets(cluster: PlacedCluster) -> Iterator[Check]:
    for setting, name in (secrets.list_pool_secrets(cluster) | secrets.list_alerting_secrets(cluster)).items():
        found, remedy = secrets.state(name)
        yield Check(setting, f"secrets/{name}", found, remedy)


def _own_keys() -> Iterator[Check]:
    for title, name in (("admin key", secrets.ADMIN_KEY), ("page key", PAGE_KEY)):
        found, remedy = secrets.state(name)
        if found == "missing":
            found, remedy = "`make up` creates it", ""
        yield Check(title, f"secrets/{name}", found, remedy)


def _contents(cluster: Cluster, config: Path) -> Iterator[Check]:
    """The files that an operator writes and that have problems."""
    remedy = f"`{next_command('check-config', config=config)}` lists the problems"
    readers: list[tuple[str, Path, Callable[[Path], object]]] = [
        ("configuration", config, load),
        ("API keys", keys_path(config, cluster), load_keys),
        ("users of the page", users_path(config, cluster), load_users),
    ]
    for name, path, read in readers:
        try:
            read(path)
        except FileProblems as error:
            yield Check(name, f"a valid {path}", f"{len(error.problems)} problem(s)", remedy)


def _configuration_files(cluster: Cluster, config: Path) -> Iterator[Check]:
    with contextlib.suppress(FileProblems):  # reported by _contents
        access = network_access.describe_access(cluster, load_keys(keys_path(config, cluster)), config)
        yield Check("reachable from", "this host, or a key", access)
    files = {"API keys": keys_path(config, cluster), "users of the page": users_path(config, cluster)}
    for name, path in files.items():
        if path.exists():
            found, remedy = secrets.check_container_access(path)
            yield Check(name, str(path), found, remedy)


def _certificate(cluster: PlacedCluster) -> Iterator[Check]:
    files = secrets.list_certificate_files(cluster)
    states = {name: secrets.state(name) for name in files.values()}
    if files and all(found == "missing" for found, _ in states.values()):
        remedy = (
            "" if shutil.which("openssl") else f"Install openssl, or put a certificate and key into {secrets_folder()}"
        )
        yield Check("certificate", "a certificate, or openssl", "none" if remedy else "`make up` creates it", remedy)
        return
    for setting, name in files.items():
        found, remedy = states[name]
        if not remedy and setting == "gateway.tls.certificate" and secrets.has_expired(secrets_folder() / name):
            found, remedy = (
                "expired",
                "Replace it, or delete both files: `make up` then creates a new self-signed pair.",
            )
        yield Check(setting, f"secrets/{name}", found, remedy)


def _readable(folders: list[Path], private: tuple[str, ...] = ()) -> Iterator[Check]:
    """Checks that the containers' users can read the folders, which fails for a clone made under umask 077.

    Private files (`private`) are skipped, because other checks cover them.
    """
    unreadable = sorted({str(folder) for folder in folders if not _is_readable_by_all(folder, private)})
    remedy = f"chmod -R a+rX {' '.join(unreadable)}" if unreadable else ""
    if private_paths := sorted(
        str(path) for folder in map(Path, unreadable) for path in folder.iterdir() if _is_private(path, private)
    ):
        remedy += f" && chmod o-rwx {' '.join(private_paths)}"
    yield Check("mounted files", "readable by all", "not readable" if unreadable else "readable by all", remedy)


def _is_readable_by_all(folder: Path, private: tuple[str, ...]) -> bool:
    paths = [folder, *(path for path in folder.iterdir() if not _is_private(path, private))]
    modes = [(path.stat().st_mode, path.is_dir()) for path in paths]
    return all(mode & 0o004 and (not is_dir or mode & 0o001) for mode, is_dir in modes)


def _is_private(path: Path, private: tuple[str, ...]) -> bool:
    """Whether the file must stay private: keys, users or passwords, an older copy from a restore, or a temporary
    file."""
    return path.name.startswith((".", *private))
