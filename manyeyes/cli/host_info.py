"""What this host has: read only, nothing is changed."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from manyeyes.cli.process import CommandFailed, run
from manyeyes.config.placement import HostGpu

OLDEST_DRIVER = 580
"""vLLM's image is built for CUDA 13, which wants it."""
HOST = Path("/")
"""Where devices are looked for."""
WSL_DEVICE = "/dev/dxg"
"""WSL has it for a GPU of any maker."""
NVIDIA_SMI_S = 60.0
"""Eight GPUs without persistence mode take some ten seconds."""
BROKEN = re.compile(r"ERR!|Unknown Error|is lost|requires reset|Unable to", re.IGNORECASE)
"""What nvidia-smi prints in place of a value of a GPU that does not work."""
DRIVER = re.compile(r"\b\d{3,}\.\d+(\.\d+)?\b")


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
    except (CommandFailed, OSError, TimeoutError, json.JSONDecodeError) as error:
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


@dataclass(frozen=True)
class Nvidia:
    """What nvidia-smi says, and what there is without it."""

    gpus: tuple[HostGpu, ...] = ()
    """Those that work, in nvidia-smi's order."""
    problem: str = ""
    """nvidia-smi's own sentence when it failed, or named a GPU that does not work."""
    device: str = ""
    """Where this host shows an NVIDIA GPU, whatever nvidia-smi says; empty where it shows none."""
    has_program: bool = False
    """nvidia-smi is installed."""


def nvidia() -> Nvidia:
    """Looks for GPUs. A failing nvidia-smi is not the same as no GPU."""
    program = _nvidia_smi_path()
    device = _nvidia_device()
    if not program:
        return Nvidia(device=device)
    status, said = _nvidia_smi(program, "index,uuid,name,memory.total")
    rows, others = _rows(said)
    found, broken = [], []
    for fields in rows:
        if any(BROKEN.search(field) for field in fields):
            broken.append(f"GPU {fields[0]}: {', '.join(dict.fromkeys(fields[1:]))}")
            continue
        memory_mib = float(fields[3]) if re.fullmatch(r"[\d.]+", fields[3]) else 24_576
        found.append(
            HostGpu(index=int(fields[0]), uuid=fields[1], name=fields[2], memory_gb=round(memory_mib / 1024, 1))
        )
    problem = "; ".join(broken)
    if status or not (found or broken):
        words = " ".join(others)[:400] or ("it prints nothing" if not status else f"it ends with status {status}")
        problem = "; ".join([*broken, words])
    return Nvidia(tuple(found), problem, device, has_program=True)


def gpus() -> tuple[HostGpu, ...]:
    """NVIDIA GPUs in nvidia-smi's order; empty without a driver."""
    return nvidia().gpus


def driver() -> str:
    """The NVIDIA driver's version, or empty where none can be told."""
    if program := _nvidia_smi_path():
        for line in _nvidia_smi(program, "driver_version")[1].splitlines():
            if DRIVER.fullmatch(line.strip()):
                return line.strip()
    with contextlib.suppress(OSError):
        told = (HOST / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if found := DRIVER.search(told):
            return found.group(0)
    return ""


def _nvidia_smi_path() -> str:
    """Also where WSL keeps it: sudo's PATH does not lead there."""
    beside = HOST / "usr/lib/wsl/lib/nvidia-smi"
    return shutil.which("nvidia-smi") or (str(beside) if os.access(beside, os.X_OK) else "")


def _nvidia_smi(program: str, query: str) -> tuple[int, str]:
    """(status, what it printed). It is not waited for after its time: one that hangs in the driver cannot be killed."""
    command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return 1, f"{program} cannot be run: {error.strerror}"
        late = ""
        try:
            status = process.wait(NVIDIA_SMI_S)
        except subprocess.TimeoutExpired:
            status, late = 1, f"\nnvidia-smi did not end within {NVIDIA_SMI_S:g} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        said.seek(0)
        return status, said.read().decode(errors="replace") + late


def _rows(said: str) -> tuple[list[list[str]], list[str]]:
    """Lines about one GPU each, split, and all other lines."""
    rows, others = [], []
    for line in said.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[0].isdigit():
            rows.append(fields)
        elif line.strip():
            others.append(line.strip())
    return rows, others


def _nvidia_device() -> str:
    """The first place that shows an NVIDIA GPU. One that is given to a virtual machine (vfio) is not this host's."""
    for place in ("dev/nvidia0", "proc/driver/nvidia", "dev/dxg"):
        if (HOST / place).exists():
            return f"/{place}"
    for device in sorted((HOST / "sys/bus/pci/devices").glob("*")):
        with contextlib.suppress(OSError):
            is_nvidia = (device / "vendor").read_text().strip() == "0x10de"
            shows = (device / "class").read_text().strip().startswith("0x03")
            if is_nvidia and shows and (device / "driver").resolve().name != "vfio-pci":
                return f"PCI device {device.name}"
    return ""


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
    """/etc/os-release; empty where there is none."""
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


def is_debian() -> bool:
    release = os_release()
    return release.get("ID") in ("debian", "ubuntu") or "debian" in release.get("ID_LIKE", "")


def is_root() -> bool:
    return os.geteuid() == 0


def _output(command: list[str]) -> str:
    try:
        return run(command, timeout_s=20)
    except (CommandFailed, OSError, TimeoutError):
        return ""


def _version(text: str) -> str:
    match = re.search(r"\d+\.\d+(\.\d+)?", text)
    return match.group(0) if match else ""
