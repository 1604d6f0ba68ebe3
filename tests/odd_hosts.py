"""Hosts that strain a page's layout.

They have long ids and names, sixteen GPUs, MIG devices, words of other scripts, huge numbers.
"""

from typing import Any, NamedTuple

from bus.contract.messages import GpuState

LONGEST_ID = "rack-0042-row-17-a-host-whose-name-fills-all-sixty-three-places"
LONGEST_PLACE = "a" * 64
H100 = "NVIDIA H100 80GB HBM3"
OF_MANY_WORDS = "NVIDIA RTX™ 6000 Ada Generation, 非常に長い名前のGPU"
ONE_WORD = "GigantischerGrafikprozessorMitEinemUngewoehnlichLangenUndUngeteiltenModellnamen96GB"


class OddGpu(NamedTuple):
    """A GPU by what the page shows of it."""

    uuid: str
    index: int
    name: str
    state: GpuState = "up"
    reasons: tuple[str, ...] = ()


class OddHost(NamedTuple):
    """A host. One that is `silent` hears its pings and does not answer."""

    agent_id: str
    gpus: tuple[OddGpu, ...]
    metadata: dict[str, Any]
    silent: bool = False


def _gpus(name: str, count: int, *, down: tuple[int, ...] = ()) -> tuple[OddGpu, ...]:
    gpus = []
    for index in range(count):
        uuid = f"GPU-{index:08x}-4f1c-9d53-77aa-{abs(hash(name)) % 16**12:012x}"
        if index in down:
            gpus.append(OddGpu(uuid, index, name, "down", ("lost", "xid:79")))
        else:
            gpus.append(OddGpu(uuid, index, name))
    return tuple(gpus)


def _mig(count: int) -> tuple[OddGpu, ...]:
    card = "GPU-5d3c1a90-4f1c-9d53-77aa-0a4c1e9e7c1e"
    name = "NVIDIA A100-SXM4-80GB MIG 1g.10gb"
    return tuple(OddGpu(f"{card}/{7 + n}/0", 0, name) for n in range(count))


ODD_HOSTS = (
    OddHost(LONGEST_ID, _gpus(H100, 16, down=(3, 11)), {"site": "FRA", "owner": "acme"}),
    OddHost("mig-7", _mig(7), {"site": "FRA", "owner": "acme", "note": "seven MIG devices"}),
    OddHost(
        "zrh-unicode-01",
        _gpus(OF_MANY_WORDS, 2),
        {
            "site": "Zürich / 東京 🚀",
            "owner": "Großrechenzentrum Süd GmbH & Co. KG, Abteilung Beschleuniger",
            "note": "شبكة من وحدات, кластер, 集群: a note of many words that goes on and on, "
            "and does not fit into one line of any table",
        },
    ),
    OddHost(
        "one-word-gpu", _gpus(ONE_WORD, 1), {"site": LONGEST_PLACE, "rate_per_hour": 1234567.89}
    ),
    OddHost(
        "many-labels",
        _gpus("L4", 4, down=(0, 1, 2, 3)),
        {f"label-{n:02d}": f"value {n} " + "x" * (n * 3) for n in range(20)} | {"site": "AMS"},
    ),
    OddHost("no-gpus", (), {"gpu_model": "RTX 4090", "site": "AMS"}),
    OddHost("silent-host", _gpus(H100, 8), {"site": "SIN"}, silent=True),
    OddHost("x", _gpus("T4", 1), {}),
)


def readings(gpu: OddGpu) -> dict[str, Any]:
    """What the driver says of a GPU, with numbers as large as they get."""
    return {
        "uuid": gpu.uuid,
        "index": gpu.index,
        "name": gpu.name,
        "state": gpu.state,
        "reasons": list(gpu.reasons),
        "expected": True,
        "driver": "580.82.07",
        "serial": "1650522003820",
        "pci": "00000000:C1:00.0",
        "temperature_celsius": 103.0,
        "power_watts": 1198.7,
        "power_limit_watts": 1200.0,
        "utilization_percent": 100.0,
        "memory_total_bytes": 309_237_645_312.0,
        "memory_used_bytes": 308_163_903_488.0,
        "ecc_uncorrected_volatile": 18_446_744_073_709_551_615.0,
        "ecc_uncorrected_aggregate": 4_294_967_295.0,
        "ecc_corrected_volatile": 1_234_567_890.0,
        "rows_remapped": 512.0,
        "pcie_generation": 5.0,
        "pcie_generation_max": 6.0,
        "pcie_width": 8.0,
        "pcie_width_max": 16.0,
        "throttle_reasons": ["hw_thermal_slowdown", "sw_power_cap", "hw_power_brake_slowdown"],
        "persistence_mode": False,
        "processes": 1234.0,
        "xids": {"79": 12, "13": 123456, "94": 3},
    }
