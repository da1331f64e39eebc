"""Text to IR: equations and expressions, with places kept for messages."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from fusemodel.cascade.ir import Access, Apply, Einsum, Expr, Extent, Number, RankValue, Reduction, Selection
from fusemodel.cascade.operators import OPERATORS, REDUCTIONS, SELECTIONS
from fusemodel.errors import InputError, Where, unknown

MAX_EQUATION = 20_000  # characters
MAX_DEPTH = 150  # of operators inside operators
MAX_DIGITS = 100
_SUFFIX = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_GOES_ON = re.compile(r"\s*((?:where|and|or)\b|[-+*/%<>=!])")  # a line that starts so cannot start an equation
_TERMINALS = {
    "RPAR": "`)`", "LPAR": "`(`", "RSQB": "`]`", "LSQB": "`[`", "COMMA": "`,`", "EQUAL": "`=`", "NAME": "a name",
    "NUMBER": "a number", "MUL": "`*` or `/`", "PLUS": "`+`", "MINUS": "`-`", "COMPARE": "a comparison",
    "__ANON_0": "`->`", "$END": "the end", "AND": "`and`", "OR": "`or`", "NOT": "`not`", "WHERE": "`where`",
}  # fmt: skip


@cache
def _parser() -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start=["equation", "expression"], propagate_positions=True)


@dataclass(frozen=True)
class Names:
    """What a bare name can be: a rank (``extents_only``: then its extent), or the extent of a rank in capitals."""

    ranks: Collection[str]
    extents_only: bool = False


def parse_number(text: str) -> int | float:
    """``1024``, ``0.5``, ``1e-6``, or with a binary suffix ``16K``, ``1M`` (or ``16k``)."""
    if len(text) > MAX_DIGITS:
        raise InputError(f"a number of {len(text)} characters", expected=f"at most {MAX_DIGITS}")
    scale = _SUFFIX.get(text[-1:].upper(), 0)
    body = text[:-1] if scale else text
    value = float(body) if any(c in body for c in ".eE") else int(body)
    if scale:
        value *= scale
        value = int(value) if float(value).is_integer() else value
    return value


def parse_expression(text: str, names: Names, where: Where) -> Expr:
    """An extent, a condition or a size."""
    expr = _Builder(names, where).expr(_tree(text, "expression", where).children[0])
    _check_depth(expr, where)
    return expr


def parse_equations(text: str, names: Names, where: Where) -> tuple[Einsum, ...]:
    """A block of equations, one a line. A line goes on while a bracket is open, and where the next starts with what
    only stands between others: ``where``, ``and``, ``or``, an operator. ``#`` starts a comment."""
    result = []
    for statement, line in _statements(text, where):
        place = Where(where.file, where.line + line, where.column)
        einsum = _Builder(names, place).equation(_tree(statement, "equation", place))
        for expr in (einsum.target, einsum.body, einsum.where):
            _check_depth(expr, place)
        result.append(einsum)
    return tuple(result)


def _check_depth(expr: Expr | None, where: Where) -> None:
    """Everything that walks an expression calls itself, so its depth is bounded."""
    left: list[tuple[Expr, int]] = [] if expr is None else [(expr, 1)]
    while left:
        part, depth = left.pop()
        if depth > MAX_DEPTH:
            raise InputError(f"operators nested more than {MAX_DEPTH} deep", where, expected="several equations")
        inner = part.args if isinstance(part, Apply) else part.indices if isinstance(part, Access) else ()
        left += [(i, depth + 1) for i in inner]


def _statements(text: str, where: Where) -> list[tuple[str, int]]:
    """Each equation with the number of its first line; lines left out inside it are empty, so that places hold."""
    groups: list[tuple[int, list[str]]] = []
    depth = 0
    for number, raw in enumerate(text.splitlines()):
        code = raw.split("#", 1)[0].rstrip()
        goes_on = _GOES_ON.match(code)
        if groups and (depth > 0 or goes_on):
            start, lines = groups[-1]
            lines += [""] * (number - start - len(lines)) + [code]
        elif goes_on:
            column = where.column + goes_on.start(1)
            raise InputError(f"unexpected {goes_on[1]!r}", Where(where.file, where.line + number, column),
                             expected="an equation before it")  # fmt: skip
        elif code:
            groups.append((number, [code]))
        depth = max(0, depth + sum(code.count(c) for c in "([") - sum(code.count(c) for c in ")]"))
    return [("\n".join(lines).rstrip("\n"), start) for start, lines in groups]


