"""Which files the tests of documents read, and how."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def tracked_files(*patterns: str) -> list[str]:
    """Paths of files in git, relative to the root."""
    command = ["git", "ls-files", *patterns]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def blank_code_blocks(text: str) -> str:
    """Markdown with empty lines in place of its code blocks, so that line numbers stay."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
