"""Profiler traces: a real one of this machine, and planted ones of NVIDIA's and AMD's form.

The planted ones follow the documented form of Kineto's events; no GPU stood behind them.
"""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule
from torch.utils.data import DataLoader, TensorDataset

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.load import open_run
from mmtool.errors import RunDirectoryError
from mmtool.runlog.foreign.spans import common, total, union, within

HOST = {"pid": 100, "tid": 1}


def event(cat, name, ts, dur, **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, **HOST, "args": args}


def device(cat, name, ts, dur, correlation, *, stream=7, number=0):
    args = {"device": number, "stream": stream, "correlation": correlation}
    return {
        "ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur,
        "pid": number, "tid": stream, "args": args,
    }  # fmt: skip


def nvidia_step(start, first):
    """Give the events of one step of 1000 us with a known use of the device.

    600 us of computing in two kernels, 300 of a collective of which 100 run beside a kernel, 50 of
    a copy: busy 850, idle 150.
    """
    return [
        event("user_annotation", f"ProfilerStep#{first}", start, 1000),
        event("user_annotation", "mmtool.forward.audio", start + 10, 100),
        event("cuda_runtime", "cudaMemcpyAsync", start + 5, 2, correlation=10 * first),
        event("cuda_runtime", "cudaLaunchKernel", start + 20, 5, correlation=10 * first + 1),
        event("cuda_runtime", "cudaLaunchKernel", start + 200, 5, correlation=10 * first + 2),
        event("cuda_runtime", "cudaLaunchKernel", start + 300, 5, correlation=10 * first + 3),
        event("cuda_runtime", "cudaDeviceSynchronize", start + 700, 250),
        event("cpu_op", "aten::mm", start + 15, 20),
        device("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", start + 10, 50, 10 * first),
        device("kernel", "sm80_xmma_gemm", start + 60, 200, 10 * first + 1),
        device("kernel", "vectorized_elementwise", start + 260, 400, 10 * first + 2),
        device(
            "kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", start + 560, 300, 10 * first + 3,
            stream=20,
        ),
        event("ac2g", "ac2g", start, 0),
    ]  # fmt: skip


def document(events, **more):
    return {
        "schemaVersion": 1, "deviceProperties": [{"id": 0}], "displayTimeUnit": "ms", **more,
        "traceEvents": [{"ph": "M", "name": "process_name", "pid": 1, "args": {}}, *events],
    }  # fmt: skip


def nvidia(num_steps=4, scale=1):
    events = [e for s in range(num_steps) for e in nvidia_step(10_000 + 1000 * s, s + 1)]
    return [{**e, "ts": e["ts"] * scale, "dur": e["dur"] * scale} for e in events]


def test_the_use_of_an_nvidia_device_is_told_to_the_microsecond(tmp_path):
    path = tmp_path / "rank0.pt.trace.json"
    path.write_text(json.dumps(document(nvidia(), distributedInfo={"rank": 3})))
    trace = open_run(path).tables.trace
    (found,) = trace["devices"]

    assert (found["rank"], found["device"], found["span_ms"]) == (3, 0, 4.0)
    assert found["busy"] == pytest.approx(0.85)
    assert found["idle"] == pytest.approx(0.15)
    assert found["compute"] == pytest.approx(0.60)
    assert found["communication"] == pytest.approx(0.30)
    assert found["exposed_communication"] == pytest.approx(0.20)
    assert found["overlap"] == pytest.approx(1 / 3)
    assert found["memcpy"] == pytest.approx(0.05)
    assert found["memset"] == 0
    assert (found["num_kernels"], found["kernels_per_step"]) == (12, 3)
    assert (found["kernel_p50_us"], found["short_kernels"]) == (300.0, 0.0)
    (host,) = trace["hosts"]
    assert (host["sync"], host["num_syncs"]) == (pytest.approx(0.25), 4)


def test_each_step_and_annotation_has_its_time_on_the_device(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document(nvidia())))
    tables = open_run(path).tables

    for step in tables.trace["steps"]:
        assert (step["ms"], step["busy_ms"]) == (pytest.approx(1.0), pytest.approx(0.85))
        assert (step["compute_ms"], step["communication_ms"]) == (0.6, pytest.approx(0.3))
    (annotation,) = tables.trace["annotations"]
    assert annotation == {
        "rank": 0, "name": "mmtool.forward.audio", "count": 4,
        "host_ms": pytest.approx(0.4), "device_ms": pytest.approx(0.8),
    }  # fmt: skip
    assert tables.steps["step"].tolist() == [1, 2, 3, 4]
    assert tables.steps["ms_forward"].tolist() == pytest.approx([0.1] * 4)


