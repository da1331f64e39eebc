"""Every mistake in a cascade file is one message with its place and, for a name, the nearest valid one."""

import pytest
from references.build import text_of

from fusemodel.cascade import load_cascade, parse_cascade
from fusemodel.errors import InputError

RANKS = "p: 4, m: 6"
INPUTS = "X: [m, p]"


def error_in(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_cascade(text)
    message = str(caught.value)
    assert message.startswith(f"{caught.value.where}: ")
    assert "\n" not in message
    return caught.value


# equations, line, column, message, expected, nearest; the first equation is line 6, and starts in column 3
EQUATIONS = [
    ("Z[p] = sum[m](XX[m, p])", 6, 17, "unknown tensor 'XX'", "one of X, Z", "X"),
    ("Z[p] = sum[m](X[m, q])", 6, 22, "unknown rank 'q'", "", ""),
    ("Z[p] = sum[n](X[m, p])", 6, 14, "unknown rank 'n'", "one of m, p", ""),
    ("Z[p] = summ[m](X[m, p])", 6, 10, "unknown reduction 'summ'", "", "sum"),
    ("Z[p] = X[m]", 6, 10, "'X' has 1 indices", "2: [m, p]", ""),
    ("Z[p] = X[0, p, 0]", 6, 10, "'X' has 3 indices", "2: [m, p]", ""),
    ("Z[p] = X", 6, 10, "'X' has 0 indices", "2: [m, p]", ""),
    ("Z[p] = X[6, p]", 6, 10, "index 6 of 'X' is out of range", "0 <= m < 6", ""),
    ("Z[p] = X[M, p]", 6, 10, "index M of 'X' is out of range", "0 <= m < M", ""),
    ("Z[p] = X[-1, p]", 6, 10, "index -1 of 'X' is out of range", "a whole number from 0", ""),
    ("Z[p] = X[0.5, p]", 6, 10, "index 0.5 of 'X' is out of range", "a whole number from 0", ""),
    ("Y[p] = X[m, p]\nZ[p] = Y[4]", 7, 10, "index 4 of 'Y' is out of range", "0 <= p < 4", ""),
    ("Z[p] = max[p](X[m, p])", 6, 3, "rank 'p' is reduced but stands on the left", "", ""),
    ("Z[p] = max[m](X[0, p])", 6, 3, "rank 'm' is reduced but does not stand on the right", "", ""),
    ("Z[] = max[m](X[m, p])", 6, 3, "rank 'p' is neither on the left nor reduced", "it in the reduction: [m, p]", ""),
    ("Z[p] = sum[m, m](X[m, p])", 6, 17, "rank 'm' is reduced twice", "", ""),
    ("Z[p] = 1 + sum[m](X[m, p])", 6, 14, "'sum' is not the outermost operation", "", ""),
    ("Z[p] = sum(X[0, p])", 6, 10, "'sum' needs its ranks", "`sum[m](...)`", ""),
    ("Z[p] = foo ??? bar", 6, 14, "unexpected character '?'", "", ""),
    ("where (p < 2)\nZ[p] = X[0, p]", 6, 3, "unexpected 'where'", "an equation before it", ""),
    ("- Z[p] = X[0, p]", 6, 3, "unexpected '-'", "an equation before it", ""),
    ("Z[p] = X[0, p]\n\n  where (X[q, p] > 0)", 8, 14, "unknown rank 'q'", "one of m, p", ""),
    ("Z[p] = X[0, p] where p > 0\n  where m > 0", 7, 5, "unexpected 'where'", "the end", ""),
    ("Z = max[m](X[m, p])", 6, 3, "rank 'p' is neither on the left nor reduced", "it in the reduction: [m, p]", ""),
    ("m = 1\nZ[p] = X[0, p]", 6, 3, "tensor 'm' bears the name of a rank", "", ""),
    ("Z[p] = ", 6, 9, "the text ends too early", "", ""),
    ("Z[p] = X[0, p", 6, 16, "the text ends too early", "", ""),
    ("Z[p] X[0, p]", 6, 8, "unexpected 'X'", "`=`", ""),
    ("Z[p] = X[0, p] X[1, p]", 6, 18, "unexpected 'X'", "", ""),
    ("Z[p] = X[0, p] where", 6, 23, "the text ends too early", "", ""),
    ("Z[p] = expp(X[0, p])", 6, 10, "unknown operator 'expp'", "", "exp"),
    ("Z[p] = exp(X[0, p], 2)", 6, 10, "operator 'exp' has 2 operands", "1", ""),
    ("Z[p] = max(X[0, p])", 6, 10, "operator 'max' has 1 operands", "at least 2", ""),
    ("Z[p] = select(X[0, p], 1)", 6, 10, "operator 'select' has 2 operands", "3", ""),
    ("Z[p] = neg(X[0, p])", 6, 10, "unknown operator 'neg'", "", ""),
    ("Z[p] = Y[p]\nY[p] = Z[p] + X[0, p]", 6, 3, "cyclic definition: Z -> Y -> Z", "", ""),
    ("Z[p] = Z[p] + X[0, p]", 6, 3, "cyclic definition: Z -> Z", "", ""),
    ("Z[p] = coalesce(Z[p - 1], 0) + X[0, p]", 6, 3, "cyclic definition: Z -> Z", "", ""),
    ("Z[m+1, p] = X[m, p]", 6, 3, "iterative rank 'm' of 'Z' has no start", "Z[0, p] = ...", ""),
    ("Z[1, p] = 0\nZ[m+1, p] = X[m, p]", 6, 3, "the start of 'Z' is not at index 0 of 'm'", "Z[0, p] = ...", ""),
    ("Z[0, p] = X[0, p]", 6, 3, "'Z' is started at index 0 but has no step", "", ""),
    ("Z[0, m] = 0\nZ[m+1, p] = X[m, p]", 6, 3, "'Z' runs along 'm' here and along 'p' in its step", "", ""),
    ("Z[0] = 0\nZ[m+1] = 1\nZ[m+1] = 2\nY[p] = X[m, p] * Z[M]", 8, 3, "tensor 'Z' has two steps", "", ""),
    ("Z[p] = X[0, p]\nZ[p] = X[1, p]", 7, 3, "tensor 'Z' is defined twice", "", ""),
    ("X[m, p] = 1\nZ[p] = X[m, p]", 6, 3, "tensor 'X' is an input and cannot be defined", "", ""),
    ("P[p] = X[m, p]\nZ[p] = P[p]", 6, 3, "tensor 'P' bears the name of the extent of rank 'p'", "", ""),
    ("m[p] = X[0, p]\nZ[p] = X[0, p]", 6, 3, "tensor 'm' bears the name of a rank", "", ""),
    ("Y[p] = X[m, p]\nZ[p] = X[0, p]", 6, 3, "tensor 'Y' is computed but neither used nor an output", "", ""),
    ("Z[p] = 1", 3, 10, "input 'X' is not used", "", ""),
    ("Y[p] = X[m, p]", 4, 10, "unknown output tensor 'Z'", "one of X, Y", ""),
    ("Z[p, p] = X[0, p]", 6, 3, "tensor 'Z' holds a rank twice: p, p", "", ""),
    ("Z[X[0, p]] = X[0, p]", 6, 3, "the rank of index 1 of 'Z' is not known", "", ""),
    ("Z[p] = topk[m](X[m, p])", 6, 10, "wrong ranks for 'topk'", "`topk[m -> s](...)`", ""),
    ("Z[p] = argmax[m -> p](X[m, p])", 6, 10, "wrong ranks for 'argmax'", "`argmax[m](...)`", ""),
    ("Z[p] = topk[p -> m](X[m, p])", 6, 3, "rank 'p' is searched but stands on the left", "", ""),
    ("Z[p] = topk[m -> k](X[m, p])", 6, 15, "unknown rank 'k'", "one of m, p", ""),
    ("Z[p] = topk[m -> p](X[m, p])", 6, 3, "rank 'p' is created here and cannot be an operand", "", ""),
    ("Z[m] = topk[p -> m](X[0, p])", 6, 3, "topk takes 6 of 4 elements of 'p'", "m <= p", ""),
    ("Z[p] = X[m -> p, p]", 6, 12, "`->` only stands in topk[m -> s] and sort[m -> s]", "", ""),
    ("Z[p] = X[0, p] where sum[m](X[m, p])", 6, 24, "'sum' is not the outermost operation", "", ""),
    ("Z[p] = X[0, p] * " + "9" * 200, 6, 20, "a number of 200 characters", "at most 100", ""),
    ("Z[p] = X[0, p]" + " + 1" * 200, 6, 3, "operators nested more than 150 deep", "", ""),
    ("Z[p] = " + "-" * 200 + "X[0, p]", 6, 160, "operators nested more than 150 deep", "", ""),
    ("Z[p] = " + "(" * 500 + "X[0, p]" + ")" * 500, 6, 3, "more than 400 brackets in one expression", "", ""),
    ("Z[p] = X[0, p]" + " " * 20_000 + "+ 1", 6, 3, "an expression of 20017 characters", "at most 20000", ""),
]


@pytest.mark.parametrize(("equations", "line", "column", "message", "expected", "nearest"), EQUATIONS)
def test_mistakes_in_equations(equations, line, column, message, expected, nearest):
    error = error_in(text_of(equations, ranks=RANKS, inputs=INPUTS, outputs="Z"))
    assert error.message == message
    assert (error.where.line, error.where.column) == (line, column)
    assert not expected or error.expected == expected
    assert error.nearest == nearest


# ranks (line 2, the first at column 9), line, column, message, nearest
SIZES = [
    ("p: 4, m: 0", 2, 18, "the extent of rank 'm' is 0; expected at least 1"),
    ("p: 4, m: -3", 2, 18, "the extent of rank 'm' is -3; expected at least 1"),
    ("p: 4, m: .nan", 2, 18, "the extent of rank 'm' is nan; expected a whole number"),
    ("p: 4, m: .inf", 2, 18, "the extent of rank 'm' is inf; expected a whole number"),
    ("p: 4, m: 1e18", 2, 18, "the extent of rank 'm' is 1000000000000000000; expected at most 2^40 = 1099511627776"),
    ("p: 4, m: 2.5", 2, 18, "the extent of rank 'm' = 2.5 is 2.5, not a whole number; expected a whole number"),
    ("p: 4, m: p // 8", 2, 18, "the extent of rank 'm' = p // 8 is 0; expected at least 1"),
    ("p: 4, m: p / 3", 2, 18, "the extent of rank 'm' = p / 3 is 1.33333, not a whole number; expected sizes that "
     "divide, or `ceil(p / 3)` for a ragged last part"),
    ("p: 4, m: ", 2, 18, "rank 'm' has no extent; expected a number or an expression of other ranks"),
    ("p: 4, m: [1]", 2, 18, "rank 'm' has no extent; expected a number or an expression of other ranks"),
    ("p: 4, m: true", 2, 18, "rank 'm' has no extent; expected a number or an expression of other ranks"),
    ("p: 4, m: p * q", 2, 22, "unknown rank 'q'; expected one of m, p"),
    ("p: m, m: p", 2, 12, "the extents of p -> m -> p depend on each other"),
    ("p: 4, m: m + 1", 2, 18, "the extents of m -> m depend on each other"),
    ("p: 4, m: p / (p - 4)", 2, 18, "division by zero in `P / (P - 4)`"),
    ("p: 4, m: 4 % (p - 4)", 2, 18, "division by zero in `4 % (P - 4)`"),
    ("p: 4, m: sqrt(-p)", 2, 18, "`sqrt(-P)` has no finite value"),
    ("p: 4, m: exp(1000)", 2, 18, "`exp(1000)` has no finite value"),
    ('p: 4, m: "pow(pow(10, 60), 60)"', 2, 18, "`pow(pow(10, 60), 60)` has no finite value"),
    ('p: 4, m: "pow(-2, 0.5)"', 2, 18, "`pow(-2, 0.5)` has no finite value"),
    ("p: 4, m: p +", 2, 21, "the text ends too early"),
    ("p: 4, m: relu(p)", 2, 18, "unknown operator in a size 'relu'"),
    ("p: 4, M: 4", 2, 15, "'M' cannot name a rank; expected a lower-case name"),
    ("p: 4, 2m: 4", 2, 15, "'2m' cannot name a rank; expected a lower-case name"),
    ("p: 4, inf: 4", 2, 15, "'inf' cannot name a rank; expected a lower-case name"),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "line", "column", "message"), SIZES)
