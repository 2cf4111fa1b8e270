"""Lines of all kinds, put into the one form, shown to people, and joined to the story of one request."""

import json
import logging
import logging.config
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manyeyes.cli import logs as host_logs
from manyeyes.cli.compose import Compose
from manyeyes.cli.terminal import CliError
from manyeyes.observability import vllm_log_config
from manyeyes.observability.log_format import ALWAYS, FIELDS, json_line
from manyeyes.observability.log_lines import LogLine, format_line, read_compose_line, read_line
from manyeyes.observability.request_trace import parse_attempts, trace_request

ROOT = Path(__file__).resolve().parents[2]
AT = "2026-11-21T20:10:22.860Z"


def request_line(**changed: Any) -> str:
    said = {
        "at": AT, "level": "info", "part": "gateway", "event": "request", "request": "try-1", "engine": "gpu-1", "pool": "big",
        "client": "10.0.0.9", "key": "alice", "method": "POST", "path": "/v1/chat/completions", "status": 200, "model": "big",
        "attempts": "10.0.0.2:8000, 10.0.0.3:8000", "attempt_status": "502, 200", "connect_s": "-, 0.000", "header_s": "-, 0.080",
        "response_s": "0.100, 1.100", "total_s": 1.2, "bytes_in": 1000, "bytes_out": 500, "cache": "", "connection": 7,
    }  # fmt: skip
    return json.dumps(said | changed)


def test_a_line_has_the_promised_fields_first_and_none_that_is_empty() -> None:
    said = json.loads(
        json_line(1_795_000_000.5, "info", "controller", "started", {"engines": 3, "pool": None, "path": Path("/x")})
    )
    assert list(said) == [*ALWAYS, "engines", "path"]
    assert said["at"] == "2026-11-18T11:06:40.500Z"
    assert said["path"] == "/x"
    assert tuple(FIELDS)[:4] == ALWAYS


@pytest.mark.parametrize(
    ("text", "level", "event", "message"),
    [
        ("2026/11/21 20:10:18 [error] 31#31: *208 no live upstreams", "error", "nginx", "no live upstreams"),
        ("2026/11/21 20:10:18 [emerg] 1#1: unknown directive", "critical", "nginx", "unknown directive"),
        ('time=2026-11-21T20:10:18Z level=WARN source=main.go:1 msg="a \\"b\\" c" component=x', "warning", "said", 'a \\"b\\" c'),
        ('{"time":"2026-11-21T20:10:18Z","level":"ERROR","msg":"refused","component":"x"}', "error", "said", "refused"),
        ('{"t":"2026-11-21T20:10:18Z","level":"info","logger":"x","msg":"HTTP Server Listen"}', "info", "said", "HTTP Server Listen"),
        ("\x1b[32mLoading shards\x1b[0m", "info", "said", "Loading shards"),
        ('{"broken": ', "info", "said", '{"broken":'),
        ("[1, 2]", "info", "said", "[1, 2]"),
    ],
)  # fmt: skip
def test_what_others_write_is_put_into_the_form(text: str, level: str, event: str, message: str) -> None:
    found = read_compose_line(f"gateway-1  | 2026-11-21T20:10:18.123456789Z {text}")
    assert (found.service, found.level, found.event) == ("gateway", level, event)
    assert found.fields["message"] == message
    assert json.loads(found.text())["part"] == "gateway"
    assert found.at_s == pytest.approx(1_795_291_818, abs=1)


def test_an_engines_name_may_end_in_a_number() -> None:
    found = read_compose_line("gpu-0-1  | 2026-11-21T20:10:18.123456789Z oh")
    assert (found.service, found.part, found.engine) == ("gpu-0", "engine", "gpu-0")


def test_a_line_fits_the_terminal_and_is_one_line_without_one() -> None:
    found = read_line("gateway", request_line())
    wrapped = format_line(found, 80, colours=False).splitlines()
    assert max(map(len, wrapped)) <= 80
    assert wrapped[0].startswith("20:10:22.860 gateway     200 POST")
    assert "\n" not in format_line(found, None, colours=False)
    assert "\x1b[31m" in format_line(read_line("gateway", request_line(status=502, level="error")), 80, colours=True)
    failed = json_line(
        0, "error", "engine", "said", {"message": "It failed.", "exception": "Traceback\n  File x\nOSError: gone"}
    )
    assert format_line(read_line("gpu-0", failed), None, colours=False).endswith(
        "ERROR It failed. (exception OSError: gone)"
    )


