"""Explains why a service did not start: saves its log in build/, finds the root cause in it, and suggests a fix."""

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

from manyeyes.atomic_write import atomic_write
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError
from manyeyes.config.checkout import ROOT, from_checkout
from manyeyes.observability.log_lines import COLOURS

LINES = 400
"""vLLM prints some hundred lines of consequences after the root cause."""
LINES_BEFORE_CAUSE = 6
"""Number of lines shown before the root cause."""
FOLDER = ROOT / "build/logs"
CONSEQUENCES = re.compile(
    r"Engine core initialization failed|See root cause above|Failed core proc|cancelled|CancelledError|KeyboardInterrupt"
    r"|SystemExit|WorkerProc initialization failed"
)
"""Errors that are consequences of another error."""
EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt)\b(?:: .*)?$")
PREFIX = re.compile(r"^(?:\([\w ,=.]+\)\s*)*(?:(?:ERROR|CRITICAL)\s+[\d: .-]+\[[\w.]+:\d+\]\s*)?")
"""The prefix of vLLM's log lines, such as (EngineCore pid=71) ERROR 11-30 03:12:44 [core.py:1104]."""
KNOWN_CAUSES = (
    (
        r"Free memory on device .* is less than desired",
        "Another program uses this GPU (nvidia-smi shows it). Stop it, or lower --gpu-memory-utilization in vllm_flags.",
    ),
    (
        r"No available memory for the cache blocks",
        "The GPU has no memory left for the KV cache. Use a smaller or quantized (FP8) model, or raise gpu_fraction.",
    ),
    (
        r"To serve at least one request|larger than the available KV cache memory",
        "Lower max_model_len of this pool, or use a smaller model.",
    ),
    (
        r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError",
        "The model does not fit, or another program uses this GPU (nvidia-smi). Use a smaller or quantized (FP8) model.",
    ),
    (
        r"no kernel image is available",
        "This GPU is too old for vLLM, which needs compute capability 7.5 or newer. Remove the GPU from `engines:`.",
    ),
    (
        r"Bfloat16 is only supported",
        "This GPU does not support bfloat16: add --dtype=half to vllm_flags of the pool.",
    ),
    (
        r"driver version is insufficient|driver on your system is too old|unsatisfied condition: cuda",
        "Install NVIDIA driver 580 or newer (CUDA 13) and restart this host.",
    ),
    (
        r"Unknown quantization method|no longer supports online quantization|Invalid quantization",
        "Set another `quantization` for this pool, or remove it: vLLM then uses the checkpoint's quantization.",
    ),
    (
        r"not enough shared memory|insufficient shared memory|Bus error.*shm|No space left on device.*/dev/shm",
        "The container has too little shared memory: raise shm_gb of the engine.",
    ),
    (
        r"address already in use|port is already allocated|Address in use",
        "Another program uses this port (ss -ltnp shows it). Stop it, or choose another port in the configuration.",
    ),
    (
        r"No space left on device|Disk quota exceeded|more disk and .* are free",
        "The disk is full: free disk space (docker system df shows Docker's use), then run `make up` again.",
    ),
    (
        r"GatedRepoError|gated repo|requires a licence|\b401 (?:Client Error|Unauthorized)|\b403 (?:Client Error|Forbidden)",
        "Accept the model's licence on the hub and set HF_TOKEN in .env.",
    ),
    (
        r"Could not find nvcc|nvcc: (?:command )?not found",
        "This image has no CUDA compiler. Use the official vllm/vllm-openai image, or build a new one with `make images`.",
    ),
    (
        r"could not select device driver|nvidia-container-cli: initialization error|unknown or invalid runtime name: nvidia",
        "Docker cannot use the GPUs: install nvidia-container-toolkit and restart Docker.",
    ),
)
"""Known causes, and a fix for each."""
KILLED = 137
OUT_OF_MEMORY = "Linux killed it because it used all memory of the host or of its container (exit code 137)"


