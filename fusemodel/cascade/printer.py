"""IR back to text in the same language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fusemodel.cascade.ir import Access, Apply, Cascade, Einsum, Expr, Extent, Number, RankValue
from fusemodel.cascade.operators import COMPARISONS

_PRECEDENCE = {
    "or": 1, "and": 2, "not": 3, **dict.fromkeys(COMPARISONS, 4), "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6,
    "neg": 7,
}  # fmt: skip


def format_expr(expr: Expr, outer: int = 0) -> str:
    """The expression as text, with as few brackets as its meaning allows."""
    match expr:
        case Number(value):
            if value in (float("inf"), float("-inf")):
                return "inf" if value > 0 else "-inf"
            text = repr(value)
            return f"({text})" if text.startswith("-") and outer > 5 else text
        case Extent(rank):
            return rank.upper()
        case RankValue(rank):
            return rank
        case Access(tensor, indices):
            return f"{tensor}[{', '.join(format_expr(i) for i in indices)}]" if indices else tensor
        case Apply(op, args):
            return _format_apply(op, args, outer)


def _format_apply(op: str, args: tuple[Expr, ...], outer: int) -> str:
    level = _PRECEDENCE.get(op)
    if level is None:
        return f"{op}({', '.join(format_expr(a) for a in args)})"
    match op:
        case "neg":
            text = f"-{format_expr(args[0], 8)}"
        case "not":
            text = f"not {format_expr(args[0], 4)}"
        case "and" | "or":
            text = f" {op} ".join(format_expr(a, level + 1) for a in args)
        case _:
            text = f"{format_expr(args[0], level + (op in COMPARISONS))} {op} {format_expr(args[1], level + 1)}"
    return f"({text})" if level < outer else text


def format_einsum(einsum: Einsum) -> str:
    """One equation."""
    body = format_expr(einsum.body)
    if einsum.selection:
        s = einsum.selection
        body = f"{s.op}[{s.rank}{f' -> {s.into}' if s.into else ''}]({body})"
    elif einsum.reduction:
        body = f"{einsum.reduction.op}[{', '.join(einsum.reduction.ranks)}]({body})"
    return f"{format_expr(einsum.target)} = {body}" + (f" where {format_expr(einsum.where)}" if einsum.where else "")


def format_einsums(cascade: Cascade) -> str:
    """All equations, one a line, with the equals signs aligned."""
    lines = [format_einsum(e).split(" = ", 1) for e in cascade.einsums]
    width = max(len(left) for left, _ in lines)
    return "\n".join(f"{left:<{width}} = {right}" for left, right in lines)


def format_cascade(cascade: Cascade) -> str:
    """The whole cascade as a file that loads to an equal one."""
    out = [f"name: {cascade.name}"]
    for key in ("about", "source", "provenance"):
        if value := getattr(cascade, key):
            out.append(f"{key}: {_quoted(value)}")
    ranks = ", ".join(f"{_key(r)}: {_extent_text(e)}" for r, e in cascade.ranks.items())
    out.append(f"ranks: {{{ranks}}}")
    if cascade.batch:
        out.append(f"batch: [{', '.join(map(_key, cascade.batch))}]")
    if cascade.split:
        out.append(f"split: {_lists(cascade.split)}")
    if cascade.sequence:
        out.append(f"sequence: [{', '.join(map(_key, cascade.sequence))}]")
    if cascade.test:
        out.append("test: {" + ", ".join(f"{_key(r)}: {v}" for r, v in cascade.test.items()) + "}")
    out.append(f"inputs: {_lists({n: r for n, r in cascade.inputs.items() if n not in cascade.parameters})}")
    if fixed := {n: r for n, r in cascade.inputs.items() if n in cascade.parameters}:
        out.append(f"parameters: {_lists(fixed)}")
    out.append(f"outputs: {_lists({t: cascade.shapes.get(t, cascade.tensors[t].ranks) for t in cascade.outputs})}")
    if cascade.reference:
        out.append(f"reference: {cascade.reference}")
    out.append("einsums: |")
    out += [f"  {line}" for line in format_einsums(cascade).splitlines()]
    return "\n".join(out) + "\n"


def _lists(items: Mapping[str, Iterable[str]]) -> str:
    return "{" + ", ".join(f"{_key(name)}: [{', '.join(map(_key, ranks))}]" for name, ranks in items.items()) + "}"


def _extent_text(expr: Expr) -> str:
    text = format_expr(expr)
    return text.lower() if isinstance(expr, Number) else f'"{text.lower()}"'


def _key(name: str) -> str:
    return f'"{name}"' if name.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n") else name


def _quoted(text: str) -> str:
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'
