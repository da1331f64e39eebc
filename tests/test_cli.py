"""The command line: what each command prints, as tables and as JSON, and that the code names nothing of the library."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from commandline import Ran, changed, fusemodel, text_of

import fusemodel as package
from fusemodel import __version__, library
from fusemodel.model import Evaluation
from fusemodel.report.compare import Ratio

EVAL = {
    "latency_s", "cycles", "energy_j", "dram_bytes", "utilization", "energy_breakdown_j", "traffic_bytes", "bound",
    "einsums",
}  # fmt: skip
CODE = Path(package.__file__).parent


def data(ran: Ran) -> Any:
    """What a command printed with --json: JSON and nothing else, without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert (ran.code, ran.err) == (0, ""), ran
    return json.loads(ran.out, parse_constant=refuse)


def check_evaluation(row: dict[str, Any]) -> None:
    assert row.keys() >= EVAL
    assert all(
        isinstance(row[k], (int, float)) and row[k] > 0 for k in ("latency_s", "cycles", "energy_j", "dram_bytes")
    )
    assert all(0 <= u <= 1 for u in row["utilization"].values())
    assert sum(row["energy_breakdown_j"].values()) == pytest.approx(row["energy_j"])
    moved = row["traffic_bytes"]
    assert all(t.keys() == {"read", "write"} for level in moved.values() for t in level.values())
    assert sum(sum(t.values()) for t in moved["dram"].values()) == pytest.approx(row["dram_bytes"])
    assert row["bound"] in {*row["utilization"], *moved, "drain"}
    assert all(isinstance(e["name"], str) and e["unit"] in row["utilization"] for e in row["einsums"])


def test_eval() -> None:
    row = data(fusemodel("eval", "fusemax", "--workload", "bert", "--seq", "16K", "--json"))
    check_evaluation(row)
    assert (row["mapping"], row["cascade"], row["arch"]) == ("fusemax", "attention-1pass", "fusemax-cloud")
    assert (row["workload"], row["seq"], row["extents"]["m"]) == ("bert", 16384, 16384)
    assert len(row["einsums"]) == 12
    assert set(row) == {f.name for f in fields(Evaluation)}


@pytest.mark.parametrize(
    ("options", "tiles", "extents"),
    [
        (["--set", "p0=128"], {"p0": 128}, {}),
        (["--set", "p0=128", "--set", "m0=64"], {"p0": 128}, {"m0": 64, "m1": 16}),
        (["--set", "p0=128,p1=2"], {"p0": 128, "p1": 2, "p2": 4}, {}),
        (["--set", "b=3,h=1"], {"p0": 256}, {"b": 3, "h": 1}),
        (["--seq", "2K", "--set", "m=4K"], {"p0": 256}, {"p": 2048, "m": 4096}),
    ],
)
def test_eval_with_sizes(options: list[str], tiles: dict[str, int], extents: dict[str, int]) -> None:
    row = data(fusemodel("eval", "fusemax", *options, "--json"))
    check_evaluation(row)
    assert row["groups"][0]["tiles"].items() >= tiles.items()
    assert row["extents"].items() >= extents.items()


def test_eval_on_another_architecture() -> None:
    assert data(fusemodel("eval", "fusemax-cascade", "--arch", "fusemax-cloud", "--json"))["arch"] == "fusemax-cloud"


def test_compare() -> None:
    given = ["flat", "fusemax", "--workload", "bert,xlm", "--seq", "1K,4K"]
    found = data(fusemodel("compare", *given, "--json"))
    assert found.keys() >= {"rows", "mean"}
    points = [(r["mapping"], r["workload"], r["seq"]) for r in found["rows"]]
    assert points == [(m, w, s) for m in ("flat", "fusemax") for w in ("bert", "xlm") for s in (1024, 4096)]
    for row in found["rows"]:
        check_evaluation(row)
    alone = data(fusemodel("eval", "flat", "-w", "xlm", "-s", "4K", "--json"))
    assert found["rows"][3] == alone
    mean = found["mean"]["fusemax"]["flat"]
    assert set(mean) == {f.name for f in fields(Ratio)}
    pairs = list(zip(found["rows"][:4], found["rows"][4:], strict=True))
    assert mean["speedup"] == pytest.approx(sum(a["latency_s"] / b["latency_s"] for a, b in pairs) / 4)
    assert mean["energy"] == pytest.approx(sum(b["energy_j"] / a["energy_j"] for a, b in pairs) / 4)


