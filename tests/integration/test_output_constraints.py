"""Schemas, regular expressions and grammars that would cost an engine too much are refused at the gateway."""

import json
import random
from typing import Any

import pytest

from tests.integration.scan.server import Modules

SIMPLE: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def json_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def outputs(**fields: Any) -> dict[str, Any]:
    return {"structured_outputs": fields}


def tools(schema: Any, choice: Any = "auto") -> dict[str, Any]:
    return {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "tool_choice": choice,
    }


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def properties(number: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(number)}}


def chain(combination: str, length: int) -> dict[str, Any]:
    """Every level adds a pattern that the same string must match."""
    schema: dict[str, Any] = {"type": "string", "pattern": "z"}
    for n in range(length):
        schema = {"type": "string", "pattern": f"a{n}", combination: [schema]}
    return schema


PATTERNS = {"allOf": [{"type": "string", "pattern": f".*a{n}.*"} for n in range(10)]}
BOMB = "((a{1,300}){1,300}){1,300}"


@pytest.mark.parametrize(
    ("fields", "excess"),
    [
        (json_schema({"type": "string", "pattern": f"^{BOMB}$"}), "repetitions"),
        (json_schema({"type": "object", "patternProperties": {BOMB: {}}}), "repetitions"),
        (json_schema({"type": "array", "items": {"anyOf": [{"pattern": "(x{9}){9999}"}, {}]}}), "repetitions"),
        (json_schema({"type": "string", "pattern": "([a-z]{0,200}|(?:\\d{3,}){,150}[}{\\]]){200}"}), "repetitions"),
        (outputs(regex="(a{0,500}){0,500}"), "repetitions"),
        (outputs(regex=".{0,100000}x"), "repetitions"),
        (outputs(regex="a" * 5000), "over 4096 bytes"),
        (outputs(json=json.dumps({"type": "string", "pattern": BOMB})), "repetitions"),
        (outputs(json=json.dumps(properties(400))), "it may be an object"),
        (outputs(grammar=f"start: X\nX: /{BOMB}/"), "repetitions"),
        (outputs(grammar="start: X\nX: " + " & ".join(f"/.*a{n}.*/" for n in range(10))), "times &"),
        (outputs(grammar="start: % json " + json.dumps(PATTERNS)), "%json"),
        (outputs(grammar="start: " + '"a" ' * 2000), "over 4096 bytes"),
        (outputs(choice=[f"c{n}" for n in range(5000)]), "4000 keys"),
        (json_schema({"enum": [f"c{n}" for n in range(5000)]}), "4000 keys"),
        (json_schema(properties(2500)), "4000 keys"),
        (json_schema(nested(70)), "64 levels"),
        (json_schema(PATTERNS), "conditions"),
        (json_schema(chain("allOf", 10)), "conditions"),
        (json_schema(chain("anyOf", 10)), "conditions"),
        (json_schema({"$defs": {f"d{n}": {"pattern": f"a{n}", "$ref": f"#/$defs/d{n + 1}"} for n in range(10)}}), "cond"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": PATTERNS}}}, "conditions"),
        (tools(PATTERNS), "conditions"),
        (tools({"type": "string", "pattern": BOMB}), "repetitions"),
        (tools(properties(2500), "required"), "4000 keys"),
        (tools(properties(2500), {"type": "function", "function": {"name": "f"}}), "4000 keys"),
        ({"guided_regex": BOMB}, "repetitions"),
        ({"guided_json": {"type": "string", "pattern": BOMB}}, "repetitions"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "regex", "pattern": "a"}}}, "structural tags"),
        (outputs(structural_tag=json.dumps({"structures": [], "triggers": []})), "structural tags"),
        (outputs(regex="|".join(f"(w{n}){{2}}" for n in range(400)), grammar="{" * 4000, json={"pattern": "{" * 4000}
                 | {"patternProperties": {"{" * 4001: {}, "{" * 4002: {}, "{" * 4003: {}}}), "16 KiB"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_costs_an_engine_too_much_is_refused(njs: Modules, fields: dict[str, Any], excess: str) -> None:
    found = njs.read([body(**fields)])[0]
    assert excess in found.get("refused", "read"), found


@pytest.mark.parametrize(
    "fields",
    [
        json_schema(SIMPLE),
        json_schema(properties(1500)),
        json_schema(nested(25)),
        json_schema({"type": "string", "pattern": "^[A-Z]{2}\\d{6,10}(-[a-f0-9]{4}){3,8}$"}),
        json_schema({"type": "string", "pattern": "^[{}]{1,300}\\{1,300\\}{1,60}$"}),
        json_schema({"type": "object", "properties": {f"p{n}": {"type": "string", "pattern": ".{1,80}"} for n in range(60)}}),
        json_schema({"type": "object", "properties": {f"p{n}": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}],
                     "default": None} for n in range(60)}, "$defs": {"a": {"enum": ["x", "y"]}}}),
        json_schema({"type": "object", "properties": {"structural_tag": {}, "grammar": {"type": "string"}, "json": {}}}),
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text"}},
        {"response_format": None, "structured_outputs": None, "text": None, "tools": None},
        {"response_format": "odd", "structured_outputs": 5, "text": [], "tools": "odd"},
        outputs(choice=["yes", "no"]),
        outputs(regex="[a-z]{3}"),
        outputs(json=json.dumps(SIMPLE)),
        outputs(json="no JSON"),
        outputs(grammar='root ::= "a" | "b" root'),
        tools(properties(2500)),
        tools(SIMPLE, "required"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_clients_use_is_not(njs: Modules, fields: dict[str, Any]) -> None:
    assert njs.read([body(**fields)])[0].get("refused", "read") == "read"


def test_sizes_of_regular_expressions_are_not_below_what_they_write_out(njs: Modules) -> None:
    """Random expressions of letters, brackets and repetitions, beside the length of the text they stand for."""
    made = [expression(random.Random(seed), 3) for seed in range(500)]
    sizes = njs.ask("/regexSizes", [regex for regex, _ in made])
    assert [(regex, size) for (regex, _), size in zip(made, sizes, strict=True)] == made


def expression(chance: random.Random, depth: int) -> tuple[str, int]:
    """A regular expression, and the number of its characters once all repetitions are written out."""
    regex, size = "", 0
    for _ in range(chance.randrange(1, 4)):
        kind = chance.randrange(5 if depth else 4)
        if kind == 4:
            inner, inner_size = expression(chance, depth - 1)
            atom, atom_size = f"({inner})", inner_size
        else:
            atom, atom_size = chance.choice([("a", 1), ("\\{", 1), ("[({2,3}\\]]", 1), ("\\d", 1)])
        if chance.random() < 0.5:
            times = chance.randrange(1, 9)
            atom += chance.choice([f"{{{times}}}", f"{{0,{times}}}", f"{{{times},}}"])
            atom_size *= times
        regex, size = regex + atom, size + atom_size
    return regex, size
