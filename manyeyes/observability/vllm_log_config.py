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
PRIVATE_LOGGERS = (
    *("vllm.renderers", "vllm.parser", "vllm.tool_parsers", "vllm.reasoning"),
    *("vllm.v1.structured_output", "vllm.entrypoints.chat_utils"),
)
"""Loggers of modules that read requests and answers: of their values only numbers are logged, and of their exceptions
only the type. vLLM 0.32 logs a text part without text, tool names and the text that a grammar rejected."""
HIDDEN = "..."
CONVERSION = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
PROMPT = re.compile(r"prompt|output|JSON body|Generated response|Dumping input", re.IGNORECASE)


class VllmJsonFormatter(JsonFormatter):
    """Formatter for one engine, which MANYEYES_ENGINE and MANYEYES_POOL name."""

    def __init__(self) -> None:
        super().__init__("engine", {"engine": os.environ["MANYEYES_ENGINE"], "pool": os.environ["MANYEYES_POOL"]})

    def format(self, record: logging.LogRecord) -> str:
        return super().format(without_values(record) if record.name.startswith(PRIVATE_LOGGERS) else record)

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


def without_values(record: logging.LogRecord) -> logging.LogRecord:
    """The record without what it quotes of a request or an answer."""
    args = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
    hidden = tuple(arg if isinstance(arg, int | float) else HIDDEN for arg in args)
    error = record.exc_info[0] if record.exc_info else None
    fields = {"exception": error.__name__} if error else {}
    template = CONVERSION.sub("%s", str(record.msg))
    clean = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, template, hidden, None)
    clean.created = record.created
    clean.fields = {**getattr(record, "fields", {}), **fields}
    return clean


def strip_id_prefix(vllm_id: str) -> str:
    """The X-Request-Id in an id of vLLM: chatcmpl-ID, cmpl-ID-0."""
    for prefix in ID_PREFIXES:
        if vllm_id.startswith(prefix):
            rest = vllm_id.removeprefix(prefix)
            return re.sub(r"-\d+$", "", rest) if prefix == "cmpl-" else rest
    return vllm_id
