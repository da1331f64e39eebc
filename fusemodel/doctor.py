"""What this installation has: versions, optional parts, places it writes to, a GPU."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import gettempdir

from fusemodel import __version__
from fusemodel.library import KINDS, names, root


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``ok`` is None where it is not needed."""

    what: str
    found: str
    ok: bool | None = True
    advice: str = ""


def diagnose() -> Iterator[Finding]:
    """Look at everything the tool needs or can use. Nothing is changed."""
    yield Finding("fusemodel", __version__)
    yield Finding("Python", f"{platform.python_version()} ({platform.system()} {platform.machine()})")
    for name in _required():
        yield _package(name, needed=True)
    counts = ", ".join(f"{len(names(k))} {k}" for k in KINDS)
    yield Finding("library", f"{root()}: {counts}", ok=all(names(k) for k in KINDS), advice="reinstall fusemodel")
    yield _writable("working folder", Path.cwd())
    yield _writable("temporary folder", Path(gettempdir()))
    yield Finding("processors", str(os.cpu_count()))
    yield _gpu()
    for name, use in (("torch", "measuring GPU kernels"), ("triton", "measuring GPU kernels"),
                      ("distributed", "sweeps on a Dask cluster"), ("ipykernel", "notebooks")):  # fmt: skip
        yield _package(name, needed=False, use=use)


def _required() -> list[str]:
    """The packages that an installation declares, extras aside."""
    try:
        declared = requires("fusemodel") or []
    except PackageNotFoundError:
        return []
    bare = (r.split(";")[0].strip() for r in declared if "extra ==" not in r)
    return sorted("".join(c for c in _until(r, "<>=!~[ ")) for r in bare)


def _until(text: str, stops: str) -> str:
    return text[: min((i for i, c in enumerate(text) if c in stops), default=len(text))]


def _package(name: str, *, needed: bool, use: str = "") -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        if not needed:
            return Finding(name, f"not installed (for {use})", ok=None)
        return Finding(name, "missing", ok=False, advice=f"pip install {name}")


def _writable(what: str, path: Path) -> Finding:
    free = shutil.disk_usage(path).free / 2**30
    if not os.access(path, os.W_OK):
        return Finding(
            what, f"{path}: cannot be written to", ok=False, advice="run elsewhere, or change its permissions"
        )
    return Finding(what, f"{path}: {free:.1f} GiB free", ok=free > 0.1, advice="free some space")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", "none (only `measure` needs one)", ok=None)
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", f"nvidia-smi does not work: {type(error).__name__}", ok=None)
    found = "; ".join(said.splitlines())
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", f"{found} (`measure` also needs torch)", ok=None)
    return Finding("GPU", found)
