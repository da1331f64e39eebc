"""The kernels that are timed: right on the host (Triton's by its interpreter), and compiled for GPUs not there.

Skipped only where PyTorch or Triton is not installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fusemodel.validate.measure import GROUPS, Settings, measure  # noqa: E402
from fusemodel.validate.measure.case import Case  # noqa: E402
from fusemodel.validate.measure.kernels import HOMES, TOLERANCE, Unsupported, build  # noqa: E402
from fusemodel.validate.measure.kernels.launch import spread  # noqa: E402
from fusemodel.validate.measure.kernels.reference import attention_error, linear_error  # noqa: E402
from fusemodel.validate.measure.plan import make_plan  # noqa: E402
from fusemodel.validate.measure.run import Pace, failures_path  # noqa: E402
from fusemodel.validate.measure.timing import HostTimer  # noqa: E402
from fusemodel.validate.measure.worker import answer, facts  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(autouse=True, scope="module")
def _interpreted() -> Any:
    """Kernels are interpreted where this is set when their modules are first imported."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TRITON_INTERPRET", "1")
    yield
    patch.undo()


def attention(kernel: str, *shape: int, window: int = 0, causal: int = 0, dtype: str = "fp16") -> Case:
    batch, heads, kv_heads, seq_q, seq_kv, head_dim = shape
    return Case(
        "t", kernel, "encoder_attention", dtype, batch, heads, kv_heads, seq_q, seq_kv, head_dim, window, causal
    )


def right(case: Case) -> Any:
    """Launch a kernel on the host, and return its output once its own check has passed."""
    kernel = build(case, "cpu")
    out = kernel.run()
    assert kernel.error(out) < TOLERANCE[case.dtype] / 4
    return out


FUSED = ("triton-1pass", "triton-2pass", "triton-3pass-recompute")
#: Batch, heads, key heads, queries, keys, head dimension; ragged on purpose.
SHAPES = [(1, 2, 2, 64, 64, 16), (2, 4, 2, 70, 70, 16), (1, 4, 1, 33, 97, 32), (1, 1, 1, 1, 5, 16)]


@needs_triton
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", [*FUSED, "triton-3pass"])
def test_attention_in_each_number_of_passes(kernel: str, shape: tuple[int, ...]) -> None:
    right(attention(kernel, *shape))
    if kernel in FUSED and shape[3] == shape[4]:
        right(attention(kernel, *shape, causal=1))


@needs_triton
@pytest.mark.parametrize(
    "shape", [(2, 4, 2, 1, 203, 16), (1, 4, 4, 1, 20, 16), (3, 8, 1, 1, 64, 32), (1, 2, 2, 1, 1, 16)]
)
def test_decoding_in_parts(shape: tuple[int, ...]) -> None:
    right(attention("triton-splitkv", *shape))


@needs_triton
@pytest.mark.parametrize("length", [1, 127, 128, 300])
def test_linear_attention_in_chunks(length: int) -> None:
    right(Case("t", "triton-linear-chunked", "linear_attention", "fp16", 1, 2, 2, length, length, 16, causal=1))


@needs_triton
def test_loops_keep_their_numbers() -> None:
    for kernel in ("exp2-loop", "fma-loop"):
        right(Case("t", kernel, kernel.replace("-", "_"), "fp32", m=1500, k=20))


@pytest.mark.parametrize("causal", [0, 1])
def test_back_ends_that_run_on_the_host(causal: int) -> None:
    for kernel in ("sdpa-math", "sdpa-flash"):
        right(attention(kernel, 2, 4, 2, 70, 70, 16, causal=causal))
    with pytest.raises(Unsupported):
        build(attention("sdpa-efficient", 2, 4, 4, 70, 70, 16), "cpu")


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_masks_of_windows() -> None:
    for window, causal in ((0, 0), (0, 1), (30, 1)):
        right(attention("flex", 1, 2, 2, 128, 128, 16, window=window, causal=causal, dtype="fp32"))


