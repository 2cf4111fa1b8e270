"""English and Chinese of the page: no text is missing in either, and both name the same values."""

import ast
import string
from pathlib import Path

import pytest

import webui
from manyeyes.config.webui import WebUi
from webui.i18n import language
from webui.i18n.chinese import CHINESE
from webui.i18n.language import ENGLISH, ZH, counted, later, negotiate_language, say, use_language
from webui.user_error import answer_cut_error

ROOT = Path(webui.__file__).parent


def texts() -> set[str]:
    """Every text that the code says."""
    found = {WebUi().greeting}
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                told = node.args[1:] if node.func.id == counted.__name__ else node.args
                found |= {one.value for one in told if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


MARKS = {say.__name__, later.__name__, counted.__name__}


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_has_its_chinese_and_no_chinese_is_left_over() -> None:
    assert sorted(texts() - set(CHINESE)) == []
    assert sorted(set(CHINESE) - texts()) == []


def test_both_languages_name_the_same_values() -> None:
    assert [english for english, chinese in CHINESE.items() if names(english) != names(chinese)] == []


# The `what` of "what it has in flight" and product names stand alone in some places.
def test_chinese_is_chinese() -> None:
    without = [chinese for chinese in CHINESE.values() if not any(ord(letter) >= 0x2E80 for letter in chinese)]
    assert without == []


def test_no_text_bypasses_the_table() -> None:
    """Words that are given to Gradio, or to a Failure, as they stand."""
    bypassing = []
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            plain = [word.value for word in node.keywords if word.arg in ("label", "placeholder", "info")]
            plain += node.args[:1] if called in ("Button", "Warning", "Info", "Error", "Accordion", "Tab") else []
            plain += node.args[:2] if called == "Failure" else []
            bypassing += [
                f"{file.name}:{one.lineno}"
                for one in plain
                if isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str))
            ]
    assert bypassing == []


def test_what_is_said_depends_on_the_language_of_the_moment() -> None:
    assert str(answer_cut_error()) == "The answer was cut: the engine went away. Press retry."
    with use_language(ZH):
        assert str(answer_cut_error()) == "回答中断：引擎已离线。 请点击重试。"
        assert counted(1, "{count} page", "{count} pages") == "1 页"
        assert say("A greeting of {somebody's} own") == "A greeting of {somebody's} own"
    assert counted(1, "{count} page", "{count} pages") == "1 page"
    assert language.current_language() == ENGLISH


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
