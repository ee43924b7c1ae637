"""Each part of a benchmark on a virtual clock, with planted faults that it must find and name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby, pairwise

import pytest

from embedctl.errors import Cancelled
from embedctl.headlines import describe
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.cold_start import ColdStart
from embedctl.lab.energy import Bulk, best_batch, best_batch_note, bulk_batches
from embedctl.lab.load_verdict import LoadBlock, compare_loads
from embedctl.lab.open_loop import CAPACITY, OpenLoop, Shot, poisson, stalls_of
from embedctl.lab.presets import PRESETS
from embedctl.lab.soak import Soak
from embedctl.lab.stages import Bench
from embedctl.lab.targets import Start
from embedctl.lab.window import SampleWindow
from embedctl.records import Figure, Interval, Measurement, Provenance, Sample
from tests.support.lab import GIB, Scripted, VirtualPace, bench_of


@pytest.fixture
def pace() -> VirtualPace:
    return VirtualPace()


def value(row: Measurement, name: str) -> float:
    figure = row.figure(name)
    assert figure is not None and figure.value is not None, figure
    return figure.value


# Closed loops

ONE = ClosedLoop("one text", 1, per_block=10, blocks=12, budget=1e9)


def test_the_order_within_each_pattern_is_drawn_and_balanced(pace: VirtualPace) -> None:
    a, b = Scripted("native", pace, lambda n: 0.001), Scripted("ollama", pace, lambda n: 0.001)
    turns = [[target.name for target in turn] for turn in bench_of(a, b, pace=pace).patterns(40)]
    for first, second in zip(turns[::2], turns[1::2], strict=True):
        assert first == second[::-1]  # A B B A or B A A B
    assert {tuple(turn) for turn in turns[::2]} == {("native", "ollama"), ("ollama", "native")}


def test_a_slow_warm_up_is_found_named_and_kept_out_of_the_row(pace: VirtualPace) -> None:
    first = iter((0.2, 0.1, 0.06, 0.04))
    slow = Scripted("native", pace, lambda n: next(first, 0.01))
    steady = Scripted("ollama", pace, lambda n: 0.01)
    rows = ONE.measure(bench_of(slow, steady, pace=pace))
    native, ollama = rows.measurements
    assert native.p50_ms == pytest.approx(10) and max(native.latencies_ms) == pytest.approx(10)
    assert value(native, "warm_up_requests") == 4 and value(ollama, "warm_up_requests") == 0
    assert value(native, "warm_up_ms") == pytest.approx(400 - 4 * 10)
    assert len(native.series["warm_up_ms"]) == 7  # until three in a row were alike
    assert rows.notes == (
        "native, one text: slow warm-up, the first 4 requests took 360 ms longer than steady ones",
    )
    assert rows.comparisons[0].verdict == "no difference that matters"


def test_a_warm_up_that_ends_before_requests_are_steady_says_so(pace: VirtualPace) -> None:
    turns = {"native": 0, "ollama": 0}

    def restless(_: int) -> float:
        turns["native"] += 1
        return 0.01 * (1 + turns["native"] % 2)

    a, b = Scripted("native", pace, restless), Scripted("ollama", pace, lambda n: 0.01)
    rows = ONE.measure(bench_of(a, b, pace=pace))
    told = "one text: warm-up ended before requests were steady, of native (12 sent)"
    assert told in rows.notes
    native, ollama = (row.figure("warm_up_requests") for row in rows.measurements)
    assert native is not None and native.note == "of 12 sent to warm up, not yet steady"
    assert ollama is not None and ollama.note == "of 3 sent to warm up"


def test_what_nobody_knows_of_a_warm_up_is_no_nought(pace: VirtualPace) -> None:
    dead = Scripted("native", pace, lambda n: 0.01)
    dead.fails = lambda texts: True
    row = ONE.measure(bench_of(dead, pace=pace)).measurements[0]
    cold = bench_of(Scripted("native", pace, lambda n: 0.01), pace=pace)
    cold.done += ONE.measure(cold).measurements
    cold.allowed = 0.01
    for found, why in ((row, "not warmed up"), (ONE.measure(cold).measurements[0], "not warmed up")):
        for name in ("warm_up_requests", "warm_up_ms"):
            figure = found.figure(name)
            assert figure is not None and (figure.value, figure.note) == (None, why)


def test_the_same_backend_twice_shows_no_difference_that_matters(pace: VirtualPace) -> None:
    """20 comparisons of A with A, with a busy machine's noise: drift, jitter, requests far too late."""
    said = []
    for seed in range(20):
        seconds = partial(busy, random.Random(seed), pace)
        a, b = (Scripted(name, pace, seconds) for name in ("native", "ollama"))
        said += [c.verdict for c in ONE.measure(bench_of(a, b, pace=pace, seed=seed)).comparisons]
    assert said.count("no difference that matters") >= 19
    assert {"faster", "slower"}.isdisjoint(said)


