"""The style of all pages, as text to put into them."""

from pathlib import Path

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
