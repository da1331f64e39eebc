"""Tables of measurements to errors: what is read, what is left out and why, rules, fitting, and the figures shipped."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from commandline import fusemodel

from fusemodel import InputError
from fusemodel.arch import load_architecture
from fusemodel.validate.calibration import load_calibration
from fusemodel.validate.errors import errors_of, kendall_tau
from fusemodel.validate.fit import fit, held_out
from fusemodel.validate.predict import count_table, predict, times_of
from fusemodel.validate.rules import load_rules, machines, plain_name
from fusemodel.validate.run import shipped, validate
from fusemodel.validate.sources import read_any

HEADER = "gpu,kernel,op,dtype,batch,heads,kv_heads,seq_q,seq_kv,head_dim,window,causal,latency_us"
GOOD = "H100-SXM5-80GB,fa3,context_attention,bf16,4,16,4,2048,2048,128,0,1,120.5"


def table(tmp_path, *rows: str, header: str = HEADER, name: str = "data.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def changed(**columns: object) -> str:
    values = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {k: str(v) for k, v in columns.items()}
    return ",".join(values.values())


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"latency_us": 0}, "latency_us is '0', no positive time"),
        ({"latency_us": "nan"}, "latency_us is 'nan', no positive time"),
        ({"latency_us": -3}, "latency_us is '-3', no positive time"),
        ({"latency_us": ""}, "latency_us is '', no positive time"),
        ({"latency_us": "fast"}, "latency_us is 'fast', no positive time"),
        ({"batch": "many"}, "batch is 'many', no whole number from 1"),
        ({"batch": 1.5}, "batch is '1.5', no whole number from 1"),
        ({"seq_q": "inf"}, "seq_q is 'inf', no whole number from 1"),
        ({"kv_heads": 3}, "kv_heads is '3', does not divide the heads"),
        ({"causal": 2}, "causal is '2', neither 0 nor 1"),
        ({"seq_kv": 100}, "seq_q is '2048', more than the keys it sees"),
        ({"window": -1}, "window is '-1', no whole number from 0"),
        ({"gpu": "TPU v5"}, "no architecture for gpu 'TPU v5'"),
        ({"gpu": ""}, "no gpu is named"),
        ({"dtype": "int4"}, "no rule for dtype 'int4'"),
        ({"dtype": "fp8"}, "no rule for dtype 'fp8'"),
        ({"op": "sorting", "kernel": "x"}, "no rule for op 'sorting'"),
        ({"head_dim": 512}, "head_dim beyond the kernels' 256"),
        ({"head_dim": 100}, "head_dim is no multiple of 8"),
        ({"gpu": "T4", "dtype": "bfloat16"}, "the machine's matrix units have no bf16"),
        ({"gpu": "V100"}, "the machine's matrix units have no bf16"),
    ],
)
def test_rows_that_cannot_be_predicted_are_left_out_by_name(tmp_path, columns, reason) -> None:
    found = validate([str(table(tmp_path, GOOD, changed(**columns)))])
    assert found.errors["calibrated"].points == 1
    assert [(s.line, s.reason) for s in found.skipped] == [(3, reason)]


def test_ragged_empty_and_quoted_rows(tmp_path) -> None:
    gpu, rest = GOOD.split(",", 1)
    path = table(tmp_path, GOOD, "", "H100,fa3", GOOD + ",more", ",".join([""] * 13), f'"{gpu}",{rest}')
    found = validate([str(path)])
    assert found.errors["calibrated"].points == 2
    assert [(s.line, s.reason) for s in found.skipped] == [
        (4, "2 fields, not 13"), (5, "14 fields, not 13"), (6, "an empty row")
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["bom", "crlf", "gz", "blank lines first", "columns in another order", "more columns"])
def test_other_ways_to_write_the_same_table(tmp_path, how: str) -> None:
    text = f"{HEADER}\n{GOOD}\n"
    match how:
        case "bom":
            data = b"\xef\xbb\xbf" + text.encode()
        case "crlf":
            data = text.replace("\n", "\r\n").encode()
        case "gz":
            data = gzip.compress(text.encode())
        case "blank lines first":
            data = b"\n\n" + text.encode()
        case "columns in another order":
            order = np.random.default_rng(0).permutation(13)
            data = "\n".join(",".join(line.split(",")[i] for i in order) for line in (HEADER, GOOD)).encode()
        case _:
            data = f"note,{HEADER}\nhello,{GOOD}\n".encode()
    path = tmp_path / "same.csv"
    path.write_bytes(data)
    plain = validate([str(table(tmp_path, GOOD))])
    assert validate([str(path)]).errors == plain.errors


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "there is no header"),
        (b"\n\n", "there is no header"),
        (b"a,b,c\n1,2,3\n", "column"),
        (HEADER.replace(",latency_us", "").encode(), "'latency_us' missing"),
        (HEADER.replace(",head_dim", "").encode() + b"\n", "'head_dim' missing"),
        (f"{HEADER},gpu\n".encode(), f"bad.csv:1:{len(HEADER) + 2}: column 'gpu' stands twice"),
        (HEADER.replace(",", ";").encode(), "bad.csv:1:1: columns are separated by ';'; expected commas"),
        (f"{HEADER}\n{GOOD}\n{GOOD}".encode() + b"\xe9\n", f"bad.csv:3:{len(GOOD) + 1}: this is not UTF-8 text"),
        (f"{HEADER}\n{GOOD}\n{'x' * 200_000}\n".encode(), "bad.csv:3:1: not a CSV file: field larger"),
        (
            b"device,kernel_source,latency,op_name,batch_size,isl,heads_n,num_key_value_heads,head_dim\n",
            "bad.csv:1:1: column 'num_heads' missing",
        ),
        (HEADER.encode() + b"\n", "there are no rows"),
        (f"{HEADER}\n{changed(gpu='abacus')}\n".encode(), "no architecture for gpu 'abacus'"),
        (b"\xff\xfe\x00binary", "no"),
        (b"\x1f\x8bbroken", "cannot be read"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, data: bytes, part: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(data)
    ran = fusemodel("validate", "--data", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert part in ran.err
    assert ran.err.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path) -> None:
    assert fusemodel("validate", "--data", str(tmp_path / "none.csv")).code == 2
    assert fusemodel("validate", "--data", str(tmp_path)).code == 2
    assert fusemodel("validate", "--fit", str(tmp_path / "out.yaml")).code == 2
    ran = fusemodel("validate", "--data", str(table(tmp_path, GOOD)), "--by", "kernels")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown group 'kernels'" in ran.err
    assert "did you mean 'kernel'?" in ran.err


def test_names_of_machines() -> None:
    known = machines()
    for name, machine in {
        "NVIDIA H100 80GB HBM3": "h100-sxm", "A100-SXM4-80GB": "a100-sxm", "nvidia l40s": "l40s", "H200": "h200-sxm",
        "NVIDIA B200": "b200-sxm", "H200-SXM-141GB": "h200-sxm", "B200-SXM-180GB": "b200-sxm", "L40S": "l40s",
        "RTX-4090": "rtx-4090", "V100-SXM2-32GB": "v100-sxm", "T4": "t4", "L4": "l4", "H100-PCIe-80GB": "h100-pcie",
        "A100-SXM4-40GB": "a100-sxm-40gb", "NVIDIA H200 141GB": "h200-sxm", "DGX B200": "b200-sxm",
        "h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm", "B200-SXM6-192GB": "b200-sxm", "Tesla L40S": "l40s",
        "A100-80GB": "a100-sxm",
    }.items():  # fmt: skip
        assert known[plain_name(name)] == machine
    for other in ("H200 NVL", "L40", "GB200", "B300", "H20", "A6000"):  # machines of their own
        assert plain_name(other) not in known


def test_another_scope_includes_writing_the_cache(tmp_path) -> None:
    rows = [f"{GOOD},{scope}" for scope in ("pure", "attn+kvwrite", "unheard of")]
    path = table(tmp_path, *rows, header=f"{HEADER},scope")
    kept, counted, _ = count_table(read_any(path), load_rules())
    pure, written, other = times_of(counted, len(kept), None)
    assert other == pure
    moved = 2 * 2 * 2 * 4 * 4 * 2048 * 128  # read and written, keys and values, of two bytes
    assert written - pure > load_architecture("h100-sxm").overheads_s["append"]
    assert written - pure < load_architecture("h100-sxm").overheads_s["append"] + 2 * moved / 3350e9 + 2e-6


def test_cold_caches_are_slower(tmp_path) -> None:
    row = changed(op="generation_attention", seq_q=1, causal=0, batch=8)
    path = table(tmp_path, *(f"{row},{state}" for state in ("warm", "cold", "")), header=f"{HEADER},l2")
    kept, counted, _ = count_table(read_any(path), load_rules())
    warm, cold, unsaid = times_of(counted, len(kept), None)
    assert warm == unsaid
    assert cold > 1.2 * warm


def test_a_matrix_product_takes_the_fastest_tiles(tmp_path) -> None:
    header = "gpu,op,kernel,dtype,B,M,N,K,latency_us"
    path = table(tmp_path, "H100,gemm,x,bf16,1,8192,8192,8192,1400", "H100,gemm,x,bf16,1,16,64,65536,9", header=header)
    _, counted, _ = count_table(read_any(path), load_rules())
    (one,) = counted
    arch = load_architecture("h100-sxm")
    each = one.each(arch)
    assert (times_of(counted, 2, None) == each.min(axis=0)).all()
    taken = [one.chosen.options[i].mapping for i in each.argmin(axis=0)]
    assert taken[0] == "gemm-pair"
    assert taken[1] == "gemm-pair-split"  # one tile: the summed rank is divided
    assert times_of(counted, 2, None)[0] == pytest.approx(1400e-6, rel=0.15)


def test_rows_of_attention_and_of_products_in_one_table(tmp_path) -> None:
    path = table(
        tmp_path, f"{GOOD},,,", "H100,x,gemm,bf16,1,,,,,,,,1400,8192,8192,8192", f"{GOOD},4,,",
        "H100,x,gemm,bf16,1,,,,,,,,9,,,",
        header=f"{HEADER},M,N,K",
    )  # fmt: skip
    found = validate([str(path)])
    assert found.errors["calibrated"].points == 2
    assert [(s.line, s.reason) for s in found.skipped] == [
        (4, "N is '', no whole number from 1"), (5, "heads is '', no whole number from 1")
    ]  # fmt: skip


def test_a_collectors_own_columns(tmp_path) -> None:
    header = (
        "framework,version,device,op_name,kernel_source,batch_size,isl,num_heads,num_key_value_heads,head_dim,"
        "beam_width,attn_dtype,kv_cache_dtype,step,latency"
    )
    theirs = table(
        tmp_path,
        "F,0.1,NVIDIA H100 80GB HBM3,context_attention,fa3,4,2048,16,4,128,1,bfloat16,bfloat16,0,0.1205",
        "F,0.1,NVIDIA H100 80GB HBM3,generation_attention,fa3,4,1,16,4,128,1,bfloat16,bfloat16,2047,0.02",
        "F,0.1,NVIDIA H100 80GB HBM3,context_attention,fa3,4,2048,16,4,128,1,bfloat16,fp8,0,0.1205",
        header=header, name="theirs.csv",
    )  # fmt: skip
    found = validate([str(theirs)])
    own = validate([str(table(tmp_path, GOOD, changed(op="generation_attention", seq_q=1, causal=0, latency_us=20)))])
    assert found.errors == own.errors
    assert [(s.line, s.reason) for s in found.skipped] == [(4, "no rule for dtype 'bfloat16 with fp8 cache'")]


def test_kernels_of_recurrent_layers_are_read_and_left_out_by_name(tmp_path):
    header = (
        "framework,device,op_name,kernel_source,phase,batch_size,seq_len,"
        "num_k_heads,num_v_heads,head_v_dim,nheads,n_groups,head_dim,latency"
    )
    rows = [
        "X,NVIDIA H100 80GB HBM3,gdn,causal_conv1d_fn,context,1,64,16.0,32.0,128.0,,,,0.0054",
        "X,NVIDIA H100 80GB HBM3,gdn,chunk_gated_delta_rule,context,1,64,16.0,32.0,128.0,,,,0.0227",
        "X,NVIDIA H100 80GB HBM3,mamba2,causal_conv1d_fn,context,1,16,,,,256.0,8.0,64.0,0.0209",
    ]
    path = table(tmp_path, *rows, header=header)
    read = read_any(path)
    assert not read.skipped
    assert read.numbers["heads"].tolist() == [32, 32, 256]
    assert read.numbers["kv_heads"].tolist() == [16, 16, 8]
    with pytest.raises(InputError) as error:
        validate([str(path)])
    assert error.value.where.line == 2
    assert "2 of 3: the short convolution" in str(error.value)
    assert "1 of 3: an operator of several" in str(error.value)


def rules_of(tmp_path, *rows: str, header: str = HEADER) -> list[str]:
    read = read_any(table(tmp_path, *rows, header=header))
    return predict(read, load_rules(), load_calibration()).rule.tolist()


def test_the_same_rows_on_other_machines(tmp_path) -> None:
    """Tables of the same kind name the same kernels on machines that run them otherwise."""
    decode = {"op": "generation_attention", "seq_q": 1, "causal": 0, "heads": 64, "kv_heads": 1}
    gpus = ("h200_sxm", "NVIDIA L40S", "b200")
    wide = [changed(kernel="torch_flow", gpu=g, **decode) for g in gpus]
    found = rules_of(tmp_path, *wide)
    assert found[:2] == ["decode, a block for each query head"] * 2
    assert found[2].startswith("decode")
    assert found[2] != found[0]
    packed = [changed(kernel="flash_attention", gpu=g) for g in ("a100_sxm", "l40s", *gpus[::2])]
    assert rules_of(tmp_path, *packed) == [
        *["prefill, causal, synchronous, packed"] * 2, "prefill, causal", "two tiles of queries in flight, causal"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "same"),
    [
        ({"causal": "yes"}, {}), ({"causal": "True"}, {}), ({"dtype": "torch.bfloat16"}, {}), ({"dtype": "BF16"}, {}),
        ({"op": "prefill"}, {}), ({"kernel": "flash_attn_2"}, {"kernel": "fa2"}),
        ({"kernel": "FlashAttention-2"}, {"kernel": "fa2"}), ({"kernel": "flash_attention_v2"}, {"kernel": "fa2"}),
        ({"op": "decode", "seq_q": 1, "causal": "no"}, {"op": "generation_attention", "seq_q": 1, "causal": 0}),
    ],
)  # fmt: skip
def test_other_ways_to_say_the_same(tmp_path, columns, same) -> None:
    found = validate([str(table(tmp_path, changed(**columns), changed(**same)))]).predictions
    assert found.rule[0] == found.rule[1]
    assert found.calibrated_s[0] == found.calibrated_s[1]


def test_operators_take_longer_than_their_kernel(tmp_path) -> None:
    """What a table's scope includes is predicted too: 2 x 64 MiB of keys and values at 2,039 GB/s and 32 times the
    queries."""
    rows = [f"{changed(gpu='a100_sxm', kernel='torch_flow', batch=32, heads=64, kv_heads=2)},{s}" for s in
            ("", "trtllm op")]  # fmt: skip
    read = read_any(table(tmp_path, *rows, header=HEADER + ",scope"))
    alone, whole = predict(read, load_rules(), load_calibration()).mechanistic_s
    rotated = 2 * 32 * 2048 * (64 + 2 * 2) * 128 * 2
    assert whole - alone == pytest.approx(rotated / 2039e9 / 0.79, rel=0.1)


def test_what_is_carried_of_a_memory_is_the_part_of_copies(tmp_path) -> None:
    """Where a machine's copies reach less of its data sheet, so do the kernels on it."""
    fitted = load_calibration()
    on = {n: fitted.tuned(load_architecture(n)).achieved["hbm"] for n in ("h100-sxm", "h200-sxm", "a100-sxm")}
    assert on["h100-sxm"] == pytest.approx(fitted.achieved["hbm"])
    copies = {n: load_architecture(n).achieved["hbm"] for n in on}
    assert len(set(copies.values())) == 3
    for name, reached in on.items():
        assert reached / copies[name] == pytest.approx(on["h100-sxm"] / copies["h100-sxm"])