def test_what_the_thread_of_a_backward_pass_launches_belongs_to_its_annotation(tmp_path):
    launch = {**event("cuda_runtime", "cudaLaunchKernel", 20, 5, correlation=1), "tid": 77}
    events = [
        event("user_annotation", "ProfilerStep#1", 0, 500),
        event("user_annotation", "mmtool.backward", 10, 200),
        launch,
        device("kernel", "gemm", 250, 100, 1),
    ]
    path = tmp_path / "trace.json"
    found = {"traceEvents": events, "distributedInfo": {"rank": 5}}
    path.write_text(json.dumps(found))
    trace = open_run(path).tables.trace

    assert trace["annotations"][0]["device_ms"] == pytest.approx(0.1)
    assert trace["devices"][0]["rank"] == 5


def test_a_trace_of_an_older_profiler_with_capital_categories_is_read(tmp_path):
    events = [
        event("Operator", "aten::mm", 0, 100),
        event("Runtime", "cudaLaunchKernel", 10, 5, correlation=1),
        device("Kernel", "gemm", 20, 50, 1),
        device("Memcpy", "Memcpy HtoD", 80, 20, 2),
    ]
    path = tmp_path / "a.trace.json"
    path.write_text(json.dumps(document(events)))
    (found,) = open_run(path).tables.trace["devices"]

    assert (found["compute"], found["memcpy"]) == (pytest.approx(0.5), pytest.approx(0.2))


def test_nanoseconds_and_a_list_without_a_frame_give_the_same(tmp_path):
    micro, nano = tmp_path / "micro.trace.json", tmp_path / "nano.trace.json.gz"
    base = 1_790_000_000_000_000
    events = [{**e, "ts": e["ts"] + base} for e in nvidia()]
    micro.write_text(json.dumps({"outer": document(events)}))
    with gzip.open(nano, "wt") as file:
        json.dump([{**e, "ts": e["ts"] * 1000, "dur": e["dur"] * 1000} for e in events], file)
    first, second = (open_run(path).tables.trace for path in (micro, nano))

    assert first["devices"][0] == pytest.approx(second["devices"][0])
    assert first["devices"][0]["busy"] == pytest.approx(0.85, abs=1e-3)


def test_an_amd_trace_is_read_too(tmp_path):
    events = [
        event("user_annotation", "ProfilerStep#1", 0, 1000),
        event("cuda_runtime", "hipLaunchKernel", 10, 5, correlation=1),
        event("hip_runtime", "hipExtModuleLaunchKernel", 20, 5, correlation=2),
        event("cuda_runtime", "hipStreamSynchronize", 100, 400),
        device("kernel", "Cijk_Ailk_Bljk_SB_MT64x64x8", 50, 300, 1, number=2),
        device("kernel", "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)", 400, 100, 2,
               number=2),
        device("gpu_memcpy", "CopyHostToDevice", 600, 50, 3, number=2),
        device("gpu_memset", "Memset (Device)", 700, 10, 4, number=2),
    ]  # fmt: skip
    path = tmp_path / "mi250.json"
    path.write_text(json.dumps(document(events)))
    trace = open_run(path).tables.trace
    (found,) = trace["devices"]

    assert (found["device"], found["busy"]) == (2, pytest.approx(0.46))
    assert (found["compute"], found["communication"]) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (found["memcpy"], found["memset"]) == (pytest.approx(0.05), pytest.approx(0.01))
    assert trace["hosts"][0]["sync"] == pytest.approx(0.4)


def test_short_kernels_and_an_idle_device_are_a_finding(tmp_path):
    events = [event("user_annotation", "ProfilerStep#1", 0, 10_000)]
    for number in range(300):
        events.append(event("cuda_runtime", "cudaLaunchKernel", 30 * number, 8, correlation=number))
        events.append(device("kernel", "elementwise", 30 * number + 10, 4, number))
    path = tmp_path / "a.trace.json"
    path.write_text(json.dumps(document(events)))
    report = diagnose([path])
    (finding,) = (f for f in report.findings if f.rule == "device-trace")

    assert finding.severity == "warn"
    assert finding.evidence["short_kernels"] == 1.0
    assert "waits for launches" in finding.what
    assert "torch.compile" in finding.advice
    assert report.metrics["trace"]["devices"][0]["idle"] == pytest.approx(0.88)


