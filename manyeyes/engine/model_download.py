"""Downloads models into the volume, before any engine starts. It runs in the vLLM image as the `models` service.

`python -m manyeyes.engine.model_download --wait` downloads nothing and exits when all models are present. The pod of an
engine on Kubernetes runs it first.

$MODELS is a JSON list of {"model", "revision", "folder"?}. With `folder`, the tiny random-weight model is built there.
Complete models are marked and not downloaded again, so a second start needs no network.
"""

import errno
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from manyeyes.observability.log_format import json_line

PROGRESS_EVERY_S = 5.0
POLL_INTERVAL_S = 2.0


def main() -> int:
    """Downloads all models. Returns 0, or 1 and a message for the first model that fails."""
    home = Path(os.environ.get("HF_HOME", "/models"))
    if sys.argv[1:] == ["--wait"]:
        return _wait(json.loads(os.environ["MODELS"]), home)
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    for spec in json.loads(os.environ["MODELS"]):
        try:
            _provide(spec, home, offline)
        except DownloadError as error:
            _log(str(error), "error")
            return 1
    _prepare_caches()
    return 0


def _prepare_caches() -> None:
    """Creates a folder in $CACHE_DIR for each engine in $CACHE_OWNERS, {engine: "user:group"}, and deletes those of
    other engines.

    An engine mounts only its own folder, because it executes what is in it. `locks` is for engines that share a GPU.
    """
    if not (cache := os.environ.get("CACHE_DIR")):
        return
    engines, locks = Path(cache, "engines"), Path(cache, "locks")
    owners: dict[str, str] = json.loads(os.environ["CACHE_OWNERS"])
    for folder in (engines, locks):
        folder.mkdir(exist_ok=True)
    locks.chmod(0o777)
    for path in engines.iterdir():
        if path.name not in owners:
            shutil.rmtree(path)
    for name, owner in owners.items():
        (engines / name).mkdir(exist_ok=True)
        user, group = (int(part) for part in owner.split(":"))
        _change_owner(engines / name, user, group)


def _change_owner(cache: Path, user: int, group: int) -> None:
    if cache.stat().st_uid == user:
        return
    for folder, folders, files in os.walk(cache):
        for name in (".", *folders, *files):
            os.chown(Path(folder, name), user, group, follow_symlinks=False)


class DownloadError(Exception):
    """The model could not be downloaded; the message gives the reason and what to do."""


def marker(home: Path, model: str, revision: str | None) -> Path:
    """Returns the path of the file that marks a complete model."""
    return home / "manyeyes" / f"{model.replace('/', '--')}@{revision or 'newest'}.complete"


def _wait(models: list[dict[str, Any]], home: Path) -> int:
    """Waits until all models are present. Another process downloads them."""
    for spec in models:
        is_reported = False
        while not _is_present(spec, home):
            if not is_reported:
                _log(f"{spec['model']}: waiting for the download")
                is_reported = True
            time.sleep(POLL_INTERVAL_S)
    _log("all models are present")
    return 0


def _is_present(spec: dict[str, Any], home: Path) -> bool:
    if folder := spec.get("folder"):
        return (Path(folder) / "config.json").exists()  # the folder is created atomically (manyeyes/engine/tiny)
    return marker(home, spec["model"], spec.get("revision")).exists()


def _provide(spec: dict[str, Any], home: Path, offline: bool) -> None:
    model, revision = spec["model"], spec.get("revision")
    if folder := spec.get("folder"):
        from manyeyes.engine.tiny.__main__ import build

        started = time.monotonic()
        build(Path(folder), seed=0)
        _log(f"{model}: built the random-weight model in {time.monotonic() - started:.0f} s")
        return
    marker_file = marker(home, model, revision)
    if marker_file.exists():
        _log(f"{model}: complete")
        return
    if offline:
        raise DownloadError(
            f"{model} is not complete in the volume, and models.offline is true. "
            "Set it to false for one start, or set `model` to an absolute path."
        )
    _download(model, revision, home)
    marker_file.parent.mkdir(parents=True, exist_ok=True)
    marker_file.write_text(json.dumps(spec), encoding="utf-8")


def _download(model: str, revision: str | None, home: Path) -> None:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True, timeout=30)
        total = sum(file.size or 0 for file in info.siblings or [])
        free = shutil.disk_usage(home).free
        present = _bytes_in(home, model)
        if free < total - present:
            raise DownloadError(
                f"{model} needs {_gb(total - present)} more disk and {_gb(free)} are free. "
                "Free disk space, or set models.volume to a larger disk."
            )
        stop = threading.Event()
        reporter = threading.Thread(target=_report, args=(model, home, total, stop), daemon=True)
        reporter.start()
        try:
            # With the revision that engines use: offline, they find a branch by the reference that this call creates.
            snapshot_download(model, revision=revision, max_workers=8)
        finally:
            stop.set()
            reporter.join()
    except GatedRepoError as error:
        raise DownloadError(
            f"{model} requires a licence. Accept it on the hub, then set HF_TOKEN in .env ({_first_line(error)})"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        # The hub's answer is the same for a wrong name and for a model that the token may not read.
        raise DownloadError(
            f"{model} (revision {revision or 'newest'}) is not on the hub: check its name, and HF_TOKEN in .env "
            f"({_first_line(error)})"
        ) from error
    except DownloadError:
        raise
    except Exception as error:  # errors of httpx are not OSErrors, and Xet raises RuntimeError
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"{model} could not be downloaded: the disk is full ({error}). "
                "Free disk space, or set models.volume to a larger disk, then start again: the download resumes."
            ) from error
        if (status := getattr(getattr(error, "response", None), "status_code", 0)) in (401, 403):
            raise DownloadError(
                f"{model} could not be downloaded: the hub answers {status}. "
                "Set HF_TOKEN in .env to a token that may read this model, then start again."
            ) from error
        raise DownloadError(
            f"{model} could not be downloaded: {_first_line(error)}. "
            "Check the network (HF_ENDPOINT in .env sets a mirror), then start again: the download resumes."
        ) from error
    _log(f"{model}: complete, {_gb(total)}")


def _first_line(error: Exception) -> str:
    """Returns the first line of the error's text, or its type if the text is empty."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _report(model: str, home: Path, total: int, stop: threading.Event) -> None:
    previous, previous_s = _bytes_in(home, model), time.monotonic()
    while not stop.wait(PROGRESS_EVERY_S):
        present, now_s = _bytes_in(home, model), time.monotonic()
        speed = (present - previous) / (now_s - previous_s)
        time_left = f", {(total - present) / speed / 60:.0f} min left" if speed > 0 and total > present else ""
        percent = f" ({100 * present / total:.0f} %)" if total else ""
        _log(f"{model}: {_gb(present)} of {_gb(total)}{percent}, {speed / 1e6:.0f} MB/s{time_left}")
        previous, previous_s = present, now_s


def _bytes_in(home: Path, model: str) -> int:
    blobs = home / "hub" / f"models--{model.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*")) if blobs.exists() else 0


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _log(sentence: str, level: str = "info") -> None:
    event = "download_failed" if level == "error" else "download"
    print(json_line(time.time(), level, "models", event, {"sentence": sentence}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
