"""Owns what an inspection costs, what it may cost, and what of the machine's memory is free."""

from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1_000_000
_MEMORY_SHARE = 0.9  # of what is free; the rest is the system's


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What inspecting one frame takes."""

    latency_ms: float  # of a frame in which a region is listed, the slower kind, on a line that was idle before
    memory_mb: float  # peak of a process that loads the bundle and inspects

    def __str__(self) -> str:
        """As lines and errors say it."""
        return f"{milliseconds(self.latency_ms)} and {memory(self.memory_mb)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What inspecting one frame may take; None where nobody said."""

    deadline_ms: int | None = None
    memory_mb: int | None = None

    @property
    def given(self) -> bool:
        """Whether anybody said anything."""
        return self.deadline_ms is not None or self.memory_mb is not None

    def excesses(self, cost: Cost) -> tuple[str, ...]:
        """Each number that does not fit, with what it should fit; empty where all do. Free memory always counts."""
        found = []
        if self.deadline_ms is not None and cost.latency_ms > self.deadline_ms:
            found.append(f"takes {milliseconds(cost.latency_ms)}, --deadline-ms is {self.deadline_ms}")
        if self.memory_mb is not None and cost.memory_mb > self.memory_mb:
            found.append(f"takes {memory(cost.memory_mb)}, --memory-mb is {self.memory_mb}")
        free = free_mb()
        if free is not None and cost.memory_mb > free:
            found.append(f"takes {memory(cost.memory_mb)}, of this machine's memory {memory(free)} are free")
        return tuple(found)


def milliseconds(value: float) -> str:
    """Three digits: 4.21 ms, 87.3 ms, 1240 ms."""
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"  # noqa: PLR2004 - from here on, no powers of ten


def memory(megabytes: float) -> str:
    """Whole megabytes."""
    return f"{megabytes:.0f} MB"


def free_mb() -> float | None:
    """Memory that another process may still take; None where the system does not say."""
    field = _field(Path("/proc/meminfo"), "MemAvailable")
    return None if field is None else _MEMORY_SHARE * field


def peak_mb() -> float | None:
    """The most memory that this process has held so far; None where the system does not say."""
    field = _field(Path("/proc/self/status"), "VmHWM")  # what getrusage tells holds for the program before exec too
    if field is not None:
        return field
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE  # bytes on macOS


def _field(file: Path, name: str) -> float | None:
    """A number of kB in one of the system's own files, as MB."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 / MEGABYTE if values else None
