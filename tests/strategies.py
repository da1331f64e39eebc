"""Random small cascades, as the text of files that load."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import assume
from hypothesis import strategies as st

RANKS = ("i", "j", "k", "l")
REDUCTIONS = ("sum", "max", "min", "prod", "mean", "any", "all")
BINARY = ("+", "-", "*", "*")
NEXT_LINE = "\n    "
#: Ways to run over one rank, and other indices in that way; where it is in parts, for the same coordinate.
WAYS = {"m": ("M - 1 - m", "m + 1"), "z, c": ("z * C + c",), "z, c1, c0": ("z, c1 * C0 + c0",)}


@dataclass
class _Sketch:
    """A cascade being drawn: the ranks of every tensor so far, and its equations."""

    draw: st.DrawFn
    extents: dict[str, int]
    tensors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    iterative: dict[str, str] = field(default_factory=dict)
    integers: dict[str, str] = field(default_factory=dict)  # index inputs: the rank they select
    equations: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def pick(self, options):
        return self.draw(st.sampled_from(list(options)))

    def chance(self, tenths: int) -> bool:
        return self.draw(st.integers(0, 9)) < tenths

    def some_ranks(self, least: int = 0, most: int = 3) -> list[str]:
        return self.draw(st.lists(st.sampled_from(RANKS), unique=True, min_size=least, max_size=most))

    def index(self, rank: str, free: list[str]) -> str:
        """An index for an axis, of the ranks in ``free``."""
        if not free:
            return "0"
        other = self.pick(free)
        kind = self.draw(st.integers(0, 11))
        if kind <= 5 and rank in free:
            return rank
        forms = [
            other, f"{other} - 1", f"{other} + 1", f"{rank.upper()} - 1 - {other}", f"2*{other}", "0",
            f"{other} // 2", f"{other} + {self.pick(free)} - 1", f"{rank.upper()} - 1", f"{other} % {rank.upper()}",
        ]  # fmt: skip
        choosers = [t for t, selected in self.integers.items() if selected == rank and set(self.inputs[t]) <= set(free)]
        if choosers and self.chance(5):
            chooser = self.pick(choosers)
            self.used.add(chooser)
            return f"{chooser}[{', '.join(self.inputs[chooser])}]"
        return forms[self.draw(st.integers(0, len(forms) - 1))]

    def access(self, free: list[str], name: str | None = None, step: str | None = None) -> str:
        name = name or self.pick(t for t in self.tensors if t not in self.integers)
        self.used.add(name)
        indices = []
        for rank in self.tensors[name]:
            if self.iterative.get(name) == rank:
                indices.append(step or self.pick([rank.upper(), "0", *([rank, f"{rank}+1"] if rank in free else [])]))
            else:
                indices.append(self.index(rank, free))
        return f"{name}[{', '.join(indices)}]" if indices else name

    def term(self, free: list[str], depth: int = 0) -> str:
        kind = self.draw(st.integers(0, 13 if depth < 2 else 4))
        if kind <= 4:
            return self.access(free)
        inner = self.term(free, depth + 1)
        match kind:
            case 5 | 6 | 7:
                return f"({inner} {self.pick(BINARY)} {self.term(free, depth + 1)})"
            case 8:
                return f"{self.pick(['max', 'min'])}({inner}, {self.term(free, depth + 1)})"
            case 9:
                return f"{self.pick(['relu', 'abs', 'floor', 'round', 'tanh', 'sigmoid'])}({inner})"
            case 10:
                return f"coalesce({inner}, {self.pick(['0', self.access(free)])})"
            case 11:
                return f"select({inner} > 0, {self.access(free)}, {self.pick(['2', '0.5', *free])})"
            case 12:
                return f"({inner} / (1 + abs({self.access(free)})))"
        return self.pick([f"-{inner}", f"{inner} * {self.pick(['2', '0.5', *free])}"])

    def product(self, free: list[str]) -> str:
        factors = [self.access(free) for _ in range(self.draw(st.integers(2, 3)))]
        return " * ".join(factors) + self.pick(["", " / 2", f" * {self.pick(RANKS).upper()}", " / sqrt(4)"])

    def condition(self, free: list[str]) -> str:
        simple = [f"{self.pick(free)} <= {self.pick(free)}", f"{self.access(free)} > 0",
                  f"abs({self.pick(free)} - {self.pick(free)}) <= 1", f"{self.pick(free)} != 1"]  # fmt: skip
        first = self.pick(simple)
        if self.chance(3):
            return f"{first} {self.pick(['and', 'or'])} {self.pick(simple)}"
        return f"not {first}" if self.chance(1) else first

    def left(self, name: str, indices: list[str] | tuple[str, ...]) -> str:
        return f"{name}[{', '.join(indices)}]" if indices or self.chance(5) else name

    def where(self, tenths: int, free: list[str]) -> str:
        """Perhaps a condition, on a line of its own or not."""
        if not self.chance(tenths):
            return ""
        return f"{self.pick([' ', NEXT_LINE])}where {self.condition(free)}"

    def define(self, name: str) -> None:
        free = self.some_ranks(1)
        if self.chance(2):
            return self.define_iterative(name, free)
        if self.chance(1):
            return self.define_selection(name, free)
        if self.chance(1):
            return self.define_scatter(name, free)
        body = self.product(free) if self.chance(4) else self.term(free)
        where = self.where(4, free)
        kept = [r for r in free if self.chance(6)]
        reduced = [r for r in free if r not in kept]
        missing = [r for r in free if r not in _names(body + where)]
        body = " + 0*".join([f"({body})", *missing]) if missing else body
        op = self.pick(REDUCTIONS)
        if reduced and not (op == "sum" and self.chance(5)):
            body = f"{op}[{', '.join(reduced)}]({body})"
        self.equations.append(f"{self.left(name, kept)} = {body}{where}")
        self.tensors[name] = tuple(kept)
        return None

    def define_iterative(self, name: str, free: list[str]) -> None:
        step, rest = free[0], free[1:]
        place = self.draw(st.integers(0, len(rest)))
        ranks = (*rest[:place], step, *rest[place:])
        start = ", ".join("0" if r == step else r for r in ranks)
        target = ", ".join(f"{r}+1" if r == step else r for r in ranks)
        first = self.pick(["0", "1", "-inf"]) if self.chance(5) else self.term(rest)
        body = self.term(free)
        self.tensors[name], self.iterative[name] = ranks, step
        again = self.access(free, name, step)
        join = self.pick([f"{again} + {body}", f"max({again}, {body})", f"0.5 * {again} + {body}"])
        if self.chance(3):  # through another tensor, which is then computed in the same loop
            helper, again = f"{name}h", f"{name}h[{', '.join(ranks)}]"
            self.equations.append(f"{helper}[{', '.join(ranks)}] = {join}")
            join = self.pick([again, f"{again} * 0.5", f"coalesce({again}, 1)"])
            self.tensors[helper] = ranks
        self.equations.append(f"{name}[{start}] = {first}")
        self.equations.append(f"{name}[{target}] = {join}")

    def define_scatter(self, name: str, free: list[str]) -> None:
        kept = [r for r in free[1:] if self.chance(5)]
        rank = self.pick(r for r in RANKS if r not in kept)
        index = self.index(rank, [r for r in free if r not in kept])
        index = f"{index} + 0" if index in RANKS else index.replace(f"{rank} + 1", f"{rank} - 1")
        moved = [r for r in free if r not in kept and r in _names(index)]
        summed = [r for r in free if r not in kept and r not in moved]
        body = " + 0*".join([f"({self.term(free)})", *free])
        if not summed and self.chance(2):
            body = self.pick(["1", "0.5"])  # counts what is put into each place
        op = self.pick(REDUCTIONS)
        if (moved and op != "sum") or summed or (moved and self.chance(5)):
            body = f"{op}[{', '.join([*moved, *summed])}]({body})"
        where = self.where(3, free)
        self.equations.append(f"{name}[{', '.join([index, *kept])}] = {body}{where}")
        self.tensors[name] = (rank, *kept)

    def define_selection(self, name: str, free: list[str]) -> None:
        rank, rest = free[0], free[1:]
        body = f"{self.term(free)} + {rank}"
        where = self.where(4, free)
        others = [r for r in RANKS if r not in free and self.extents[r] <= self.extents[rank]]
        if others and self.chance(6):
            into = self.pick(others)
            op = self.pick(["topk", "sort"])
            self.equations.append(f"{name}[{', '.join([into, *rest])}] = {op}[{rank} -> {into}]({body}){where}")
            self.tensors[name] = (into, *rest)
        else:
            op = self.pick(["argmax", "argmin"])
            self.equations.append(f"{self.left(name, rest)} = {op}[{rank}]({body}){where}")
            self.tensors[name] = tuple(rest)


def _names(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


@st.composite
def cascade_texts(draw: st.DrawFn, most: int = 4) -> str:
    """A file that loads: products, reductions, elementwise operators, affine and gathered indices, conditions,
    iterative ranks and selections, at extents from 1 to 4."""
    extents = {r: draw(st.integers(1, 4)) for r in RANKS}
    sketch = _Sketch(draw, extents)
    batch = draw(st.booleans())
    for n in range(draw(st.integers(1, 3))):
        sketch.inputs[f"X{n}"] = sketch.tensors[f"X{n}"] = tuple(sketch.some_ranks())
    if draw(st.booleans()):
        sketch.inputs["N0"] = sketch.tensors["N0"] = tuple(sketch.some_ranks(1, 2))
        sketch.integers["N0"] = sketch.pick(RANKS)
    for n in range(draw(st.integers(1, most))):
        sketch.define(f"T{n}")
    body = "\n".join(sketch.equations)
    made = [t for t in sketch.tensors if t not in sketch.inputs]
    inputs = {t: r for t, r in sketch.inputs.items() if t in _names(body)}
    assume(inputs)
    fixed = {t: r for t, r in inputs.items() if t not in sketch.integers and draw(st.booleans())} if batch else {}
    fixed = fixed if len(fixed) < len(inputs) else {}
    ranks = ", ".join(f"{r}: {n}" for r, n in extents.items())
    lines = ["name: random", f"ranks: {{{ranks}{', n: 2' if batch else ''}}}"]
    if batch:
        lines.append("batch: [n]")
    lines += [f"inputs: {_mapping({t: r for t, r in inputs.items() if t not in fixed})}"]
    lines += [f"parameters: {_mapping(fixed)}"] if fixed else []
    lines += [f"outputs: {_mapping({t: sketch.tensors[t] for t in made})}"]
    return "\n".join([*lines, "einsums: |", *(f"  {e}" for e in sketch.equations)]) + "\n"


def _mapping(tensors: dict[str, tuple[str, ...]]) -> str:
    return "{" + ", ".join(f"{t}: [{', '.join(r)}]" for t, r in tensors.items()) + "}"


@st.composite
def split_texts(draw: st.DrawFn) -> tuple[str, str]:
    """A file whose equations run over a rank, over its parts, or over the parts of these, each as it likes, and whose
    outputs are declared so too; and the same file with nothing split."""

    def pick(options):
        return draw(st.sampled_from(list(options)))

    m, z, c0, e = (draw(st.integers(1, most)) for most in (11, 4, 3, 2))
    z = -(-m // -(-m // z))  # as many parts as have an element
    held = {"X": "e, @", "Y": "@"}  # @ stands for the rank in any way, ~ for another index
    files: tuple[list[str], list[str]] = [], []
    shapes: tuple[list[str], list[str]] = [], []
    for n in range(draw(st.integers(2, 5))):
        factors = []
        for name in draw(st.lists(st.sampled_from(list(held)), min_size=1, max_size=2)):
            access = f"{name}[{held[name].replace('@', pick('@@~'))}]" if held[name] else name
            factors.append(pick([access, access, f"coalesce({access}, 0.5)"]))
        body = pick([" * ", " + "]).join(factors) + " * Y[@] + 0 * X[e, @]"
        shape = pick(["e, @", "@", "e", ""])
        reduced = [r for r in ("e", "@") if r not in shape]
        if reduced:
            body = f"{pick(['sum', 'max', 'min', 'mean'])}[{', '.join(reduced)}]({body})"
        where = pick(["", "", f"{NEXT_LINE}where Y[@] > 0", f" where X[e, @] > 0{NEXT_LINE}and Y[@] < 1"])
        equation = f"{f'T{n}[{shape}]' if shape else f'T{n}'} = {body}{where}"
        held[f"T{n}"] = shape
        way = pick(WAYS)
        other = pick(WAYS[way])
        for number, (index, affine, declared) in enumerate(
            ((way, other, pick(WAYS)), ("m", other if way == "m" else "m", "m"))
        ):
            files[number].append(equation.replace("@", index).replace("~", affine))
            shapes[number].append(f"T{n}: [{shape.replace('@', declared)}]")
    head = f"name: random\nranks: {{m: {m}, z: {z}, c: ceil(m / z), c0: {c0}, c1: ceil(c / c0), e: {e}}}\n"
    parts, whole = (
        f"inputs: {{X: [e, m], Y: [m]}}\noutputs: {{{', '.join(outputs)}}}\neinsums: |\n"
        + "".join(f"  {line}\n" for line in lines)
        for lines, outputs in zip(files, shapes, strict=True)
    )
    return f"{head}split: {{m: [z, c], c: [c1, c0]}}\n{parts}", head + whole
