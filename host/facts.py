"""What this host has: read only, nothing is changed."""

import json
import os
import platform
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from config.inventory import HostGpu
from host.command import CommandFailed, run


@dataclass(frozen=True)
class Docker:
    """The engine and Compose; a version is empty where the part is missing or does not answer."""

    client: str = ""
    server: str = ""
    compose: str = ""
    root_dir: str = "/var/lib/docker"
    nvidia: bool = False
    """Docker can give GPUs to containers: the NVIDIA container toolkit is there."""
    error: str = ""
    """What the client said when the engine did not answer."""


def docker() -> Docker:
    """Looks for the client, the engine behind it, and Compose v2."""
    if not shutil.which("docker"):
        return Docker()
    client = _version(_output(["docker", "--version"]))
    compose = _version(_output(["docker", "compose", "version", "--short"]))
    try:
        told = json.loads(run(["docker", "info", "--format", "{{json .}}"], timeout_s=20))
    except (CommandFailed, TimeoutError, json.JSONDecodeError) as error:
        said = error.last_line if isinstance(error, CommandFailed) else str(error)
        return Docker(client=client, compose=compose, error=said)
    server = told.get("ServerVersion", "")
    errors = told.get("ServerErrors") or []
    return Docker(
        client=client,
        server=server,
        compose=compose,
        root_dir=told.get("DockerRootDir") or "/var/lib/docker",
        nvidia="nvidia" in (told.get("Runtimes") or {})
        or bool(shutil.which("nvidia-container-runtime-hook"))
        or _cdi(told),
        error=errors[0] if errors else "",
    )


def _cdi(told: dict[str, object]) -> bool:
    devices = told.get("DiscoveredDevices") or []
    return isinstance(devices, list) and any("nvidia" in json.dumps(device) for device in devices)


def gpus() -> tuple[HostGpu, ...]:
    """NVIDIA GPUs in nvidia-smi's order; empty without a driver."""
    listed = _output(["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"])
    found = []
    for line in listed.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[0].isdigit():
            memory_mib = float(fields[3]) if re.fullmatch(r"[\d.]+", fields[3]) else 24_576
            found.append(
                HostGpu(index=int(fields[0]), uuid=fields[1], name=fields[2], memory_gb=round(memory_mib / 1024, 1))
            )
    return tuple(found)


def driver() -> str:
    """The NVIDIA driver's version, or empty."""
    versions = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).split()
    return versions[0] if versions else ""


def memory_gb() -> float:
    """Memory that a new process can have, in GiB."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024**2
    return 0.0


def disk_gb(path: str) -> float:
    """Free space in GiB where `path` is or will be."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free / 1024**3


def port_free(host: str, port: int) -> bool:
    """Whether this process could listen there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def host_name() -> str:
    """As other machines of its network may call it."""
    return socket.gethostname()


def addresses() -> list[str]:
    """This host's own addresses but loopback and link-local ones; empty where `hostname -I` is not known."""
    found = _output(["hostname", "-I"]).split()
    return [one for one in found if re.fullmatch(r"[0-9a-f:.]+", one)]


def system() -> str:
    """Debian 12, Ubuntu 24.04, ..."""
    return os_release().get("PRETTY_NAME", platform.platform())


def os_release() -> dict[str, str]:
    """/etc/os-release as a dictionary."""
    path = Path("/etc/os-release")
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def is_debian() -> bool:
    release = os_release()
    return release.get("ID") in ("debian", "ubuntu") or "debian" in release.get("ID_LIKE", "")


def is_root() -> bool:
    return os.geteuid() == 0


def _output(command: list[str]) -> str:
    try:
        return run(command, timeout_s=20)
    except (CommandFailed, FileNotFoundError, TimeoutError):
        return ""


def _version(text: str) -> str:
    match = re.search(r"\d+\.\d+(\.\d+)?", text)
    return match.group(0) if match else ""
