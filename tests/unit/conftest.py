"""What tests of several modules share."""

from pathlib import Path

import pytest
from docker.errors import DockerException


@pytest.fixture
def uploads_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page holds its visitors' files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this host runs Docker, and what is in its volumes, must not decide a unit test: to all of them, no engine answers."""

    def from_env(**_: object) -> None:
        raise DockerException("unit tests have no Docker")

    monkeypatch.setattr("docker.client.DockerClient.from_env", from_env)