def test_energies_beside_times(tmp_path) -> None:
    product = "NVIDIA H100 80GB HBM3,gemm,gemm,bf16,1,,,,,,,,8192,8192,8192,1615.1"
    head = HEADER.removesuffix(",latency_us") + ",M,N,K,latency_us,energy_j"
    data = table(tmp_path, f"{product},1.11871", f"{product},", f"{product},0", f"{product},none", f"{product},-1",
                 f"{product.replace('NVIDIA H100 80GB HBM3', 'a100_sxm')},0.9", header=head)  # fmt: skip
    found = validate([str(data)])
    assert [s.reason for s in found.skipped] == ["energy_j is 'none', no energy", "energy_j is '-1', no energy"]
    assert found.errors["calibrated"].points == 4
    energy = found.to_dict()["energy"]
    assert energy["points"] == 1  # the A100's energies are not known
    (row,) = energy["rows"]
    assert row["line"] == 2
    # 118 W for the time, 0.731 pJ a FLOP, 140.5 pJ a byte
    by_hand = 118 * found.predictions.mechanistic_s[0] + 0.731e-12 * 2 * 8192**3 + 140.5e-12 * 3 * 8192**2 * 2
    assert row["mechanistic_j"] == pytest.approx(by_hand, rel=0.02)
    assert energy["mechanistic"]["mape"] == pytest.approx(100 * abs(row["mechanistic_j"] / 1.11871 - 1))
    assert "Energy of a launch, 1 rows" in fusemodel("validate", "--data", str(data)).out
    assert validate([str(table(tmp_path, GOOD))]).to_dict()["energy"] is None