def busy(noise: random.Random, pace: VirtualPace, _: int) -> float:
    drift = 1 + 0.3 * ((pace.at / 20) % 1)  # a machine that grows warm
    late = 5.0 if noise.random() < 0.02 else 1.0
    return 0.010 * drift * late * noise.lognormvariate(0, 0.05)


def test_a_difference_of_a_tenth_is_found(pace: VirtualPace) -> None:
    noise = random.Random(2)
    a = Scripted("native", pace, lambda n: busy(noise, pace, n) / 1.12)
    b = Scripted("ollama", pace, lambda n: busy(noise, pace, n))
    found = ONE.measure(bench_of(a, b, pace=pace)).comparisons[0]
    assert found.verdict == "faster"
    assert found.ratio.estimate == pytest.approx(1.12, abs=0.03)


def test_texts_of_one_length_are_skipped_where_a_backend_would_cut_them(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: 0.01), pace=pace)
    assert "512 tokens at most" in ClosedLoop("2048 tokens", 1, 1, 1, 1, tokens=2048).obstacle(bench)
    assert ClosedLoop("512 tokens", 1, 1, 1, 1, tokens=512).obstacle(bench) == ""


def test_clients_at_once_share_the_requests(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: 0.01), pace=pace)
    row = ClosedLoop(CAPACITY, 1, per_block=3, blocks=2, budget=1e9, clients=4).measure(bench).measurements[0]
    assert row.requests == 2 * 3 * 4


def test_clients_at_once_send_as_much_as_there_is_room_for(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: 0.001), pace=pace)
    bench.done += ONE.measure(bench).measurements
    stage = ClosedLoop(CAPACITY, 1, per_block=2, blocks=4, budget=2.0, clients=32)
    # 480 texts of a millisecond each fill a quarter of the budget; 64 would be two of each client.
    assert stage.wants(bench) == pytest.approx(4 * 0.480, rel=0.02)
    assert ClosedLoop("one text", 1, per_block=2, blocks=4, budget=2.0).wants(bench) < 0.05
    slow = bench_of(Scripted("native", pace, lambda n: 0.1), pace=pace)
    slow.done += ONE.measure(slow).measurements
    assert stage.least(slow) == pytest.approx(64 * 0.1)


@pytest.mark.parametrize("preset", ["standard", "thorough"])
def test_capacity_is_measured_with_as_many_clients_as_a_load_has(preset: str) -> None:
    (capacity,) = (stage for stage in PRESETS[preset].stages if stage.name == CAPACITY)
    loads = [stage for stage in PRESETS[preset].stages if isinstance(stage, OpenLoop)]
    assert isinstance(capacity, ClosedLoop)
    assert {capacity.clients} == {load.clients for load in loads}


# Open loops


