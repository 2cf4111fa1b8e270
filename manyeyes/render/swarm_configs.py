"""Collects the files that a Docker Swarm stack mounts as configs.

A config cannot be changed, so its name contains a digest of its text.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class SwarmConfigs:
    """The configs of one stack, collected while its services are rendered.

    `repository_files`: {path: text} of the repository's files.
    """

    repository_files: dict[str, str]
    repository_path: str
    """Path from the stack's file to the repository."""
    rendered: dict[str, str] = field(default_factory=dict)
    """{path next to the stack's file: text}"""
    configs: dict[str, Json] = field(default_factory=dict)

    def add_repository_file(self, path: str, target: str) -> Json:
        return self._config(path, f"{self.repository_path}/{path}", self.repository_files[path], target)

    def add_rendered_file(self, path: str, text: str, target: str) -> Json:
        self.rendered[path] = text
        return self._config(path, f"./{path}", text, target)

    def _config(self, path: str, file: str, text: str, target: str) -> Json:
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        key = path.replace("/", "-").replace("_", "-")
        # Names have at most 64 characters.
        self.configs[key] = {"file": file, "name": f"manyeyes-{key[-40:].lstrip('-.')}-{digest}"}
        return {"source": key, "target": target, "mode": 0o444}
