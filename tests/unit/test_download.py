"""What the downloader says when a model cannot be brought: one sentence with what to do, whatever the hub's client raises."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from manyeyes.engine import model_download

REQUEST = httpx.Request("GET", "https://hub/api/models/org/A")


def answer(status: int) -> Any:
    return httpx.Response(status, request=REQUEST)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "Name or service not known. Check the network (HF_ENDPOINT"),
        (httpx.ReadTimeout(""), "ReadTimeout. Check the network"),
        (RuntimeError("CAS service error: ReqwestMiddleware Error"), "CAS service error"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (HfHubHTTPError("401 Client Error", response=answer(401)), "the hub answers 401. Set HF_TOKEN"),
        (HfHubHTTPError("403 Forbidden", response=answer(403)), "the hub answers 403. Set HF_TOKEN"),
        (GatedRepoError("gated", response=answer(403)), "requires a licence. Accept it on the hub"),
        (RepositoryNotFoundError("404 Client Error\nmore", response=answer(404)), "check its name, and HF_TOKEN in .env (404 Client Error)"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)  # fmt: skip
def test_a_model_that_cannot_be_brought_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr("sys.argv", ["engine.download"])
    monkeypatch.delenv(
        "HF_HUB_OFFLINE", raising=False
    )  # webui.app sets it for its process, which another test may have been
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", json.dumps([{"model": "org/A", "revision": None}]))
    assert model_download.main() == 1
    [line] = capsys.readouterr().out.splitlines()
    sentence = json.loads(line)["sentence"]
    assert sentence.startswith("org/A")
    assert said in sentence


def caches(monkeypatch: pytest.MonkeyPatch, cache: Path, *engines: str) -> None:
    owner = f"{os.getuid()}:{os.getgid()}"
    monkeypatch.setenv("CACHE_DIR", str(cache))
    monkeypatch.setenv("CACHE_OWNERS", json.dumps(dict.fromkeys(engines, owner)))
    monkeypatch.setenv("MODELS", "[]")
    monkeypatch.setattr("sys.argv", ["engine.download"])
    assert model_download.main() == 0


def test_every_engine_has_a_cache_that_it_finds_again_and_those_of_removed_engines_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches(monkeypatch, tmp_path, "gpu-0", "gpu-1")
    (tmp_path / "engines/gpu-0/kernel").write_text("warm")
    (tmp_path / "engines/gpu-1/kernel").write_text("old")
    outside = tmp_path / "precious"
    outside.mkdir()
    (tmp_path / "engines/gpu-1/link").symlink_to(outside)
    caches(monkeypatch, tmp_path, "gpu-0", "gpu-2")
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == ["gpu-0", "gpu-2"]
    assert (tmp_path / "engines/gpu-0/kernel").read_text() == "warm"
    assert outside.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_cache_belongs_to_the_user_that_its_engine_runs_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_OWNERS", json.dumps({"a": "10001:10001", "b": "0:0"}))
    monkeypatch.setenv("CACHE_DIR", str(tmp_path))
    (tmp_path / "engines/a/old").mkdir(parents=True)
    monkeypatch.setenv("MODELS", "[]")
    monkeypatch.setattr("sys.argv", ["engine.download"])
    assert model_download.main() == 0
    owners = {path.name: path.stat().st_uid for path in (tmp_path / "engines").iterdir()}
    assert owners == {"a": 10001, "b": 0}
    assert (tmp_path / "engines/a/old").stat().st_uid == 10001
