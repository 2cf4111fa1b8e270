"""Files in containers on Swarm: configs, which every node gets from a manager. They cannot be changed, so each is named after what
stands in it: another text is another config, and `docker stack deploy` starts anew what reads it."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class Files:
    """The configs of one stack, collected while its services are made. `own` are the repository's files, by path."""

    own: dict[str, str]
    up: str
    """From the stack's file to the repository."""
    rendered: dict[str, str] = field(default_factory=dict)
    """{path beside the stack's file: text}"""
    configs: dict[str, Json] = field(default_factory=dict)

    def of_repository(self, path: str, target: str) -> Json:
        return self._config(path, f"{self.up}/{path}", self.own[path], target)

    def made(self, path: str, text: str, target: str) -> Json:
        self.rendered[path] = text
        return self._config(path, f"./{path}", text, target)

    def _config(self, path: str, file: str, text: str, target: str) -> Json:
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        key = path.replace("/", "-").replace("_", "-")
        # Names end at 64 characters.
        self.configs[key] = {"file": file, "name": f"manyeyes-{key[-40:].lstrip('-.')}-{digest}"}
        return {"source": key, "target": target, "mode": 0o444}
