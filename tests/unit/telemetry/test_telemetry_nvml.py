from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from embedctl.records import GpuProcess
from embedctl.telemetry.nvml import NvmlProbe
from embedctl.telemetry.nvml_device import NoGpu
from embedctl.telemetry.readings import ReadingBuilder
from embedctl.telemetry.throttling import ThrottleReader, Unanswered
from tests.support.fake_nvml import (
    DRIVER_NOT_LOADED,
    GIB,
    LOST,
    MIB,
    MISMATCH,
    NO_FUNCTION,
    NO_LIBRARY,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Fails,
    FakeNvml,
    gb10,
    h200,
    memory,
    process,
)

POOL = int(121.6 * GIB)
ME = os.getpid()
GONE = 2**22 + 7  # above the largest PID of any Linux
UNIFIED = ({"f:01:00.0": True}, "")
DISCRETE = ({"0:0f:00.0": False}, "")
SILENT: tuple[dict[str, bool], str] = ({}, "libcuda.so.1 is not installed")
MINE = {"native": frozenset({ME}), "ollama": frozenset[int]()}


def spark(nvml: FakeNvml, **options: Any) -> NvmlProbe:
    defaults: dict[str, Any] = {"pool_total": POOL, "integrated": lambda: UNIFIED}
    return NvmlProbe(nvml, **(defaults | options))


def server(nvml: FakeNvml, **options: Any) -> NvmlProbe:
    defaults: dict[str, Any] = {"pool_total": 128 * GIB, "integrated": lambda: DISCRETE}
    return NvmlProbe(nvml, **(defaults | options))


def test_discrete_card_gives_every_figure_in_the_units_of_the_catalogue() -> None:
    probe = server(h200(nvmlDeviceGetComputeRunningProcesses=[process(ME, 2 * GIB)]))
    readings = probe.read(MINE)
    assert dict(readings.values) == {
        "gpu_utilization": 87,
        "gpu_temperature": 54,
        "gpu_power": 412.5,
        "gpu_sm_clock": 1980,
        "gpu_energy": 7250,
        "gpu_throttled": 0,
        "gpu_memory_total": 143_771 * MIB,
        "gpu_memory_used": 3 * GIB,
        "gpu_memory_other": 1 * GIB,
        "native_gpu_memory": 2 * GIB,
        "ollama_gpu_memory": 0,
    }
    assert readings.provenance["gpu_memory_used"].source == "nvmlDeviceGetMemoryInfo v2"
    (gpu,) = probe.gpus
    assert (gpu.name, gpu.unified, gpu.compute_capability) == ("NVIDIA H200", False, (9, 0))
    assert (probe.driver, probe.cuda) == ("580.159.03", "13.0")


def test_gb10_shows_the_sum_of_its_processes_in_one_pool() -> None:
    probe = spark(gb10(nvmlDeviceGetComputeRunningProcesses=[process(ME, 2 * GIB), process(1, 5 * GIB)]))
    readings = probe.read(MINE)
    assert readings.values["gpu_memory_used"] == 7 * GIB
    assert readings.values["gpu_memory_total"] == POOL
    assert readings.values["native_gpu_memory"] == 2 * GIB
    assert readings.values["gpu_memory_other"] == 5 * GIB
    assert readings.provenance["gpu_memory_used"].source == "sum of NVML's bytes per process"
    assert "one pool" in (readings.provenance["gpu_memory_total"].source or "")
    assert probe.gpus[0].unified is True
    assert "Not Supported" in probe.gpus[0].memory_source


def test_an_unsupported_figure_is_absent_with_its_reason_and_leaves_the_rest() -> None:
    probe = spark(gb10(nvmlDeviceGetPowerUsage=Fails(3), nvmlDeviceGetTemperature=Fails(NO_PERMISSION)))
    readings = probe.read(MINE)
    assert "gpu_power" not in readings.values
    assert readings.provenance["gpu_power"].absence == "NVML answers Not Supported on this GPU"
    assert "permission" in (readings.provenance["gpu_temperature"].absence or "")
    assert readings.values["gpu_utilization"] == 12


def test_what_is_not_supported_is_asked_once_and_what_fails_otherwise_again() -> None:
    nvml = gb10(nvmlDeviceGetPowerUsage=Fails(3), nvmlDeviceGetTemperature=Fails(999))
    probe = spark(nvml)
    nvml.asked.clear()
    probe.read(MINE)
    assert "nvmlDeviceGetPowerUsage" not in nvml.asked
    assert "nvmlDeviceGetMemoryInfo" not in nvml.asked
    nvml.answers["nvmlDeviceGetTemperature"] = 44
    assert probe.read(MINE).values["gpu_temperature"] == 44


