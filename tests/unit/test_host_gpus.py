"""NVIDIA GPUs of a host: a driver that is too old or fails is told before anything is downloaded, and never taken for "no GPU".

What nvidia-smi prints is as its drivers print it (550 to 580, Linux and WSL); stand-ins on the PATH print it.
"""

import os
from pathlib import Path

import pytest

from manyeyes.cli import doctor, gpu_discovery, host_info
from manyeyes.cli.host_info import Docker
from manyeyes.cli.terminal import CliError
from manyeyes.config.loader import parse
from manyeyes.config.placement import HostGpu, Inventory
from manyeyes.render.compose_engines import engines_yaml
from tests.placed import placed

AUTO = "pools: [{name: a, model: org/A, flavours: [cuda, cpu, emulated]}]\n"
LISTED = "pools: [{name: a, model: org/A}]\nengines:\n" + "".join(
    f"  - {{name: gpu-{number}, pool: a, gpus: [{number}]}}\n" for number in range(8)
)
WORKS = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/", nvidia=True)
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9"}
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
LOST = "Unable to determine the device handle for GPU7: 0000:C1:00.0: Unknown Error"
NO_NVML = (
    "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display Driver is "
    "properly installed and present in your system.\nPlease also try adding directory that contains libnvidia-ml.so to your system PATH."
)


def rows(count: int, name: str = "NVIDIA GeForce RTX 4090") -> str:
    return "".join(f"{number}, GPU-{number:04}, {name}, 24564\n" for number in range(count))


