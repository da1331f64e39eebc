"""Every kind of bad input: one message with the place, what was expected and the nearest name; exit code 2.

Each case is a copy of a library file with something replaced; ``¦`` stands where the message must point.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import changed, fusemodel, refused, text_of, write

THREE, ONE = "attention-3pass", "attention-1pass"

CASCADES = {
    "operator ???": (THREE, ("sum[m](SN[m, p])", "SN[m, p] ¦??? p"), "unexpected character '?'", "expected `(`"),
    "operator": (THREE, ("exp(QK", "¦exq(QK"), "unknown operator 'exq'", "expected one of abs", "did you mean 'exp'?"),
    "operands": (THREE, ("exp(QK[m, p]", "¦exp(1, QK[m, p]"), "'exp' has 2 operands", "expected 1"),
    "reduction": (THREE, ("max[m]", "¦maxx[m]"), "unknown reduction 'maxx'", "did you mean 'max'?"),
    "reduced rank": (THREE, ("max[m]", "max[¦mm]"), "unknown rank 'mm'", "did you mean 'm'?"),
    "field": (THREE, ("batch:", "¦bacth:"), "unknown field 'bacth'", "expected one of", "did you mean 'batch'?"),
    "no field": (THREE, ("outputs: [AV]\n", ""), "field 'outputs' is missing"),
    "tensor": (THREE, ("SN[m, p] / SD", "¦SM[m, p] / SD"), "unknown tensor 'SM'", "did you mean 'SN'?"),
    "output": (THREE, ("outputs: [AV]", "outputs: ¦[AW]"), "unknown output tensor 'AW'", "did you mean 'A'?"),
    "rank of an input": (THREE, ("K: [e, m]", "K: [e, ¦mm]"), "unknown rank 'mm'", "did you mean 'm'?"),
    "rank in an index": (THREE, ("K[e, m]\n", "K[e, ¦pp]\n"), "unknown rank 'pp'", "did you mean 'p'?"),
    "rank of a test": (THREE, ("test: {b: 2", "test: {¦bb: 2"), "unknown rank 'bb'", "did you mean 'b'?"),
    "too few indices": (THREE, ("= Q[e, p]", "= ¦Q[e]"), "'Q' has 1 indices", "expected 2: [e, p]"),
    "too many indices": (THREE, ("= Q[e, p]", "= ¦Q[e, p, m]"), "'Q' has 3 indices", "expected 2: [e, p]"),
    "zero": (THREE, ("m: 1024", "m: ¦0"), "rank 'm' is 0", "expected at least 1"),
    "negative": (THREE, ("m: 1024", "m: ¦-4"), "rank 'm' is -4", "expected at least 1"),
    "NaN": (THREE, ("m: 1024", "m: ¦.nan"), "rank 'm' is nan", "expected a whole number"),
    "infinite": (THREE, ("m: 1024", "m: ¦.inf"), "rank 'm' is inf", "expected a whole number"),
    "huge": (THREE, ("m: 1024", "m: ¦1e30"), "rank 'm' is 1000000000", "expected at most 2^40"),
    "5000 digits": (THREE, ("m: 1024", "m: ¦" + 5000 * "9"), "a number of 5000 characters", "expected at most"),
    "fraction": (THREE, ("m: 1024", "m: ¦3 / 2"), "'m' = 3 / 2 is 1.5", "expected sizes that divide"),
    "division by zero": (THREE, ("m: 1024", "m: ¦4 / 0"), "division by zero in `4 / 0`"),
    "cyclic extents": (THREE, ("p: 1024, m: 1024", "p: ¦m, m: p"), "p -> m -> p"),
    "ragged": (ONE, ("m: 1024", "m: ¦1024"), ("ceil(m / m0)", "9"), "9 x 256 = 2304", "expected `m1: m / m0`"),
    "cycle": (THREE, ("SD[p]", "¦SD[p]"), ("(SN[m, p])", "(A[m, p])"), "cyclic definition: SD -> A -> SD",
              "expected a step"),
    "reads itself": (THREE, ("A[m, p]  = SN", "¦A[m, p]  = A"), "cyclic definition: A -> A"),
    "twice": (THREE, ("A[m, p]  = SN", "¦SN[m, p] = SN"), "tensor 'SN' is defined twice"),
    "unused": (THREE, ("V: [f, m]}", "V: [f, m], ¦W: [f]}"), "input 'W' is not used"),
    "no step": (ONE, ("RM[0, p]", "¦RX[0, p]"), "'RX' is started at index 0 but has no step"),
    "end of no iteration": (ONE, ("= RNV[M1, f, p]", "= ¦SPNV[M1, f, p]"), "index M1", "expected 0 <= m1 < M1"),
    "YAML": (THREE, ("ranks: {b", "ranks: {{b"), ("batch:", "¦batch:"), "not valid YAML", "from line 5"),
    "tab": (THREE, ("batch:", "¦\tbatch:"), "not valid YAML", "cannot start any token"),
    "key twice": (THREE, ("outputs: [AV]\n", "outputs: [AV]\n¦outputs: [AV]\n"), "key 'outputs' appears twice"),
    "tag": (THREE, ("name: a", "name: ¦!!python/object:os.system a"), "is not allowed", "expected plain YAML"),
}  # fmt: skip

CLOUD = "fusemax-cloud"

ARCHITECTURES = {
    "no unit": (CLOUD, ("clock: 940 MHz", "clock: ¦940"), "940 has no unit", "expected a frequency such as `940 MHz`"),
    "wrong kind of unit": (CLOUD, ("940 MHz", "¦940 MiB"), "'940 MiB' is not a frequency",
                           "expected a frequency such as"),
    "unknown unit": (CLOUD, ("940 MHz", "¦940 Mhz"), "unknown unit 'Mhz'", "expected a frequency",
                     "did you mean 'MHz'?"),
    "unit of energy": (CLOUD, ("8.3395 pJ", "¦8.3395 mm^2"), "is not an energy",
                       "expected an energy such as `17.2 pJ`"),
    "code for a unit": (CLOUD, ("940 MHz", "¦940 __import__('os')"), "unknown unit"),
    "negative": (CLOUD, ("940 MHz", "¦-940 MHz"), "'-940 MHz' is not positive and finite", "expected a frequency"),
    "zero": (CLOUD, ("512 B", "¦0 B"), "'0 B' is not positive and finite", "expected bytes"),
    "NaN": (CLOUD, ("940 MHz", "¦nan MHz"), "'nan MHz' is not positive and finite"),
    "infinite": (CLOUD, ("940 MHz", "¦1e400 MHz"), "'1e400 MHz' is not positive and finite"),
    "huge": (CLOUD, ("940 MHz", "¦1e300 THz"), "'1e300 THz' is too large to compute with"),
    "field": (CLOUD, ("clock:", "¦clok:"), "unknown field 'clok'", "expected one of about", "did you mean 'clock'?"),
    "field of a level": (CLOUD, ("bandwidth:", "¦bandwith:"), "unknown field 'bandwith'", "did you mean 'bandwidth'?"),
    "field of an operation": (CLOUD, ("{as: 6", "{¦az: 6"), "unknown field 'az'", "did you mean 'as'?"),
    "no field": (CLOUD, ("clock: 940 MHz\n", ""), "field 'clock' is missing", "expected `clock: ...`"),
    "no size": (CLOUD, ("    kind: sram\n    size: 16 MiB\n", "    ¦kind: sram\n"), "no size",
                "expected `size: 16 MiB`"),
    "kind": (CLOUD, ("kind: sram", "kind: ¦sramm"), "'kind' is 'sramm'", "expected 'dram', 'sram'",
             "did you mean 'sram'?"),
    "empty array": (CLOUD, ("[256, 256]", "[256, ¦0]"), "'shape[1]' is 0", "expected more than 0"),
    "part of an array": (CLOUD, ("[256, 256]", "[256, ¦2.5]"), "'shape[1]' is 2.5", "expected a whole number"),
    "true array": (CLOUD, ("[256, 256]", "[256, ¦true]"), "'shape[1]' is True", "expected a whole number"),
    "shape": (CLOUD, ("[256, 256]", "¦256"), "'shape' is 256", "expected a list"),
    "dimensions": (CLOUD, ("[256, 256]", "¦[1, 1, 1, 1, 1]"), "expected at most 4 of them"),
    "operation": (CLOUD, ("6 mac", "¦6 mak"), "unknown operation 'mak'", "did you mean 'max'?"),
    "count of operations": (CLOUD, ("6 mac", "¦six mac"), "'six mac' is not a number of operations", "such as `6 mac`"),
    "no operations": (CLOUD, ("6 mac", "¦0 mac"), "'0 mac' is not a number of operations", "expected more than 0"),
    "itself": (CLOUD, ("6 mac", "¦6 exp"), "'exp' is defined by itself"),
    "said twice": (CLOUD, ("6 mac", "6 mac, ¦energy: 1 pJ"), "'energy' stands beside 'as'", "expected one of the two"),
    "cycles": (CLOUD, ("{energy: 8", "{cycles: ¦0, energy: 8"), "'cycles' is 0", "expected more than 0"),
    "NaN cycles": (CLOUD, ("{energy: 8", "{cycles: ¦.nan, energy: 8"), "'cycles' is nan", "expected a finite number"),
    "dimension": (CLOUD, ("reduce: [y]", "reduce: [¦z]"), "unknown dimension 'z'", "expected one of x, y"),
    "registers": (CLOUD, ("words: 12", "words: ¦0"), "'words' is 0", "expected more than 0"),
    "level and unit": (CLOUD, ("  array_2d:", "  ¦dram:"), "'dram' names a level and a unit"),
}  # fmt: skip

FUSED, BEST, FLAT, LAYER = "fusemax", "flat-best", "flat", "layer-fusemax"

MAPPINGS = {
    "field": (FUSED, ("interleave:", "¦interleaved:"), "unknown field 'interleaved'", "did you mean 'interleave'?"),
    "cascade": (FUSED, ("attention-1pass", "¦attention-1pas"), "unknown cascade", "did you mean 'attention-1pass'?"),
    "file of a cascade": (FUSED, ("attention-1pass", "¦./bda.yaml"), "no such file: './bda.yaml'",
                          "did you mean 'bad.yaml'?"),
    "directory": (FUSED, ("attention-1pass", "¦./"), "'./' is a directory", "expected a YAML file"),
    "arch": (FUSED, ("fusemax-cloud", "¦fusemax-clod"), "unknown arch", "did you mean 'fusemax-cloud'?"),
    "level": (FUSED, ("global_buffer:", "¦global_bufer:"), "unknown level", "dram, global_buffer",
              "mean 'global_buffer'?"),
    "unit": (FUSED, ("array_2d", "¦aray_2d"), "unknown unit 'aray_2d'", "array_1d, array_2d",
             "did you mean 'array_2d'?"),
    "dimension": (FUSED, ("y: m0}, l", "¦z: m0}, l"), "unknown dimension 'z'", "expected one of x, y"),
    "spatial rank": (FUSED, ("{x: p0, y: m0}, l", "{x: ¦p9, y: m0}, l"), "unknown rank 'p9'", "did you mean 'p'?"),
    "rank of a loop": (FUSED, ("loops: [e]", "loops: [¦ee]"), "unknown rank 'ee'", "did you mean 'e'?"),
    "loop": (FUSED, ("m1, p1]", "m1, ¦q1]"), "unknown rank 'q1'", "did you mean 'p1'?"),
    "loop twice": (FUSED, ("m1, p1]", "m1, ¦p2]"), "rank 'p2' stands twice"),
    "loop of another": (FUSED, ("  QK:", "  ¦QK:"), ("loops: [e]", "loops: [f]"), "'QK' has no rank 'f'",
                        "expected one of b, e, h"),
    "spatial twice": (FUSED, ("  QK:", "  ¦QK:"), ("y: m0}, l", "y: p0}, l"), "'p0' of 'QK' stands twice"),
    "spatial and loop": (FUSED, ("  QK:", "  ¦QK:"), ("m1, p1]", "m1, p1, p0]"), "'p0' of 'QK' stands twice"),
    "Einsum": (FUSED, ("  LM:", "  ¦LMM:"), "unknown Einsum 'LMM'", "expected one of AV", "did you mean 'LM'?"),
    "not bound": (FUSED, ("bind:\n  QK:", "bind:\n  ¦QK:"), ("RM, PRM, SPD", "RM, SPD"), (", PRM, SPD]", ", SPD]"),
                  "PRM is not bound", "expected an entry in `bind`"),
    "scheduled, not bound": (FUSED, ("  RM, PRM", "  PRM"), ("- [RM]", "- ¦[RM]"), "'RM' is scheduled but not bound"),
    "bound twice": (FUSED, ("  RM, PRM", "  ¦LM, RM, PRM"), "'LM' is bound twice"),
    "scheduled twice": (FUSED, ("- [RM]", "- ¦[RM, LM]"), "'LM' is scheduled twice"),
    "not scheduled": (FUSED, ("- [QK, LM, ", "¦- [QK, "), "LM is not in the schedule"),
    "Einsum in the schedule": (FUSED, ("- [RM]", "- ¦[RMM]"), "unknown Einsum in the schedule", "did you mean 'RM'?"),
    "stage": (FUSED, ("- [RM]", "- ¦RM"), "'schedule[1]' is 'RM'", "expected a list"),
    "spatial reduction": (FUSED, ("  LM:", "  ¦LM:"), ("LM:   {unit: array_2d, spatial: {x: p0, y: m0}}",
                          "LM:   {unit: array_2d, spatial: {x: m0, y: p0}}"), "over 'm0' along x", "`reduce: [y]`"),
    "operation": (FUSED, ("  SPNV,", "  ¦SPNV,"), ("AV:    {unit: array_1d", "AV:    {unit: array_2d"),
                  "'AV' on unit 'array_2d': 'divide'", "expected one of add, exp"),
    "kept under no loop": (FUSED, ("Q: p2", "¦Q: p9"), "unknown loop 'p9'", "expected one of all",
                           "did you mean 'p2'?"),
    "kept tensor": (FUSED, ("{Q: p2", "{¦QQ: p2"), "unknown tensor 'QQ'", "did you mean 'Q'?"),
    "kept and not used": ("unfused", ("{Q: p2", "{¦V: all, Q: p2"), "tensor 'V' is not used", "expected K, Q, QK"),
    "kept nowhere": (FUSED, ("Q: p2", "Q: ¦3"), "3 is no loop", "expected its name"),
    "spill": (FUSED, ("Q: p2", "Q: {under: p2, spill: ¦2}"), "out of range", "expected a fraction from 0 to 1"),
    "spilled NaN": (FUSED, ("Q: p2", "Q: {under: p2, spill: ¦.nan}"), "out of range",
                    "expected a fraction from 0 to 1"),
    "spill from DRAM": (FUSED, ("keep: {", "keep: {dram: {¦AV: {under: all, spill: true}}, "), "outermost level"),
    "does not divide": (FUSED, ("p0: 256", "p0: 256, m0: [ma, mb], mb: ¦100"), "tile mb = 100 does not divide m0 = 256",
                        "expected a divisor, such as 64"),
    "zero": (FUSED, ("p0: 256", "p0: ¦0"), "tile 'p0' is 0", "expected at least 1"),
    "negative": (FUSED, ("p0: 256", "p0: ¦-4"), "tile 'p0' is -4", "expected at least 1"),
    "NaN": (FUSED, ("p0: 256", "p0: ¦.nan"), "'p0' is nan", "expected a list or a whole number"),
    "huge": (FUSED, ("p0: 256", "p0: ¦1e30"), "expected at most 2^40"),
    "fraction": (FUSED, ("p0: 256", "p0: ¦p / 3"), "341.333", "expected sizes that divide"),
    "size": (FUSED, ("p1: max", "p1: ¦mx"), "unknown rank 'mx'", "did you mean 'm'?"),
    "cyclic sizes": (FUSED, ("p0: 256, p1: max", "p0: p1, p1: ¦p0"), "has no extent here"),
    "name clash": (FUSED, ("[p2, p1", "¦[p2, e"), "'e' cannot name a part of 'p'", "expected a new lower-case name"),
    "no size": (FUSED, ("[p2, p1", "¦[p2, p1"), (", p1: max", ""), "part 'p1' of 'p' has no size",
                "expected `p1: 256`"),
    "outermost part": (FUSED, ("p1: max", "p1: 1, p2: ¦3"), "make 768, not 1024", "expected p2 = 4"),
    "outermost max": (FUSED, ("p1: max", "p1: 1, p2: ¦max"), "'p2' is what the others leave", "expected no entry"),
    "split already": (FUSED, ("tile: {", "tile: {m: ¦[ma, mb], mb: 2, "), "split by the cascade",
                      "expected tiles of m1, m0"),
    "rank": (FUSED, ("tile: {", "tile: {¦px: 3, "), "unknown rank 'px'", "did you mean 'p'?"),
    "extent": (FUSED, ("tile: {", "tile: {m: ¦0, "), "rank 'm' is 0", "expected at least 1"),
    "to be chosen": (FUSED, ("p1: max", "p1: ¦any"), "'p1' is to be chosen", "expected `minimise: [latency]`"),
    "over-full": (FUSED, ("keep: {", "keep: ¦{"), ("Q: p2", "Q: all"),
                  "'global_buffer' is over-full by 80.09 MiB of 16 MiB",
                  "Q 96 MiB, K 32 KiB", "expected smaller tiles, fewer tensors kept, or `spill: true`"),
    "budget": (FUSED, ("interleave: true", "budget: {global_buffer: ¦1 MHz}"), "is not bytes",
               "expected bytes such as"),
    "over-full budget": (FUSED, ("keep: {", "keep: ¦{"), ("interleave: true", "budget: {global_buffer: 1 KiB}"),
                         "'global_buffer' is over-full by 128 KiB of 1 KiB", "Q 32 KiB"),
    "reserved at": (FUSED, ("interleave: true", "reserve: {¦globl: 1}"), "unknown level 'globl'",
                    "mean 'global_buffer'?"),
    "reserved rank": (FUSED, ("interleave: true", "reserve: {dram: 2 * ¦pp}"), "unknown rank 'pp'", "mean 'p'?"),
    "reserved": (FUSED, ("interleave: true", "reserve: {dram: ¦-1000}"), "negative", "expected a number of words"),
    "objective": (FUSED, ("interleave: true", "minimise: ¦latncy"), "'latncy'", "expected 'latency'",
                  "mean 'latency'?"),
    "no objective": (FUSED, ("interleave: true", "variants: ¦[{}, {}]"), "variants without an objective",
                     "expected `minimise"),
    "field of a variant": (FUSED, ("interleave: true", "minimise: latency\nvariants: [{¦tyle: {}}]"),
                           "did you mean 'tile'?"),
    "none fits": (BEST, ("cascade: a", "budget: {global_buffer: 1 B}\ncascade: a"),
                  ("    keep:\n      global", "    keep:\n      ¦global"), "none of 144 candidates",
                  "fits: 'global_buffer' is over-full by 32 KiB of 1 B: QK 2 MiB", "expected smaller tiles"),
    "binding": (FUSED, ("QK:   {unit: array_2d, spatial: {x: p0, y: m0}, loops: [e]}", "QK: ¦array_2d"),
                "'QK' is 'array_2d'", "expected `key: value` pairs"),
    "no unit": (FUSED, ("QK:   {unit: array_2d, ", "QK: ¦{"), "field 'unit' is missing", "expected `unit: ...`"),
    "groups": (FUSED, ("interleave: true", "groups: ¦[]"), "'groups' is empty", "expected a list of groups"),
    "used mapping": (LAYER, ("use: fusemax}", "use: ¦fusemx}"), "unknown mapping 'fusemx'", "did you mean 'fusemax'?"),
    "uses itself": (LAYER, ("use: fusemax}", "use: ¦./bad.yaml}"), "'./bad.yaml' uses itself"),
    "used and more": (LAYER, ("use: fusemax}", "use: ¦fusemax, loops: [b]}"), "holds nothing else",
                      "expected `- {use: NAME"),
    "used Einsums": (LAYER, ("only: [Q, K, V]", "only: ¦Q"), "'only' is not a list of Einsums",
                     "expected `only: [QK, AV]`"),
    "fused too far": (FLAT, ("loops: [b, h, p2]", "loops: [b, h, p2, m1]"), ("loops: [p1, m1, e]", "loops: [p1, e]"),
                      ("loops: [p, m1]", "loops: [p]"), ("  GM, SN", "  ¦GM, SN"), ("y: [f, m0]}, loops: [p1, m1]",
                              "y: [f, m0]}, loops: [p1]"),
                      "'SN' needs 'GM' complete over 'm1', but both run inside the shared loop 'm1'",
                              "expected 'm1' inside"),
    "not reached": ("unfused", ("{QK: p, SN: p}", "{¦SN: m1, QK: p}"), "'A' takes 'SN' from 'global_buffer'",
                    "expected"),
}  # fmt: skip

WORKLOADS = {
    "zero": ("bert", ("h: 12", "h: ¦0"), "rank 'h' is 0", "expected a whole number from 1 to 2^40"),
    "negative": ("bert", ("h: 12", "h: ¦-1"), "rank 'h' is -1", "expected a whole number from 1"),
    "NaN": ("bert", ("h: 12", "h: ¦.nan"), "rank 'h' is nan", "expected a whole number such as"),
    "huge": ("bert", ("h: 12", "h: ¦1e30"), "rank 'h' is 1e30", "expected a whole number from 1 to 2^40"),
    "text": ("bert", ("h: 12", "h: ¦many"), "rank 'h' is 'many'", "expected a whole number such as 1024 or 16K"),
    "field": ("bert", ("sequence:", "¦sequenze:"), "unknown field 'sequenze'", "did you mean 'sequence'?"),
    "no sequence": ("bert", ("[p, m]", "¦[q]"), "no rank of 'attention-1pass' is its sequence",
                    "expected a `sequence`"),
    "sequence": ("bert", ("[p, m]", "¦p"), "'sequence' is not a list of ranks", "expected a list such as [p, m]"),
    "ranks": ("bert", ("ranks: {", "ranks: ¦[]  # {"), "'ranks' is missing or empty", "expected `ranks: {b: 64"),
    "name": ("bert", ("name: bert", "name: ¦[bert]"), "'name' is not text"),
}  # fmt: skip

COMMANDS = {
    "cascades": (CASCADES, ["show"]),
    "architectures": (ARCHITECTURES, ["show"]),
    "mappings": (MAPPINGS, ["eval"]),
    "workloads": (WORKLOADS, ["eval", FUSED, "--seq", "2K", "--workload"]),
}


@pytest.mark.parametrize(("kind", "case"), [(kind, name) for kind, (cases, _) in COMMANDS.items() for name in cases])
def test_bad_file(tmp_path: Path, kind: str, case: str) -> None:
    cases, command = COMMANDS[kind]
    base, *rest = cases[case]
    place = write(tmp_path / "bad.yaml", changed(base, *[c for c in rest if isinstance(c, tuple)]))
    refused(fusemodel(*command, tmp_path / "bad.yaml"), place, *[p for p in rest if isinstance(p, str)])


def test_unknown_reference(tmp_path: Path) -> None:
    place = write(tmp_path / "bad.yaml", changed(THREE, ("softmax_attention", "¦softmax_atention")))
    refused(fusemodel("run", tmp_path / "bad.yaml"), place, "unknown reference", "did you mean 'softmax_attention'?")


def test_groups_in_the_wrong_order(tmp_path: Path) -> None:
    head, scores, softmax, values = text_of("unfused").split("  - name: ")
    text = "  - name: ".join([head, values.replace("{AV: {unit", "{¦AV: {unit"), scores, softmax])
    place = write(tmp_path / "bad.yaml", text)
    refused(fusemodel("eval", tmp_path / "bad.yaml"), place, "'AV' runs in a group before 'A', which it reads")


def test_mappings_that_use_each_other(tmp_path: Path) -> None:
    text = changed(LAYER, ("use: fusemax}", "use: ./other.yaml}"))
    (tmp_path / "bad.yaml").write_text(text)
    place = write(tmp_path / "other.yaml", changed(LAYER, ("use: fusemax}", "use: ¦bad.yaml}")))
    refused(fusemodel("eval", tmp_path / "bad.yaml"), place, "'bad.yaml' uses itself")


def _bomb() -> str:
    lines = [f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(["a: &a [¦1, 1]", *lines])


TEXTS = {
    "empty": ("", "the file is empty", "expected a YAML mapping"),
    "only a comment": ("# nothing\n", "the file is empty", "expected a YAML mapping"),
    "a list": ("- a\n", "does not hold a mapping", "expected `key: value` lines"),
    "two documents": ("a: 1\n¦---\nb: 2\n", "expected a single document"),
    "a bomb of anchors": (_bomb(), "more than 100000 values once anchors are expanded"),
    "an anchor in itself": ("a: ¦&a {b: *a}", "nested more than 50 deep"),
    "nested too deep": ("a: " + 49 * "[" + "¦" + 100 * "[", "nested more than 50 deep"),
    "too many values": ("a: [" + 199_997 * "1," + "¦" + 100_000 * "1,", "more than 100000 values"),
    "a null character": ("name: ¦\0\n", "control characters are not allowed"),
    "a key that is a list": ("¦[a]: 1", "a key must be plain text"),
    "something else": (
        "hello: world",
        "no cascade, architecture, mapping, workload, comparison or space",
        "expected a field `einsums`",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_bad_text(tmp_path: Path, case: str) -> None:
    text, *parts = TEXTS[case]
    place = write(tmp_path / "bad.yaml", text)
    refused(fusemodel("show", tmp_path / "bad.yaml"), place, *parts)


READERS = {
    "show": ["show"], "run": ["run"], "mapping": ["eval"], "arch": ["eval", FUSED, "--arch"],
    "workload": ["eval", FUSED, "--workload"], "compare": ["compare", FUSED],
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["directory", "missing", "pipe", "device", "latin", "binary", "huge", "empty", "long"])
def test_what_is_no_file(tmp_path: Path, reader: str, kind: str) -> None:
    path, at, part = tmp_path / "there.yaml", "", ""
    match kind:
        case "directory":
            path, part = tmp_path, "this is a directory; expected a YAML file"
        case "missing":
            (tmp_path / "here.yaml").write_text("a: 1")
            part = "no such file; did you mean 'here.yaml'?"
        case "pipe":
            os.mkfifo(path)
            part = "not a regular file; expected a YAML file"
        case "device":
            path, part = Path("/dev/zero"), "not a regular file"
        case "latin":
            path.write_bytes(b"a: 1\nb: \xe9\n")
            at, part = ":2:4", "not UTF-8 text (byte 8)"
        case "binary":
            path.write_bytes(b"\x7fELF" + bytes(range(256)))
            at, part = ":2:118", "not UTF-8 text"
        case "huge":
            with path.open("wb") as file:
                file.truncate(100 * 2**20)
            part = "the file has 100.0 MiB; expected at most 4 MiB"
        case "empty":
            path.write_text("")
            at, part = ":1:1", "the file is empty; expected a YAML mapping"
        case "long":
            path, part = tmp_path / (5000 * "a"), ""
    place = "" if kind == "long" else f"{path}{at}"
    refused(fusemodel(*READERS[reader], path), place, part)


@pytest.mark.parametrize(
    ("arguments", "place", "part"),
    [
        (["eval", "{workload}"], 1, "this is a workload; expected a mapping"),
        (["run", "{arch}"], 1, "this is an architecture; expected a cascade"),
        (["eval", FUSED, "--arch", "{cascade}"], 1, "this is a cascade; expected an architecture"),
        (["eval", FUSED, "--workload", "{mapping}"], 1, "this is a mapping; expected a workload"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, arguments: list[str], place: int, part: str) -> None:
    files = {"workload": "bert", "arch": CLOUD, "cascade": THREE, "mapping": FUSED}
    for kind, name in files.items():
        (tmp_path / kind).write_text(text_of(name))
    given = [a.format(**{k: tmp_path / k for k in files}) for a in arguments]
    refused(fusemodel(*given), f"{given[-1]}:{place}:1", part)


SIZES = {
    "0": "is 0; expected a whole number from 1 to 2^40",
    "-1": "is -1; expected a whole number from 1",
    "2.5": "is 2.5; expected a whole number from 1",
    "1e30": "is 1e30; expected a whole number from 1 to 2^40",
    "nan": "is 'nan'; expected a whole number such as 1024 or 16K",
    "inf": "is 'inf'; expected a whole number",
    "abc": "is 'abc'; expected a whole number such as 1024 or 16K",
    "": "is ''; expected a whole number such as 1024 or 16K",
    "9" * 5000: "expected a whole number",
}


@pytest.mark.parametrize("size", SIZES, ids=lambda s: s[:8])
def test_bad_lengths(size: str) -> None:
    refused(fusemodel("eval", FUSED, f"--seq={size}"), "", "--seq " + SIZES[size] if len(size) < 9 else SIZES[size])
    refused(fusemodel("compare", FUSED, FLAT, f"--seq=1K,{size}"), "", SIZES[size])
    refused(fusemodel("eval", FUSED, "--set", f"p0={size}"), "", SIZES[size])


ARGUMENTS = {
    "eval nothing": (["eval", ""], "'' is neither a name nor a path", "expected one of the mappings"),
    "eval a null": (["eval", "a\0b"], "is neither a name nor a path"),
    "mapping": (["eval", "fusemx"], "unknown mapping 'fusemx'", "expected one of", "did you mean 'fusemax'?"),
    "cascade": (["run", "atention-1pass"], "unknown cascade", "did you mean 'attention-1pass'?"),
    "anything": (["show", "fusemx"], "unknown name 'fusemx'", "did you mean 'fusemax'?"),
    "kind": (["list", "mapings"], "unknown kind 'mapings'", "did you mean 'mappings'?"),
    "arch": (["eval", FUSED, "--arch", "flat-clod"], "unknown arch 'flat-clod'", "did you mean 'flat-cloud'?"),
    "workload": (["eval", FUSED, "-w", "brt"], "unknown workload 'brt'", "expected one of bert",
                 "did you mean 'bert'?"),
    "no workload": (["eval", FUSED, "-w", ""], "'' is neither a name nor a path", "expected one of the workloads"),
    "one workload of two": (["compare", FUSED, FLAT, "-w", "bert,"], "'' is neither a name nor a path"),
    "set": (["eval", FUSED, "--set", "p0"], "--set 'p0' is not RANK=SIZE", "expected such as `--set p0=128`"),
    "set nothing": (["eval", FUSED, "--set", "=3"], "--set '=3' is not RANK=SIZE"),
    "set what": (["eval", FUSED, "--set", "pp0=3"], "unknown rank or tile 'pp0'", "did you mean 'p0'?"),
    "set of run": (["run", THREE, "--set", "mm=3"], "unknown rank 'mm'", "did you mean 'm'?"),
    "compare one": (["compare", FUSED], "one mapping cannot be compared", "expected two or more"),
    "compare itself": (["compare", FUSED, FLAT, FUSED], "a mapping is given twice"),
    "run nothing": (["run"], "give one cascade, or --all", "expected `fusemodel run CASCADE`"),
    "dtype": (["run", THREE, "--dtype", "float46"], "unknown dtype", "did you mean 'float64'?"),
    "seed": (["run", THREE, "--seed", "-1"], "'--seed'"),
    "command": (["evl"], "No such command 'evl'", "Did you mean 'eval'?"),
    "option": (["eval", FUSED, "--sqe", "3"], "No such option: --sqe", "--seq"),
    "no argument": (["eval"], "Missing argument 'MAPPING'"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(case: str) -> None:
    arguments, *parts = ARGUMENTS[case]
    refused(fusemodel(*arguments), "", *parts)


def test_designs_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text_of(FUSED))
    refused(
        fusemodel("compare", FUSED, tmp_path / "mine.yaml"), f"{tmp_path}/mine.yaml:1:1", "two designs have the name"
    )


@pytest.mark.parametrize(
    "arguments", [["eval", "bad.yaml"], ["eval", "fusemx"], ["evl"], ["eval", FUSED, "--seq", "nan"]]
)
def test_as_a_process(tmp_path: Path, arguments: list[str]) -> None:
    write(tmp_path / "bad.yaml", changed(FUSED, ("array_2d", "aray_2d")))
    command = [sys.executable, "-m", "fusemodel.cli", *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith("error: bad.yaml:10:16: unknown unit" if "bad.yaml" in arguments else "error: ")


def test_deep_nesting_does_not_end_the_process(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("a: " + 1_000_000 * "[")
    command = [sys.executable, "-m", "fusemodel.cli", "show", "deep.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nested more than 50 deep" in ran.stderr


def test_a_message_is_one_short_line(tmp_path: Path) -> None:
    odd = f'"a\\nb\\e[31m{100_000 * "x"}"'
    place = write(tmp_path / "bad.yaml", changed(FUSED, ("array_2d", "¦" + odd)))
    ran = fusemodel("eval", tmp_path / "bad.yaml")
    refused(ran, place, "unknown unit", "expected one of array_1d, array_2d")
    assert len(ran.err) < 2000
    assert ran.err[:-1].isprintable()


@pytest.mark.parametrize("command", ["run", "show", "passes"])
def test_a_mistyped_field_does_not_make_a_cascade_a_workload(tmp_path, command):
    file = tmp_path / "mine.yaml"
    file.write_text("name: x\nranks: {p: 8}\ninputs: {Q: [p]}\noutputs: [A]\neinsum: |\n  A[p] = Q[p]\n")
    ran = fusemodel(command, file)
    assert ran.code == 2
    assert "mine.yaml:5:1: unknown field 'einsum'; expected `einsums` in a cascade; did you mean 'einsums'?" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "list cascades --out", "compare --html", "simulate fusemax --trace", "simulate fusemax --plot",
        "explore attention-1pass fusemax-cloud --out", "explore --arch-space area-latency --plot",
        "passes attention-3pass --plot", "derive attention-3pass --out", "validate --plot",
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_first(tmp_path: Path, command: str) -> None:
    for where, said in (tmp_path / "no" / "x.svg", "there is no folder"), (tmp_path, "this is a directory"):
        ran = fusemodel(*command.split(), where)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