def test_capabilities_say_what_is_there_and_why_the_rest_is_not() -> None:
    found = {c.name: c for c in spark(gb10()).capabilities}
    assert found["gpu_power"].available
    assert not found["gpu_memory_info"].available
    assert not found["gpu_power_limit"].available
    assert "Not Supported" in found["gpu_memory_clock"].detail
    assert found["gpu_unified_pool"].available
    limit = {c.name: c for c in server(h200()).capabilities}["gpu_power_limit"]
    assert (limit.available, limit.detail) == (True, "700 W (nvmlDeviceGetEnforcedPowerLimit)")


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [
        (memory(0, 0), "total of 0"),
        (memory(POOL - GIB, 34 * GIB), "the whole machine's memory"),
        (memory(8128 * MIB, GIB), "only a part of the shared pool"),
        (memory(GIB, 2 * GIB), "more used than there is"),
    ],
)
def test_implausible_memory_information_on_a_unified_pool_is_not_shown(claimed: object, reason: str) -> None:
    listing = [process(ME, 3 * GIB)]
    probe = spark(gb10(nvmlDeviceGetMemoryInfo=claimed, nvmlDeviceGetComputeRunningProcesses=listing))
    values = probe.read(MINE).values
    assert (values["gpu_memory_used"], values["gpu_memory_total"]) == (3 * GIB, POOL)
    assert reason in probe.gpus[0].memory_source


def test_a_card_as_large_as_the_hosts_memory_is_not_taken_for_a_unified_pool() -> None:
    card = h200(nvmlDeviceGetMemoryInfo=memory(32 * GIB, GIB))
    assert server(card, pool_total=32 * GIB).read(MINE).values["gpu_memory_used"] == GIB
    unknown = server(card, pool_total=32 * GIB, integrated=lambda: SILENT)
    assert unknown.gpus[0].unified is None
    assert unknown.read(MINE).values["gpu_memory_total"] == 32 * GIB


def test_without_the_cuda_driver_a_missing_bar1_window_tells_a_unified_pool() -> None:
    probe = spark(gb10(), integrated=lambda: SILENT)
    assert probe.gpus[0].unified is True
    detail = {c.name: c.detail for c in probe.capabilities}["gpu_unified_pool"]
    assert "BAR1" in detail
    claims_all = spark(gb10(nvmlDeviceGetMemoryInfo=memory(POOL, 9 * GIB)), integrated=lambda: SILENT)
    assert claims_all.gpus[0].unified is True


def test_under_reported_memory_gives_way_to_the_process_sum_when_nobody_can_say_unified() -> None:
    nvml = h200(
        nvmlDeviceGetMemoryInfo=memory(8128 * MIB, GIB),
        nvmlDeviceGetComputeRunningProcesses=[process(ME, 20 * GIB)],
    )
    readings = server(nvml, integrated=lambda: SILENT).read(MINE)
    assert readings.values["gpu_memory_used"] == 20 * GIB
    assert "gpu_memory_total" not in readings.values
    assert "more to processes" in (readings.provenance["gpu_memory_total"].absence or "")


def test_a_pid_in_two_lists_counts_once() -> None:
    both = [process(ME, 2 * GIB)]
    probe = spark(gb10(nvmlDeviceGetComputeRunningProcesses=both, nvmlDeviceGetGraphicsRunningProcesses=both))
    readings = probe.read(MINE)
    assert readings.values["gpu_memory_used"] == 2 * GIB
    assert readings.processes == (GpuProcess(ME, readings.processes[0].name, 2 * GIB, "native"),)


@pytest.mark.parametrize("unknown", [None, 2**64 - 1])
def test_a_process_without_a_figure_makes_its_backend_absent_and_not_zero(unknown: int | None) -> None:
    listing = [process(ME, unknown), process(1, GIB)]
    readings = server(h200(nvmlDeviceGetComputeRunningProcesses=listing)).read(MINE)
    assert "native_gpu_memory" not in readings.values
    assert "without its memory" in (readings.provenance["native_gpu_memory"].absence or "")
    assert "gpu_memory_other" not in readings.values
    assert {p.pid: p.gpu_memory for p in readings.processes} == {ME: None, 1: GIB}


def test_a_sum_that_lacks_a_process_says_so() -> None:
    listing = [process(ME, 2 * GIB), process(1, None)]
    readings = spark(gb10(nvmlDeviceGetComputeRunningProcesses=listing)).read(MINE)
    assert readings.values["gpu_memory_used"] == 2 * GIB
    assert "1 of them without a figure" in (readings.provenance["gpu_memory_used"].source or "")


