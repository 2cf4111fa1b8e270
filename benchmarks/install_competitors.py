"""Gets the gateways that others make: pinned, into build/bench/, never into the system or into this project."""

import os
import subprocess
import sys
from pathlib import Path

from loadtest.host_info import ROOT

BUILD = ROOT / "build/bench"
PINS = ROOT / "benchmarks/gateways/pins"


class NotInstalled(Exception):
    """A gateway cannot be had here; the message says why, and the report repeats it."""


def from_pypi(name: str) -> Path:
    """The folder of a virtual environment with benchmarks/gateways/pins/<name>.txt, made when it is missing or outdated."""
    pins = PINS / f"{name}.txt"
    folder = BUILD / "environments" / name
    mark = folder / "pins.txt"
    if mark.exists() and mark.read_bytes() == pins.read_bytes():
        return folder
    log = BUILD / f"install-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"  ..  {name} is installed into {folder.relative_to(ROOT)}", flush=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(pins)]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
        with log.open("ab") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise NotInstalled(f"{_last(log)} ({log.relative_to(ROOT)})")
    mark.write_bytes(pins.read_bytes())
    return folder


def pinned(name: str, package: str) -> str:
    """The version of `package` in benchmarks/gateways/pins/<name>.txt."""
    for line in (PINS / f"{name}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1].split()[0]
    raise LookupError(f"{PINS / name}.txt does not pin {package}")


def from_debian(name: str) -> Path:
    """The wrapper of a program from Debian unstable, unpacked by benchmarks/gateways/fetch-debian."""
    folder = BUILD / "debian" / name
    program = folder / name
    if not program.exists():
        log = BUILD / f"install-{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"  ..  {name} is fetched into {folder.relative_to(ROOT)}", flush=True)
        with log.open("wb") as output:
            command = [str(ROOT / "benchmarks/gateways/fetch-debian"), name, str(folder)]
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise NotInstalled(f"{_last(log)} ({log.relative_to(ROOT)})")
    return program


def environment_for(folder: Path) -> dict[str, str]:
    """For a program of a virtual environment: nothing of this project's own Python."""
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "", "VIRTUAL_ENV": str(folder)}


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no word of why"])[-1][:300]