def test_the_traces_of_several_ranks_in_a_folder_are_one_report(tmp_path):
    for rank in range(2):
        with gzip.open(tmp_path / f"host_{rank}.pt.trace.json.gz", "wt") as file:
            json.dump(document(nvidia(), distributedInfo={"rank": rank, "world_size": 2}), file)
    tables = open_run(tmp_path).tables

    assert [d["rank"] for d in tables.trace["devices"]] == [0, 1]
    assert tables.steps["rank"].tolist() == [0] * 4 + [1] * 4


@pytest.fixture(scope="module")
def real_trace(tmp_path_factory):
    """A trace that torch's profiler writes on this machine."""
    path = tmp_path_factory.mktemp("trace") / "cpu.pt.trace.json.gz"
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters())
    loader = DataLoader(TensorDataset(torch.randn(64 * 7, 64)), batch_size=64)
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=1, warmup=1, active=4, repeat=1),
        on_trace_ready=lambda found: found.export_chrome_trace(str(path)),
        acc_events=True,
    ) as profiler:
        for (batch,) in loader:
            with record_function("mmtool.forward.audio"):
                output = model(batch)
            with record_function("mmtool.backward"):
                output.sum().backward()
            optimizer.step()
            profiler.step()
    return path


def test_a_real_trace_of_the_host_alone_gives_steps_and_their_phases(real_trace):
    tables = open_run(real_trace).tables
    phases = ["ms_data", "ms_forward", "ms_backward", "ms_optimizer"]

    assert tables.steps["step"].tolist() == [2, 3, 4, 5]
    assert (tables.steps[phases] > 0).all(axis=None)
    assert (tables.steps["ms_step"] >= tables.steps[phases].sum(axis=1)).all()
    assert {a["name"]: a["count"] for a in tables.trace["annotations"]} == {
        "mmtool.forward.audio": 4, "mmtool.backward": 4,
    }  # fmt: skip
    assert any("of the host alone" in w for w in tables.warnings)
    assert "foreign-log" in {f.rule for f in diagnose([real_trace]).findings}


def test_a_trace_that_was_cut_off_gives_the_events_before_it(tmp_path):
    text = json.dumps(document(nvidia()))
    (tmp_path / "a.trace.json").write_text(text[: len(text) // 2])
    tables = open_run(tmp_path / "a.trace.json").tables

    assert 1 <= len(tables.steps) < 4
    assert any("was cut off" in w for w in tables.warnings)


@pytest.mark.parametrize("content", [b"", b"{}", b"{\x00\xff", b'{"traceEvents": 3}', b"[[["])
def test_a_trace_without_events_is_refused_or_empty_but_no_crash(tmp_path, content):
    for name in ("a.trace.json", "b.trace.json.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunDirectoryError, match="is not a trace"):
            open_run(tmp_path / name)


def test_a_large_trace_needs_little_memory(tmp_path):
    path = tmp_path / "large.trace.json"
    padding = "x" * 500
    with path.open("w") as file:
        file.write('{"traceEvents": [')
        for number in range(40_000):
            line = device("kernel", padding, 10 * number, 5, number)
            file.write(json.dumps(line) + ",\n")
        file.write(json.dumps(device("kernel", "last", 400_000, 5, 40_000)) + "]}")
    tracemalloc.start()
    found = open_run(path).tables.trace["devices"][0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found["num_kernels"] == 40_001
    assert path.stat().st_size > 20e6
    assert peak < path.stat().st_size / 2


def test_sets_of_time_add_up():
    random = np.random.default_rng(0)
    for _ in range(50):
        starts = random.integers(0, 100, 12).astype(float)
        lengths = random.integers(0, 15, 12).astype(float)
        cells = np.zeros(130, dtype=bool)
        for start, length in zip(starts, lengths, strict=True):
            cells[int(start) : int(start + length)] = True
        half = union(starts[:6], starts[:6] + lengths[:6])
        rest = union(starts[6:], starts[6:] + lengths[6:])
        both = union(starts, starts + lengths)
        assert total(both) == cells.sum()
        assert within(both, 20, 60) == cells[20:60].sum()
        assert common(half, rest) == total(half) + total(rest) - total(both)
