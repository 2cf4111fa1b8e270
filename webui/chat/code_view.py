"""The code that sends a request the page sent: curl, Python's openai, JavaScript. Files are named where the page has data."""

import json
import shlex
from typing import Any

from webui.chat.completion_stream import ChatRequest, request_body

CODE_LANGUAGES = ("curl", "Python", "JavaScript")
DATA_SCHEME = "data:"
EXAMPLE_KEY = "any"


def render_code(request: ChatRequest, names: list[str], base_url: str, language: str) -> str:
    """`names`: the files in the order in which the messages hold them. `base_url` ends in /v1."""
    match language:
        case "Python":
            return _python(request_body(request), names, base_url)
        case "JavaScript":
            return _javascript(request_body(request), names, base_url)
    return _curl(request_body(request), names, base_url)


def request_json(request: ChatRequest) -> str:
    """The request itself, every byte of every picture included."""
    return json.dumps(request_body(request), ensure_ascii=False)


class _FilePlaceholders:
    """Stands in the body where the page has the data of a file."""

    def __init__(self, names: list[str]) -> None:
        self._names = iter(names)
        self.found: list[tuple[str, str]] = []
        """(name of the file, its kind)"""

    def dug(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.dug(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.dug(item) for item in value]
        if isinstance(value, str) and value.startswith(DATA_SCHEME) and ";base64," in value:
            kind = value.removeprefix(DATA_SCHEME).partition(";")[0]
            self.found.append((next(self._names, "file"), kind))
            return f"\0{len(self.found) - 1}\0"
        return value

    def filled(self, text: str, with_: Any) -> str:
        """`text` is JSON or a literal; the holes with their quotes become `with_(name, kind)`."""
        for number, (name, kind) in enumerate(self.found):
            for hole in (f'"\\u0000{number}\\u0000"', f"'\\x00{number}\\x00'"):
                text = text.replace(hole, with_(name, kind))
        return text


def _curl(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = json.dumps(hole.dug(whole), ensure_ascii=False, indent=2)
    # Between two pieces of a quoted text, so that the shell puts the file there; -d @- because arguments have a limit.
    escaped = dug.replace("'", "'\\''")
    filled = hole.filled(escaped, lambda name, kind: f'"data:{kind};base64,\'"$(base64 -w0 {shlex.quote(name)})"\'"')
    return (
        f"printf '%s' '{filled}' |\n"
        f"  curl --no-buffer {base_url}/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -H 'Authorization: Bearer {EXAMPLE_KEY}' -d @-\n"
    )


def _python(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = hole.dug(whole)
    messages = hole.filled(_literal(dug["messages"], 4), lambda name, kind: f"data_url({name!r}, {kind!r})")
    known = ("model", "messages", "stream", "temperature", "top_p", "max_tokens", "seed", "response_format")
    more = {name: value for name, value in dug.items() if name not in (*known, "stream_options")}
    lines = [f"    {name}={_literal(dug[name], 4)}," for name in known if name in dug and name != "messages"]
    if more:  # vLLM's own fields, which the client does not know
        lines.append(f"    extra_body={_literal(more, 4)},")
    reads = (
        "def data_url(file, kind):\n"
        '    return f"data:{kind};base64," + base64.b64encode(Path(file).read_bytes()).decode()\n\n\n'
        if hole.found
        else ""
    )
    imports = "import base64\nfrom pathlib import Path\n\n" if hole.found else ""
    return (
        f"{imports}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key="{EXAMPLE_KEY}")\n\n\n{reads}'
        "stream = client.chat.completions.create(\n" + "\n".join(lines) + f"\n    messages={messages},\n)\n"
        "for chunk in stream:\n    if chunk.choices:\n"
        '        print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
    )


def _javascript(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = json.dumps(hole.dug(whole), ensure_ascii=False, indent=2)
    filled = hole.filled(dug, lambda name, kind: f"dataUrl({json.dumps(name)}, {json.dumps(kind)})")
    reads = (
        'import { readFileSync } from "node:fs";\n\n'
        'const dataUrl = (file, kind) => `data:${kind};base64,${readFileSync(file).toString("base64")}`;\n\n'
        if hole.found
        else ""
    )
    return (
        f"{reads}const response = await fetch({json.dumps(base_url + '/chat/completions')}, {{\n"
        '  method: "POST",\n'
        f'  headers: {{ "Content-Type": "application/json", Authorization: "Bearer {EXAMPLE_KEY}" }},\n'
        f"  body: JSON.stringify({filled}),\n}});\n"
        "for await (const bytes of response.body) process.stdout.write(bytes);\n"
    )


def _literal(value: Any, indent: int) -> str:
    """Python's own notation, a message a line."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = " " * (indent + 4)
        return "[\n" + "".join(f"{inner}{item!r},\n" for item in value) + " " * indent + "]"
    return repr(value)
