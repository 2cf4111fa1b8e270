"""The GPU dashboard as data. `build.py` makes JSON of it.

The names are those of NVIDIA's DCGM exporter with its default counters
(https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv). Empty where that does not run.
"""

from manyeyes.monitoring.grafana.panels import GPU, Dashboard, DashboardPanel, DashboardRow, recorded


def gauge(name: str) -> str:
    return f"max by (gpu) ({name}{{{GPU}}})"


WORK = DashboardRow(
    "Do they work?",
    (
        DashboardPanel(
            "Use",
            "Share of the time in which a GPU ran at least one kernel. "
            "Worry when it is low while requests wait: the CPU prepares pictures too slowly (Hidden queue on the Engines dashboard).",
            "percentunit",
            {"GPU {{gpu}}": recorded("gpu:use:ratio")},
            most=1,
        ),
        DashboardPanel(
            "Memory in use",
            "Share of a GPU's memory that is taken; vLLM takes its part when it starts and keeps it. "
            "Worry when it changes while nothing starts or stops: another program uses this GPU.",
            "percentunit",
            {"GPU {{gpu}}": recorded("gpu:memory_used:ratio")},
            most=1,
        ),
        DashboardPanel(
            "Memory copied",
            "Share of the time in which memory was read or written. "
            "Worry when it is near 100 % and Use is not: decoding is bound by memory, and more requests at once cost little.",
            "percentunit",
            {"GPU {{gpu}}": f"{gauge('DCGM_FI_DEV_MEM_COPY_UTIL')} / 100"},
            most=1,
        ),
    ),
)

WELL = DashboardRow(
    "Are they well?",
    (
        DashboardPanel(
            "Temperature",
            "Temperature of the GPU's core. "
            "Worry above 85 °C: it slows itself down (see Clock), and what is next to it gets hot as well.",
            "celsius",
            {"GPU {{gpu}}": recorded("gpu:temperature_celsius:max")},
            line_at=85,
        ),
        DashboardPanel(
            "Clock",
            "Frequency of the streaming multiprocessors. "
            "Worry when it falls while Use stays high: the GPU is too hot, or its power limit is too low.",
            "rotmhz",
            {"GPU {{gpu}}": f"{gauge('DCGM_FI_DEV_SM_CLOCK')}"},
        ),
        DashboardPanel(
            "Xid errors",
            "The last error that the driver reported for a GPU, by number; 0 is none (https://docs.nvidia.com/deploy/xid-errors/). "
            "Worry about any: 79 is a GPU that fell off the bus, 48 and 63 are memory; the engine on it has to be restarted at least.",
            "short",
            {"GPU {{gpu}}": gauge("DCGM_FI_DEV_XID_ERRORS")},
        ),
        DashboardPanel(
            "PCIe replays",
            "Transfers over PCIe that had to be repeated, per second. "
            "Worry above 0 that lasts: a riser, a slot or a card makes poor contact, and pictures arrive slowly.",
            "suffix: /s",
            {"GPU {{gpu}}": f"sum by (gpu) (rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{GPU}}}[5m]))"},
        ),
    ),
)

COST = DashboardRow(
    "What do they cost?",
    (
        DashboardPanel(
            "Power",
            "Power that each GPU draws. "
            "Worry when the sum comes near what the power supply gives, or one GPU draws far less than the others at the same Use.",
            "watt",
            {"GPU {{gpu}}": recorded("gpu:power_watts:max")},
        ),
        DashboardPanel(
            "Power of all GPUs",
            "Their sum. Worry when it stays high at night while nobody asks: engines may rest (docs/scaling.md).",
            "watt",
            {"all": recorded("cluster:gpu_power_watts:sum")},
        ),
        DashboardPanel(
            "Energy of 1000 pictures",
            "Energy of all GPUs for 1000 pictures, at the pace of the last five minutes. "
            "Worry when it grows at the same work: GPUs idle beside each other, and fewer would do.",
            "watth",
            {"1000 pictures": recorded("cluster:energy_per_1000_images:watt_hours")},
            none="nobody asks",
        ),
    ),
)

DASHBOARD = Dashboard(
    "gpu", "GPU", "Do the GPUs work, are they well, what do they cost.", (WORK, WELL, COST), variables=("gpu",)
)
