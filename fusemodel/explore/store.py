"""Results on disk, by a key of their content: an SQLite file that several runs may write at once.

Every result is in the file when :meth:`Store.put` returns. A run claims what it works on for a while, so that two runs
at once do not do the same; the claims of a run that is gone are void.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusemodel.errors import InputError, Where

APPLICATION = 0x66757365  # "fuse", in the file's header
FORMAT = 1
LEASE_S = 600.0  # how long a claim holds unless it is renewed; one of a process of this machine that has ended, no more
_WAIT_S = 30.0  # for another writer
_MANY = 500  # keys in one statement
_open: set[str] = set()  # the owners that are this process
_TABLES = """
CREATE TABLE results (key TEXT PRIMARY KEY, result TEXT NOT NULL, made REAL NOT NULL, version TEXT NOT NULL);
CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""


def default_path() -> Path:
    """Where results are kept unless said otherwise: the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fusemodel" / "results.sqlite"


class Store:
    """An open store; see :func:`open_store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._db = path, connection
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The results that are there, by key."""
        found: dict[str, dict[str, Any]] = {}
        with explained(self.path):
            for some in _parts(list(keys)):
                marks = ",".join("?" * len(some))
                rows = self._db.execute(f"SELECT key, result FROM results WHERE key IN ({marks})", some)
                found |= {key: json.loads(text) for key, text in rows}
        return found

    def put(self, results: Mapping[str, Mapping[str, Any]], version: str) -> None:
        """Keep results, all or none, and give up the claims on them."""
        now = time.time()
        rows = [(k, json.dumps(r), now, version) for k, r in results.items()]
        with explained(self.path), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", rows)
            self._db.executemany("DELETE FROM claims WHERE key = ?", [(k,) for k in results])

    def claim(self, keys: Sequence[str], now: float | None = None) -> bool:
        """Claim all of some keys, or renew the claims; False, and none claimed, if another run has one of them."""
        now = time.time() if now is None else now
        with explained(self.path), self._transaction():
            for some in _parts(list(keys)):
                marks = ",".join("?" * len(some))
                taken = self._db.execute(f"SELECT owner, until FROM claims WHERE key IN ({marks})", some)
                if any(owner != self.owner and until > now and _alive(owner) for owner, until in taken):
                    return False
            rows = [(k, self.owner, now + LEASE_S) for k in keys]
            self._db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)
        return True

    def release(self) -> None:
        """Give up all claims of this run."""
        with explained(self.path), self._transaction():
            self._db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors end it themselves
                self._db.execute("ROLLBACK")
            raise


def _parts(keys: list[str]) -> Iterator[list[str]]:
    for i in range(0, len(keys), _MANY):
        yield keys[i : i + _MANY]


def _alive(owner: str) -> bool:
    """Whether a run may still be there: on another machine only its lease says."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    if int(pid) == os.getpid():
        return owner in _open
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def open_store(path: str | Path) -> Iterator[Store]:
    """A store for reading and writing, made if it is not there; StoreError for what cannot be used."""
    path = Path(path)
    with explained(path):
        connection = _connected(path)
    try:
        store = Store(path, connection)
        _open.add(store.owner)
        try:
            yield store
        finally:
            _open.discard(store.owner)
    finally:
        connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    where = Where(str(path))
    if path.is_dir():
        raise StoreError("this is a directory", where, expected="the name of a store")
    if path == default_path():
        path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        (application,), (number,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("application_id", "user_version"))
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables and not application:
            for statement in _TABLES.strip().splitlines():
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
        elif application != APPLICATION:
            raise StoreError("this is a database, but no store of results", where, expected="another file")
        elif number != FORMAT:
            raise StoreError(f"this is a store of format {number}", where,
                             expected=f"format {FORMAT}, or another file (this one was not changed)")  # fmt: skip
        db.execute("COMMIT")
        _journal(db)
    except BaseException:
        db.close()
        raise
    return db


def _journal(db: sqlite3.Connection) -> None:
    """Write ahead, so that readers and a writer do not wait for each other; where a disk cannot, as it can."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > until:
                raise
            time.sleep(0.02)  # another run is changing it; SQLite does not wait here


class StoreError(InputError):
    """A store that cannot be used, or no longer."""


_AGAIN = "; what it holds stays, and the same command goes on from there"
#: What is wrong and what is wanted, by SQLite's code.
_SAID = {
    sqlite3.SQLITE_FULL: ("the disk is full", "room on the disk" + _AGAIN),
    sqlite3.SQLITE_IOERR: ("the disk cannot be read or written", "a disk with room, within the limits set" + _AGAIN),
    sqlite3.SQLITE_READONLY: ("it or its folder may only be read", "a file that can be written"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened or made", "a file in a folder that is there and can be written"),
    sqlite3.SQLITE_PERM: ("may not be opened", "a file that can be written"),
    sqlite3.SQLITE_NOTADB: ("this is no store of results", "another file (this one was not changed)"),
    sqlite3.SQLITE_CORRUPT: ("the store is damaged", "another file (this one was not changed)"),
    sqlite3.SQLITE_BUSY: (f"another run has been writing for {_WAIT_S:.0f} s", "that it ends" + _AGAIN),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite and the system say of a store, as one message."""
    where = Where(str(path))
    try:
        yield
    except sqlite3.Error as error:
        message, expected = _SAID.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (f"cannot be used: {error}", ""))
        raise StoreError(message, where, expected=expected) from None
    except OSError as error:
        raise StoreError(f"cannot be used: {error.strerror or error}", where) from None
    except json.JSONDecodeError:
        raise StoreError("the store is damaged", where, expected="another file (this one was not changed)") from None


__all__ = ["Store", "StoreError", "default_path", "open_store"]
