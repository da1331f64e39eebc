"""Which points are measured, in which order, and how long each group may take."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fusemodel.errors import InputError, unknown
from fusemodel.validate.measure.case import WIDTH, Case, footprint_bytes, work

WARM, COLD = "warm", "cold"
#: Lengths, with as many sequences as make ``TOKENS`` tokens and as many heads as make ``MODEL`` features.
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
TOKENS, MODEL = 16384, 2048
#: Share of the points measured again at the end.
REPEATED = 0.1
#: Seconds that go by before the first point, and those kept for the repeated points.
START_S, REPEAT_S = 15.0, 30.0
MAX_MINUTES = 24 * 60.0
#: Seconds of steady load per energy point, after a second to settle; and of rest.
ENERGY_S, SETTLE_S, IDLE_S = 4.3, 0.7, 10.0
#: Largest part of the device's memory a case may take.
MEMORY_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan needs to know of a device; the defaults stand in where there is none."""

    sms: int = 132
    memory_bytes: int = 80 * 10**9
    assumed: bool = True
    #: Kernels that cannot be had here, each with the reason.
    missing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A case, the states of the L2 cache it is timed in, and about how long that takes."""

    case: Case
    modes: tuple[str, ...]
    estimate_s: float


@dataclass(frozen=True, slots=True)
class Group:
    """``deadline_s`` counts from the start of the run: what an earlier group leaves over, a later one may use.
    ``missing`` are kernels that cannot be had here, each with the reason and how many cases it would have had."""

    name: str
    about: str
    budget_s: float
    deadline_s: float
    entries: tuple[Entry, ...]
    too_large: tuple[Case, ...]
    missing: tuple[tuple[str, str, int], ...] = ()

    @property
    def estimate_s(self) -> float:
        return sum(e.estimate_s for e in self.entries)


@dataclass(frozen=True, slots=True)
class Plan:
    groups: tuple[Group, ...]
    machine: Machine
    budget_s: float
    seed: int

    @property
    def points(self) -> int:
        return sum(len(e.modes) for g in self.groups for e in g.entries)


Sweep = Callable[[Machine, str], Iterator[Case]]


def _tokens(length: int, head_dim: int) -> dict[str, int]:
    """Batch and heads of a length and a head dimension."""
    heads = MODEL // head_dim
    return {"batch": TOKENS // length, "heads": heads, "kv_heads": heads, "seq_q": length, "seq_kv": length,
            "head_dim": head_dim}  # fmt: skip


def _prefill(group: str, kernel: str, dtype: str, length: int, head_dim: int, causal: int, window: int = 0) -> Case:
    op = "context_attention" if causal else "encoder_attention"
    return Case(group, kernel, op, dtype, causal=causal, window=window, **_tokens(length, head_dim))


def _micro(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    yield Case("micro", "launch", "launch", dtype)
    for mib in (1, 8, 24, 128, 512, 2048):
        yield Case("micro", "copy", "copy", dtype, m=mib * 2**20 // WIDTH[dtype])
    yield Case("micro", "exp2-loop", "exp2_loop", "fp32", m=2**22, k=1024)
    yield Case("micro", "fma-loop", "fma_loop", "fp32", m=2**22, k=4096)
    for m, n, k in [(n, n, n) for n in (1024, 2048, 4096, 8192)] + [
        (16, 8192, 8192), (128, 8192, 8192), (8192, 1024, 8192), (1024, 1024, 32768),
    ]:  # fmt: skip
        yield Case("micro", "gemm", "gemm", dtype, m=m, n=n, k=k)


def _sdpa(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    for kernel in ("sdpa-flash", "sdpa-cudnn", "sdpa-efficient"):
        for head_dim in (64, 128, 256):
            for length in LENGTHS:
                for causal in (0, 1):
                    yield _prefill("sdpa", kernel, dtype, length, head_dim, causal)


def _decode(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    for kernel in ("sdpa-flash", "sdpa-cudnn", "triton-splitkv"):
        for batch in (1, 8, 32, 128):
            for keys in (1024, 8192, 65536):
                for kv_heads in (32, 8, 1):
                    yield Case("decode", kernel, "generation_attention", dtype, batch, 32, kv_heads, 1, keys, 128)


def _stored(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    for head_dim in (64, 128):
        for length in LENGTHS[:-1]:
            for causal in (0, 1):
                yield _prefill("stored", "sdpa-math", dtype, length, head_dim, causal)
            for kernel, op in (("bmm", "bmm_qk"), ("softmax", "softmax"), ("bmm", "bmm_pv")):
                yield Case("stored", kernel, op, dtype, **_tokens(length, head_dim))


def _triton(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    for head_dim in (64, 128):
        for length in LENGTHS:
            for kernel in ("triton-1pass", "triton-2pass", "triton-3pass", "triton-3pass-recompute"):
                yield _prefill("triton", kernel, dtype, length, head_dim, 0)
            yield _prefill("triton", "triton-1pass", dtype, length, head_dim, 1)
            yield Case("triton", "triton-linear-chunked", "linear_attention", dtype, causal=1,
                       **_tokens(length, head_dim))  # fmt: skip


def _waves(machine: Machine, dtype: str) -> Iterator[Case]:
    """One tile of queries per head, so that thread blocks are heads: around 1, 2 and 3 on every multiprocessor."""
    counts = {machine.sms * i // 4 for i in range(1, 13)} | {machine.sms * i + 1 for i in (1, 2, 3)}
    for kernel in ("triton-1pass", "sdpa-flash"):
        for heads in sorted(counts):
            yield Case("waves", kernel, "encoder_attention", dtype, 1, heads, heads, 128, 8192, 128)


def _flex(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    for head_dim in (64, 128):
        for length in (4096, 16384):
            for window in (0, 256, 1024, 4096):
                if window < length:
                    yield _prefill("flex", "flex", dtype, length, head_dim, 1, window)


def _energy(machine: Machine, dtype: str) -> Iterator[Case]:
    del machine
    yield Case("energy", "idle", "idle", dtype)
    for m, n, k in ((8192, 8192, 8192), (4096, 4096, 4096), (1024, 1024, 32768)):
        yield Case("energy", "gemm", "gemm", dtype, m=m, n=n, k=k)
    for mib in (512, 2048):
        yield Case("energy", "copy", "copy", dtype, m=mib * 2**20 // WIDTH[dtype])
    yield Case("energy", "exp2-loop", "exp2_loop", "fp32", m=2**24, k=1024)
    yield _prefill("energy", "sdpa-flash", dtype, 8192, 64, 0)
    yield _prefill("energy", "sdpa-flash", dtype, 8192, 128, 0)
    yield _prefill("energy", "sdpa-flash", dtype, 8192, 128, 1)
    yield _prefill("energy", "sdpa-cudnn", dtype, 8192, 128, 0)
    yield _prefill("energy", "triton-3pass", dtype, 4096, 128, 0)
    yield Case("energy", "sdpa-flash", "generation_attention", dtype, 32, 32, 8, 1, 8192, 128)


#: Tokens and work of a call, and bytes of a paged cache, at most: what more would tell, less tells too.
_MOST_TOKENS, _MOST_FLOP, _MOST_CACHE = 2**17, 2e13, 40e9
#: Extents that serving meets, from which the points of ``serving`` are drawn, and how many of each kind.
_BATCHES = tuple(2**i for i in range(12))
_HEADS, _KEY_HEADS, _HEAD_DIMS = (4, 8, 12, 16, 24, 32, 40, 48, 64), (1, 2, 4, 8), (64, 128, 64, 128, 256)
_PREFILLS = (16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 12288, 16384)
_CACHES = tuple(2**i for i in range(4, 18))
_IMAGES = (64, 256, 400, 576, 1024, 1500, 2304, 3136, 4096, 6400, 9216, 12544, 16384, 32768, 65536)
_PREFILL_POINTS, _CACHE_POINTS, _IMAGE_POINTS = 220, 240, 120


def _serving(machine: Machine, dtype: str) -> Iterator[Case]:
    """Attention through a library for serving: prefill and decode from a paged cache, and vision encoders without one.
    Too many shapes matter for all of them to be timed: the same draw everywhere, whatever the seed of the order."""
    del machine
    draw = random.Random("flash" + "3")  # what the group was called when the tables that ship were drawn

    def grouped() -> tuple[int, int]:
        heads = draw.choice(_HEADS)
        return heads, draw.choice([n for n in (*_KEY_HEADS, heads) if heads % n == 0])

    def prefill() -> Case:
        length, head_dim, window = draw.choice(_PREFILLS), draw.choice(_HEAD_DIMS), draw.choice((0, 0, 128))
        shape = (draw.choice(_BATCHES[:9]), *grouped(), length, length, head_dim)
        return Case("serving", "vllm_flash_attn", "context_attention", dtype, *shape, window, 1)

    def decode() -> Case:
        keys, head_dim, window = draw.choice(_CACHES), draw.choice(_HEAD_DIMS), draw.choice((0, 0, 0, 128))
        return Case("serving", "vllm_flash_attn", "generation_attention", dtype, draw.choice(_BATCHES), *grouped(), 1,
                    keys, head_dim, window)  # fmt: skip

    def encoder() -> Case:
        length, heads = draw.choice(_IMAGES), draw.choice((1, 2, 4, 5, 8, 10, 12, 14, 16, 20, 24, 32))
        shape = (draw.choice(_BATCHES[:7]), heads, heads, length, length, draw.choice((64, 72, 80, 128)))
        return Case("serving", "vllm_vit_flash_attn_fa3", "encoder_attention", dtype, *shape)

    for some, count in ((prefill, _PREFILL_POINTS), (decode, _CACHE_POINTS), (encoder, _IMAGE_POINTS)):
        found: dict[Case, None] = {}
        while len(found) < count:
            case = some()
            little = case.batch * case.seq_q <= _MOST_TOKENS and work(case).flop <= _MOST_FLOP
            if little and footprint_bytes(case) <= _MOST_CACHE:
                found[case] = None
        yield from found


def _bandwidth(machine: Machine, dtype: str) -> Iterator[Case]:
    """Reads, writes, both, and both with an exponential each, of single precision, in caches and in memory."""
    del machine, dtype
    for mib in (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096):
        for name, op in (("max", "read"), ("fill", "fill"), ("copy", "copy"), ("exp2", "exp2")):
            yield Case("bandwidth", f"torch-{name}", op, "fp32", m=mib * 2**20 // WIDTH["fp32"])


#: Name: what it is, seconds of an eight-minute run, whether the L2 cache is also timed cold, the points.
GROUPS: dict[str, tuple[str, float, bool, Sweep]] = {
    "micro": ("launch floor, copies, exp2 and FMA loops, matrix products", 10, True, _micro),
    "sdpa": ("fused back-ends of PyTorch's attention", 60, True, _sdpa),
    "decode": ("one query per sequence, grouped heads", 75, True, _decode),
    "stored": (
        "scores in memory: the plain back-end, and its three parts one by one",
        28,
        True,
        _stored,
    ),
    "triton": ("this project's kernels in 1, 2 and 3 passes, and chunked linear attention", 74, True, _triton),
    "waves": ("thread blocks around multiples of the multiprocessors", 16, False, _waves),
    "flex": ("compiled masks: causal and windows", 65, True, _flex),
    "energy": ("steady load, by the device's energy counter, and rest", 78, False, _energy),
    "serving": ("through a library for serving: prefill and decode from its cache, encoders", 300, False, _serving),
    "bandwidth": ("reads, fills, copies and exponentials of 1 MiB to 4 GiB", 30, False, _bandwidth),
}
#: Groups that are measured only where they are named.
NAMED_ONLY = ("serving", "bandwidth")


def make_plan(
    machine: Machine | None = None,
    *,
    groups: Sequence[str] = (),
    minutes: float = 8.0,
    dtype: str = "bf16",
    seed: int = 0,
    started_s: float | None = None,
) -> Plan:
    """The points of some groups (by default all but ``NAMED_ONLY``), each group in an order drawn from ``seed``, with a
    share of ``minutes`` in proportion to the seconds it is given in a run of all of them. Of that time ``started_s``
    have gone by (a usual start where it is not given).

    InputError for an unknown group or dtype, and for minutes that are not a usable positive number."""
    for name in groups:
        if name not in GROUPS:
            raise unknown("group", name, GROUPS)
    if dtype not in ("bf16", "fp16"):
        raise unknown("dtype", dtype, ["bf16", "fp16"])
    if not 0 < minutes <= MAX_MINUTES:
        raise InputError(
            f"--minutes {minutes:g} is no time to measure in", expected=f"above 0, at most {MAX_MINUTES:g}"
        )
    machine = machine or Machine()
    chosen = [name for name in GROUPS if name in groups or (not groups and name not in NAMED_ONLY)]
    budget_s = 60 * minutes
    shares = REPEAT_S + sum(GROUPS[name][1] for name in chosen)
    at = budget_s * START_S / (START_S + shares) if started_s is None else started_s
    scale, planned, missing = max(0.0, budget_s - at) / shares, [], dict(machine.missing)
    for name in chosen:
        about, seconds, both, sweep = GROUPS[name]
        at += scale * seconds
        fits, too_large = [], []
        absent: Counter[str] = Counter()
        for case in sweep(machine, dtype):
            if case.kernel in missing:
                absent[case.kernel] += 1
                continue
            fits.append(case) if footprint_bytes(case) <= MEMORY_SHARE * machine.memory_bytes else too_large.append(
                case
            )
        random.Random(f"{seed}:{name}").shuffle(fits)
        fits.sort(key=lambda c: c.op != "idle")  # the others' energy is told above it
        modes = (WARM, COLD) if both else (WARM,)
        entries = tuple(Entry(c, modes, estimate_s(c, modes)) for c in fits)
        left_out = tuple((kernel, missing[kernel], n) for kernel, n in absent.items())
        planned.append(Group(name, about, scale * seconds, at, entries, tuple(too_large), left_out))
    return Plan(tuple(planned), machine, budget_s, seed)


#: Rates of the order of a data-centre GPU: they only foretell how long a plan takes, and no result depends on them.
_FLOP_PER_S, _BYTES_PER_S, _EXPS_PER_S = 3e14, 2e12, 2e12
_PLAIN_SLOWDOWN = 8
#: Seconds to set a point up: inputs and the check; more where a kernel is compiled, by the name it begins with.
_SETUP_S, _COMPILE_S = 0.12, {"flex": 4.0, "triton": 0.5, "sdpa-cudnn": 0.4}


def estimate_s(case: Case, modes: Sequence[str]) -> float:
    """About how long a case takes to set up, check and time."""
    from fusemodel.validate.measure.timing import MIN_SAMPLES, TIMED_MS, WARMUP_MS

    if case.op == "idle":
        return IDLE_S
    need = work(case)
    kernel = max(need.flop / _FLOP_PER_S, need.bytes / _BYTES_PER_S, need.exps / _EXPS_PER_S) + 1e-5
    kernel *= _PLAIN_SLOWDOWN if case.kernel == "sdpa-math" else 1
    setup = _SETUP_S + footprint_bytes(case) / 2e11
    setup += sum(s for name, s in _COMPILE_S.items() if case.kernel.startswith(name))
    if case.group == "energy":
        return setup + ENERGY_S + SETTLE_S
    return setup + len(modes) * (max(WARMUP_MS / 1e3, 3 * kernel) + max(TIMED_MS / 1e3, MIN_SAMPLES * kernel) + 0.03)


def repeats(entries: Sequence[Entry], seed: int) -> list[Entry]:
    """A tenth of some entries, drawn from ``seed``, in an order of its own: what is measured again for drift. Points
    that are slow to set up are not drawn."""
    cheap = [e for e in entries if e.case.group != "energy" and e.case.kernel != "flex"]
    count = min(len(cheap), max(1, round(REPEATED * len(cheap)))) if cheap else 0
    return random.Random(f"{seed}:again").sample(cheap, count)