def test_what_is_shipped_is_predicted(capsys) -> None:
    assert shipped()
    found = validate()
    by_kernel = {v: e for by, v, e in found.groups if by == "kernel"}
    assert found.errors["mechanistic"].mape < 15
    assert found.errors["roofline"].mape > 30
    assert by_kernel["fa3"]["mechanistic"].mape < 12
    assert by_kernel["fa2"]["mechanistic"].mape < 12
    assert by_kernel["fa4"]["mechanistic"].mape < 7  # a machine on which nothing was fitted
    assert by_kernel["pytorch_standard"]["mechanistic"].mape < 10
    assert {s.reason for s in found.skipped} == {
        "the kernel that adds a mask to unfused scores is not described",
        "a kernel whose weights go through shared memory is not described",
        "a back-end that computes half precision in single precision is not described",
        "a micro-benchmark, which the machine's file takes its rates from",
    }


def test_json_and_tables_of_validate(tmp_path) -> None:
    path = str(table(tmp_path, GOOD, changed(seq_q=4096, seq_kv=4096, latency_us=420), changed(latency_us="nan")))
    data = json.loads(fusemodel("validate", "--data", path, "--json").out)
    assert data["points"] == 2
    for name in ("mape", "median_ape", "p90_ape", "kendall_tau", "roofline_mape"):
        assert isinstance(data[name], float)
    assert data["mape"] == data["calibrated"]["mape"] != data["mechanistic"]["mape"]
    assert data["skipped"] == [{"reason": "latency_us is 'nan', no positive time", "rows": 1, "lines": [4]}]
    groups = {(g["by"], g["value"]): g for g in data["groups"]}
    assert groups["gpu", "h100-sxm"]["points"] == 2
    assert {by for by, _ in groups} >= {"gpu", "op", "kernel", "head_dim", "length", "phase"}
    assert data["worst"][0]["bound"]
    text = fusemodel("validate", "--data", path, "--by", "op", "--plot", str(tmp_path / "errors.svg"))
    assert text.code == 0
    assert "context_attention" in text.out
    assert "roofline" in text.out
    assert "Left out: 1 rows" in text.out
    assert (tmp_path / "errors.svg").read_text().startswith("<?xml")