def test_mistakes_in_extents(ranks, line, column, message):
    error = error_in(text_of("Z[p] = X[m, p]", ranks=ranks, inputs=INPUTS, outputs="Z"))
    assert str(error).startswith(f"<text>:{line}:{column}: {message}")


# a line of the file, in place of line 5, and what is said of it
FIELDS = [
    ("split: {m: [m1, m0]}", 5, 13, "unknown rank 'm1'; expected one of m, p, p0, p1"),
    ("split: {p: [p1]}", 5, 12, "'p' is split into 1 parts; expected an outer and an inner rank: [p1, p0]"),
    ("split: {p: [p1, p]}", 5, 12, "'p' is split into 2 parts; expected an outer and an inner rank: [p1, p0]"),
    ("split: {p: [p1, p0], p1: [p, m]}", 5, 26, "'p1' is a part of itself"),
    ("split: {p: [p0, p1]}", 2, 12, "rank 'p' has 4 elements, but p0 x p1 = 3 x 2 = 6"),
    ("split: {q: [p1, p0]}", 5, 9, "unknown rank 'q'; expected one of m, p, p0, p1"),
    ("split: [p]", 5, 8, "'split' is not a mapping; expected `split: {name: ...}`"),
    ("batch: [b]", 5, 9, "unknown rank 'b'; expected one of m, p, p0, p1"),
    ("batch: m", 5, 8, "'batch' has no list of ranks; expected a list such as [e, p]"),
    ("sequence: [p, p]", 5, 15, "rank 'p' is listed twice"),
    ("test: {p: 0}", 5, 11, "the test extent of 'p' is 0; expected a whole number from 1 to 2^40"),
    ("test: {p: x}", 5, 11, "the test extent of 'p' is 'x'; expected a whole number such as 1024 or 16K"),
    ("test: {q: 1}", 5, 8, "unknown rank 'q'; expected one of m, p, p0, p1"),
    ("referense: a", 5, 1, "unknown field 'referense'; expected one of about, batch, einsums, inputs"),
    ("about: [a]", 5, 8, "'about' is not text; expected text"),
    ("name: again", 5, 1, "key 'name' appears twice"),
    ("about: {a: 1, a: 2}", 5, 15, "key 'a' appears twice"),
    ("about: !!python/object:os.system x", 5, 8, "the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed"),
    ("about: [1", 6, 8, "not valid YAML: "),
    ("about: *missing", 5, 8, "not valid YAML: found undefined alias"),
    ("\tabout: x", 5, 1, "not valid YAML: "),
]