def _tree(text: str, start: str, where: Where) -> Tree[Any]:
    if len(text) > MAX_EQUATION:
        raise InputError(f"an expression of {len(text)} characters", where, expected=f"at most {MAX_EQUATION}")
    if text.count("(") + text.count("[") > 400:
        raise InputError("more than 400 brackets in one expression", where)
    try:
        return _parsed(text, start)
    except UnexpectedInput as error:
        raise _syntax_error(error, text, where) from None


@lru_cache(maxsize=2**12)  # a search for other cascades writes the same equations again and again
def _parsed(text: str, start: str) -> Tree[Any]:
    return _parser().parse(text, start=start)


def _syntax_error(error: UnexpectedInput, text: str, where: Where) -> InputError:
    line, column = getattr(error, "line", 1), getattr(error, "column", 1)
    match error:
        case UnexpectedToken(token=token, accepts=accepts, expected=expected):
            end = token.type == "$END"
            found = "the text ends too early" if end else f"unexpected {str(token)!r}"
            wanted = accepts or expected
            if end:
                line, column = text.count("\n") + 1, len(text.rsplit("\n", 1)[-1]) + 1
        case UnexpectedCharacters(char=char, allowed=allowed):
            found, wanted = f"unexpected character {char!r}", allowed or ()
        case UnexpectedEOF(expected=expected):
            found, wanted = "the text ends too early", expected
        case _:
            found, wanted = "cannot be read", ()
    expected_text = ", ".join(sorted({_TERMINALS.get(str(w), str(w)) for w in wanted}))
    return InputError(found, _shift(where, line, column), expected=expected_text)


def _shift(where: Where, line: int, column: int) -> Where:
    """A place inside a text that starts at ``where``; every line of a block is indented alike."""
    return Where(where.file, max(where.line, 1) + max(line, 1) - 1, max(where.column, 1) + max(column, 1) - 1)


