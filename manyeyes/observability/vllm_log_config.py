"""Formats vLLM's log. vLLM and its uvicorn load this by VLLM_LOGGING_CONFIG_PATH=manyeyes/observability/vllm.json.

With `--enable-log-requests` vLLM 0.32 writes `Received request ID: params: ...`. The parameters may contain text of the
client (stop strings, a JSON schema), so only the id and the outcome of a request are logged.
"""

import logging
import os
import re

from manyeyes.observability.log_format import JsonFormatter

PROBES = frozenset({"/health", "/metrics", "/load", "/ping", "/version"})
"""Paths that the controller and Prometheus request every few seconds."""
ID_PREFIXES = "chatcmpl-", "cmpl-", "resp_", "generate-tokens-"
"""Prefixes that vLLM adds to the X-Request-Id, by the call."""
REQUEST_MESSAGES = {
    "Received request %s: params": "request_received",
    "Request %s aborted": "request_aborted",
    "Request %s failed": "request_failed",
}
"""Start of a vLLM message (vllm/entrypoints/serve/utils/request_logger.py, vllm/v1/engine/async_llm.py) -> our
event."""
DUPLICATE_MESSAGES = "Added request %s", "Aborted request(s) %s"
PROMPT = re.compile(r"prompt|output|JSON body|Generated response|Dumping input", re.IGNORECASE)


class VllmJsonFormatter(JsonFormatter):
    """Formatter for one engine, which MANYEYES_ENGINE and MANYEYES_POOL name."""

    def __init__(self) -> None:
        super().__init__("engine", {"engine": os.environ["MANYEYES_ENGINE"], "pool": os.environ["MANYEYES_POOL"]})

    def read(self, record: logging.LogRecord) -> tuple[str, dict[str, object]]:
        template = str(record.msg)
        for beginning, event in REQUEST_MESSAGES.items():
            if template.startswith(beginning) and isinstance(record.args, tuple) and record.args:
                return event, {"request": strip_id_prefix(str(record.args[0]))}
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) >= 5:
            client, method, path, _, status = record.args[:5]
            return "http", {"client": client, "method": method, "path": str(path).partition("?")[0], "status": status}
        return super().read(record)


class PrivateLineFilter(logging.Filter):
    """Drops probes, duplicate messages, and every line that could contain text of a request or an answer."""

    def filter(self, record: logging.LogRecord) -> bool:
        template = str(record.msg)
        if record.name == "uvicorn.access":
            path = record.args[2] if isinstance(record.args, tuple) and len(record.args) >= 3 else ""
            return str(path).partition("?")[0] not in PROBES
        if template.startswith(DUPLICATE_MESSAGES):
            return False
        return not ("%" in template and record.name.startswith("vllm.entrypoints") and PROMPT.search(template))


def strip_id_prefix(vllm_id: str) -> str:
    """The X-Request-Id in an id of vLLM: chatcmpl-ID, cmpl-ID-0."""
    for prefix in ID_PREFIXES:
        if vllm_id.startswith(prefix):
            rest = vllm_id.removeprefix(prefix)
            return re.sub(r"-\d+$", "", rest) if prefix == "cmpl-" else rest
    return vllm_id
