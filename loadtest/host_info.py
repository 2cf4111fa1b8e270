"""What a figure needs beside it: the machine, the commit, and how busy the machine was."""

import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class CpuTime:
    """Seconds that all cores together had worked, and had been there, since the machine started."""

    worked_s: float
    passed_s: float

    def share_since(self, earlier: "CpuTime") -> float:
        """0 to 1: how much of all cores was used in between, by anybody."""
        return (self.worked_s - earlier.worked_s) / max(1e-9, self.passed_s - earlier.passed_s)


def read_cpu_time() -> CpuTime:
    first = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = first[3] + first[4]
    a_second = os.sysconf("SC_CLK_TCK")
    return CpuTime((sum(first) - idle) / a_second, sum(first) / a_second)


def measure_cpu_share(seconds: float) -> float:
    """How much of the machine others use just now."""
    before = read_cpu_time()
    time.sleep(seconds)
    return read_cpu_time().share_since(before)


@dataclass(frozen=True)
class HostInfo:
    cpu: str
    cores: int
    memory_gib: float
    system: str
    commit: str
    date: str
    command: str


def read_host_info(command: str) -> HostInfo:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    system = next(
        (line.split("=", 1)[1].strip('"') for line in _lines("/etc/os-release") if line.startswith("PRETTY")), "?"
    )
    return HostInfo(
        cpu=cpu,
        cores=os.cpu_count() or 1,
        memory_gib=round(memory / 1024**2, 1),
        system=system,
        commit=_commit(),
        date=time.strftime("%Y-%m-%d"),
        command=command,
    )


def as_json(made: HostInfo) -> dict[str, Any]:
    return asdict(made)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes not committed" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=10", "HEAD") + changed
