"""`python audited.py GROUP FILE` prints the findings of pip-audit. It exits with 1 if a package has a known
vulnerability.

Packages that could not be checked are listed, not counted as clean: a mirror of PyPI may have files but no advisories.
"""

import json
import sys
from pathlib import Path
from typing import Any


def told(group: str, dependencies: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Returns (lines, whether there is a known vulnerability)."""
    skipped = [one for one in dependencies if "skip_reason" in one]
    bad = [one for one in dependencies if one.get("vulns")]
    asked = len(dependencies) - len(skipped)
    lines = [
        f"  {'ok' if asked and not bad else '!!'}  {group}: {asked} of {len(dependencies)} packages were checked, {len(bad)} have known vulnerabilities"
    ]
    for one in bad:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            lines.append(f"      {one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    if skipped:
        lines.append(
            f"      not checked: {skipped[0]['skip_reason'][:120]}"
            + (f" (and {len(skipped) - 1} more)" if skipped[1:] else "")
        )
    return lines, bool(bad)


if __name__ == "__main__":
    said, known = told(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())["dependencies"])
    print("\n".join(said))
    sys.exit(int(known))