def open_loop(
    pace: VirtualPace, seconds: Callable[[int], float], share: float = 0.5, length: float = 60.0
) -> tuple[Measurement, tuple[str, ...]]:
    backend = Scripted("native", pace, seconds)
    bench = bench_of(backend, pace=pace)
    bench.done.append(capacity_row(bench, 100.0))
    stage = OpenLoop(share, length, goal_ms=50.0, clients=1)
    rows = stage.measure(bench)
    return rows.measurements[0], rows.notes


def capacity_row(bench: Bench, per_second: float) -> Measurement:
    rate = Figure("texts_per_s", per_second, "per_second", per_second, per_second)
    return Measurement(
        "native",
        CAPACITY,
        1,
        1,
        0,
        (10.0,),
        10.0,
        None,
        "",
        per_second,
        None,
        None,
        None,
        "",
        figures=(rate,),
    )


def test_a_stall_shows_in_p99_from_the_intended_times_and_is_named(pace: VirtualPace) -> None:
    """10 ms a text at 50 a second, and every two seconds nothing for 200 ms."""

    def seconds(_: int) -> float:
        return 0.01 + max(0.0, 0.2 - pace.at % 2.0)

    row, notes = open_loop(pace, seconds)
    assert row.p50_ms == pytest.approx(10, abs=8)
    assert value(row, "p99_ms") > 150
    service = sorted(a - b for a, b in zip(ended(row), row.series["sent_s"], strict=True))
    assert service[int(len(service) * 0.97)] < 0.02  # a loop that waits would have seen 3 slow ones in 100
    assert sum(latency > 50 for latency in row.latencies_ms) / len(row.latencies_ms) > 0.1
    assert value(row, "stalls") == pytest.approx(30, abs=2)
    assert any("stalls, " in note and "longest 2" in note for note in notes)


def ended(row: Measurement) -> list[float]:
    return [at + ms / 1e3 for at, ms in zip(row.series["intended_s"], row.latencies_ms, strict=True)]


def test_an_even_backend_has_no_stalls_and_the_generator_is_on_time(pace: VirtualPace) -> None:
    row, notes = open_loop(pace, lambda n: 0.01, share=0.8)
    assert notes == ()
    assert value(row, "lag_p99_ms") == pytest.approx(0, abs=1e-6)
    assert value(row, "offered_per_s") == pytest.approx(80, rel=0.1)
    # Pollaczek and Khinchine: at 80 % of a constant service time the mean wait is half of it times 0.8/0.2.
    mean = sum(row.latencies_ms) / len(row.latencies_ms)
    assert mean == pytest.approx(10 + 10 * 0.8 / (2 * 0.2), rel=0.25)


def test_above_capacity_goodput_falls_behind_what_is_offered(pace: VirtualPace) -> None:
    row, _ = open_loop(pace, lambda n: 0.01, share=1.2, length=60)
    assert value(row, "goodput_per_s") < 0.3 * value(row, "offered_per_s")
    assert row.latencies_ms[-1] > 1_500  # the backlog of a block of 10 s at 20 % too much


def test_what_cannot_be_sent_in_time_is_an_error(pace: VirtualPace) -> None:
    row, notes = open_loop(pace, lambda n: 1.0, share=0.5, length=5)
    assert row.errors > 0 and row.requests - row.errors < 15
    assert any("not sent in time" in note for note in notes)


def test_where_nothing_was_answered_nobody_knows_of_stalls(pace: VirtualPace) -> None:
    backend = Scripted("native", pace, lambda n: 0.01)
    backend.fails = lambda texts: True
    bench = bench_of(backend, pace=pace)
    bench.done.append(capacity_row(bench, 20.0))
    row = OpenLoop(0.5, 5.0, clients=1).measure(bench).measurements[0]
    stalls = row.figure("stalls")
    assert stalls is not None and (stalls.value, stalls.note) == (None, "no good request")


def test_arrivals_are_poisson() -> None:
    arrivals = poisson(200.0, 50.0, random.Random(1))
    gaps = [b - a for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 200, rel=0.05)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.05)  # an exponential's deviation is its mean
    assert poisson(200.0, 50.0, random.Random(1)) == arrivals


