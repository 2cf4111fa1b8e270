"""What runs on which GPU of many kinds of hosts, with the shipped configuration. Rows as nvidia-smi prints them."""

from pathlib import Path

import pytest

from manyeyes.cli import gpu_discovery, host_info
from manyeyes.cli.host_info import GpuProcess
from manyeyes.config.loader import load
from manyeyes.config.placement import HostGpu, Inventory, PlacementError, assign_gpus, place_engines
from manyeyes.engine.vllm_flags import serve_flags
from tests.unit.test_host_gpus import Host

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = load(ROOT / "config/cluster.yaml")
EIGHT, FOUR, TWO = "qwen3-vl-8b", "qwen3-vl-4b", "qwen3-vl-2b-fp8"

CARDS = {
    "GT 1030": ("NVIDIA GeForce GT 1030", 2048, "6.1"),
    "GTX 1080 Ti": ("NVIDIA GeForce GTX 1080 Ti", 11264, "6.1"),
    "T400": ("NVIDIA T400 4GB", 4096, "7.5"),
    "V100": ("Tesla V100-SXM2-32GB", 32768, "7.0"),
    "T4": ("Tesla T4", 15360, "7.5"),
    "2060": ("NVIDIA GeForce RTX 2060", 6144, "7.5"),
    "2080 Ti": ("NVIDIA GeForce RTX 2080 Ti", 11264, "7.5"),
    "3050 4 GB": ("NVIDIA GeForce RTX 3050 Laptop GPU", 4096, "8.6"),
    "3060": ("NVIDIA GeForce RTX 3060", 12288, "8.6"),
    "3070": ("NVIDIA GeForce RTX 3070", 8192, "8.6"),
    "3090": ("NVIDIA GeForce RTX 3090", 24576, "8.6"),
    "A6000": ("NVIDIA RTX A6000", 49140, "8.6"),
    "A10": ("NVIDIA A10", 23028, "8.6"),
    "A100 40": ("NVIDIA A100-PCIE-40GB", 40960, "8.0"),
    "A100 80": ("NVIDIA A100-SXM4-80GB", 81920, "8.0"),
    "4060": ("NVIDIA GeForce RTX 4060", 8188, "8.9"),
    "4060 Ti 16": ("NVIDIA GeForce RTX 4060 Ti", 16380, "8.9"),
    "4070": ("NVIDIA GeForce RTX 4070", 12282, "8.9"),
    "4080": ("NVIDIA GeForce RTX 4080", 16376, "8.9"),
    "4090": ("NVIDIA GeForce RTX 4090", 24564, "8.9"),
    "L4": ("NVIDIA L4", 23034, "8.9"),
    "L40S": ("NVIDIA L40S", 46068, "8.9"),
    "H100": ("NVIDIA H100 80GB HBM3", 81559, "9.0"),
    "H200": ("NVIDIA H200", 143771, "9.0"),
    "B200": ("NVIDIA B200", 183359, "10.0"),
    "5060": ("NVIDIA GeForce RTX 5060", 8151, "12.0"),
    "5070": ("NVIDIA GeForce RTX 5070", 12227, "12.0"),
    "5080": ("NVIDIA GeForce RTX 5080", 16303, "12.0"),
    "5090": ("NVIDIA GeForce RTX 5090", 32607, "12.0"),
    "PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "12.0"),
}
"""name -> product name, memory.total in MiB, compute_cap"""

