"""Reads the hardware and software of this host. It changes nothing."""

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
"""Oldest driver for CUDA 13, for which vLLM's image is built."""
HOST = Path("/")
"""Root folder for the search of devices."""
WSL_DEVICE = "/dev/dxg"
"""GPU device of WSL, for GPUs of any vendor."""
NVIDIA_SMI_S = 60.0
"""Eight GPUs without persistence mode take about ten seconds."""
BROKEN = re.compile(r"ERR!|Unknown Error|is lost|requires reset|Unable to", re.IGNORECASE)
"""Text that nvidia-smi prints instead of a value for a GPU that does not work."""
BASIC_FIELDS = "index,uuid,name,memory.total"
FIELDS = f"{BASIC_FIELDS},memory.used,compute_cap,mig.mode.current"
"""The query of nvidia-smi. An old driver does not know the later fields, and then refuses the whole query."""
DRIVER = re.compile(r"\b\d{3,}\.\d+(\.\d+)?\b")


@dataclass(frozen=True)
class Docker:
    """Versions of Docker's engine and Compose. A version is empty if the part is missing or does not answer."""

    client: str = ""
    server: str = ""
    compose: str = ""
    root_dir: str = "/var/lib/docker"
    nvidia: bool = False
    """The NVIDIA container toolkit is installed, so containers can use GPUs."""
    error: str = ""
    """Error of the client if the engine did not answer."""


def docker() -> Docker:
    """Detects Docker's client, the engine that it uses, and Compose v2."""
    if not shutil.which("docker"):
        return Docker()
    client = _version(_output(["docker", "--version"]))
    compose = _version(_output(["docker", "compose", "version", "--short"]))
    try:
        info = json.loads(run(["docker", "info", "--format", "{{json .}}"], timeout_s=20))
    except (CommandFailed, OSError, TimeoutError, json.JSONDecodeError) as error:
        message = error.last_line if isinstance(error, CommandFailed) else str(error)
        return Docker(client=client, compose=compose, error=message)
    server = info.get("ServerVersion", "")
    errors = info.get("ServerErrors") or []
    return Docker(
        client=client,
        server=server,
        compose=compose,
        root_dir=info.get("DockerRootDir") or "/var/lib/docker",
        nvidia="nvidia" in (info.get("Runtimes") or {})
        or bool(shutil.which("nvidia-container-runtime-hook"))
        or _has_cdi_gpu(info),
        error=errors[0] if errors else "",
    )


def _has_cdi_gpu(info: dict[str, object]) -> bool:
    devices = info.get("DiscoveredDevices") or []
    return isinstance(devices, list) and any("nvidia" in json.dumps(device) for device in devices)


@dataclass(frozen=True)
class Nvidia:
    """Results of nvidia-smi, and NVIDIA devices found without it."""

    gpus: tuple[HostGpu, ...] = ()
    """GPUs that work, in the order of nvidia-smi."""
    problem: str = ""
    """nvidia-smi's output if it failed or listed a GPU that does not work."""
    device: str = ""
    """Device of an NVIDIA GPU found without nvidia-smi; empty if there is none."""
    has_program: bool = False
    """nvidia-smi is installed."""


def nvidia() -> Nvidia:
    """Detects GPUs. A failing nvidia-smi does not mean that the host has no GPU."""
    program = _nvidia_smi_path()
    device = _nvidia_device()
    if not program:
        return Nvidia(device=device)
    status, output = _nvidia_smi(program, f"--query-gpu={FIELDS}")
    if "not a valid field" in output:
        status, output = _nvidia_smi(program, f"--query-gpu={BASIC_FIELDS}")
    rows, messages = _rows(output)
    working, failing = [], []
    for fields in rows:
        if any(BROKEN.search(field) for field in fields):
            failing.append(f"GPU {fields[0]}: {', '.join(dict.fromkeys(fields[1:]))}")
            continue
        used, capability, mig = fields[4:] or ("", "", "")
        working.append(
            HostGpu(
                index=int(fields[0]),
                uuid=fields[1],
                name=fields[2],
                memory_gb=round((_number(fields[3]) or 24_576) / 1024, 1),
                used_gb=round((_number(used) or 0) / 1024, 1),
                compute_capability=_number(capability),
                is_partitioned=mig == "Enabled",
            )
        )
    problem = "; ".join(failing)
    if status or not (working or failing):
        message = " ".join(messages)[:400] or ("it prints nothing" if not status else f"it exits with code {status}")
        problem = "; ".join([*failing, message])
    return Nvidia(tuple(working), problem, device, has_program=True)


def gpus() -> tuple[HostGpu, ...]:
    """Returns the NVIDIA GPUs in the order of nvidia-smi; empty without a driver."""
    return nvidia().gpus