@pytest.mark.parametrize(("field", "line", "column", "message"), FIELDS)
def test_mistakes_in_fields(field, line, column, message):
    text = text_of("Z[p] = X[m, p]", ranks="p: 4, m: 6, p0: 3, p1: 2", inputs=INPUTS, outputs="Z", extra=field)
    assert str(error_in(text)).startswith(f"<text>:{line}:{column}: {message}")


def test_a_misspelt_field_names_the_nearest():
    text = text_of("Z[p] = X[m, p]", ranks=RANKS, inputs=INPUTS, outputs="Z", extra="referense: a")
    assert error_in(text).nearest == "reference"


def test_a_split_that_does_not_divide():
    text = text_of(
        "Z[m1] = sum[m0](X[m1, m0])", ranks="m: 7, m0: 2, m1: 3", inputs="X: [m]", outputs="Z",
        extra="split: {m: [m1, m0]}",
    )  # fmt: skip
    assert str(error_in(text)) == (
        "<text>:2:12: rank 'm' has 7 elements, but m1 x m0 = 3 x 2 = 6; expected `m1: m / m0`, "
        "or `ceil(m / m0)` for a ragged last part"
    )


def test_one_part_of_a_split_alone():
    text = text_of(
        "Z[m1] = sum[m0](X[m1] + m0)", ranks="m: 6, m0: 2, m1: 3", inputs="X: [m]", outputs="Z",
        extra="split: {m: [m1, m0]}",
    )  # fmt: skip
    error = error_in(text)
    assert error.message == "'X' is indexed by 'm1' alone, a part of 'm'"
    assert (error.where.line, error.where.column) == (7, 19)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ("z", "'X' is indexed by 'z' alone, a part of 'm'"),
        ("c0", "'X' is indexed by 'c0' alone, a part of 'm'"),
        ("z, c0, c1", "'X' has 3 indices"),
        ("e, e + 1", "'X' has 2 indices"),
        ("z, c1, 9", "index 9 of 'X' is out of range"),
        ("2, c", "index 2 of 'X' is out of range"),
        ("z, C", "index C of 'X' is out of range"),
    ],
)
def test_indices_that_are_not_all_parts(indices, message):
    reduced = ", ".join(i for i in indices.split(", ") if i.isalnum() and i.islower())
    text = text_of(
        f"Y = sum[{reduced}](X[{indices}])", ranks="m: 8, z: 2, c: 4, c0: 2, c1: 2, e: 3", inputs="X: [m]", outputs="Y",
        extra="split: {m: [z, c], c: [c1, c0]}",
    )  # fmt: skip
    assert error_in(text).message == message