class _Builder:
    """Turns a parse tree into IR."""

    def __init__(self, names: Names, where: Where) -> None:
        self.names = names
        self.where = where
        self.extents = {r.upper(): r for r in names.ranks}
        self.depth = 0

    def place(self, node: Tree[Any] | Token) -> Where:
        meta = node if isinstance(node, Token) else node.meta
        return _shift(self.where, getattr(meta, "line", 1) or 1, getattr(meta, "column", 1) or 1)

    def equation(self, tree: Tree[Any]) -> Einsum:
        left, right, where = tree.children
        target = self.access(left)
        condition = self.expr(where) if where is not None else None
        reduction: Reduction | None = None
        selection: Selection | None = None
        outer = _outermost(right)
        if outer is not None:
            bracket, inner = outer.children
            name = str(bracket.children[0])
            body = self.expr(inner)
            if name in SELECTIONS:
                selection = self.selection(name, bracket)
            elif name in REDUCTIONS:
                reduction = Reduction(name, self.reduced(bracket))
            else:
                raise unknown("reduction", name, [*REDUCTIONS, *SELECTIONS], self.place(bracket))
        else:
            body = self.expr(right)
        return Einsum(target, body, reduction, selection, condition, self.place(left))

    def reduced(self, bracket: Tree[Any]) -> tuple[str, ...]:
        ranks = []
        for item in bracket.children[1:]:
            name = _bare_name(item)
            if name is None or name not in self.names.ranks:
                raise unknown("rank", name or "expression", self.names.ranks, self.place(item or bracket))
            if name in ranks:
                raise InputError(f"rank {name!r} is reduced twice", self.place(item))
            ranks.append(name)
        return tuple(ranks)

    def selection(self, name: str, bracket: Tree[Any]) -> Selection:
        items = bracket.children[1:]
        creates = name in ("topk", "sort")
        if len(items) != 1 or items[0] is None or creates != (getattr(items[0], "data", "") == "arrow"):
            form = f"{name}[m -> s](...)" if creates else f"{name}[m](...)"
            raise InputError(f"wrong ranks for {name!r}", self.place(bracket), expected=f"`{form}`")
        if creates:
            source, into = _bare_name(items[0].children[0]), str(items[0].children[1])
        else:
            source, into = _bare_name(items[0]), None
        for rank in (source, into):
            if (rank != into or creates) and rank not in self.names.ranks:
                raise unknown("rank", str(rank), self.names.ranks, self.place(items[0]))
        return Selection(name, str(source), into)

    def access(self, bracket: Tree[Any]) -> Access:
        name, *items = bracket.children
        indices = []
        for item in items:
            if item is None:
                continue
            if getattr(item, "data", "") == "arrow":
                raise InputError("`->` only stands in topk[m -> s] and sort[m -> s]", self.place(item))
            indices.append(self.expr(item))
        return Access(str(name), tuple(indices), self.place(name))

    def expr(self, node: Tree[Any] | Token) -> Expr:
        node = _unwrapped(node)
        assert isinstance(node, Tree)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError(f"operators nested more than {MAX_DEPTH} deep", self.place(node),
                             expected="several equations")  # fmt: skip
        result = self.built(node)
        self.depth -= 1
        return result

    def built(self, node: Tree[Any]) -> Expr:
        children = node.children
        match node.data:
            case "number":
                try:
                    return Number(parse_number(str(children[0])))
                except InputError as error:
                    raise error.at(self.place(node)) from None
            case "name":
                assert isinstance(children[0], Token)
                return self.name(children[0])
            case "bracket":
                return self.access(node)
            case "call":
                return self.call(node)
            case "reduction":
                name = str(children[0].children[0])
                known = [*REDUCTIONS, *SELECTIONS]
                if name not in known:
                    raise unknown("reduction", name, known, self.place(node))
                raise InputError(
                    f"{name!r} is not the outermost operation", self.place(node),
                    expected="a reduction around the whole right side, or an Einsum of its own",
                )  # fmt: skip
            case "minus":
                inner = self.expr(children[1])
                return Number(-inner.value) if isinstance(inner, Number) else Apply("neg", (inner,), self.place(node))
            case "plus":
                return self.expr(children[1])
            case "negate":
                return Apply("not", (self.expr(children[0]),), self.place(node))
            case "any_of" | "all_of":
                parts = [self.expr(c) for c in children]
                if len(parts) == 1:
                    return parts[0]
                return Apply("or" if node.data == "any_of" else "and", tuple(parts), self.place(node))
            case "compare":
                return self.comparison(node)
            case "chain":
                result = self.expr(children[0])
                for op, right in zip(children[1::2], children[2::2], strict=True):
                    result = Apply(str(op), (result, self.expr(right)), self.place(op))
                return result
        raise AssertionError(node.data)

    def comparison(self, node: Tree[Any]) -> Expr:
        values = [self.expr(c) for c in node.children[::2]]
        ops = [str(o) for o in node.children[1::2]]
        if not ops:
            return values[0]
        place = self.place(node)
        parts = tuple(Apply(op, (a, b), place) for op, a, b in zip(ops, values, values[1:], strict=False))
        return parts[0] if len(parts) == 1 else Apply("and", parts, place)

    def name(self, token: Token) -> Expr:
        name = str(token)
        if name == "inf":
            return Number(float("inf"))
        if name in self.names.ranks:
            return Extent(name) if self.names.extents_only else RankValue(name)
        if name in self.extents:
            return Extent(self.extents[name])
        if self.names.extents_only:
            raise unknown("rank", name, self.names.ranks, self.place(token))
        return Access(name, (), self.place(token))

    def call(self, node: Tree[Any]) -> Expr:
        name = str(node.children[0])
        args = tuple(self.expr(c) for c in node.children[1:] if c is not None)
        place = self.place(node)
        if name == "ceil" and len(args) == 1:
            # ceil(a / b) in exact integer arithmetic
            inner = args[0]
            if isinstance(inner, Apply) and inner.op == "/":
                a, b = inner.args
                return Apply("neg", (Apply("//", (Apply("neg", (a,)), b)),), place)
            return Apply("neg", (Apply("floor", (Apply("neg", (inner,)),)),), place)
        operator = OPERATORS.get(name)
        if operator is None or not name.isidentifier() or name in ("neg", "and", "or", "not"):
            if name in REDUCTIONS or name in SELECTIONS:
                raise InputError(f"{name!r} needs its ranks", place, expected=f"`{name}[m](...)`")
            known = [n for n in OPERATORS if n.isidentifier() and n not in ("neg", "and", "or", "not")]
            raise unknown("operator", name, [*known, "ceil"], place)
        least, most = operator.arity
        if not least <= len(args) <= most:
            count = str(least) if least == most else f"at least {least}"
            raise InputError(f"operator {name!r} has {len(args)} operands", place, expected=count)
        return Apply(name, args, place)


def _unwrapped(node: Any) -> Any:
    """The node inside rules that have it as their only child."""
    while isinstance(node, Tree) and node.data in ("any_of", "all_of", "compare", "chain") and len(node.children) == 1:
        node = node.children[0]
    return node


def _outermost(node: Any) -> Tree[Any] | None:
    """The reduction that is the whole right side, if there is one."""
    node = _unwrapped(node)
    return node if isinstance(node, Tree) and node.data == "reduction" else None


def _bare_name(node: Any) -> str | None:
    node = _unwrapped(node)
    return str(node.children[0]) if isinstance(node, Tree) and node.data == "name" else None
