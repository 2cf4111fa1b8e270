"""Describes the host of a measurement (hardware, commit, CPU load) and manages the processes that it starts."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loadtest.result_files import ROOT


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds of all cores together since boot: busy time and total time."""

    worked_s: float
    passed_s: float

    def share_since(self, earlier: "CpuTime") -> float:
        """Fraction of all cores that was in use since `earlier`, by any process (0 to 1)."""
        return (self.worked_s - earlier.worked_s) / max(1e-9, self.passed_s - earlier.passed_s)


def read_cpu_time() -> CpuTime:
    first = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = first[3] + first[4]
    a_second = os.sysconf("SC_CLK_TCK")
    return CpuTime((sum(first) - idle) / a_second, sum(first) / a_second)


def measure_cpu_share(seconds: float) -> float:
    """Measures the fraction of all cores in use during the next `seconds` (0 to 1)."""
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

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.system}, commit {self.commit}, {self.date}"


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


def query_gpus(fields: str) -> list[str]:
    """Returns one line for each GPU, as nvidia-smi prints it; an empty list without a driver."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()
        )
    except (OSError, subprocess.SubprocessError):
        return []


def resident_mb(pid: int) -> float:
    """Resident memory of one process in MB, including shared pages."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1000


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=10", "HEAD") + changed


@contextlib.contextmanager
def start_process_group(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[int]:
    """Runs `command` with its output in `log` and yields its session id. On exit stops the session within 5 s."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            process.poll()
            remaining = members(process.pid)
            if not remaining:
                process.wait(timeout=patience_s)
                return
            time.sleep(0.02)
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def members(session: int) -> list[int]:
    """Ids of the live processes of a session, including orphaned processes."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    pids.append(int(entry.name))
    return pids


def cpu_s(sessions: Sequence[int]) -> float:
    """CPU seconds used so far by all processes and threads of these sessions, with nanosecond resolution.

    /proc/<pid>/stat counts in steps of 10 ms, which is too coarse for work of 20 µs. Linux has a CPU clock for each
    process (clock_getcpuclockid(3)). Its id is the inverted process id, shifted by three bits, plus 2 (CPUCLOCK_SCHED).
    """
    total = 0.0
    for session in sessions:
        for pid in members(session):
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | 2)
    return total


def memory_mb(sessions: Sequence[int]) -> float:
    """Resident memory of all processes of these sessions in MiB; pages they share are counted once (PSS)."""
    total = 0
    for session in sessions:
        for pid in members(session):
            with contextlib.suppress(OSError):
                for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
    return total / 1024


class Repeating:
    """Calls `once` in a separate thread until `stop`, with a pause of `every_s` before each call."""

    every_s: float
    stop_timeout_s = 20.0

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=self.stop_timeout_s)

    def once(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while not self._over.wait(self.every_s):
            self.once()
