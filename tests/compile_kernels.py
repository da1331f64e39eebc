"""Compiles the Triton kernels for a GPU that need not be there, with the settings they are launched with.

python compile_kernels.py CAPABILITY HEAD_DIM        prints one JSON object for each kernel and setting
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fusemodel.validate.measure.case import CHUNK
from fusemodel.validate.measure.kernels import decode, linear, loops, passes

HALF, SINGLE, INT, REAL = "*bf16", "*fp32", "i32", "fp32"
#: Types of arguments by name; whatever is named neither here nor among the constants of a launch is missing.
NAMES = {
    HALF: "Q K V O S P BEFORE",
    SINGLE: "TOP TOTAL PART STATE X Y",
    REAL: "scale slope shift",
    INT: "n_heads share seq_q seq_kv per_split splits seq chunks size n steps",
}
TYPES = {name: kind for kind, names in NAMES.items() for name in names.split()}


def compiled(kernel: Any, capability: int, warps: int = 4, stages: int = 3, **constants: Any) -> dict[str, Any]:
    """Machine code and shared memory of a kernel with pointers and extents divisible by 16."""
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else TYPES[n] for n in names}
    even = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n] in (HALF, SINGLE, INT)}
    source = ASTSource(
        fn=kernel, signature=signature, constexprs={(names.index(n),): v for n, v in constants.items()}, attrs=even
    )
    options = {"num_warps": warps, "num_stages": stages}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = str(found.asm["ptx"])
    return {"kernel": kernel.__name__, "constants": constants, "shared": found.metadata.shared,
            "code": len(found.asm["cubin"]), "wgmma": "wgmma" in ptx, "mma": "mma.sync" in ptx,
            "ex2": "ex2.approx" in ptx}  # fmt: skip


def main() -> None:
    capability, d = int(sys.argv[1]), int(sys.argv[2])

    def show(*arguments: Any, **constants: Any) -> None:
        print(json.dumps(compiled(arguments[0], capability, *arguments[1:], **constants)), flush=True)  # noqa: T201

    rows, cols, warps, stages = passes._settings(d, "cuda")[d == 128]
    for count, causal in ((1, True), (2, False), (3, False)):
        show(passes._attention, warps, stages, D=d, BM=rows, BN=cols, CAUSAL=causal, PASSES=count)
    show(passes._store_scores, warps, D=d, BM=rows, BN=cols)
    show(passes._weigh_values, warps, stages, D=d, BM=rows, BN=cols)
    for kernel in (linear._chunk_states, linear._chunk_outputs):
        show(kernel, 4, 1, D=d, C=CHUNK, BV=64)
    show(passes._softmax_rows, 8, WIDTH=16384)
    for group in (16, 32):
        show(decode._split, 4, 3, D=d, GROUP=group, BN=64)
    show(decode._merge, D=d, WIDTH=128)
    show(linear._running_sum, BLOCK=1024)
    show(loops._exp2_loop, BLOCK=loops.BLOCK)
    show(loops._fma_loop, BLOCK=loops.BLOCK)


if __name__ == "__main__":
    main()