def driver() -> str:
    """Returns the version of the NVIDIA driver; empty if unknown."""
    if program := _nvidia_smi_path():
        for line in _nvidia_smi(program, "--query-gpu=driver_version")[1].splitlines():
            if DRIVER.fullmatch(line.strip()):
                return line.strip()
    with contextlib.suppress(OSError):
        text = (HOST / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if version := DRIVER.search(text):
            return version.group(0)
    return ""


def _nvidia_smi_path() -> str:
    """Returns the path of nvidia-smi, or empty. In WSL its folder is not in the PATH of sudo."""
    wsl_path = HOST / "usr/lib/wsl/lib/nvidia-smi"
    return shutil.which("nvidia-smi") or (str(wsl_path) if os.access(wsl_path, os.X_OK) else "")


@dataclass(frozen=True)
class GpuProcess:
    """A program that uses a GPU."""

    uuid: str
    """The GPU."""
    pid: int
    name: str
    memory_gb: float
    container: str
    """Id of its Docker container; empty if it runs in none."""


def gpu_processes() -> list[GpuProcess]:
    """Returns the programs that use GPUs; empty where the driver does not show them (WSL)."""
    if not (program := _nvidia_smi_path()):
        return []
    output = _nvidia_smi(program, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory")[1]
    fields_of = ([field.strip() for field in line.split(",")] for line in output.splitlines())
    return [
        GpuProcess(uuid, int(pid), Path(name[0]).name, round((_number(memory) or 0) / 1024, 1), _container_of(int(pid)))
        for uuid, pid, *name, memory in (fields for fields in fields_of if len(fields) == 4 and fields[1].isdigit())
    ]


def _container_of(pid: int) -> str:
    """Id of the Docker container in which a process runs, from its control group."""
    with contextlib.suppress(OSError):
        if found := re.search(r"[0-9a-f]{64}", (HOST / f"proc/{pid}/cgroup").read_text(errors="replace")):
            return found[0]
    return ""


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _nvidia_smi(program: str, query: str) -> tuple[int, str]:
    """Returns (exit code, output). After a timeout it does not wait, because a process that hangs in the driver cannot
    be killed."""
    command = [program, query, "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return 1, f"{program} cannot be run: {error.strerror}"
        timeout_message = ""
        try:
            status = process.wait(NVIDIA_SMI_S)
        except subprocess.TimeoutExpired:
            status, timeout_message = 1, f"\nnvidia-smi did not exit within {NVIDIA_SMI_S:g} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        output.seek(0)
        return status, output.read().decode(errors="replace") + timeout_message


def _rows(output: str) -> tuple[list[list[str]], list[str]]:
    """Returns the lines with one GPU each, split into fields, and all other lines."""
    rows, messages = [], []
    for line in output.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) in (4, 7) and fields[0].isdigit():
            rows.append(fields)
        elif line.strip():
            messages.append(line.strip())
    return rows, messages


def _nvidia_device() -> str:
    """Returns the first NVIDIA GPU device. GPUs that are passed through to a virtual machine (vfio) are ignored."""
    for path in ("dev/nvidia0", "proc/driver/nvidia", "dev/dxg"):
        if (HOST / path).exists():
            return f"/{path}"
    for device in sorted((HOST / "sys/bus/pci/devices").glob("*")):
        with contextlib.suppress(OSError):
            is_nvidia = (device / "vendor").read_text().strip() == "0x10de"
            is_display = (device / "class").read_text().strip().startswith("0x03")
            if is_nvidia and is_display and (device / "driver").resolve().name != "vfio-pci":
                return f"PCI device {device.name}"
    return ""


def memory_gb() -> float:
    """Returns the memory available to new processes, in GiB."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024**2
    return 0.0


def disk_gb(path: str) -> float:
    """Returns the free disk space at `path`, which need not exist, in GiB."""
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1024**3


def port_free(host: str, port: int) -> bool:
    """Whether this process could listen on the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def host_name() -> str:
    """Returns the host name, under which other machines may reach this host."""
    return socket.gethostname()


def addresses() -> list[str]:
    """Returns this host's addresses without loopback and link-local; empty if `hostname -I` is not supported."""
    words = _output(["hostname", "-I"]).split()
    return [word for word in words if re.fullmatch(r"[0-9a-f:.]+", word)]


def bridge_addresses() -> list[str]:
    """Returns this host's addresses in Docker's bridge networks; empty if `ip` is missing."""
    lines = _output(["ip", "-4", "-oneline", "address"]).splitlines()
    fields = [line.split() for line in lines]
    return [
        words[3].partition("/")[0]
        for words in fields
        if len(words) > 3 and re.match(r"docker\d+$|br-[0-9a-f]{12}$", words[1])
    ]


def system() -> str:
    """Returns the name of the operating system, such as Debian 12 or Ubuntu 24.04."""
    return os_release().get("PRETTY_NAME", platform.platform())


def os_release() -> dict[str, str]:
    """Returns the fields of /etc/os-release; empty if there is none."""
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