def test_parts_and_products() -> None:
    for kernel, op in (("bmm", "bmm_qk"), ("softmax", "softmax"), ("bmm", "bmm_pv")):
        right(Case("t", kernel, op, "bf16", 2, 4, 4, 70, 70, 16))
    right(Case("t", "gemm", "gemm", "bf16", m=50, n=60, k=70))
    right(Case("t", "copy", "copy", "bf16", m=1000))
    right(Case("t", "launch", "launch", "bf16"))


def test_reads_fills_copies_and_exponentials_of_memory() -> None:
    for name, op in (("max", "read"), ("fill", "fill"), ("copy", "copy"), ("exp2", "exp2")):
        right(Case("t", f"torch-{name}", op, "fp32", m=1000))


class Pages:
    """Stands in for vLLM's FlashAttention 3: the same arguments, computed from their definition."""

    def __init__(self) -> None:
        self.scheduled: list[dict[str, Any]] = []

    def get_scheduler_metadata(self, **given: Any) -> Any:
        self.scheduled.append(given)
        return given

    def flash_attn_varlen_func(self, q: Any, k: Any, v: Any, *, cu_seqlens_q: Any, out: Any, causal: bool,
                               softmax_scale: float, fa_version: int, window_size: Any = (-1, -1),
                               cu_seqlens_k: Any = None, seqused_k: Any = None, block_table: Any = None,
                               scheduler_metadata: Any = None, **_: Any) -> None:  # fmt: skip
        assert fa_version == 3
        assert (scheduler_metadata is None) == (block_table is None)
        share = q.shape[1] // k.shape[-2]
        for b in range(len(cu_seqlens_q) - 1):
            of = slice(int(cu_seqlens_q[b]), int(cu_seqlens_q[b + 1]))
            if block_table is None:
                at = slice(int(cu_seqlens_k[b]), int(cu_seqlens_k[b + 1]))
                keys, values = k[at], v[at]
            else:
                page, n = k.shape[1], int(seqused_k[b])
                keys, values = (
                    torch.stack([x[int(block_table[b, i // page]), i % page] for i in range(n)]) for x in (k, v)
                )
            scores = torch.einsum("qhd,khd->hqk", q[of].float(), keys.float().repeat_interleave(share, 1))
            i, j = np.indices(scores.shape[1:])
            i += len(keys) - (of.stop - of.start)  # aligned at the last position
            masked = (causal & (j > i)) | ((window_size[0] >= 0) & (i - j > window_size[0]))
            weights = scores.mul(softmax_scale).masked_fill(torch.from_numpy(masked), -torch.inf).softmax(-1)
            out[of] = torch.einsum("hqk,khd->qhd", weights, values.float().repeat_interleave(share, 1)).to(out.dtype)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Pages:
    package, pages = ModuleType("vllm"), Pages()
    package.vllm_flash_attn = pages  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.vllm_flash_attn", pages)  # type: ignore[arg-type]
    return pages


def test_flash_attention_3_from_a_paged_cache(vllm: Pages) -> None:
    for window in (0, 20):
        one = attention("vllm_flash_attn", 3, 4, 2, 1, 70, 16, window=window)
        right(Case(**{**one.to_dict(), "op": "generation_attention"}))
        right(attention("vllm_flash_attn", 2, 4, 1, 50, 50, 16, window=window, causal=1))
    assert (vllm.scheduled[-1]["num_splits"], vllm.scheduled[-1]["window_size"]) == (32, (19, 0))
    many = build(attention("vllm_flash_attn", 513, 2, 2, 1, 5, 16), "cpu")
    assert (vllm.scheduled[-1]["num_splits"], many.config) == (0, "vllm=? page=16 splits=heuristic")


def test_flash_attention_3_of_an_encoder(vllm: Pages) -> None:
    right(attention("vllm_vit_flash_attn_fa3", 3, 4, 4, 37, 37, 24))
    assert not vllm.scheduled
    with pytest.raises(Unsupported):
        build(attention("vllm_vit_flash_attn_fa3", 1, 2, 2, 9, 9, 16, causal=1), "cpu")


def test_kernels_of_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusemodel.validate.measure.kernels.find_spec", lambda _: None)
    absent = facts("cpu")["missing"]
    assert set(absent) == {"vllm_flash_attn", "vllm_vit_flash_attn_fa3"}
    assert set(absent.values()) == {"vllm is not installed"}
    monkeypatch.setattr("fusemodel.validate.measure.kernels.find_spec", lambda _: object())
    assert facts("cpu")["missing"] == {}


def test_every_kernel_of_the_plan_is_known() -> None:
    planned = {e.case.kernel for g in make_plan(groups=list(GROUPS)).groups for e in g.entries} - {"idle"}
    assert planned == set(HOMES)


# The check itself, against NumPy


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, keep: np.ndarray) -> np.ndarray:
    scores = np.where(keep, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def linear_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep, q @ k.T, 0) @ v


@pytest.mark.parametrize(("written", "error"), [(softmax_attention, attention_error), (linear_attention, linear_error)])
def test_the_reference_is_right_and_sees_what_is_wrong(
    written: Callable[..., np.ndarray], error: Callable[..., float]
) -> None:
    case = Case("t", "x", "x", "fp32", 2, 4, 2, 40, 40, 8, window=11, causal=1)
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 40, 8)) for n in (4, 2, 2))
    i, j = np.indices((40, 40))
    keep = (j <= i) & (i - j < 11)
    out = np.stack([[written(q[b, h], k[b, h // 2], v[b, h // 2], keep) for h in range(4)] for b in range(2)])
    arrays = [torch.from_numpy(x) for x in (q, k, v, out)]
    assert error(case, *arrays) < 1e-12
    assert error(Case(**{**case.to_dict(), "window": 12}), *arrays) > 1e-2
    assert error(case, arrays[0], arrays[2], arrays[2], arrays[3]) > 1e-1
    arrays[3][1, 2, 3, 4] = float("nan")  # in a head that is not compared
    assert np.isnan(error(case, *arrays))


def test_sampled_positions_reach_both_ends() -> None:
    for extent in (1, 5, 32, 33, 100, 16384):
        found = spread(extent)
        assert found == sorted(set(found))
        assert (found[0], found[-1]) == (0, extent - 1)
        assert len(found) <= 34
    assert len({p % 128 for p in spread(16384)}) > 20


# The worker's answers


def ask(case: Case, **options: Any) -> list[dict[str, Any]]:
    request = {
        "case": case.to_dict(),
        "modes": ["warm", "cold"],
        "timed_ms": 1,
        "load_s": 0.01,
        "settle_s": 0.0,
        "rest_s": 0.01,
    }
    return list(answer(request | options, "cpu", HostTimer()))


def test_a_kernel_is_checked_and_timed_in_both_states_of_the_cache() -> None:
    warm, cold = ask(Case("t", "gemm", "gemm", "fp32", m=32, n=32, k=32))
    assert (warm["l2"], cold["l2"]) == ("warm", "cold")
    assert min(warm["us"]) > 0
    assert cold["launches"] == 1
    assert warm["rel_error"] < 1e-6


def test_what_a_library_raises_is_an_answer() -> None:
    (reply,) = ask(attention("sdpa-cudnn", 1, 2, 2, 16, 16, 16))
    assert (reply["failed"], reply["error"]) == ("setup", "unsupported")
    (reply,) = ask(Case("t", "gemm", "gemm", m=-1, n=2, k=2))
    assert reply["failed"] == "setup"
    (reply,) = ask(Case("t", "no-such-kernel", "x"))
    assert reply["error"] == "KeyError"


def test_a_wrong_kernel_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCE, "bf16", 1e-9)
    (reply,) = ask(Case("t", "gemm", "gemm", m=32, n=32, k=32))
    assert (reply["failed"], reply["error"]) == ("check", "wrong")
    assert "against float64" in reply["message"]


def test_load_and_rest_are_windows_of_time() -> None:
    (loaded,) = ask(Case("energy", "copy", "copy", m=1000), modes=["warm"])
    assert loaded["calls"] > 0
    assert loaded["end_s"] - loaded["begin_s"] >= 0.01
    (rest,) = ask(Case("energy", "idle", "idle"), modes=["warm"])
    assert rest["calls"] == 1


def test_a_worker_process_serves_until_its_input_ends() -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "fusemodel.validate.measure.worker", str(writing), "cpu"]
    request = {"case": Case("t", "launch", "launch").to_dict(), "modes": ["warm"], "timed_ms": 1}
    text = json.dumps(request) + "\n"
    ran = subprocess.run(command, input=text, text=True, pass_fds=[writing], cwd=ROOT, timeout=120)
    os.close(writing)
    with os.fdopen(reading) as file:
        hello, reply, done = map(json.loads, file)
    assert (ran.returncode, hello["torch"], hello["device"]) == (0, torch.__version__, "host")
    assert reply["rel_error"] < 2**-8
    assert done == {"done": True, "lost": ""}


def test_a_run_with_kernels_that_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        Case("micro", "gemm", "gemm", "bf16", m=16, n=16, k=16),
        attention("sdpa-math", 1, 2, 2, 16, 16, 16),
        attention("sdpa-efficient", 1, 2, 2, 16, 16, 16),
        Case("energy", "copy", "copy", "bf16", m=1000),
        Case("energy", "idle", "idle"),
    ]
    monkeypatch.setattr("fusemodel.validate.measure.plan.GROUPS", {"micro": ("", 1, False, lambda *_: iter(cases))})
    command = (sys.executable, "-m", "fusemodel.validate.measure.worker", "{replies}", "cpu")
    settings = Settings(tmp_path / "m.csv", minutes=60)
    report = measure(settings, command=command, pace=Pace(timed_ms=1, load_s=0.05, settle_s=0.0, rest_s=0.05))
    assert (report.groups["micro"].measured, report.total.failed, report.lost_workers) == (4, 1, 0)
    rows = {r["kernel"]: r for r in csv.DictReader(settings.out.open())}
    assert set(rows) == {"gemm", "sdpa-math", "copy", "idle"}
    low, median, high = (float(rows["gemm"][c]) for c in ("p10_us", "latency_us", "p90_us"))
    assert low <= median <= high
    assert float(rows["gemm"]["tflops"]) == pytest.approx(2 * 16**3 / median / 1e6, rel=1e-4)
    assert 0 < float(rows["gemm"]["rel_error"]) < TOLERANCE["bf16"]
    (failure,) = csv.DictReader(failures_path(settings.out).open())
    assert (failure["kernel"], failure["error"]) == ("sdpa-efficient", "unsupported")


# The machine code, which the interpreter does not make


@needs_triton
@pytest.mark.parametrize(("capability", "shared_kb"), [(80, 163), (90, 227)])
def test_kernels_compile_for_gpus_that_are_not_there(capability: int, shared_kb: int, tmp_path: Path) -> None:
    head_dim = {80: 64, 90: 128}[capability]
    command = [sys.executable, str(Path(__file__).with_name("compile_kernels.py")), str(capability), str(head_dim)]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) == 14
    assert all(k["code"] > 0 and k["shared"] <= shared_kb * 1024 for k in found)
    products = [k for k in found if k["kernel"] in ("_attention", "_store_scores", "_weigh_values", "_chunk_outputs")]
    assert all(k["wgmma"] if capability == 90 else k["mma"] for k in products)
    assert all(k["ex2"] for k in found if k["kernel"] in ("_attention", "_exp2_loop", "_split", "_softmax_rows"))