BOXES = [
    ("4090", [EIGHT]),
    ("3090", [EIGHT]),
    ("5090", [EIGHT]),
    ("A10", [EIGHT]),
    ("L4", [EIGHT]),
    ("A6000", [EIGHT]),
    ("L40S", [EIGHT]),
    ("H100", [EIGHT]),
    ("H200", [EIGHT]),
    ("B200", [EIGHT]),
    ("PRO 6000", [EIGHT]),
    ("5080", [EIGHT]),
    ("4080", [EIGHT]),
    ("4060 Ti 16", [EIGHT]),
    ("T4", [EIGHT]),
    ("3060", [FOUR]),
    ("4070", [FOUR]),
    ("5070", [FOUR]),
    ("2080 Ti", [FOUR]),
    ("3070", [TWO]),
    ("4060", [TWO]),
    ("5060", [TWO]),
    ("2060", [TWO]),
    ("4090 4090", [EIGHT, FOUR]),
    ("4090 4090 4090", [EIGHT, EIGHT, FOUR]),
    ("4090 4090 4090 4090", [EIGHT, EIGHT, EIGHT, FOUR]),
    ("H100 H100 H100 H100 H100 H100 H100 H100", [EIGHT] * 5 + [FOUR] * 3),
    ("A100 80 A100 80 A100 80 A100 80", [EIGHT, EIGHT, EIGHT, FOUR]),
    ("GT 1030 4090 4090", [None, EIGHT, FOUR]),
    ("4090 T400", [EIGHT, None]),
    ("T400 3060", [None, FOUR]),
    ("V100 4090", [None, EIGHT]),
    ("GTX 1080 Ti 3090 3090", [None, EIGHT, FOUR]),
    ("3060 4090", [FOUR, EIGHT]),
    ("4090 3060 5090 A100 40", [EIGHT, FOUR, EIGHT, EIGHT]),
    ("A100 80 4090", [EIGHT, FOUR]),
    ("3060 3060", [FOUR, FOUR]),
    ("3070 3070", [TWO, TWO]),
    ("4060 3090", [TWO, EIGHT]),
    ("4060 4060 3090", [TWO, TWO, EIGHT]),
]


def row(number: int, card: str, used_mib: int = 1, mig: str = "[N/A]") -> str:
    name, memory, capability = CARDS[card]
    return f"{number}, GPU-{number:04}, {name}, {memory}, {used_mib}, {capability}, {mig}\n"


def cards(box: str) -> list[str]:
    found, words = [], box.split()
    while words:
        length = next(n for n in (3, 2, 1) if " ".join(words[:n]) in CARDS)
        found.append(" ".join(words[:length]))
        words = words[length:]
    return found


def found(host: Host, printed: str) -> Inventory:
    host.smi(printed)
    return Inventory(flavour="cuda", gpus=host_info.gpus())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize(("box", "expected"), BOXES, ids=lambda value: str(value)[:60])
def test_each_gpu_gets_the_largest_suitable_model(host: Host, box: str, expected: list[str | None]) -> None:
    inventory = found(host, "".join(row(number, card) for number, card in enumerate(cards(box))))
    placed = place_engines(SHIPPED, inventory)
    pool_by_gpu = {engine.gpus[0]: engine.pool for engine in placed.engines}
    assert [pool_by_gpu.get(str(number)) for number in range(len(expected))] == expected
    assert [engine.name for engine in placed.engines] == [f"gpu-{n}" for n, pool in enumerate(expected) if pool]


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (row(0, "GT 1030"), "compute capability 6.1"),
        (row(0, "GTX 1080 Ti") + row(1, "V100"), "compute capability 7, and vLLM needs 7.5"),
        (row(0, "3050 4 GB"), "an engine needs 6 GB"),
        (row(0, "A100 80", mig="Enabled"), "MIG is enabled. List `engines:` with their MIG devices"),
        (row(0, "3070", used_mib=4000), "3.9 GiB used by other programs): no model of `qwen3-vl-8b`"),
    ],
)
def test_a_host_whose_gpus_cannot_run_an_engine_is_told_why(host: Host, printed: str, reason: str) -> None:
    with pytest.raises(PlacementError) as refused:
        place_engines(SHIPPED, found(host, printed))
    assert reason in str(refused.value)