def test_without_a_measured_capacity_there_is_no_load(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: 0.01), pace=pace)
    assert "capacity of native was not measured" in OpenLoop(0.5, 1.0).obstacle(bench)


def test_waiting_for_the_next_request_is_no_stall() -> None:
    assert stalls_of([Shot(at, at, at, at + 0.01) for at in (0.0, 5.0, 20.0)]) == []


EXACT = Interval(100.0, 100.0, 100.0)
"""A capacity that was measured without an error."""
compare_exactly = partial(compare_loads, capacities=(EXACT, EXACT))


def blocks_of(seed: int, faster: float = 1.0, rate: float = 60.0) -> list[LoadBlock]:
    """Six blocks of 10 s at 60 % of a server that takes 10 ms a text, one in a hundred 50 ms."""
    noise = random.Random(seed)
    found = []
    for number in range(6):
        free, latencies = 0.0, []
        for at in poisson(rate, 10.0, random.Random(number)):
            taken = 0.01 * noise.lognormvariate(0, 0.1) * (5 if noise.random() < 0.01 else 1) / faster
            free = max(free, at) + taken
            latencies.append(free - at)
        found.append(LoadBlock(tuple(latencies), sum(one <= 0.03 for one in latencies), 10.0))
    return found


def test_loads_of_the_same_backend_are_seldom_called_different_and_a_faster_one_is_found() -> None:
    found = [
        compare_exactly("load 60 %", 0.6, ("ollama", blocks_of(2 * n)), ("native", blocks_of(2 * n + 1)))[0]
        for n in range(20)
    ]
    assert sum(one.verdict in ("faster", "slower") for one in found) <= 1
    assert {one.metric for one in found} == {"p95"}
    (faster,) = compare_exactly("load 60 %", 0.6, ("ollama", blocks_of(1)), ("native", blocks_of(2, 1.5)))
    assert (faster.verdict, faster.candidate) == ("faster", "native")
    assert "native 2.5× as fast as ollama by p95" in describe(faster)  # it waits less, too


def test_loads_at_capacity_are_judged_by_what_is_answered_in_time() -> None:
    good, late = LoadBlock((0.01,) * 40, 40, 1.0), LoadBlock((0.5,) * 38 + (0.1,) * 12, 12, 1.5)
    (found,) = compare_exactly("load 120 %", 1.2, ("ollama", [late] * 6), ("native", [good] * 6))
    assert (found.metric, found.verdict) == ("goodput", "faster")
    assert found.ratio.estimate == pytest.approx((40 / 1.0) / (12 / 1.5))
    assert describe(found) == "load 120 %: native 5× the goodput of ollama (5–5), faster"
    nothing = LoadBlock((0.5,), 0, 1.0)
    assert compare_exactly("load 120 %", 1.2, ("ollama", [nothing] * 6), ("native", [good] * 6)) == ()


def test_a_load_of_too_few_requests_gets_a_ratio_and_no_verdict() -> None:
    few = [LoadBlock((0.01,) * 11, 11, 1.0)] * 6  # 66 of 72
    (found,) = compare_exactly("load 20 %", 0.2, ("ollama", few), ("native", few))
    assert (found.ratio.estimate, found.ratio.low, found.verdict) == (1.0, None, "undecided")
    gap = [LoadBlock((0.01,) * 40, 40, 1.0)] * 5 + [LoadBlock((), 0, 1.0)]
    (found,) = compare_exactly("load 20 %", 0.2, ("ollama", gap), ("native", gap))
    assert found.ratio.low is None


