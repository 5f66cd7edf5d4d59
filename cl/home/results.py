"""The results database: every run's figures in one SQLite file, and their pandas views."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl.digests import canonical
from cl.errors import BadInput, StoreError, Unusable
from cl.home.layout import check_home, database_address, is_fixed

if TYPE_CHECKING:
    import pandas

SCHEMA = 1

# What `run --json` prints, in this order.
PRINTED = (
    "run",
    "stream",
    "strategy",
    "seed",
    "classes_per_task",
    "accuracy",
    "curve",
    "average_accuracy",
    "average_incremental_accuracy",
    "forgetting",
    "backward_transfer",
    "adapters",
    "parameters_added",
    "growth",
    "components_built",
    "components_reused",
    "forward_passes",
    "seconds",
    "peak_memory_bytes",
    "manifest",
    "components",
)


@dataclass(frozen=True)
class Result:
    """The figures of one run. `figures` is plain JSON; the other views are pandas."""

    figures: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.figures["run"])

    @property
    def accuracy(self) -> pandas.DataFrame:
        """Accuracy after each task (rows) on each task's test set (columns), as fractions."""
        import pandas

        names = [task["id"] for task in self.figures["tasks"]]
        return pandas.DataFrame(self.figures["accuracy"], index=names, columns=names, dtype=float)

    @property
    def curve(self) -> pandas.Series[float]:
        """Accuracy over all classes seen, after each task."""
        import pandas

        return pandas.Series(self.figures["curve"], index=self.accuracy.index, name="accuracy", dtype=float)

    @property
    def growth(self) -> pandas.DataFrame:
        """Adapters in the model and parameters added, after each task."""
        import pandas

        columns = {"adapters": self.figures["adapters"], "parameters_added": self.figures["parameters_added"]}
        return pandas.DataFrame(columns, index=self.accuracy.index)

    def as_json(self) -> dict[str, Any]:
        """The object that `run --json` prints: what every run records, what one at test time records beside it, then
        the method's own blocks of figures."""
        common = {name: self.figures[name] for name in PRINTED}
        user = self.figures.get("user")
        asked = {} if user is None else {"user": user}
        return {**common, **asked, **self.figures.get("online", {}), **self.figures["blocks"]}


class Results:
    """`results.sqlite` of a home. Raises StoreError if the file is not such a database, or of a newer release."""

    def __init__(self, home: Path) -> None:
        check_home(home)
        self._path = home / "results.sqlite"

    def check(self) -> None:
        """Raises StoreError now where `save` would, hours later."""
        if self._path.exists():
            with self._open():
                pass

    def save(self, figures: Mapping[str, Any]) -> None:
        """Add or replace the figures of one run."""
        row = (
            figures["run"],
            figures["stream"],
            figures["strategy"],
            figures["seed"],
            figures["created"],
            canonical(figures),
        )
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", (*row[:5], row[5].decode()))

    def remove(self, runs: Iterable[str]) -> None:
        """Take out these runs, leaving no bytes of them in free pages or in the write-ahead log."""
        if not self._path.exists():
            return
        with self._open() as database:
            database.executemany("DELETE FROM runs WHERE run = ?", [(run,) for run in runs])
        self.scrub()

    def scrub(self) -> None:
        """Empty free pages and the write-ahead log, where rows that were replaced may still be."""
        if not self._path.exists():
            return
        with self._open() as database:
            database.commit()
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def all(self) -> list[dict[str, Any]]:
        """The figures of every run, oldest first."""
        return [self._figures(text) for _, text in self._rows()]

    def find(self, run: str) -> Result:
        """The run whose id begins with `run`. Raises BadInput if there is none, or more than one."""
        rows = dict(self._rows(run))
        if run not in rows and len(rows) > 1:
            raise BadInput(f"run '{run}' is ambiguous: {', '.join(rows)}; give more of the id")
        if not rows:
            raise BadInput(f"no run '{run}' in {self._path.parent}; see palimpsest results, or give its --home")
        return Result(self._figures(rows[run] if run in rows else next(iter(rows.values()))))

    def table(self) -> pandas.DataFrame:
        """One row a run: the figures that are single values."""
        import pandas

        names = (
            "run",
            "stream",
            "strategy",
            "seed",
            "backbone",
            "average_accuracy",
            "average_incremental_accuracy",
            "forgetting",
            "created",
        )
        return pandas.DataFrame(
            [{name: figures[name] for name in names} for figures in self.all()], columns=list(names)
        )

    def _rows(self, beginning: str = "") -> list[tuple[str, str]]:
        """Id and figures, as they are stored, of the runs whose id begins so; oldest first."""
        if not self._path.exists():
            return []
        query = "SELECT run, figures FROM runs WHERE substr(run, 1, ?) = ? ORDER BY created, run"
        with self._open() as database:
            return database.execute(query, (len(beginning), beginning)).fetchall()

    def _figures(self, text: str) -> dict[str, Any]:
        try:
            figures: dict[str, Any] = json.loads(text)
            return figures | {name: figures[name] for name in PRINTED}
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._path} holds a damaged row; mend it with palimpsest store verify --fix") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(database_address(self._path), timeout=60, uri=True)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {self._path}: {error}; check the folder's permissions") from error
        try:
            with database:
                _check_version(database, self._path)
                if not is_fixed(self._path.parent):
                    _prepare(database)
                yield database
        except sqlite3.OperationalError as error:
            kind = StoreError if error.sqlite_errorcode == sqlite3.SQLITE_ERROR else Unusable
            raise kind(f"cannot use {self._path}: {error}; check disk space and permissions") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._path} is not a results database ({error}); move it away and run again") from error
        finally:
            database.close()


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA:
        raise Unusable(f"{path} is of a newer release (schema {version}); use that release or another --home")
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'runs' ORDER BY name"
    foreign = database.execute(query).fetchone() if version == 0 else None
    if foreign is not None:
        raise StoreError(f"{path} is another database (it holds '{foreign[0]}'); move it away and run again")


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA secure_delete = ON")  # a deleted row leaves no bytes in free pages
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.execute(
            "CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, stream TEXT NOT NULL, strategy TEXT NOT NULL,"
            " seed INTEGER NOT NULL, created TEXT NOT NULL, figures TEXT NOT NULL) STRICT"
        )
        database.execute(f"PRAGMA user_version = {SCHEMA}")