@pytest.mark.parametrize(("held", "indices"), [("m1, m0", "m1"), ("m1, m0", "m0 + 1"), ("p, m1, m0", "p, m0")])
def test_a_forgotten_part_does_not_stand_for_the_whole(held, indices):
    text = text_of(
        f"Y[p] = X[{indices}]", ranks="m: 6, m0: 2, m1: 3, p: 4", inputs=f"X: [{held}]", outputs="Y",
        extra="split: {m: [m1, m0]}",
    )  # fmt: skip
    error = error_in(text)
    assert (error.message, error.expected) == (
        f"'X' has {indices.count(',') + 1} indices",
        f"{held.count(',') + 1}: [{held}]",
    )


@pytest.mark.parametrize(
    ("declared", "left"),
    [("m", "n1, n0"), ("m", "m1, m0, p"), ("m", "m1+1, m0"), ("m, p", "p"), ("m1, m0", "m+1"), ("p, m1", "p, m1, m0")],
)
def test_outputs_that_are_not_what_is_written(declared, left):
    text = text_of(
        f"Y[{left}] = X[p] + {left.replace(', ', ' + ')}", ranks="m: 6, m0: 2, m1: 3, n: 6, n0: 2, n1: 3, p: 4",
        inputs="X: [p]", outputs="Y", extra="split: {m: [m1, m0], n: [n1, n0]}",
    ).replace("outputs: [Y]", f"outputs: {{Y: [{declared}]}}")  # fmt: skip
    error = error_in(text)
    counts = left.count(",") + 1, declared.count(",") + 1
    assert error.message == f"'Y' has {counts[0]} indices, but is declared with {counts[1]} ranks"
    assert error.expected == f"[{declared}], each by itself or by its parts"