def test_a_fit_finds_what_made_the_times(tmp_path) -> None:
    """Times made with other efficiencies are fitted on half of the shapes, and predicted on the other half. Of fewer
    rows for fifteen values some fits end in a minimum beside: the size that a cache keeps moves times in steps."""
    rng = np.random.default_rng(5)
    rows = [
        changed(batch=int(b), heads=16, kv_heads=int(g), seq_q=1 if d else int(s), seq_kv=int(s), causal=int(not d),
                op="generation_attention" if d else "context_attention", head_dim=int(e))
        for b, g, s, d, e in zip(rng.integers(1, 65, 160), rng.choice([1, 4, 16], 160), 2 ** rng.integers(5, 14, 160),
                                 rng.integers(0, 2, 160), rng.choice([64, 128], 160), strict=True)
    ]  # fmt: skip
    bare = read_any(table(tmp_path, *rows))
    kept, counted, _ = count_table(bare, load_rules())
    truth = load_calibration()
    made = times_of(counted, len(kept), truth)
    timed = [f"{r.rsplit(',', 1)[0]},{float(t) * 1e6!r}" for r, t in zip(rows, made, strict=True)]
    measured = read_any(table(tmp_path, *timed))
    found = fit([measured], load_rules(), truth)
    held = held_out(measured)
    assert 60 < held.sum() < 100
    again = predict(measured, load_rules(), found.calibration)
    assert errors_of(again.calibrated_s[held], again.measured_s[held]).mape < 1
    path = tmp_path / "fitted.yaml"
    path.write_text(found.text)
    assert load_calibration(str(path)).overlap == pytest.approx(found.calibration.overlap, abs=1e-4)