def test_compare_without_workloads_or_with_each_twice() -> None:
    alone = data(fusemodel("compare", "flat", "fusemax", "--json"))["rows"]
    assert [(r["workload"], r["seq"], r["extents"]["m"]) for r in alone] == 2 * [(None, None, 1024)]
    twice = data(fusemodel("compare", "flat", "fusemax", "-w", "bert,bert", "-s", "1K,1024", "--json"))["rows"]
    assert [(r["workload"], r["seq"]) for r in twice] == 2 * [("bert", 1024)]


def test_the_default_comparison_narrowed() -> None:
    found = data(fusemodel("compare", "--workload", "t5", "--seq", "1K", "--json"))
    assert {(r["workload"], r["seq"]) for r in found["rows"]} == {("t5", 1024)}
    assert len(found["rows"]) == len({r["mapping"] for r in found["rows"]}) > 4


def test_run() -> None:
    row = data(fusemodel("run", "attention-1pass", "--set", "m=40,m0=8", "--json"))
    assert row.keys() >= {"cascade", "max_abs_error", "max_rel_error", "points"}
    assert (row["cascade"], row["max_rel_error"] < 1e-12, row["extents"]["m1"]) == ("attention-1pass", True, 5)
    assert data(fusemodel("run", "attention-1pass", "--seed", "1", "--json"))["max_abs_error"] < 1e-12
    assert data(fusemodel("run", "attention-1pass", "--dtype", "float32", "--json"))["max_rel_error"] > 1e-9