def test_a_start_by_other_ranks_than_the_step():
    text = text_of(
        "S[0, m1, m0] = X[m1, m0]\nS[p+1, m] = S[p, m] + X[m]", ranks="m: 6, m0: 2, m1: 3, p: 4", inputs="X: [m]",
        outputs="S", extra="split: {m: [m1, m0]}",
    )  # fmt: skip
    assert error_in(text).message == "'S' runs along 'm1' here and along 'p, m' in its step"


def test_a_batch_rank_cannot_be_reduced_away():
    text = text_of(
        "Z[p] = max[b](X[p, b])", ranks="b: 2, p: 4", inputs="X: [p, b]", outputs="Z", extra="batch: [b]"
    )  # fmt: skip
    assert error_in(text).message == "'Z' carries the batch rank 'b', which is reduced here"


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("inputs: [X]", "3:9", "'inputs' is not a mapping"),
        ("inputs: {X: [m, q]}", "3:17", "unknown rank 'q'"),
        ("inputs: {X: [m, m]}", "3:17", "rank 'm' is listed twice"),
        ("inputs: {X: m}", "3:13", "'X' has no list of ranks"),
        ("inputs: {X: [m, p], Y: [p]}", "3:21", "input 'Y' is not used"),
        ("inputs: {3X: [m, p]}", "3:10", "'3X' cannot name a tensor"),
        ("inputs: {}", "3:9", "field 'inputs' is missing or empty"),
        ("inputs:", "3:8", "field 'inputs' is missing or empty"),
        ("", "1:1", "field 'inputs' is missing or empty"),
    ],
)
def test_mistakes_in_inputs(line, place, message):
    text = text_of("Z[p] = X[m, p]", ranks=RANKS, inputs=INPUTS, outputs="Z").replace("inputs: {X: [m, p]}", line)
    assert str(error_in(text)).startswith(f"<text>:{place}: {message}")


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("outputs: Z", "4:10", "'outputs' is not a list of tensors"),
        ("outputs: [Z, Z]", "4:10", "an output is listed twice"),
        ("outputs: [X]", "3:10", "output 'X' is an input"),
        ("outputs: [Zed]", "4:10", "unknown output tensor 'Zed'"),
        ("outputs: {Z: [p, m]}", "6:3", "'Z' has 1 indices, but is declared with 2 ranks"),
        ("outputs: []", "4:10", "field 'outputs' is missing or empty"),
    ],
)
def test_mistakes_in_outputs(line, place, message):
    text = text_of("Z[p] = X[m, p]", ranks=RANKS, inputs=INPUTS, outputs="Z").replace("outputs: [Z]", line)
    assert str(error_in(text)).startswith(f"<text>:{place}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "<text>:1:1: the file is empty; expected a YAML mapping"),
        ("# nothing\n", "<text>:1:1: the file is empty"),
        ("- a\n- b\n", "<text>:1:1: the file does not hold a mapping"),
        ("just text", "<text>:1:1: the file does not hold a mapping"),
        ("a: b: c", "<text>:1:5: not valid YAML: mapping values are not allowed"),
        ("a: \0", "<text>:1:4: not valid YAML"),
        ("? [a]\n: b", "<text>:1:3: a key must be plain text"),
        ("a: &a [*a]", "<text>:1:4: nested more than 50 deep"),
        ("a: " + "[" * 60 + "]" * 60, "<text>:1:53: nested more than 50 deep"),
        ("name: x\n", "<text>:1:1: field 'ranks' is missing or empty"),
    ],
)
def test_files_that_are_no_cascades(text, message):
    assert str(error_in(text)).startswith(message)