def test_both_backends_get_their_blocks_in_turn_and_a_verdict(
    pace: VirtualPace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.lab.open_loop.together", lambda clients, work: work(0))
    a, b = Scripted("native", pace, lambda n: 0.005), Scripted("ollama", pace, lambda n: 0.02)
    bench = bench_of(a, b, pace=pace)
    bench.done += [capacity_row(bench, 200.0), replace(capacity_row(bench, 50.0), backend="ollama")]
    order: list[str] = []
    a.seconds = lambda n: order.append("native") or 0.005  # type: ignore[func-returns-value]
    b.seconds = lambda n: order.append("ollama") or 0.02  # type: ignore[func-returns-value]
    rows = OpenLoop(0.4, 30.0).measure(bench)
    turns = [name for name, _ in groupby(order)]
    assert len(turns) <= 12 and len(turns) >= 7  # two turns of one backend in a row look like one
    (found,) = rows.comparisons
    assert (found.shape, found.verdict) == ("load 40 %", "faster") and found.ratio.estimate > 3
    assert [row.backend for row in rows.measurements] == ["native", "ollama"]


@pytest.mark.parametrize(
    ("capacity", "verdict"),
    [
        ({"native": 200.0, "ollama": 50.0}, "faster"),
        ({"native": 100.0, "ollama": 50.0}, "faster"),  # it could do more, which makes it no worse
        ({"native": 200.0, "ollama": 25.0}, None),
        ({"native": 100.0, "ollama": 25.0}, None),
    ],
)
def test_goodput_that_is_what_was_offered_gives_no_verdict(
    pace: VirtualPace, monkeypatch: pytest.MonkeyPatch, capacity: dict[str, float], verdict: str | None
) -> None:
    """native can do 200 a second and ollama 50, whatever was taken for their capacity."""
    monkeypatch.setattr("embedctl.lab.open_loop.together", lambda clients, work: work(0))
    a, b = Scripted("native", pace, lambda n: 0.005), Scripted("ollama", pace, lambda n: 0.02)
    bench = bench_of(a, b, pace=pace)
    bench.done += [replace(capacity_row(bench, rate), backend=name) for name, rate in capacity.items()]
    rows = OpenLoop(1.2, 30.0).measure(bench)
    assert [one.verdict for one in rows.comparisons] == ([verdict] if verdict else [])
    told = [note for note in rows.notes if "answered all that was offered" in note]
    assert bool(told) is (verdict is None)
    assert all(note.startswith("load 120 %: no verdict, ") for note in told)


# Soak


@pytest.mark.parametrize(("leak_mib", "said"), [(400, "leak"), (0, "no growth that matters")])
def test_a_leak_is_found_with_its_slope(leak_mib: float, said: str) -> None:
    noise = random.Random(1)

    def figures(at: float) -> dict[str, float]:
        warm = min(1.0, at / 20) * GIB  # pools fill at first, which is no leak
        leak = leak_mib * 1024**2 * at / 3600
        return {"native_gpu_memory": GIB + warm + leak + noise.gauss(0, 1e5)}

    pace = VirtualPace(figures=figures)
    rows = Soak(120.0).measure(bench_of(Scripted("native", pace, lambda n: 0.02 * n), pace=pace))
    growth = rows.measurements[0].figure("growth_bytes_per_hour")
    assert growth is not None and growth.note == said
    assert growth.low is not None and growth.high is not None
    assert growth.value == pytest.approx(leak_mib * 1024**2, abs=4 * 1024**2)
    assert growth.high - growth.low < 16 * 1024**2
    assert bool(rows.notes) == (said == "leak")
    assert all("memory grows by" in note for note in rows.notes)
    assert len(rows.measurements[0].series["held_bytes"]) > 200


def test_a_backend_that_slows_down_shows_it(pace: VirtualPace) -> None:
    slowing = Scripted("native", pace, lambda n: 0.1 * (1 + pace.at / 60))
    row = Soak(60.0).measure(bench_of(slowing, pace=pace)).measurements[0]
    assert value(row, "drift_ratio") == pytest.approx(1.6, abs=0.15)
    growth = row.figure("growth_bytes_per_hour")
    assert growth is not None and growth.value is None and growth.note  # no sample showed its memory


# Bulk and energy


def sweep(bench: Bench, rates: dict[int, float], backend: str = "native") -> None:
    for size, rate in rates.items():
        bench.done.append(
            Measurement(
                backend,
                f"batch of {size}",
                size,
                6,
                0,
                (1.0,),
                1.0,
                None,
                "",
                rate,
                None,
                40 * size,
                None,
                "",
            )
        )


def test_the_best_batch_is_the_smallest_of_those_that_are_as_good(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: 0.01), pace=pace)
    sweep(bench, {16: 700.0, 32: 970.0, 64: 1000.0, 128: 950.0})
    assert best_batch(bench, bench.targets[0]) == 32
    assert best_batch_note(bench, bench.targets[0]) == (
        "native: best batch 32 (about 213 tokens a request), 970 texts/s"
    )
    bench.done = [replace(row, requests=5) for row in bench.done]
    assert best_batch_note(bench, bench.targets[0]).endswith(", n too small")