def test_kendall_tau_by_counting_pairs() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 3, 10, 61):
        a, b = rng.integers(0, 8, n).astype(float), rng.integers(0, 8, n).astype(float)
        signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i in range(n) for j in range(i)]
        ties = [sum(x[i] != x[j] for i in range(n) for j in range(i)) for x in (a, b)]
        expected = sum(signs) / np.sqrt(float(ties[0] * ties[1])) if all(ties) else None
        assert kendall_tau(a, b) == (pytest.approx(expected) if expected is not None else None)
    assert kendall_tau(np.ones(4), np.arange(4.0)) is None
    assert kendall_tau(np.ones(1), np.ones(1)) is None
    many = np.arange(1001.0)
    assert kendall_tau(many, many[::-1]) == -1
    # blocks of 7 turned round: all pairs but those within a block agree
    blocks = np.arange(1001).reshape(-1, 7)[:, ::-1].ravel().astype(float)
    assert kendall_tau(many, blocks) == pytest.approx(1 - 2 * 143 * 21 / (1001 * 500))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("mapping: flash3-causal", "mapping: flash4-causal"), "unknown mapping 'flash4-causal'"),
        (("h: kv_heads, p: rows", "h: kv_head, p: rows"), "kv_head"),
        (("beside:", "besides:"), "unknown field 'besides'"),
    ],
)
def test_rules_that_cannot_be(tmp_path, change: tuple[str, str], part: str) -> None:
    from fusemodel.library import gpu_rules

    text = gpu_rules().read_text()
    assert change[0] in text
    path = tmp_path / "rules.yaml"
    path.write_text(text.replace(change[0], change[1], 1))
    with pytest.raises(InputError, match=part):
        load_rules(str(path))
