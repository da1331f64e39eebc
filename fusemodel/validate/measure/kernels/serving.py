"""Attention as a library for serving (vLLM) calls it, where that is installed: nothing of it is compiled or shipped."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import Launch, Unsupported, dtype_of, normal
from fusemodel.validate.measure.kernels.reference import attention_error

#: Positions of a page of the cache, vLLM's own choice.
PAGE = 16
#: Most parts that keys are divided into where vLLM captures a graph (flash_attn_max_num_splits_for_cuda_graph), and the
#: tokens up to which it does (max_cudagraph_capture_size); beyond, the kernel's own heuristic decides.
GRAPH_SPLITS, GRAPH_TOKENS = 32, 512


def _library() -> tuple[Any, str]:
    """The functions that vLLM calls, and the version; where the kernels were not built for this device or PyTorch, the
    first launch says so."""
    import vllm.vllm_flash_attn as library

    try:
        return library, version("vllm")
    except PackageNotFoundError:
        return library, "?"


def _starts(batch: int, length: int, device: str) -> Any:
    """Where each sequence begins among all tokens, and where the last ends."""
    import torch

    return torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=device)


@dataclass(frozen=True, slots=True)
class Paged:
    """Keys or values in pages [pages, PAGE, Hkv, d] that lie in any order; ``pages[b, h]`` are those of one head."""

    cache: Any
    table: Any
    length: int

    def __getitem__(self, at: tuple[int, int]) -> Any:
        b, h = at
        return self.cache[self.table[b].long(), :, h].flatten(0, 1)[: self.length]


def paged(case: Case, device: str) -> Launch:
    """Prefill of whole sequences, or one query each, reading keys and values from a paged cache. The schedule is made
    beforehand, as vLLM makes it once for all layers, and so not timed."""
    import torch

    library, release = _library()
    b, d, dtype = case.batch, case.head_dim, dtype_of(case)
    q = normal(device, dtype, b * case.seq_q, case.heads, d)
    out = torch.full_like(q, math.nan)
    each = -(-case.seq_kv // PAGE)
    cache = normal(device, dtype, 2, b * each, PAGE, case.kv_heads, d)
    order = torch.Generator(device=device).manual_seed(b * each)
    table = torch.randperm(b * each, generator=order, device=device).to(torch.int32).view(b, each)
    lengths = torch.full((b,), case.seq_kv, dtype=torch.int32, device=device)
    starts = _starts(b, case.seq_q, device)
    window = (case.window - 1, 0) if case.window else (-1, -1)
    splits = GRAPH_SPLITS if b * case.seq_q <= GRAPH_TOKENS else 0
    schedule = library.get_scheduler_metadata(
        batch_size=b, max_seqlen_q=case.seq_q, max_seqlen_k=case.seq_kv, num_heads_q=case.heads,
        num_heads_kv=case.kv_heads, headdim=d, cache_seqlens=lengths, qkv_dtype=dtype, cu_seqlens_q=starts,
        page_size=PAGE, causal=True, window_size=window, num_splits=splits,
    )  # fmt: skip

    def run() -> Any:
        library.flash_attn_varlen_func(
            q=q, k=cache[0], v=cache[1], out=out, cu_seqlens_q=starts, max_seqlen_q=case.seq_q, seqused_k=lengths,
            max_seqlen_k=case.seq_kv, softmax_scale=d**-0.5, causal=True, window_size=list(window), block_table=table,
            scheduler_metadata=schedule, fa_version=3, num_splits=splits,
        )  # fmt: skip
        return out

    def error(found: Any) -> float:
        k, v = (Paged(part, table, case.seq_kv) for part in cache)
        return attention_error(case, _by_head(q, b), k, v, _by_head(found, b))

    return Launch(run, error, f"vllm={release} page={PAGE} splits={splits or 'heuristic'}")


def varlen(case: Case, device: str) -> Launch:
    """Every query sees every key of its sequence; sequences one after the other, without a cache."""
    import torch

    if case.causal or case.window:
        raise Unsupported("causal attention reads a cache here")
    library, release = _library()
    b, d, dtype = case.batch, case.head_dim, dtype_of(case)
    q = normal(device, dtype, b * case.seq_q, case.heads, d)
    k, v = normal(device, dtype, 2, b * case.seq_kv, case.kv_heads, d)
    out = torch.full_like(q, math.nan)
    starts, key_starts = (_starts(b, length, device) for length in (case.seq_q, case.seq_kv))

    def run() -> Any:
        library.flash_attn_varlen_func(
            q, k, v, cu_seqlens_q=starts, cu_seqlens_k=key_starts, max_seqlen_q=case.seq_q, max_seqlen_k=case.seq_kv,
            softmax_scale=d**-0.5, causal=False, out=out, fa_version=3,
        )  # fmt: skip
        return out

    def error(found: Any) -> float:
        return attention_error(case, *(_by_head(x, b) for x in (q, k, v, found)))

    return Launch(run, error, f"vllm={release}")


def _by_head(tokens: Any, batch: int) -> Any:
    """[B x S, H, d] as [B, H, S, d]."""
    return tokens.unflatten(0, (batch, -1)).transpose(1, 2)