def test_run_says_when_a_cascade_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(changed("attention-3pass", ("SN[m, p] / SD[p]", "SN[m, p] * SD[p]")))
    ran = fusemodel("run", tmp_path / "wrong.yaml", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["max_rel_error"] > 1
    assert ran.err == "differs from its reference: attention-3pass\n"


@pytest.mark.parametrize("kind", library.KINDS)
def test_list(kind: str) -> None:
    rows = data(fusemodel("list", kind, "--json"))
    assert [r["name"] for r in rows] == list(library.names(kind))
    assert all(r["about"] and r["source"] for r in rows)
    everything = data(fusemodel("list", "--json"))
    assert list(everything) == list(library.KINDS)
    assert everything[kind] == rows == data(fusemodel("list", kind, "--all", "--json"))


@pytest.mark.parametrize("name", [n for kind in library.KINDS for n in library.names(kind)])
def test_show_by_name_and_by_file(tmp_path: Path, name: str) -> None:
    by_name = data(fusemodel("show", name, "--json"))
    assert by_name["name"] == name
    kind = next(k for k in library.KINDS if name in library.names(k))
    by_file = data(fusemodel("show", library.names(kind)[name], "--json"))
    assert by_file == by_name
    assert fusemodel("show", name).code == 0


def test_show_a_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yml").write_text(changed("bert", ("name: bert", "name: mine")))
    monkeypatch.chdir(tmp_path)
    assert [data(fusemodel("show", n, "--json"))["name"] for n in ("mine", "mine.yml", "./mine.yml")] == 3 * ["mine"]


# Tables


TABLES = [
    ["eval", "fusemax", "--workload", "bert", "--seq", "1M"],
    ["eval", "layer-flat", "--workload", "bert"],
    ["compare", "flat", "fusemax", "--workload", "bert,xlm", "--seq", "1K,64K,1M"],
    ["compare", "--workload", "bert", "--seq", "1K"],
    ["compare", "--workload", "bert", "--seq", "1K,2K,4K,8K,16K,32K", "--details"],
    ["list"],
    ["show", "flat-best"],
    ["show", "fusemax-cloud"],
    ["show", "attention-1pass"],
    ["show", "bert"],
    ["run", "attention-1pass"],
]


def printed(monkeypatch: pytest.MonkeyPatch, width: int, arguments: list[str]) -> list[str]:
    """The lines that a terminal of some width is given; 0 stands for a pipe."""
    settings = {"COLUMNS": str(width), "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"} if width else {"NO_COLOR": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ran = fusemodel(*arguments)
    assert (ran.code, ran.err) == (0, "")
    return re.sub(r"\x1b\[[0-9;]*m", "", ran.out).splitlines()


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_tables_fit_a_terminal_and_a_pipe(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    narrow, wide = printed(monkeypatch, 80, arguments), printed(monkeypatch, 0, arguments)
    assert max(map(len, narrow)) <= 80
    assert max(map(len, wide)) <= 200
    assert "…" not in "".join(narrow + wide)
    numbers = [sorted(re.findall(r"\d[\d.,e+]*", " ".join(lines))) for lines in (narrow, wide)]
    assert numbers[0] == numbers[1]


def test_a_very_narrow_terminal_cuts_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = printed(monkeypatch, 30, TABLES[0])
    assert "…" not in "".join(narrow)
    assert any(line.startswith("QK ") and line.rstrip().endswith(" TiB") for line in narrow)


def test_names_are_not_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [("name: fusemax", "name: '[/red]'"), ("fusemax-cloud", "./arch.yaml")]
    arch = text_of("fusemax-cloud").replace("global_buffer", "'[/]'").replace("array_2d", "'[bold]'")
    mapping = changed("fusemax", *odd).replace("global_buffer", "'[/]'").replace("array_2d", "'[bold]'")
    (tmp_path / "arch.yaml").write_text(arch)
    (tmp_path / "mine.yaml").write_text(mapping)
    (tmp_path / "sizes.yaml").write_text(changed("bert", ("name: bert", "name: '[/b]'")))
    monkeypatch.chdir(tmp_path)
    for arguments in (["show", "mine"], ["show", "arch"], ["eval", "mine", "-w", "sizes"], ["compare", "flat", "mine"]):
        ran = fusemodel(*arguments)
        assert (ran.code, ran.err) == (0, "")
        assert "[bold]" in ran.out


# The commands themselves


def test_version() -> None:
    assert fusemodel("--version") == Ran(0, f"fusemodel {__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["run"], ["eval"], ["compare"]])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command: list[str], option: str) -> None:
    ran = fusemodel(*command, option)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: fusemodel" in ran.out
    if command:
        assert "Example: fusemodel" in ran.out
        assert "--json" in ran.out


def test_no_arguments_show_the_help() -> None:
    assert "Usage: fusemodel" in fusemodel().out


@pytest.mark.parametrize("command", ["list", "show", "run", "eval", "compare"])
def test_the_example_of_the_help_works(command: str) -> None:
    example = re.search(r"Example: fusemodel (.*)", " ".join(fusemodel(command, "--help").out.split()))
    assert example
    ran = fusemodel(*example[1].split())
    assert (ran.code, ran.err) == (0, "")


def test_as_a_process_no_file_is_left(tmp_path: Path) -> None:
    for arguments in (
        ["eval", "fusemax"],
        ["run", "attention-3pass"],
        ["compare", "flat", "fusemax", "--json"],
        ["list"],
    ):
        command = [sys.executable, "-W", "error", "-m", "fusemodel.cli", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m fusemodel.cli list | head -n 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr) == ("cascades", "")


def test_a_terminal_that_is_not_unicode() -> None:
    command = [sys.executable, "-X", "utf8=0", "-m", "fusemodel.cli", "eval", "fusemax"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")


# No design, accelerator, cascade, workload or paper is named in the code


#: Papers, machines and models that could be meant; everything in the library is looked for besides.
KNOWN = [
    "fusemax", "flat-?attention", "flash-?attention", "flash-?decoding", r"flash\d", "flex-?attention",
    "paged-?attention", "teaal", "timeloop", "accelergy", "accelforge", "zigzag", "eyeriss", "simba", r"tpu(v\d)?",
    "a100", "h100", "h200", "b200", "v100", r"rtx\d*", "ampere", "blackwell", "nvidia", "cuda", "trainium", "gaudi",
    "mi300x?", "bert", "t5", "trxl", "xlm", r"gpt-?\d", r"llama\w*", r"mistral\w*", r"qwen\w*", r"deepseek\w*",
    "nayak", "dao", "kao", "vaswani",
]  # fmt: skip
#: The interface to a device that the measuring of kernels speaks to, and may name.
INTERFACE, SPEAKS = ("nvidia", "cuda"), CODE / "validate" / "measure"
#: Names that are plain words too: only a text that is nothing else names the file.
WORDS = {"flat", "unfused", "welford", "sinkhorn"}


def _texts(path: Path) -> list[tuple[int, str]]:
    """The parts of a source file that must name nothing: all but citations and doctests in docstrings and comments
    (``Author et al., ...``), and the examples of the commands' help."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(source.splitlines(), 1))
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "epilog":
            skipped |= set(range(node.value.lineno, (node.value.end_lineno or 0) + 1))
    result = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        for i, line in enumerate(token.string.splitlines()):
            if token.type in (tokenize.STRING, tokenize.COMMENT) and (
                " et al." in line or line.strip().startswith(">>>")
            ):
                continue
            if token.start[0] + i not in skipped:
                result.append((token.start[0] + i, line))
    return result


def test_the_code_names_nothing_of_the_library() -> None:
    kinds = [k for k in library.KINDS if k != "comparisons"]  # of which names are plain words
    names = [re.escape(n) for kind in kinds for n in library.names(kind) if n not in WORDS]
    words = [rf"^[\"']{w}[\"']$" for w in WORDS] + ["FLAT"]
    loose = re.compile(rf"(?<![\w-])({'|'.join(names + KNOWN)})(?![\w-])", re.IGNORECASE)
    spoken = re.compile(rf"(?<![\w-])({'|'.join(INTERFACE)})(?![\w-])", re.IGNORECASE)
    strict = re.compile("|".join(words))
    files = [p for p in CODE.rglob("*") if p.suffix in (".py", ".lark") and "library" not in p.relative_to(CODE).parts]
    assert len(files) > 40
    found = [
        f"{path.relative_to(CODE)}:{line}: {text.strip()}"
        for path in files
        for line, text in _texts(path)
        if loose.search(spoken.sub("", text) if SPEAKS in path.parents else text) or strict.search(text)
    ]
    assert found == []


def test_passes_says_what_is_written_and_what_can_be_reached() -> None:
    found = json.loads(fusemodel("passes", "attention-3pass", "--json").out)
    assert found["passes"]["m"] == 3
    assert found["derived"]["m"] == 1
    assert found["tensors"]["A"]["m"] == 3
    assert len(found["why"]["m"]) == 4
    assert found["bounds"]["compulsory_words"] == 4 * 64 * 12 * 64 * 1024
    assert found["bounds"]["footprint_grows"]["m"] is True
    assert "3 passes, 1 as derived" in fusemodel("passes", "attention-3pass").out


def test_passes_says_what_they_cost() -> None:
    """The two ways out of m: a row of 1024 scores on chip, or all of them twice again; and the bound that follows."""
    found = json.loads(fusemodel("passes", "attention-3pass", "--json").out)["bounds"]
    (fiber,) = found["fibers"]
    assert (fiber["rank"], fiber["passes"], fiber["buffer_words"], fiber["reread_words"]) == (
        "m", 3, 1024, 2 * 64 * 12 * 1024,
    )  # fmt: skip
    assert fiber["symbolic"] == {"buffer_words": "M", "reread_words": "2*B*H*M"}
    assert [w["reader"] for w in fiber["waits"]] == ["SN", "A"]
    words = [t["words"] for t in found["traffic"]]
    assert words == sorted(words, reverse=True)
    assert words[0] > words[-1] == found["compulsory_words"]
    rows = [" ".join(line.split()) for line in fusemodel("passes", "attention-3pass").out.splitlines()]
    assert "m, 3 passes: keep on chip M 1,024" in rows
    assert "or read again 2*B*H*M 1,572,864" in rows
    assert f"traffic with 16,384 words on chip {found['compulsory_words']:,}" in rows


def test_derive_writes_a_cascade_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "one.yaml"
    found = json.loads(fusemodel("derive", "attention-3pass", "--out", str(out), "--json").out)
    assert (found["passes_before"]["m"], found["passes_after"]["m"]) == (3, 1)
    assert out.read_text() == found["text"]
    assert [p.name for p in tmp_path.iterdir()] == ["one.yaml"]
    assert json.loads(fusemodel("run", str(out), "--json").out)["max_rel_error"] < 1e-12
    assert fusemodel("derive", "attention-3pass", "--out", str(tmp_path)).code == 2
    assert fusemodel("derive", "attention-3pass", "--rank", "q").code == 2


def test_a_reader_that_has_read_enough_ends_it_quietly():
    """`fusemodel list | head -1`, with output that is more than a pipe holds at once or not."""
    for arguments in (["list"], ["list", "--json"], ["list", "archs"]):
        running = subprocess.Popen(
            [sys.executable, "-m", "fusemodel.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 141


def test_output_that_cannot_be_written_is_said_in_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no full device")
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "fusemodel.cli", "list"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ran.returncode == 2
    assert ran.stderr.decode().startswith("error: the output: ")
    assert ran.stderr.count(b"\n") == 1
