"""Documents: links lead somewhere, every page is reachable from the index, lines are short, and there is not too much to read."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.prose import ROOT, blank_code_blocks, tracked_files

LINK = re.compile(r"\]\(([^)\s]+)\)")
GENERATED = re.compile(r"^docs/reference/|^docs/benchmarks/(gateways|scale-proof|nightly)")
"""Written by `make docs`, or by the command that measured."""
MEASURED = re.compile(r"^docs/benchmarks/")
DOCUMENT_WORDS = 25_000
README_WORDS = 1_400
COLUMNS = 120


@cache
def pages() -> tuple[str, ...]:
    return tuple(tracked_files("*.md"))


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    heads = re.findall(r"^#+ +(.*)$", blank_code_blocks(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()).replace(" ", "-") for head in heads}


def links(name: str) -> list[str]:
    return [
        link for link in LINK.findall(blank_code_blocks((ROOT / name).read_text(encoding="utf-8"))) if "://" not in link
    ]


def target(name: str, link: str) -> Path:
    path = link.partition("#")[0]
    return (ROOT / name).parent / path if path else ROOT / name


@pytest.mark.parametrize("name", pages())
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for link in links(name):
        if link.startswith("mailto:"):
            continue
        found = target(name, link)
        assert found.exists(), f"{name}: {link}"
        anchor = link.partition("#")[2]
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name}: {link}: the headings are {sorted(anchors(found))}"


def test_every_page_is_reachable_from_the_index() -> None:
    reached, waiting = set(), ["docs/README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached or not name.endswith(".md") or not (ROOT / name).is_file():
            continue
        reached.add(name)
        for link in links(name):
            found = target(name, link).resolve()
            if found.is_dir():
                found /= "README.md"
            if found.is_relative_to(ROOT):
                waiting.append(str(found.relative_to(ROOT)))
    assert {name for name in pages() if name.startswith("docs/")} <= reached


@pytest.mark.parametrize("name", pages())
def test_no_line_of_prose_is_over_120_columns(name: str) -> None:
    if GENERATED.match(name):
        return
    for number, line in enumerate(blank_code_blocks((ROOT / name).read_text()).split("\n"), 1):
        plain = LINK.sub("]", line)
        assert len(plain) <= COLUMNS or line.lstrip().startswith(("|", "[", "!", "<", "> |")), f"{name}:{number}"


def words(name: str) -> int:
    """Tables of measurements are results, not prose."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if MEASURED.match(name):
        text = "\n".join(line for line in blank_code_blocks(text).split("\n") if not line.startswith("|"))
    return sum(1 for word in text.split() if re.search(r"\w", word))


def test_documents_written_by_hand_stay_short() -> None:
    by_hand = {name: words(name) for name in pages() if name.startswith("docs/") and not GENERATED.match(name)}
    assert sum(by_hand.values()) <= DOCUMENT_WORDS, by_hand
    assert words("README.md") <= README_WORDS


def test_every_error_code_of_the_gateway_is_documented() -> None:
    modules = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "nginx/njs").glob("*.js"))
    refusals = re.findall(
        r"refuse\(r, \w+, '\w+', '(\w+)'|new Refusal\([^;]*?, '(\w+)'|^    \d{3}: \['(\w+)'", modules, re.M
    )
    codes = {code for found in refusals for code in found if code}
    assert len(codes) > 20
    page = (ROOT / "docs/gateway.md").read_text(encoding="utf-8")
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


def test_the_limits_of_a_body_are_documented_as_they_are() -> None:
    scanner = (ROOT / "nginx/njs/body_scanner.js").read_text(encoding="utf-8")
    steps, parts = (
        int(re.findall(rf"const MAX_{name} = ([\d_]+)", scanner)[0].replace("_", "")) for name in ("STEPS", "PARTS")
    )
    page = (ROOT / "docs/gateway.md").read_text(encoding="utf-8")
    for limit in (
        f"{steps:,} escaped quotes",
        f"{steps // 300 * 100:,} strings",
        f"{parts:,} messages and content parts",
    ):
        assert limit in page