def test_the_attempts_of_a_request_are_told_one_after_the_other_also_over_two_pools() -> None:
    found = parse_attempts(read_line("gateway", request_line(attempts="10.0.0.2:8000, 10.0.0.3:8000 : 10.0.0.4:8000", attempt_status="502, 502 : 200",
                                               connect_s="0.000, - : 0.000", header_s="-, - : 0.300", response_s="0.100, 0.000 : 0.900")))  # fmt: skip
    assert [(one.address, one.connected, one.header_s) for one in found] == [
        ("10.0.0.2:8000", True, None), ("10.0.0.3:8000", False, None), ("10.0.0.4:8000", True, 0.3),
    ]  # fmt: skip
    assert found[2].started_s - found[0].started_s == pytest.approx(0.1)


def lines() -> list[LogLine]:
    def changed(at: str, engine: str, state: str, address: str) -> str:
        told = f"{engine} is {state}"
        fields = {"sentence": told, "engine": engine, "state": state, "address": address}
        return json_line(0, "info", "controller", "cluster_changed", fields).replace("1970-01-01T00:00:00.000Z", at)

    return [
        read_line("controller", changed("2026-11-21T20:00:00.000Z", "gpu-0", "starting", "10.0.0.2:8000")),
        read_line("controller", changed("2026-11-21T20:01:00.000Z", "gpu-0", "up", "10.0.0.2:8000")),
        read_line("controller", changed("2026-11-21T20:10:22.000Z", "gpu-0", "down", "10.0.0.2:8000")),
        read_line("controller", changed("2026-11-21T20:10:22.000Z", "gpu-9", "down", "10.0.0.9:8000")),
        read_line("gateway", request_line()),
        read_line("gateway", request_line(request="another", connection=8)),
        read_line("gateway", "2026/11/21 20:10:21 [error] 1#1: *7 connect() failed", "2026-11-21T20:10:21.700Z"),
        read_line("gateway", "2026/11/21 20:10:21 [error] 1#1: *8 not about it", "2026-11-21T20:10:21.700Z"),
        read_line(
            "gpu-1",
            json_line(1_795_291_821.8, "info", "engine", "request_received", {"request": "try-1", "engine": "gpu-1"}),
        ),
    ]


def test_a_story_holds_what_is_about_the_request_and_nothing_else() -> None:
    told = [f"{one.source}: {one.text}" for one in trace_request(lines(), "try-1")]
    assert told == [
        "gateway: POST /v1/chat/completions from 10.0.0.9 with key alice, model big, 1000 bytes",
        "gateway: sent to gpu-0 (10.0.0.2:8000): no connection after 0.100 s",
        "controller: state since 20:01:00: gpu-0 is up",
        "gateway: connect() failed",
        "gateway: sent to gpu-1 (10.0.0.3:8000): 200, first byte after 0.080 s, done after 1.100 s",
        "gpu-1: request received",
        "controller: gpu-0 is down",
        "gateway: answered 200 by gpu-1 of big after 1.2 s, 500 bytes",
    ]
    assert trace_request(lines(), "nobody") == []