def test_memory_in_use_without_a_process_means_a_container_hides_them() -> None:
    readings = server(h200(), nested=True).read(MINE)
    assert readings.values["gpu_memory_used"] == 3 * GIB
    assert "container hides" in (readings.provenance["native_gpu_memory"].absence or "")
    assert readings.values["ollama_gpu_memory"] == 0, "no process runs, so nothing is held"


def test_an_empty_list_is_nothing_held_on_the_machine_itself_and_unknown_in_a_container() -> None:
    assert spark(gb10()).read(MINE).values["gpu_memory_used"] == 0
    inside = spark(gb10(), nested=True).read(MINE)
    assert "gpu_memory_used" not in inside.values
    assert "container" in (inside.provenance["gpu_memory_used"].absence or "")


def test_pids_of_the_host_are_not_attributed_inside_a_container() -> None:
    listing = [process(GONE, 2 * GIB)]
    readings = server(h200(nvmlDeviceGetComputeRunningProcesses=listing), nested=True).read(MINE)
    assert "PIDs of the host" in (readings.provenance["native_gpu_memory"].absence or "")


def test_a_backend_whose_processes_nobody_knows_is_absent() -> None:
    readings = server(h200()).read({"native": frozenset({ME})})
    assert readings.provenance["ollama_gpu_memory"].absence == "the backend's processes are not known"


def test_a_refused_list_of_processes_blanks_only_what_needs_it() -> None:
    readings = server(h200(nvmlDeviceGetComputeRunningProcesses=Fails(NO_PERMISSION))).read(MINE)
    assert readings.values["gpu_memory_used"] == 3 * GIB
    assert "permission" in (readings.provenance["native_gpu_memory"].absence or "")


def test_a_gpu_lost_mid_way_blanks_every_figure_with_the_reason_and_comes_back() -> None:
    nvml = h200()
    probe = server(nvml)
    before = probe.read(MINE)
    nvml.fail_all = LOST
    lost = probe.read(MINE)
    assert dict(lost.values) == {"ollama_gpu_memory": 0}
    assert all(
        "GPU is lost" in (note.absence or "")
        for key, note in lost.provenance.items()
        if key not in lost.values
    )
    nvml.fail_all = None
    assert probe.read(MINE).values == before.values


def test_an_old_module_or_driver_answers_by_the_older_names() -> None:
    nvml = h200(
        nvmlDeviceGetCurrentClocksEventReasons=Fails(NO_FUNCTION),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x04,
        nvmlDeviceGetMemoryInfo=lambda _handle, *version: (
            Fails(NO_FUNCTION) if version else memory(80 * GIB, 1)
        ),
    )
    readings = server(nvml).read(MINE)
    assert readings.values["gpu_throttled"] == 1
    assert readings.provenance["gpu_memory_used"].source == "nvmlDeviceGetMemoryInfo"


def test_reasons_of_the_moment_name_what_holds_the_clocks_back() -> None:
    readings = server(h200(nvmlDeviceGetCurrentClocksEventReasons=0x01 | 0x04 | 0x40)).read(MINE)
    assert readings.values["gpu_throttled"] == 1
    assert readings.provenance["gpu_throttled"].source == (
        "NVML clock event reasons: power limit, temperature (hardware)"
    )


def test_idle_and_user_set_clocks_are_no_throttling() -> None:
    readings = server(h200(nvmlDeviceGetCurrentClocksEventReasons=0x01 | 0x02 | 0x10)).read(MINE)
    assert readings.values["gpu_throttled"] == 0


def test_gb10_is_throttled_when_a_violation_counter_moves_though_no_reason_is_given() -> None:
    counters = {0: 5_000, 1: 0, 3: 0}
    nvml = gb10(
        nvmlDeviceGetViolationStatus=lambda _, policy: SimpleNamespace(violationTime=counters[policy])
    )
    probe = spark(nvml)
    assert probe.read(MINE).values["gpu_throttled"] == 0
    counters[0] += 1_000
    readings = probe.read(MINE)
    assert readings.values["gpu_throttled"] == 1
    assert readings.provenance["gpu_throttled"].source == "NVML violation counters: power limit"
    assert probe.read(MINE).values["gpu_throttled"] == 0


