"""Runs other programs. Ctrl-C stops them too."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from manyeyes.config.checkout import ROOT

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()


class CommandFailed(Exception):
    """A program exited with a code other than 0; `output` is its standard output and error."""

    def __init__(self, command: list[str], status: int, output: str) -> None:
        self.command, self.status, self.output = command, status, output
        super().__init__(f"{' '.join(command)} exited with code {status}")

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.status}"


def run(
    command: list[str],
    *,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    cwd: Path = ROOT,
) -> str:
    """Runs `command` and returns its standard output only, because warnings on standard error would make JSON
    unreadable. `on_line` and CommandFailed get both. Raises CommandFailed, FileNotFoundError, TimeoutError."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    with _lock:
        _running.add(process)
    timed_out = threading.Event()

    def stop_on_timeout() -> None:
        timed_out.set()
        _stop(process)

    timer = threading.Timer(timeout_s, stop_on_timeout) if timeout_s else None
    if timer:
        timer.start()
    lines: list[str] = []
    output: list[str] = []
    assert process.stdout
    assert process.stderr

    def take(line: str) -> None:
        lines.append(line)
        if on_line:
            on_line(line.rstrip())

    def read_errors(errors: Iterable[str]) -> None:
        with contextlib.suppress(ValueError):  # closed, because the main thread was interrupted
            for line in errors:
                take(line)

    errors = threading.Thread(target=read_errors, args=(process.stderr,), daemon=True)
    errors.start()
    try:
        for line in process.stdout:
            output.append(line)
            take(line)
        process.wait()
        errors.join()
    except BaseException:
        _stop(process)
        raise
    finally:
        if timer:
            timer.cancel()
        process.stdout.close()
        process.stderr.close()
        with _lock:
            _running.discard(process)
    if timed_out.is_set():
        raise TimeoutError(f"{' '.join(command)} took longer than {timeout_s:g} s")
    if process.returncode:
        raise CommandFailed(command, process.returncode, "".join(lines))
    return "".join(output)


def succeeds(command: list[str], timeout_s: float = 20) -> bool:
    """Whether the program exists and exits with code 0."""
    try:
        run(command, timeout_s=timeout_s)
    except (CommandFailed, OSError, TimeoutError):
        return False
    return True


def stop_all() -> None:
    """Stops all running programs, after Ctrl-C."""
    with _lock:
        running = list(_running)
    for process in running:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            return
