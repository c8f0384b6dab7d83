"""Energy by a meter: NVML's counter of a GPU, RAPL's counters of a CPU. Without one the answer is None, no estimate.

NVML is read through pynvml. Of Zeus, which reads the same counters, one part would be used: its RAPL, which starts a
process for each counter to see it wrap and takes seven more packages; readings a second apart see that by themselves.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

SECONDS = 1.0
"""How long calls are repeated for a reading; counters move every few milliseconds, some GPUs' every 100."""
POWERCAP = Path("/sys/class/powercap")


@runtime_checkable
class Meter(Protocol):
    """A counter of energy."""

    name: str

    def joules(self) -> float:
        """Energy used since the meter was made."""
        ...


class Rapl:
    """The packages' counters of Intel and AMD processors, as Linux shows them; they count the whole machine.

    Raises OSError where there are none that this user may read.
    """

    name = "rapl"

    def __init__(self, root: Path) -> None:
        packages = sorted(p for p in root.glob("intel-rapl:*") if p.name.count(":") == 1)
        self.counters = [p / "energy_uj" for p in packages]
        if not self.counters:
            raise FileNotFoundError(f"{root}: no intel-rapl package")
        self.ranges = [int((p / "max_energy_range_uj").read_text()) for p in packages]
        self.last = self._read()
        self.total = 0

    def joules(self) -> float:
        """Energy used since the meter was made, in joules; a counter that started again at zero is seen."""
        now = self._read()
        for before, after, span in zip(self.last, now, self.ranges, strict=True):
            self.total += after - before if after >= before else after + span - before
        self.last = now
        return self.total / 1e6

    def _read(self) -> list[int]:
        return [int(path.read_text()) for path in self.counters]


class Nvml:
    """The energy counter of one NVIDIA GPU (Volta and later). Raises where nvidia-ml-py or the counter is missing."""

    name = "nvml"

    def __init__(self, device: torch.device) -> None:
        self.nvml: Any = importlib.import_module("pynvml")
        self.nvml.nvmlInit()
        # By its UUID: the index that torch counts with follows CUDA_VISIBLE_DEVICES, NVML's does not.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self.handle = self.nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.start = self._millijoules()

    def joules(self) -> float:
        """Energy used since the meter was made, in joules."""
        return (self._millijoules() - self.start) / 1e3

    def _millijoules(self) -> int:
        return self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)


def meter(device: torch.device) -> Meter | None:
    """Find the device's meter; None where this machine has none that can be read."""
    try:
        return Nvml(device) if device.type == "cuda" else Rapl(POWERCAP)
    except Exception:  # a missing package, driver, counter or permission: each of them means no meter
        return None


def joules_per_1000(call: Callable[[], Any], samples: int, device: torch.device, meter: Meter | None) -> float | None:
    """Measure the energy of 1,000 samples over calls repeated for ``SECONDS``.

    Args:
        call: What is measured.
        samples: Samples of one call.
        device: Where it runs.
        meter: The device's meter.

    Returns:
        Joules; None without a meter, or where it does not move.
    """
    if meter is None:
        return None

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    finish()
    before, calls, end = meter.joules(), 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end or not calls:
        call()
        calls += 1
        if calls % 16 == 0:
            finish()
    finish()
    used = meter.joules() - before
    return used / (calls * samples) * 1000 if used > 0 else None
