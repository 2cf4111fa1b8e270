"""The GPU dashboard as data. `build.py` renders it as JSON.

The metrics are those of NVIDIA's DCGM exporter with its default counters
(https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv). The panels are empty where it does not
run.
"""

from manyeyes.monitoring.grafana.panels import GPU, Dashboard, DashboardPanel, DashboardRow, recorded


def gauge(name: str) -> str:
    return f"max by (gpu) ({name}{{{GPU}}})"


LOAD = DashboardRow(
    "How busy are the GPUs?",
    (
        DashboardPanel(
            "Use",
            "Share of the time in which a GPU ran at least one kernel. "
            "Worry when it is low while requests wait: the CPU preprocesses images too slowly (Hidden queue on the Engines dashboard).",
            "percentunit",
            {"GPU {{gpu}}": recorded("gpu:use:ratio")},
            max_value=1,
        ),
        DashboardPanel(
            "Memory in use",
            "Used share of a GPU's memory; vLLM reserves its share when it starts and holds it. "
            "Worry when it changes while nothing starts or stops: another program uses this GPU.",
            "percentunit",
            {"GPU {{gpu}}": recorded("gpu:memory_used:ratio")},
            max_value=1,
        ),
        DashboardPanel(
            "Memory copied",
            "Share of the time in which memory was read or written. "
            "Worry when it is near 100 % and Use is not: decoding is limited by memory, and more concurrent requests cost little.",
            "percentunit",
            {"GPU {{gpu}}": f"{gauge('DCGM_FI_DEV_MEM_COPY_UTIL')} / 100"},
            max_value=1,
        ),
    ),
)

HEALTH = DashboardRow(
    "Are the GPUs healthy?",
    (
        DashboardPanel(
            "Temperature",
            "Temperature of the GPU's core. "
            "Worry above 85 °C: the GPU throttles (see Clock), and parts next to it become hot as well.",
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
            "Number of the last error that the driver reported for a GPU; 0 is none (https://docs.nvidia.com/deploy/xid-errors/). "
            "Worry about any error: 79 is a GPU that fell off the bus, 48 and 63 are memory errors; at least the engine on it must be restarted.",
            "short",
            {"GPU {{gpu}}": gauge("DCGM_FI_DEV_XID_ERRORS")},
        ),
        DashboardPanel(
            "PCIe replays",
            "Transfers over PCIe that had to be repeated, per second. "
            "Worry above 0 that lasts: a riser, a slot or a card has a poor contact, and images arrive slowly.",
            "suffix: /s",
            {"GPU {{gpu}}": f"sum by (gpu) (rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{GPU}}}[5m]))"},
        ),
    ),
)

POWER = DashboardRow(
    "How much power do the GPUs use?",
    (
        DashboardPanel(
            "Power",
            "Power that each GPU draws. "
            "Worry when the sum comes near the limit of the power supply, or one GPU draws far less than the others at the same Use.",
            "watt",
            {"GPU {{gpu}}": recorded("gpu:power_watts:max")},
        ),
        DashboardPanel(
            "Power of all GPUs",
            "Power that all GPUs draw. Worry when it stays high at night without requests: engines can be stopped (docs/autoscaling.md).",
            "watt",
            {"all": recorded("cluster:gpu_power_watts:sum")},
        ),
        DashboardPanel(
            "Energy per 1000 images",
            "Energy of all GPUs for 1000 images, at the rate of the last five minutes. "
            "Worry when it grows with the same work: GPUs are idle, and fewer would be enough.",
            "watth",
            {"1000 images": recorded("cluster:energy_per_1000_images:watt_hours")},
            no_value_text="no requests",
        ),
    ),
)

DASHBOARD = Dashboard(
    "gpu", "GPU", "Shows the load, health and power of the GPUs.", (LOAD, HEALTH, POWER), variables=("gpu",)
)
