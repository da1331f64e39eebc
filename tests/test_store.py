"""The store of results: kept as they come, by several writers at once, and clear messages when it cannot be."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from fusemodel.explore.store import APPLICATION, LEASE_S, StoreError, open_store

V = "test"


def results(n: int, size: int = 10) -> dict[str, dict]:
    return {f"key{i}": {"value": i, "text": "x" * size} for i in range(n)}


def test_what_is_put_is_there_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store.put(results(3), V)
        store.put({"key1": {"value": "new"}}, V)
    with open_store(path) as store:
        assert store.get(["key0", "key1", "nothing"]) == {"key0": results(1)["key0"], "key1": {"value": "new"}}
        assert len(store.get(f"key{i}" for i in range(5000))) == 3


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path, errors = tmp_path / "s.sqlite", []

    def write(name: str) -> None:
        try:
            with open_store(path) as store:
                for i in range(20):
                    store.put({f"{name}{i}": {"value": i}}, V)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in "abcdef"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    with open_store(path) as store:
        assert len(store.get(f"{n}{i}" for n in "abcdef" for i in range(20))) == 120


def test_a_claim_keeps_others_away_until_it_is_given_up_or_void(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path) as one, open_store(path) as two:
        assert one.claim(["a", "b"], now=0)
        assert one.claim(["a"], now=1)  # its own
        assert not two.claim(["b", "c"], now=LEASE_S / 2)
        assert one.claim(["c"], now=1)  # not taken by the attempt that failed
        assert two.claim(["a", "b"], now=3 * LEASE_S)  # the lease is over
        one.put({"c": {}}, V)
        assert two.claim(["c"])
        two.release()
        assert one.claim(["a", "b", "c"])


def test_claims_of_a_process_that_was_killed_are_void(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    code = (
        "import os, sys\nfrom fusemodel.explore.store import open_store\n"
        f"with open_store({str(path)!r}) as s:\n"
        "  s.put({'done': {}}, 'v')\n  assert s.claim(['a'])\n  os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with open_store(path) as store:
        assert store.claim(["a"])
        assert store.get(["done"]) == {"done": {}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: a file\n" * 400, "this is no store of results"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "this is no store of results|damaged"),
    ],
)
def test_files_that_are_no_store_are_left_alone(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=said) as error, open_store(path):
        pass
    assert str(error.value).startswith(f"{path}: ")
    assert path.read_bytes() == content


def test_other_databases_and_other_formats_are_left_alone(tmp_path: Path) -> None:
    other, newer = tmp_path / "other.sqlite", tmp_path / "newer.sqlite"
    for path, pragma in (other, "user_version = 0"), (newer, f"application_id = {APPLICATION}"):
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE things (x)")
        db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA user_version = 99")
        db.commit()
        db.close()
    before = [p.read_bytes() for p in (other, newer)]
    with pytest.raises(StoreError, match="a database, but no store of results"), open_store(other):
        pass
    with pytest.raises(StoreError, match="a store of format 99; expected format 1"), open_store(newer):
        pass
    assert [p.read_bytes() for p in (other, newer)] == before


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store.put(results(200, size=1000), V)
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    with pytest.raises(StoreError, match="damaged"), open_store(path) as store:
        store.get(results(200))


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="this is a directory"), open_store(tmp_path):
        pass
    for path in (tmp_path / "no" / "folder.sqlite", Path("/proc/store.sqlite")):
        with pytest.raises(StoreError, match="cannot be opened or made; expected a file in a folder"), open_store(path):
            pass


@contextmanager
def nobody() -> Iterator[None]:
    """This process without the rights of an administrator, to whom nothing is read-only."""
    administrator = os.geteuid() == 0
    if administrator:
        os.seteuid(65534)
    try:
        yield
    finally:
        if administrator:
            os.seteuid(0)


def test_a_store_that_may_only_be_read() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.sqlite"
        with open_store(path) as store:
            store.put(results(1), V)
        os.chmod(path, 0o444)
        os.chmod(folder, 0o555)
        with nobody(), pytest.raises(StoreError, match="may only be read; expected a file that"), open_store(path):
            pass
        with nobody(), pytest.raises(StoreError, match="cannot be opened or made"), open_store(path.with_name("new")):
            pass
        os.chmod(folder, 0o755)
        with open_store(path) as store:
            assert store.get(results(1)) == results(1)


def full(pages: int):
    """Connections to files that cannot have more than some pages: a full disk, as SQLite sees it."""
    connect = sqlite3.connect

    def limited(*args, **options):
        db = connect(*args, **options)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    return patch.object(sqlite3, "connect", limited)


def test_a_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path, kept = tmp_path / "s.sqlite", []

    def fill() -> None:
        with open_store(path) as store:
            for key, result in results(100, size=1000).items():
                store.put({key: result}, V)
                kept.append(key)

    with full(12), pytest.raises(StoreError, match="the disk is full; expected room on the disk"):
        fill()
    assert 0 < len(kept) < 100
    with open_store(path) as store:
        assert sorted(store.get(results(100))) == sorted(kept)
        store.put(results(100), V)
        assert len(store.get(results(100))) == 100


def test_a_limit_to_the_size_of_files_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    code = (
        "import sys\nfrom fusemodel.explore.store import StoreError, open_store\n"
        "with open_store(sys.argv[1]) as s:\n"
        "  for i in range(200):\n"
        "    try: s.put({f'key{i}': {'text': 'x' * 2000}}, 'v')\n"
        "    except StoreError as e: print(i, e); break\n"
    )
    limit = 100_000
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    count, _, said = ran.stdout.partition(" ")
    assert "the disk cannot be read or written" in said, ran
    assert 0 < int(count) < 200
    with open_store(path) as store:
        assert len(store.get(f"key{i}" for i in range(200))) == int(count)
