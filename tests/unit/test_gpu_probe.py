"""Before weights are downloaded, a container uses each GPU. `docker` is a stand-in that prints what Docker and torch print."""

from pathlib import Path

import pytest

from manyeyes.cli import gpu_probe
from manyeyes.cli.terminal import CliError
from tests.placed import placed

TWO = "pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, gpus: [0], gpu_fraction: 0.4}, {name: f, pool: a, gpus: [0], gpu_fraction: 0.4}, {name: g, pool: a, gpus: [GPU-ab]}]"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "docker"


def prints(docker: Path, text: str, status: int) -> None:
    (docker.parent / "printed").write_text(text)
    docker.write_text(f'#!/bin/sh\necho "$@" > {docker.parent}/asked\ncat {docker.parent}/printed >&2\nexit {status}\n')
    docker.chmod(0o755)


def test_each_gpu_of_an_engine_is_used_once(docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prints(docker, "2 GPUs work\n", 0)
    gpu_probe.probe_gpus(placed(TWO))
    asked = (docker.parent / "asked").read_text()
    assert '--gpus="device=0,GPU-ab"' in asked
    assert "--network=none" in asked
    assert "vLLM's image can use 2 GPUs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("printed", "cause", "remedy"),
    [
        (
            "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI "
            "runtime create failed: runc create failed: unable to start container process: error during container init: "
            "error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\n"
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a "
            "newer version, or use an earlier cuda container\n\nRun 'docker run --help' for more information\n",
            "unsatisfied condition: cuda>=13.0",
            "Install NVIDIA driver 580 or newer",
        ),
        (
            'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n',
            "could not select device driver",
            "install nvidia-container-toolkit",
        ),
        (
            'Traceback (most recent call last):\n  File "<string>", line 4, in <module>\ntorch.AcceleratorError: CUDA error: '
            "no kernel image is available for execution on the device\nCUDA kernel errors might be reported later.\n",
            "no kernel image is available",
            "compute capability 7.5 or newer",
        ),
        (
            'Traceback (most recent call last):\n  File "<string>", line 4, in <module>\ntorch.OutOfMemoryError: CUDA out of '
            "memory. Tried to allocate 20.00 MiB.\n",
            "CUDA out of memory",
            "another program uses this GPU",
        ),
        ("something new\n", "something new", ""),
    ],
)
def test_what_the_image_cannot_use_is_told_with_its_cause(docker: Path, printed: str, cause: str, remedy: str) -> None:
    prints(docker, printed, 1)
    with pytest.raises(CliError) as caught:
        gpu_probe.probe_gpus(placed(TWO))
    assert cause in str(caught.value)
    assert remedy in str(caught.value)


def test_a_driver_that_hangs_is_told(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.write_text("#!/bin/sh\nexec sleep 600\n")
    docker.chmod(0o755)
    monkeypatch.setattr(gpu_probe, "TIMEOUT_S", 0.3)
    with pytest.raises(CliError, match="restart this host"):
        gpu_probe.probe_gpus(placed(TWO))


def test_without_engines_on_gpus_nothing_is_started(docker: Path) -> None:
    prints(docker, "", 1)
    gpu_probe.probe_gpus(placed("pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: cpu}]"))
    assert not (docker.parent / "asked").exists()
