"""English and Chinese of the page: no text is missing in either, and both name the same values."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir

import webui
from manyeyes.config.gateway import WebUi
from webui.i18n import (
    ENGLISH,
    ZH,
    _,
    current_language,
    negotiate_language,
    ngettext,
    read_catalog,
    use_language,
)
from webui.user_error import answer_cut_error

ROOT = Path(webui.__file__).parent
KEYWORDS = {**DEFAULT_KEYWORDS, "N_": None}
CATALOG = {message.id: message for message in read_catalog(ZH) if message.id}


def forms(text: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """Singular and plural, where there is a plural."""
    return (text,) if isinstance(text, str) else tuple(text or ())


def names(text: str) -> set[str]:
    return {name for _literal, name, _spec, _conversion in string.Formatter().parse(text) if name}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield file, node


def test_every_text_has_its_chinese_and_no_chinese_is_left_over() -> None:
    marked = {found[2] for found in extract_from_dir(ROOT, [("**.py", "python")], keywords=KEYWORDS)}
    assert sorted(map(forms, marked - set(CATALOG))) == []
    assert sorted(map(forms, set(CATALOG) - marked)) == []
    assert WebUi().greeting in CATALOG


def test_chinese_is_chinese_and_names_the_same_values() -> None:
    wrong = [
        english
        for english, message in CATALOG.items()
        for chinese in forms(message.string)
        if names(chinese) != names(forms(english)[0]) or not any(ord(letter) >= 0x2E80 for letter in chinese)
    ]
    assert wrong == []


def test_no_text_is_marked_inside_an_f_string_where_babel_does_not_see_it() -> None:
    hidden = [
        f"{file.name}:{call.lineno}"
        for file in ROOT.rglob("*.py")
        for string in ast.walk(ast.parse(file.read_text()))
        if isinstance(string, ast.JoinedStr)
        for call in ast.walk(string)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in KEYWORDS
        if isinstance(call.args[0], ast.Constant)
    ]
    assert hidden == []


def test_every_value_that_a_text_names_is_given() -> None:
    wrong = [
        f"{file.name}:{call.lineno}"
        for file, call in calls()
        if getattr(call.func, "id", "") == "_" and call.keywords and isinstance(call.args[0], ast.Constant)
        if names(str(call.args[0].value)) != {value.arg for value in call.keywords}
    ]
    assert wrong == []


def test_no_text_is_given_to_gradio_or_to_an_error_unmarked() -> None:
    unmarked = []
    for file, call in calls():
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        plain = [word.value for word in call.keywords if word.arg in ("label", "placeholder", "info")]
        plain += call.args[:1] if called in ("Button", "Warning", "Info", "Error", "Accordion", "Tab") else []
        plain += call.args[:2] if called == "UserError" else []
        unmarked += [
            f"{file.name}:{text.lineno}"
            for text in plain
            if isinstance(text, ast.JoinedStr) or (isinstance(text, ast.Constant) and isinstance(text.value, str))
        ]
    assert unmarked == []


def test_what_is_said_depends_on_the_language_of_the_moment() -> None:
    assert str(answer_cut_error()) == "The answer was cut off: the connection to the engine was lost. Press retry."
    with use_language(ZH):
        assert str(answer_cut_error()) == "回答中断：与引擎的连接已断开。 请点击重试。"
        assert ngettext("{count} page", "{count} pages", 1) == "1 页"
        assert _("A greeting of {somebody's} own") == "A greeting of {somebody's} own"
        assert _("") == ""
    assert ngettext("{count} page", "{count} pages", 1) == "1 page"
    assert ngettext("{count} page", "{count} pages", 2) == "2 pages"
    assert current_language() == ENGLISH


@pytest.mark.parametrize(
    ("cookie", "browser", "expected"),
    [
        (None, "", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "de-DE,de;q=0.9,zh;q=0.5,en;q=0.4", "zh"),
        (None, "en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en", "zh"),
        ("../x", "en", "en"),
    ],
)
def test_the_language_is_the_one_chosen_else_the_browsers(cookie: str | None, browser: str, expected: str) -> None:
    assert negotiate_language(cookie, browser) == expected
