"""What is timed: one kernel at one shape, with the work that shape asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

#: Bytes of an element.
WIDTH = {"bf16": 2, "fp16": 2, "fp32": 4}

#: Operations on heads, queries and keys; the others are on matrices (M, N, K) or vectors of M elements.
ATTENTION = ("context_attention", "encoder_attention", "generation_attention")
#: Parts of attention whose scores lie in memory, timed one by one.
PARTS = ("bmm_qk", "softmax", "bmm_pv")

#: Transfers of the whole score matrix, beyond inputs and outputs, of kernels known to write the scores to memory.
SCORE_TRANSFERS = {"triton-3pass": 4}

#: Steps of a chunk of linear attention.
CHUNK = 128


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel at a shape. ``window`` is the number of keys a query sees, itself included (0: all of them); ``m``,
    ``n`` and ``k`` are the extents of a matrix product, ``m`` the elements of a vector and ``k`` its steps."""

    group: str
    kernel: str
    op: str
    dtype: str = "bf16"
    batch: int = 1
    heads: int = 0
    kv_heads: int = 0
    seq_q: int = 0
    seq_kv: int = 0
    head_dim: int = 0
    window: int = 0
    causal: int = 0
    m: int = 0
    n: int = 0
    k: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Case:
        return Case(**{f.name: data[f.name] for f in fields(Case)})

    def __str__(self) -> str:
        if self.heads:
            heads = f"{self.heads}" if self.heads == self.kv_heads else f"{self.heads}/{self.kv_heads}"
            length = f"{self.seq_q}" if self.seq_q == self.seq_kv else f"{self.seq_q}x{self.seq_kv}"
            shape = f"b{self.batch} h{heads} s{length} d{self.head_dim}"
            shape += (" causal" if self.causal else "") + (f" window {self.window}" if self.window else "")
        else:
            shape = "x".join(str(n) for n in (self.m, self.n, self.k) if n)
        return f"{self.kernel} {self.op} {shape}".strip()


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, exponentials, and bytes moved if each launch reads its inputs and writes its outputs
    once. Absent points (causal, windows) are not counted, and neither is work a kernel repeats."""

    flop: int
    exps: int
    bytes: int


def pairs(seq_q: int, seq_kv: int, causal: bool, window: int) -> int:
    """Query-key pairs of one head: query i sees the keys j <= i (causal) with i - j < window (if one is given); a
    single query is the last of its sequence."""
    if not causal:
        if window and seq_q > 1:
            raise ValueError("a window is defined for causal attention only")
        return seq_q * min(seq_kv, window or seq_kv)
    if seq_q != seq_kv:
        raise ValueError("causal attention is defined for as many queries as keys")
    w = min(window or seq_q, seq_q)
    return w * (w + 1) // 2 + (seq_q - w) * w


def work(case: Case) -> Work:
    """Operations and compulsory traffic of a case."""
    width = WIDTH[case.dtype]
    if case.op in ATTENTION:
        return _attention(case, width)
    rows, keys, d = case.batch * case.heads * case.seq_q, case.seq_kv, case.head_dim
    scores, queries, kept = rows * keys, rows * d, case.batch * case.kv_heads * keys * d
    match case.op:
        case "bmm_qk":
            return Work(2 * scores * d, 0, width * (queries + kept + scores))
        case "softmax":
            return Work(4 * scores, scores, width * 2 * scores)
        case "bmm_pv":
            return Work(2 * scores * d, 0, width * (scores + kept + queries))
        case "linear_attention":
            within = case.batch * case.heads * keys * (CHUNK + 1) // 2
            return Work(4 * queries * d + 4 * within * d, 0, width * (2 * queries + 2 * kept))
        case "gemm":
            m, n, k = case.m, case.n, case.k
            return Work(2 * m * n * k, 0, width * (m * k + k * n + m * n))
        case "copy":
            return Work(0, 0, 2 * width * case.m)
        case "read" | "fill":
            return Work(0, 0, width * case.m)
        case "exp2":
            return Work(0, case.m, 2 * width * case.m)
        case "exp2_loop":
            return Work(0, case.m * case.k, 2 * width * case.m)
        case "fma_loop":
            return Work(2 * case.m * case.k, 0, 2 * width * case.m)
    return Work(0, 0, 0)


def _attention(case: Case, width: int) -> Work:
    seen = case.batch * case.heads * pairs(case.seq_q, case.seq_kv, bool(case.causal), case.window)
    queries = case.batch * case.heads * case.seq_q * case.head_dim
    stored = min(case.seq_kv, case.window) if case.window and case.seq_q == 1 else case.seq_kv
    keys = case.batch * case.kv_heads * stored * case.head_dim
    spilled = SCORE_TRANSFERS.get(case.kernel, 0) * case.batch * case.heads * case.seq_q * case.seq_kv
    return Work(4 * seen * case.head_dim, seen, width * (2 * queries + 2 * keys + spilled))


def footprint_bytes(case: Case) -> int:
    """Device memory a case needs, roughly: inputs, outputs, and scores where they are stored."""
    scores = case.batch * case.heads * case.seq_q * case.seq_kv
    # The plain back-end keeps scores, their masked copy and weights in single precision.
    stored = {"sdpa-math": 12, "triton-3pass": WIDTH[case.dtype]}.get(case.kernel, 0)
    return work(replace(case, kernel="", window=0)).bytes + stored * scores


def matrix(case: Case) -> tuple[int, int, int]:
    """M, N and K of a product (per batch and head for parts of attention); zeros elsewhere."""
    if case.op in PARTS:
        inner = {"bmm_qk": (case.seq_kv, case.head_dim), "softmax": (case.seq_kv, 0)}
        n, k = inner.get(case.op, (case.head_dim, case.seq_kv))
        return case.seq_q, n, k
    return case.m, case.n, case.k