@pytest.mark.parametrize("request_id", ["nobody-asked", "no id; rm -rf /"])
def test_a_request_that_no_log_knows_is_refused_with_a_sentence(
    request_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> Iterator[LogLine]:
        yield from lines()

    monkeypatch.setattr(host_logs, "_lines", none)
    with pytest.raises(CliError, match=request_id.split(";")[0]):
        host_logs.show_request(Compose("x"), request_id, raw=False)


def test_parts_levels_and_engines_are_chosen() -> None:
    wanted = host_logs.LogFilter(part="engine", level="warning")
    assert not wanted.matches(lines()[-1])
    assert host_logs.LogFilter(part="engine").matches(lines()[-1])
    assert host_logs.LogFilter(part="gpu-1").matches(lines()[-1])
    assert [host_logs.LogFilter(part="gateway", level="error").matches(one) for one in lines()].count(True) == 2


# --- vLLM's own lines: the templates are those of vLLM 0.32 ---


@pytest.fixture
def vllm_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    monkeypatch.setenv("MANYEYES_ENGINE", "gpu-0")
    monkeypatch.setenv("MANYEYES_POOL", "big")
    kept, form = vllm_log_config.PrivateLineFilter(), vllm_log_config.VllmJsonFormatter()

    def say(logger: str, template: str, *args: object, error: Exception | None = None) -> dict[str, Any] | None:
        failure = (type(error), error, None) if error else None
        record = logging.LogRecord(logger, logging.INFO, "x.py", 1, template, args, failure)
        return json.loads(form.format(record)) if kept.filter(record) else None

    return iter([say])


def test_of_a_request_vllm_says_its_id_and_nothing_that_the_client_wrote(vllm_log: Any) -> None:
    say = next(vllm_log)
    received = "Received request %s: params: %s, lora_request: %s."
    logger = "vllm.entrypoints.serve.utils.request_logger"
    said = say(logger, received, "chatcmpl-try-1", "SamplingParams(stop=['secret'])", None)
    assert {key: said[key] for key in said if key != "at"} == {
        "level": "info", "part": "engine", "event": "request_received", "engine": "gpu-0", "pool": "big", "request": "try-1",
    }  # fmt: skip
    assert say(logger, received, "cmpl-try-2-0", "x", None)["request"] == "try-2"
    failed = say("vllm.v1.engine.async_llm", "Request %s failed (bad request): %s.", "chatcmpl-try-1", "secret")
    assert (failed["event"], "secret" in str(failed)) == ("request_failed", False)
    for template in (
        "Request %s details: prompt: %r, prompt_token_ids: %s",
        "Request %s JSON body: %s",
        "Generated response %s%s: output: %r",
    ):
        assert say(logger, template, "chatcmpl-try-1", "secret", "secret") is None
    assert say("vllm.v1.engine.async_llm", "Added request %s.", "chatcmpl-try-1-abcd1234") is None


def test_modules_that_read_requests_and_answers_log_no_values(vllm_log: Any) -> None:
    say = next(vllm_log)
    skipped = "Skipping multimodal part '%s' (type: '%s') with empty / unparsable content."
    part = {"type": "text", "note": "secret"}
    said = say("vllm.renderers.chat_utils", skipped, part, "text")
    assert said["message"] == "Skipping multimodal part '...' (type: '...') with empty / unparsable content."
    length = "Tool call %r has arguments that are not valid JSON (%d chars)"
    assert say("vllm.renderers.chat_utils", length, "secret", 7)["message"] == length.replace("%r", "...") % 7
    assert say("vllm.renderers.hf", "one of %d frames: %.3f", "secret", 0.5)["message"] == "one of ... frames: 0.5"
    failed = say("vllm.v1.structured_output", "Failed to compile grammar", error=ValueError("secret"))
    assert (failed["exception"], "secret" in str(failed)) == ("ValueError", False)
    for logger in ("vllm.v1.structured_output.backend_guidance", "vllm.tool_parsers.hermes_tool_parser"):
        assert "secret" not in str(say(logger, "error: %s", "secret"))


def test_vllms_probes_are_left_out_and_its_other_lines_kept(vllm_log: Any) -> None:
    say = next(vllm_log)
    access = '%s - "%s %s HTTP/%s" %d'
    assert say("uvicorn.access", access, "10.0.0.1:5", "GET", "/health", "1.1", 200) is None
    said = say("uvicorn.access", access, "10.0.0.1:5", "POST", "/v1/chat/completions?key=secret", "1.1", 200)
    assert (said["event"], said["path"], said["status"]) == ("http", "/v1/chat/completions", 200)
    assert say("vllm.v1.core", "GPU KV cache size: %s tokens", "1,000")["message"] == "GPU KV cache size: 1,000 tokens"


def test_vllms_logging_file_is_one_that_pythons_logging_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYEYES_ENGINE", "gpu-0")
    monkeypatch.setenv("MANYEYES_POOL", "big")
    configured = json.loads((ROOT / "manyeyes/observability/vllm.json").read_text())
    maker = logging.config.DictConfigurator(configured)
    assert isinstance(maker.configure_formatter(configured["formatters"]["lines"]), vllm_log_config.VllmJsonFormatter)
    assert isinstance(maker.configure_filter(configured["filters"]["kept"]), vllm_log_config.PrivateLineFilter)