class Host:
    """A host with the files that show a GPU, and an nvidia-smi that prints what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "host"
        self.bin = folder / "bin"
        for one in (self.root, self.bin):
            one.mkdir()
        monkeypatch.setattr(host_info, "HOST", self.root)
        without = [one for one in os.environ["PATH"].split(":") if not Path(one, "nvidia-smi").exists()]
        monkeypatch.setenv("PATH", ":".join([str(self.bin), *without]))

    def has(self, *places: str) -> None:
        for place in places:
            path = self.root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def pci(self, vendor: str = "0x10de", kind: str = "0x030000", driver: str = "") -> None:
        device = self.root / "sys/bus/pci/devices/0000:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
        if driver:
            (self.root / "drivers" / driver).mkdir(parents=True)
            (device / "driver").symlink_to(self.root / "drivers" / driver)

    def smi(self, gpus: str, status: int = 0, driver: str = "580.95.05", at: str = "", last: str = "") -> None:
        place = self.root / at if at else self.bin / "nvidia-smi"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".gpus").write_text(gpus)
        place.with_suffix(".driver").write_text(f"{driver}\n")
        place.write_text(
            f'#!/bin/sh\ncase "$*" in *driver_version*) cat {place.with_suffix(".driver")} ;; *) cat {place.with_suffix(".gpus")} ;; esac\n{last}\nexit {status}\n'
        )
        place.chmod(0o755)

    def doctor(self, name: str = "NVIDIA GeForce RTX 4090", text: str = AUTO) -> doctor.Check:
        found = Inventory(flavour="cuda", gpus=(HostGpu(index=0, name=name),))
        checks = doctor.run_checks(parse(text), WORKS, found, is_running=True)
        return next(check for check in checks if check.name == "NVIDIA driver")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def taken(flavour: str = "", text: str = AUTO) -> Inventory:
    return gpu_discovery.discover(parse(text), WORKS, flavour, "p", OFFLINE)


@pytest.mark.parametrize(
    ("driver", "found", "is_enough"),
    [
        ("580.95.05", "580.95.05", True),
        ("580.65", "580.65", True),
        ("581.29", "581.29", True),  # Windows' own, as WSL tells it
        ("590.48.01", "590.48.01", True),
        ("1000.1", "1000.1", True),
        ("579.99", "579.99", False),
        ("575.64.03", "575.64.03", False),
        ("570.172.08\n570.172.08", "570.172.08", False),
        ("550.54.15", "550.54.15", False),
        ("535.183.01", "535.183.01", False),
        ("470.256.02", "470.256.02", False),
        ("[N/A]", "unknown", True),
        ("[Not Supported]", "unknown", True),
        (NO_DRIVER, "unknown", True),  # then it lists no GPU, which is refused before
    ],
)
def test_a_driver_older_than_cuda_13_is_not_enough(host: Host, driver: str, found: str, is_enough: bool) -> None:
    host.smi(rows(1), driver=driver)
    check = host.doctor()
    assert check.found == found
    assert (check.remedy == "") is is_enough
    if not is_enough:
        assert check.needed == "580 (CUDA 13)"
        assert "NVIDIA driver 580 or newer (CUDA 13)" in check.remedy
        assert "forward compatibility" not in check.remedy
        with pytest.raises(CliError, match=f"needed 580 .CUDA 13., found {driver.split()[0]}"):
            doctor.fail_on_blockers([check])


@pytest.mark.parametrize(
    "version",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.3.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16-I3)",
    ],
)
def test_a_driver_that_nvidia_smi_does_not_tell_is_read_from_the_kernel(host: Host, version: str) -> None:
    host.smi(rows(1), driver="[N/A]")
    host.has("proc/driver/nvidia/version")
    (host.root / "proc/driver/nvidia/version").write_text(version)
    assert host.doctor().found == "550.54.15"


@pytest.mark.parametrize(
    "name", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA L4", "Tesla T4", "NVIDIA L40S", "NVIDIA A10G"]
)
def test_on_data_centre_gpus_forward_compatibility_is_offered_and_then_enough(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.smi(rows(1, name), driver="550.54.15")
    monkeypatch.delenv(doctor.COMPATIBILITY, raising=False)
    assert "VLLM_ENABLE_CUDA_COMPATIBILITY=1" in host.doctor(name).remedy
    assert "forward compatibility" in host.doctor(name).remedy
    monkeypatch.setenv(doctor.COMPATIBILITY, "1")
    assert host.doctor(name).remedy == ""
    for consumer in ("NVIDIA GeForce RTX 3090", "NVIDIA RTX A6000", "NVIDIA RTX A4000", "Quadro T2000"):
        assert host.doctor(consumer).remedy


def test_the_setting_for_forward_compatibility_reaches_engines_on_gpus_and_no_others() -> None:
    text = engines_yaml(placed("pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, gpus: [0]}]"))
    assert "VLLM_ENABLE_CUDA_COMPATIBILITY: ${VLLM_ENABLE_CUDA_COMPATIBILITY:-0}" in text
    text = engines_yaml(placed("pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: cpu}]"))
    assert "CUDA_COMPATIBILITY" not in text


@pytest.mark.parametrize("image", ["vllm/vllm-openai:v0.10.2", "mine/vllm:v0.32.0-cu129"])
def test_an_image_that_is_not_for_cuda_13_is_not_held_against_it(host: Host, image: str) -> None:
    host.smi(rows(1), driver="550.54.15")
    assert host.doctor(text=f"{AUTO}images: {{vllm_cuda: '{image}'}}\n").remedy == ""


DEVICES = ["dev/nvidia0", "proc/driver/nvidia/version", "dev/dxg"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("printed", "status", "said"),
    [
        (MISMATCH, 18, "Driver/library version mismatch"),
        (NO_DRIVER, 9, "couldn't communicate with the NVIDIA driver"),
        (NO_DRIVER, 0, "couldn't communicate with the NVIDIA driver"),
        ("No devices were found", 6, "No devices were found"),
        (NO_NVML, 12, "libnvidia-ml.so"),
        (LOST, 15, "Unable to determine the device handle"),
        ("", 255, "code 255"),
        ("", 0, "prints nothing"),
    ],
)
def test_nvidia_smi_that_fails_is_told_in_its_own_words_and_is_not_no_gpu(
    host: Host, device: str, printed: str, status: int, said: str
) -> None:
    host.has(device)
    host.smi(printed, status)
    with pytest.raises(CliError) as caught:
        taken()
    assert said in str(caught.value)
    assert "FLAVOUR=cpu" in str(caught.value)


def test_gpus_are_read_from_nvidia_smi(host: Host) -> None:
    host.smi("0, GPU-aa, NVIDIA GeForce RTX 4090, 24564\n1, GPU-bb, NVIDIA GB10, [N/A]\n")
    assert host_info.gpus() == (
        HostGpu(index=0, uuid="GPU-aa", name="NVIDIA GeForce RTX 4090", memory_gb=24.0),
        HostGpu(index=1, uuid="GPU-bb", name="NVIDIA GB10", memory_gb=24.0),
    )


def test_a_gpu_on_the_pci_bus_counts_as_one(host: Host) -> None:
    host.pci(kind="0x030200")
    host.smi(NO_DRIVER, 9)
    with pytest.raises(CliError, match="couldn't communicate"):
        taken()


@pytest.mark.parametrize("flavour", ["cpu", "emulated"])
@pytest.mark.parametrize("status", [0, 18, None])
def test_a_flavour_without_gpus_can_always_be_asked_for(host: Host, flavour: str, status: int | None) -> None:
    host.has("dev/nvidia0")
    if status is not None:
        host.smi(MISMATCH, status)
    assert taken(flavour).flavour == flavour
    assert taken("", f"{AUTO}flavour: {flavour}\n").flavour == flavour


def test_a_list_of_engines_without_gpus_does_not_ask_for_a_driver(host: Host) -> None:
    host.has("dev/nvidia0")
    host.smi(MISMATCH, 18)
    listed = "pools: [{name: a, model: org/A}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
    assert taken("", listed).flavour == "emulated"


@pytest.mark.parametrize("flavour", ["", "cuda"])
def test_a_gpu_without_a_driver_is_told_with_what_to_install(host: Host, flavour: str) -> None:
    host.pci()
    with pytest.raises(CliError) as caught:
        taken(flavour)
    assert "PCI device 0000:01:00.0" in str(caught.value)
    assert "Install NVIDIA driver 580 or newer" in str(caught.value)


def test_without_a_device_and_without_nvidia_smi_it_is_a_cpu(host: Host) -> None:
    assert taken().flavour == "cpu"


@pytest.mark.parametrize(
    ("vendor", "kind", "driver"),
    [("0x1002", "0x030000", ""), ("0x10de", "0x040300", ""), ("0x10de", "0x030000", "vfio-pci")],
)
def test_another_makers_card_a_sound_device_and_a_gpu_of_a_virtual_machine_are_no_gpu_of_this_host(
    host: Host, vendor: str, kind: str, driver: str
) -> None:
    host.pci(vendor, kind, driver)
    assert taken().flavour == "cpu"


def test_wsl_without_nvidias_driver_is_a_cpu_and_says_what_to_install(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.has("dev/dxg")  # also there for a GPU of Intel or AMD
    assert taken().flavour == "cpu"
    assert "install its driver on Windows" in capsys.readouterr().out


def test_a_leftover_nvidia_smi_on_a_host_without_a_gpu_is_told_and_it_is_a_cpu(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.smi(NO_DRIVER, 9)
    assert taken().flavour == "cpu"
    assert "couldn't communicate with the NVIDIA driver" in capsys.readouterr().out


def test_wsls_own_nvidia_smi_is_found_where_sudo_does_not_look(host: Host) -> None:
    host.has("dev/dxg")
    host.smi(rows(1), driver="581.29", at="usr/lib/wsl/lib/nvidia-smi")
    assert taken().flavour == "cuda"
    assert host.doctor().found == "581.29"


def test_with_one_broken_gpu_of_eight_the_others_are_used_and_the_broken_one_is_named(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.has("dev/nvidia0")
    host.smi(rows(7) + LOST + "\n", 15)
    found = taken()
    assert (found.flavour, len(found.gpus)) == ("cuda", 7)
    said = capsys.readouterr().out
    assert "lists 7 GPUs but fails" in said
    assert "GPU7: 0000:C1:00.0" in said


@pytest.mark.parametrize("value", ["[Unknown Error]", "ERR!", "[GPU is lost]", "[GPU requires reset]"])
def test_a_gpu_whose_values_cannot_be_read_gets_no_engine(
    host: Host, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.has("dev/nvidia0")
    host.smi(rows(2) + f"2, GPU-0002, NVIDIA GeForce RTX 4090, {value}\n")
    assert [gpu.index for gpu in taken().gpus] == [0, 1]
    assert f"GPU 2: GPU-0002, NVIDIA GeForce RTX 4090, {value}" in capsys.readouterr().out


def test_an_engine_that_is_listed_for_the_broken_gpu_is_refused(host: Host) -> None:
    host.has("dev/nvidia0")
    host.smi(rows(7) + LOST + "\n", 15)
    with pytest.raises(CliError, match="an engine on GPU 7") as caught:
        taken("", LISTED)
    assert "Unable to determine the device handle" in str(caught.value)


def test_nvidia_smi_that_hangs_is_told_and_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "NVIDIA_SMI_S", 0.2)
    host.has("dev/nvidia0")
    host.smi("", last="exec sleep 600")
    with pytest.raises(CliError, match="nvidia-smi did not exit within"):
        taken()


def test_nvidia_smi_that_cannot_be_run_is_told(host: Host) -> None:
    host.has("dev/nvidia0")
    host.smi(rows(1))
    (host.bin / "nvidia-smi").write_bytes(b"\x7fELF nothing")
    with pytest.raises(CliError, match="nvidia-smi cannot be run"):
        taken()