def test_bulk_work_is_the_same_for_both_where_one_batch_is_as_good_as_the_best_for_each(
    pace: VirtualPace,
) -> None:
    bench = bench_of(*(Scripted(name, pace, lambda n: 0.01) for name in ("native", "ollama")), pace=pace)
    sweep(bench, {16: 700.0, 32: 960.0, 64: 1000.0})
    sweep(bench, {16: 10.0, 32: 9.4, 64: 9.9}, "ollama")  # one text after the other, whatever the batch
    assert [best_batch(bench, target) for target in bench.targets] == [32, 16]
    assert bulk_batches(bench) == {"native": 64, "ollama": 64}
    bench.done[-1] = replace(bench.done[-1], texts_per_s=9.0)
    assert bulk_batches(bench) == {"native": 32, "ollama": 16}, "none is good for both"


@pytest.mark.parametrize("counter", [True, False])
def test_energy_is_gross_and_above_idle(counter: bool) -> None:
    """50 W at idle and 150 W under load of 1,000 texts/s: 150 J and 100 J per 1,000 texts."""
    total = {"joule": 0.0, "at": 0.0}

    def figures(at: float) -> dict[str, float]:
        watt = 150.0 if backend.log else 50.0
        total["joule"] += watt * (at - total["at"])
        total["at"] = at
        return {"gpu_energy": total["joule"]} if counter else {"gpu_power": watt}

    pace = VirtualPace(figures=figures)
    backend = Scripted("native", pace, lambda n: n / 1000)
    bench = bench_of(backend, pace=pace)
    sweep(bench, {32: 1000.0})
    row = Bulk(length=10.0, blocks=4, idle=10.0).measure(bench).measurements[0]
    assert value(row, "energy_gross_joule") == pytest.approx(150, rel=0.02)
    assert value(row, "energy_above_idle_joule") == pytest.approx(100, rel=0.02)
    gross = row.figure("energy_gross_joule")
    assert gross is not None and ("energy counter" if counter else "integrated power") in gross.note
    assert row.texts_per_s == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("counter", [True, False])
def test_the_power_of_a_block_is_its_own_and_not_the_one_before_its(counter: bool) -> None:
    """100 W and 200 W in turn, blocks of 2.5 s, two samples a second; 300 W until the idle time begins."""
    watt, total = {"now": 300.0}, {"joule": 0.0, "at": 0.0}

    def figures(at: float) -> dict[str, float]:
        total["joule"] += watt["now"] * (at - total["at"])
        total["at"] = at
        return {"gpu_energy": total["joule"]} if counter else {"gpu_power": watt["now"]}

    def draws(power: float) -> Callable[[int], float]:
        return lambda texts: watt.update(now=power) or texts / 1000  # type: ignore[func-returns-value]

    pace = VirtualPace(figures=figures)
    a, b = Scripted("native", pace, draws(100.0)), Scripted("ollama", pace, draws(200.0))
    bench = bench_of(a, b, pace=pace)
    for name in ("native", "ollama"):
        sweep(bench, {32: 1000.0}, name)
    with pace.sampling():
        pace.sleep(1.0)
    watt["now"] = 50.0
    rows = Bulk(length=2.5, blocks=8, idle=2.0).measure(bench).measurements
    assert [value(row, "idle_watt") for row in rows] == [pytest.approx(50.0)] * 2
    assert value(rows[0], "energy_gross_joule") == pytest.approx(100, rel=0.02)
    assert value(rows[1], "energy_gross_joule") == pytest.approx(200, rel=0.02)
    assert value(rows[1], "energy_above_idle_joule") == pytest.approx(150, rel=0.02)