def explain_failure(compose: Compose, service: str, failure: str) -> CliError:
    """Returns an error for a `failure` of this service, with its root cause, a fix, and the path of its log."""
    log = save_log(compose, service)
    lines = _lines(log.read_text(encoding="utf-8", errors="replace") if log else "")
    cause, at = root_cause(lines)
    if _was_killed(compose, service):
        cause = OUT_OF_MEMORY
    summary = f"{failure}: {cause}" if cause else failure
    log_hint = f"The whole log: {from_checkout(log)}." if log else f"`make logs PART={service}` shows the log."
    excerpt = lines[max(0, at - LINES_BEFORE_CAUSE) : at + 2] if cause and at >= 0 else lines[-25:]
    return CliError(
        " ".join(part for part in (_sentence(summary), remedy(cause), log_hint) if part), details="\n".join(excerpt)
    )


def find_cause(compose: Compose, service: str) -> str:
    """Returns the root cause and its fix; empty if none is found."""
    log = save_log(compose, service)
    cause, _ = root_cause(_lines(log.read_text(encoding="utf-8", errors="replace") if log else ""))
    return " ".join(part for part in (_sentence(cause), remedy(cause)) if part) if cause else ""


def save_logs(compose: Compose, services: Iterable[str]) -> list[Path]:
    """Saves the logs of the services, before their containers are removed. Returns the paths."""
    return [path for service in services if (path := save_log(compose, service))]


def save_log(compose: Compose, service: str) -> Path | None:
    """Saves the whole log of a service in build/. Returns its path; None if the log cannot be read or written."""
    try:
        output = compose("logs", "--no-log-prefix", "--no-color", service, timeout_s=60)
        path = FOLDER / f"{compose.project}-{STAMP}" / f"{service}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, output)
    except (CommandFailed, OSError):
        return None
    return path


STAMP = time.strftime("%Y%m%d-%H%M%S")
"""Name of the folder of logs; each run of `make` has a separate folder."""


def root_cause(lines: list[str]) -> tuple[str, int]:
    """Returns (error, line number) of the root cause; ("", -1) if none is found.

    The root cause is the last known error, else the last exception of EngineCore, else the last exception. Errors that
    are consequences of another error are ignored.
    """
    lines, first = lines[-LINES:], max(0, len(lines) - LINES)
    known = any_core = any_other = -1
    for number, line in enumerate(lines):
        text = PREFIX.sub("", line).strip()
        if CONSEQUENCES.search(text):
            continue
        if remedy(text) and not text.startswith(("File ", "raise ", "^", '"', "'", 'f"')):
            known = number
        if EXCEPTION.match(text):
            any_other = number
            if "EngineCore" in line or "Worker" in line:
                any_core = number
    at = next((number for number in (known, any_core, any_other) if number >= 0), -1)
    return (PREFIX.sub("", lines[at]).strip()[:400], first + at) if at >= 0 else ("", -1)


def remedy(cause: str) -> str:
    """Returns a fix; empty for an unknown cause."""
    if cause == OUT_OF_MEMORY:
        return "Raise memory_gb of the engine, use a smaller model, or run fewer engines."
    return next((fix for pattern, fix in KNOWN_CAUSES if re.search(pattern, cause, re.IGNORECASE)), "")


def _lines(log: str) -> list[str]:
    """Returns the lines of a log. A JSON line becomes its message and its traceback."""
    lines: list[str] = []
    for text in log.splitlines():
        text = COLOURS.sub("", text).rstrip()
        try:
            entry = json.loads(text) if text.startswith("{") else None
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            lines.append(text)
            continue
        source = "(EngineCore) " if "vllm.v1.engine" in str(entry.get("logger", "")) else ""
        values = [entry.get(key) for key in ("message", "sentence", "msg", "exception")]
        lines += [f"{source}{line}" for value in values if value for line in str(value).splitlines()]
    return [line for line in lines if line.strip()]


def _was_killed(compose: Compose, service: str) -> bool:
    """Whether Linux killed the service because memory ran out."""
    try:
        states = [container["State"] for container in compose.inspect(service)]
    except CliError:
        return False
    return any(state["OOMKilled"] or state["ExitCode"] == KILLED for state in states)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