def test_gb10_without_counters_is_not_said_to_run_freely_because_it_gives_no_reason() -> None:
    """GB10's reasons read 0 even while it is power-capped."""
    readings = spark(gb10(nvmlDeviceGetViolationStatus=Fails(NOT_SUPPORTED))).read(MINE)
    assert "gpu_throttled" not in readings.values
    assert "counters" in (readings.provenance["gpu_throttled"].absence or "")


def test_newer_drivers_give_the_counters_as_field_values_one_by_one() -> None:
    counts = {74: 10, 269: 4}

    def fields(_handle: int, numbers: list[int]) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                nvmlReturn=0 if n in counts else 3, value=SimpleNamespace(ullVal=counts.get(n, 0))
            )
            for n in numbers
        ]

    probe = spark(gb10(nvmlDeviceGetFieldValues=fields))
    probe.read(MINE)
    counts[269] = 9
    assert "temperature (software)" in (probe.read(MINE).provenance["gpu_throttled"].source or "")


def test_provenance_is_one_object_while_nothing_changes() -> None:
    nvml = h200()
    probe = server(nvml)
    first = probe.read(MINE)
    assert probe.read(MINE).provenance is first.provenance
    nvml.fail_all = LOST
    assert probe.read(MINE).provenance is not first.provenance


def test_the_chosen_gpu_is_read_and_all_are_listed() -> None:
    nvml = h200(
        nvmlDeviceGetCount=2,
        nvmlDeviceGetName=lambda handle: f"GPU number {handle}",
        nvmlDeviceGetTemperature=lambda handle, _: 40 + handle,
    )
    probe = server(nvml, index=1)
    assert [gpu.name for gpu in probe.gpus] == ["GPU number 0", "GPU number 1"]
    assert probe.read(MINE).values["gpu_temperature"] == 41


def test_one_gpu_that_cannot_be_opened_is_listed_with_its_reason() -> None:
    nvml = h200(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=lambda i: i if i == 0 else Fails(LOST))
    _, broken = server(nvml).gpus
    assert "lost" in broken.memory_source
    with pytest.raises(NoGpu, match="lost"):
        server(nvml, index=1)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (NO_LIBRARY, "not installed"),
        (DRIVER_NOT_LOADED, "not loaded"),
        (MISMATCH, "differ in version"),
        (NO_PERMISSION, "no permission"),
    ],
)
def test_each_reason_for_no_gpu_has_its_own_words(code: int, says: str) -> None:
    with pytest.raises(NoGpu, match=says):
        server(FakeNvml(nvmlInit=Fails(code)))


def test_no_device_and_a_wrong_index_are_said() -> None:
    with pytest.raises(NoGpu, match="finds no GPU"):
        server(h200(nvmlDeviceGetCount=0))
    with pytest.raises(NoGpu, match="no GPU 3: NVML lists 1"):
        server(h200(), index=3)


def test_time_spent_throttled_before_the_start_is_not_throttling_now() -> None:
    counter = SimpleNamespace(violationTime=9_000_000)
    asked = {"nvmlDeviceGetCurrentClocksEventReasons": 0, "nvmlDeviceGetViolationStatus": counter}

    def ask(call: str, *_: Any) -> Any:
        if call not in asked:
            raise Unanswered(call)
        return asked[call]

    figures = ReadingBuilder({})
    ThrottleReader(ask).read(figures)
    assert figures.finish().values == {"gpu_throttled": 0}


def test_counters_alone_need_two_readings_and_nothing_at_all_is_absent() -> None:
    def counters_only(call: str, *_: Any) -> Any:
        if call == "nvmlDeviceGetViolationStatus":
            return SimpleNamespace(violationTime=7)
        raise Unanswered("NVML answers Not Supported on this GPU")

    def nothing(_call: str, *_: Any) -> Any:
        raise Unanswered("NVML answers Not Supported on this GPU")

    reader = ThrottleReader(counters_only)
    first, second, none = (ReadingBuilder({}) for _ in range(3))
    reader.read(first)
    reader.read(second)
    ThrottleReader(nothing).read(none)
    assert "two readings" in (first.finish().provenance["gpu_throttled"].absence or "")
    assert second.finish().values == {"gpu_throttled": 0}
    assert "Not Supported" in (none.finish().provenance["gpu_throttled"].absence or "")


def test_the_cuda_drivers_word_stands_over_what_nvml_lacks() -> None:
    """A virtual GPU: discrete, though NVML has neither its memory nor its BAR1 window."""
    nvml = h200(nvmlDeviceGetMemoryInfo=Fails(3), nvmlDeviceGetBAR1MemoryInfo=Fails(3))
    probe = server(nvml)
    assert probe.gpus[0].unified is False
    assert "gpu_memory_total" not in probe.read(MINE).values
