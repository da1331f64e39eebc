"""Reading YAML safely, with the place of every key and value kept for error messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fusemodel.errors import InputError, Where, nearest, unknown

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 100_000  # after aliases are expanded, so that nested anchors cannot explode
MAX_DEPTH = 50
MAX_DIGITS = 100

Path_ = tuple[str | int, ...]

_NUMBERS = yaml.constructor.SafeConstructor()
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """Plain data read from a file, and where each part of it stands.

    ``keys`` has the place of each mapping key, ``values`` that of each value, by path from the root; ``blocks`` has,
    for a multi-line text, the place of its first character (so that errors inside it get true lines and columns).
    """

    file: str
    data: dict[str, Any]
    keys: dict[Path_, Where] = field(default_factory=dict)
    values: dict[Path_, Where] = field(default_factory=dict)
    blocks: dict[Path_, Where] = field(default_factory=dict)

    def where(self, *path: str | int) -> Where:
        """The place of the value at ``path``, or of its nearest ancestor."""
        for length in range(len(path), -1, -1):
            if found := self.values.get(path[:length]):
                return found
        return Where(self.file, 1, 1)

    def where_key(self, *path: str | int) -> Where:
        """The place of the key at ``path``."""
        return self.keys.get(path) or self.where(*path)


def read_text(path: str | Path) -> str:
    """The text of a file of reasonable size; InputError for anything else."""
    path = Path(path)
    here, data = Where(str(path)), b""
    try:
        if path.is_dir():
            raise InputError("this is a directory", here, expected="a YAML file")
        if not path.exists():
            raise InputError("no such file", here, nearest=nearest_file(path))
        if not path.is_file():
            raise InputError("not a regular file", here, expected="a YAML file")
        size = os.stat(path).st_size
        if size > MAX_BYTES:
            raise InputError(f"the file has {size / 2**20:.1f} MiB", here, expected=f"at most {MAX_BYTES // 2**20} MiB")
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = _at_byte(str(path), data, error.start)
        raise InputError(f"not UTF-8 text (byte {error.start})", where, expected="a YAML file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", here) from None


def _at_byte(file: str, data: bytes, offset: int) -> Where:
    before = data[:offset].decode("utf-8-sig", errors="replace")
    return Where(file, before.count("\n") + 1, len(before.rsplit("\n", 1)[-1]) + 1)


def nearest_file(path: Path) -> str:
    """The name beside ``path`` that is closest to it."""
    try:
        stems = {p.stem: p.name for p in path.parent.iterdir() if p.is_file()} if path.parent.is_dir() else {}
        return stems.get(nearest(path.stem, stems), "")
    except OSError:
        return ""


def read_yaml(path: str | Path) -> Document:
    """Load a YAML file whose root is a mapping."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str = "<text>") -> Document:
    """Load YAML text whose root is a mapping; InputError with line and column for anything else."""
    try:
        _check_size(text, file)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from None
    except yaml.reader.ReaderError as error:
        where = _at_byte(file, text.encode(errors="replace"), error.position)
        raise InputError(f"not valid YAML: {error.reason} (#x{_code(error.character):02x})", where) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}", Where(file, 1, 1)) from None
    if root is None:
        raise InputError("the file is empty", Where(file, 1, 1), expected="a YAML mapping")
    if not isinstance(root, yaml.MappingNode):
        raise InputError("the file does not hold a mapping", _mark(file, root), expected="`key: value` lines")
    document = Document(file, {})
    budget = [MAX_NODES]
    data = _construct(root, (), document, budget, text.splitlines(), 0)
    document.data.update(data)
    return document


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> InputError:
    """What the parser says, and where the thing it was reading began."""
    mark = error.problem_mark or error.context_mark
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file, 1, 1)
    context, problem = error.context or "", error.problem or ""
    if "maximum nesting depth" in problem:  # the parser's own limit (PyYAML 6.0.4), met as it looks ahead
        return InputError(f"nested more than {MAX_DEPTH} deep", where)
    text = f"{context} {problem}" if problem.startswith("but") else f"{problem} {context}"
    if (began := error.context_mark) and began.line + 1 != where.line:
        text += f" from line {began.line + 1}"
    return InputError(f"not valid YAML: {text.strip()}", where)


def _code(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character[:1] or "\0")


def _check_size(text: str, file: str) -> None:
    """Refuse what nests too deeply or holds too much before a tree is built, which takes the C stack and memory."""
    depth = count = 0
    for event in yaml.parse(text, Loader=_Loader):
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"nested more than {MAX_DEPTH} deep", _mark(file, event))
        if count > 2 * MAX_NODES:
            raise InputError(f"more than {MAX_NODES} values", _mark(file, event))


def _mark(file: str, node: yaml.Node | yaml.Event) -> Where:
    return Where(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _construct(node: yaml.Node, path: Path_, doc: Document, budget: list[int], lines: list[str], depth: int) -> Any:
    where = _mark(doc.file, node)
    budget[0] -= 1
    if budget[0] < 0:
        raise InputError(f"more than {MAX_NODES} values once anchors are expanded", where)
    if depth > MAX_DEPTH:
        raise InputError(f"nested more than {MAX_DEPTH} deep", where)
    doc.values.setdefault(path, where)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_where = _mark(doc.file, key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError("a key must be plain text", key_where)
            key = str(key_node.value)
            if key in result:
                raise InputError(f"key {key!r} appears twice", key_where)
            doc.keys.setdefault((*path, key), key_where)
            result[key] = _construct(value_node, (*path, key), doc, budget, lines, depth + 1)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(v, (*path, i), doc, budget, lines, depth + 1) for i, v in enumerate(node.value)]
    return _scalar(node, path, doc, lines)


def _scalar(node: Any, path: Path_, doc: Document, lines: list[str]) -> Any:
    where = _mark(doc.file, node)
    if getattr(node, "style", None) in ("|", ">"):
        first = node.start_mark.line + 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        indent = len(lines[first]) - len(lines[first].lstrip()) if first < len(lines) else 0
        doc.blocks[path] = Where(doc.file, node.start_mark.line + 2, indent + 1)
        return node.value
    doc.blocks[path] = Where(doc.file, where.line, where.column + (getattr(node, "style", None) in ("'", '"')))
    tag = node.tag.rpartition(":")[2]
    if tag in ("int", "float") and len(node.value) > MAX_DIGITS:
        raise InputError(f"a number of {len(node.value)} characters", where, expected=f"at most {MAX_DIGITS}")
    try:
        match tag:
            case "str":
                return node.value
            case "int":
                return _NUMBERS.construct_yaml_int(node)
            case "float":
                return _NUMBERS.construct_yaml_float(node)
            case "bool":
                return node.value.lower() in ("true", "yes", "on")
            case "null":
                return None
            case "timestamp" | "merge" | "value":
                return node.value
    except (ValueError, OverflowError):
        raise InputError(f"{node.value!r} is not a number that can be used", where) from None
    raise InputError(f"the tag {node.tag!r} is not allowed", where, expected="plain YAML")


def check_fields(doc: Document, path: Path_, data: Any, allowed: Iterable[str]) -> dict[str, Any]:
    """``data`` as a mapping with only ``allowed`` keys."""
    if not isinstance(data, dict):
        raise InputError(f"{data!r} is not a mapping", doc.where(*path), expected="`key: value` pairs")
    allowed = list(allowed)
    for key in data:
        if key not in allowed:
            raise unknown("field", key, allowed, doc.where_key(*path, key))
    return data