def test_one_sample_makes_no_power() -> None:
    window = SampleWindow(before=Sample(1.0, {"gpu_energy": 1.0}, {}))
    assert window.mean_power() == (None, "no sample was taken meanwhile")
    window.see(Sample(2.0, {"gpu_energy": 3.0}, {}))
    assert window.mean_power() == (None, "one sample was taken meanwhile, and power needs two")


def test_without_power_energy_is_absent_and_says_why(pace: VirtualPace) -> None:
    bench = bench_of(Scripted("native", pace, lambda n: n / 1000), pace=pace)
    sweep(bench, {32: 1000.0})
    row = Bulk(length=2.0, blocks=2, idle=1.0).measure(bench).measurements[0]
    gross = row.figure("energy_gross_joule")
    assert gross is not None and gross.value is None and gross.note == "not measured"


# Cold start


def test_a_cold_start_is_timed_to_the_first_vector(pace: VirtualPace) -> None:
    backend = Scripted("native", pace, lambda n: 0.5)

    def restart(drop_cache: bool) -> Start:
        pace.sleep(4.0)
        return Start(4.0, (("loading", 3.0), ("canary", 1.0)), "page cache dropped" if drop_cache else "warm")

    backend.restart = restart
    row = ColdStart(repeats=3, drop_cache=True).measure(bench_of(backend, pace=pace)).measurements[0]
    assert (row.kind, row.requests) == ("cold start", 3)
    assert row.p50_ms == pytest.approx(4_500)
    assert value(row, "ready_ms") == pytest.approx(4_000)
    assert value(row, "first_vector_ms") == pytest.approx(500)
    assert value(row, "step: loading") == pytest.approx(3_000)
    assert row.texts_per_s is None


def test_what_others_use_is_not_restarted(pace: VirtualPace) -> None:
    row = (
        ColdStart(repeats=3)
        .measure(bench_of(Scripted("native", pace, lambda n: 0.5), pace=pace))
        .measurements[0]
    )
    assert row.requests == 0
    ready = row.figure("ready_ms")
    assert ready is not None and ready.value is None and "others may be using it" in ready.note


def test_a_start_from_a_warm_cache_is_no_start_from_disk(pace: VirtualPace) -> None:
    """Nobody drops another program's files: an Ollama that starts again reads its own from memory."""
    backend = Scripted("ollama", pace, lambda n: 0.5)
    started: list[bool] = []
    backend.restart = lambda drop_cache: started.append(drop_cache) or Start(1.0, (), "warm")  # type: ignore[func-returns-value]
    bench = bench_of(backend, pace=pace)
    bench.targets = [replace(bench.targets[0], why_no_disk_start="its files are another program's")]
    stage = ColdStart(repeats=3, drop_cache=True)
    assert stage.least(bench) == 0
    row = stage.measure(bench).measurements[0]
    ready = row.figure("ready_ms")
    assert (row.requests, row.p50_ms, started) == (0, None, [])
    assert ready is not None and (ready.value, ready.note) == (None, "its files are another program's")
    assert ColdStart(repeats=3).measure(bench).measurements[0].requests == 3


# All of them