def test_equations_in_other_forms_of_text():
    head = "ranks: {p: 4}\ninputs: {X: [p]}\noutputs: [Z]\n"
    assert str(error_in(head + "einsums: Z[p] = W[p]\n")).startswith("<text>:4:17: unknown tensor 'W'")
    assert str(error_in(head + 'einsums: "Z[p] = W[p]"\n')).startswith("<text>:4:18: unknown tensor 'W'")
    assert str(error_in(head + "einsums: |\n\n\n      # first\n      Z[p] = W[p]\n")).startswith("<text>:8:14: unknown")
    assert str(error_in(head + "einsums: |\n  Z[p] = max(X[p],\n    W[p])\n")).startswith(
        "<text>:6:5: unknown tensor 'W'"
    )
    assert str(error_in(head + "einsums: |\n  # nothing\n")).startswith("<text>:4:10: there are no equations")
    assert str(error_in(head + "einsums: [a]\n")).startswith("<text>:4:10: 'einsums' is not text")


def test_anchors_that_would_explode():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    error = error_in("\n".join(lines))
    assert error.message == "more than 100000 values once anchors are expanded"


def test_more_ranks_than_make_sense():
    ranks = ", ".join(["p: 4", "m: 6", *(f"r{n}: r{n + 1}" for n in range(3000)), "r3000: 1"])
    error = error_in(text_of("Z[p] = X[m, p]", ranks=ranks, inputs=INPUTS, outputs="Z"))
    assert (error.message, error.expected) == ("there are 3003 ranks", "at most 200")


# Files


def failing(path) -> str:
    with pytest.raises(InputError) as caught:
        load_cascade(str(path))
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    assert failing(tmp_path) == f"{tmp_path}: this is a directory; expected a YAML file"
    (tmp_path / "small.yaml").write_text("")
    assert failing(tmp_path / "smal.yaml").endswith("no such file; did you mean 'small.yaml'?")
    assert "the file is empty" in failing(tmp_path / "small.yaml")
    big = tmp_path / "big.yaml"
    big.write_text("about: " + "x" * (4 * 2**20))
    assert failing(big).startswith(f"{big}: the file has 4.0 MiB; expected at most 4 MiB")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in failing(binary)


def test_a_name_that_is_not_in_the_library():
    message = failing("atention-1pass")
    assert message.startswith("unknown cascade 'atention-1pass'")
    assert message.endswith("did you mean 'attention-1pass'?")
    assert "neither a name nor a path" in failing("")
    assert "neither a name nor a path" in failing("a\0b")


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text_of("Z[p] = W[p]", ranks=RANKS, inputs=INPUTS, outputs="Z"))
    assert failing(path).startswith(f"{path}:6:10: unknown tensor 'W'")