def test_a_gpu_with_mig_is_left_out_and_the_others_serve(host: Host) -> None:
    inventory = found(host, row(0, "A100 80", mig="Enabled") + row(1, "A100 80", mig="Disabled"))
    pool_by_gpu, unused = assign_gpus(SHIPPED, inventory)
    assert pool_by_gpu == {1: EIGHT}
    assert "MIG" in unused[0]


@pytest.mark.parametrize(
    ("card", "used_mib", "pool", "utilization"),
    [
        ("4090", 500, EIGHT, "0.92"),  # a desktop
        ("4090", 1900, EIGHT, "0.92"),
        ("4090", 3000, EIGHT, "0.86"),  # a desktop and a browser
        ("4090", 6000, EIGHT, "0.74"),  # Ollama
        ("4090", 12_000, FOUR, "0.5"),
        ("3060", 1500, FOUR, "0.86"),
        ("H100", 20_000, EIGHT, "0.74"),
    ],
)
def test_memory_that_other_programs_use_is_left_to_them(
    host: Host, card: str, used_mib: int, pool: str, utilization: str
) -> None:
    placed = place_engines(SHIPPED, found(host, row(0, card, used_mib)))
    assert [engine.pool for engine in placed.engines] == [pool]
    assert f"--gpu-memory-utilization={utilization}" in serve_flags(placed, placed.engines[0])


def test_the_cluster_s_own_engines_do_not_count_as_other_programs(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = tuple(HostGpu(index=n, uuid=f"GPU-{n}", memory_gb=24, used_gb=22) for n in range(2))
    uses = [
        GpuProcess("GPU-0", 71, "VLLM::EngineCore", 21.5, "a" * 64),
        GpuProcess("GPU-1", 72, "ollama", 5.9, ""),
        GpuProcess("GPU-1", 73, "VLLM::EngineCore", 16.1, "b" * 64),
    ]
    monkeypatch.setattr(host_info, "gpu_processes", lambda: uses)
    monkeypatch.setattr(gpu_discovery, "_own_containers", lambda project: {"a" * 64, "b" * 64})
    assert [gpu.used_gb for gpu in gpu_discovery._without_own_use(gpus, "p")] == [0.5, 5.9]
    shown = capsys.readouterr().out
    assert "GPU 1: other programs use 5.9 of 24 GiB: ollama (PID 72) 5.9 GiB" in shown
    assert "GPU 0" not in shown
    # WSL shows no processes: what runs is then taken for the cluster's own.
    monkeypatch.setattr(host_info, "gpu_processes", list)
    assert [gpu.used_gb for gpu in gpu_discovery._without_own_use(gpus, "p")] == [0, 0]
    monkeypatch.setattr(gpu_discovery, "_own_containers", lambda project: set())
    assert [gpu.used_gb for gpu in gpu_discovery._without_own_use(gpus, "p")] == [22, 22]


def test_programs_on_gpus_are_read_with_their_containers(host: Host) -> None:
    host.has("proc/71/cgroup")
    (host.root / "proc/71/cgroup").write_text(f"0::/system.slice/docker-{'a' * 64}.scope\n")
    host.smi("GPU-0, 71, VLLM::EngineCore, 22016\nGPU-0, 72, /usr/local/bin/ollama, 2970\nGPU-1, 73, python, [N/A]\n")
    assert host_info.gpu_processes() == [
        GpuProcess("GPU-0", 71, "VLLM::EngineCore", 21.5, "a" * 64),
        GpuProcess("GPU-0", 72, "ollama", 2.9, ""),
        GpuProcess("GPU-1", 73, "python", 0.0, ""),
    ]


def test_an_old_nvidia_smi_is_asked_for_less(host: Host) -> None:
    host.smi(row(0, "4090"))
    script = host.bin / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2 ;; '
        "*) echo '0, GPU-0000, NVIDIA GeForce RTX 4090, 24564' ;; esac\n"
    )
    assert host_info.gpus() == (HostGpu(index=0, uuid="GPU-0000", name="NVIDIA GeForce RTX 4090", memory_gb=24.0),)