def test_cancel_ends_every_kind_of_stage(pace: VirtualPace) -> None:
    for stage in (ONE, Soak(60.0), Bulk(5.0, 2, 1.0), OpenLoop(0.5, 10.0, clients=1)):
        backend = Scripted("native", pace, lambda n: 0.01)
        bench = bench_of(backend, pace=pace)
        bench.done.append(capacity_row(bench, 100.0))
        sweep(bench, {16: 100.0})

        def fails(_: object, bench: Bench = bench, backend: Scripted = backend) -> bool:
            return bool(len(backend.log) >= 5 and bench.cancel.cancel())

        backend.fails = fails
        with pytest.raises(Cancelled):
            stage.measure(bench)
        assert len(backend.log) == 5


def test_rows_carry_memory_as_claimed_and_as_measured() -> None:
    def figures(at: float) -> dict[str, float]:
        return {
            "native_gpu_memory": 3.0 * GIB, "host_memory_available": (40 - at) * GIB,
            "host_swap_used": 0.0, "host_pressure_some": 1.5,
        }  # fmt: skip

    pace = VirtualPace(figures=figures)
    row = ONE.measure(bench_of(Scripted("native", pace, lambda n: 0.05), pace=pace)).measurements[0]
    assert (row.peak_bytes, row.peak_source) == (3 * GIB, "scripted native_gpu_memory")
    assert value(row, "claimed_bytes") == 2 * GIB
    assert value(row, "pool_low_bytes") < 36 * GIB
    assert value(row, "swap_peak_bytes") == 0 and value(row, "pressure_peak_percent") == 1.5
    assert row.figure("gpu_low_bytes") is None


def test_a_card_with_memory_of_its_own_shows_how_little_of_it_was_free() -> None:
    window = SampleWindow(discrete=True)
    for used in (3.0, 60.0, 5.0):
        figures = {"gpu_memory_total": 80.0 * GIB, "gpu_memory_used": used * GIB}
        window.see(Sample(1.0, figures, {"gpu_memory_used": Provenance(source="NVML")}))
    low = window.memory_figures()[0]
    assert (low.name, low.value, low.note) == ("gpu_low_bytes", 20 * GIB, "NVML")


def test_the_peak_is_of_one_kind_of_memory() -> None:
    """Before a worker reaches the GPU it holds host memory, more than it will on the GPU."""
    sources = {"native_gpu_memory": Provenance(source="NVML"), "native_rss": Provenance(source="/proc")}
    loading = {"native_gpu_memory": 0.0, "native_rss": 6.0 * GIB}
    window = SampleWindow()
    window.see(Sample(1.0, loading, sources))
    assert window.peak("native") == (6 * GIB, "/proc")
    window.see(Sample(2.0, {"native_gpu_memory": 2.0 * GIB, "native_rss": 4.0 * GIB}, sources))
    window.see(Sample(3.0, {"native_rss": 5.0 * GIB}, sources))  # one reading of NVML failed
    assert window.peak("native") == (2 * GIB, "NVML")
    assert window.held("native") == ((1.0, 2.0), (0.0, 2.0 * GIB))


def test_the_peak_of_a_row_is_not_what_was_held_before_it() -> None:
    window = SampleWindow(before=Sample(1.0, {"native_gpu_memory": 3.0 * GIB}, {}))
    assert window.peak("native") == (3 * GIB, "sampled, read right before")
    window.see(Sample(2.0, {"native_gpu_memory": 2.0 * GIB}, {}))
    assert window.peak("native")[0] == 2 * GIB


def test_the_peak_is_the_most_of_the_samples_seen_and_says_why_where_there_is_none() -> None:
    window = SampleWindow()
    assert window.peak("native") == (None, "no sample was taken meanwhile")
    window.see(Sample(1.0, {}, {"native_gpu_memory": Provenance(absence="hidden in a container")}))
    assert window.peak("native") == (None, "hidden in a container")
    for gib in (1.0, 3.0, 2.0):
        values = {"native_gpu_memory": gib * GIB}
        window.see(Sample(2.0, values, {"native_gpu_memory": Provenance(source="NVML")}))
    assert window.peak("native") == (3 * GIB, "NVML")
    assert window.mean_power() == (None, "not measured")
