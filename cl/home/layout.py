"""Where store and results lie. Loads nothing else, so that commands that only read them begin at once."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from cl.errors import BadInput, StoreError

FORMAT = 2
MARKER = "format.json"  # in the home: which format it has
# Files in the folder of a run that a deletion took out of service; they name the deletion.
QUARANTINED = "quarantined"  # until the deletion has come to its end
STALE = "stale"  # until the run is built again


def default_home() -> Path:
    """`PALIMPSEST_HOME`, else `.palimpsest` in the working directory."""
    return Path(os.environ.get("PALIMPSEST_HOME") or ".palimpsest")


def stale_runs(home: Path) -> dict[str, str]:
    """Every stale run of a home, and the deletion that made it so."""
    return _marked(home, STALE)


def out_of_service(home: Path) -> dict[str, tuple[str, str]]:
    """Every run whose figures do not count now: `stale` or `quarantined`, and the deletion that made it so."""
    return {run: (mark, request) for mark in (QUARANTINED, STALE) for run, request in _marked(home, mark).items()}


def _marked(home: Path, mark: str) -> dict[str, str]:
    return {path.parent.name: path.read_text(encoding="ascii") for path in sorted(home.glob(f"runs/*/{mark}"))}


def check_home(home: Path) -> None:
    """Raises StoreError for a home that is no folder or has another format; one that is not there yet is fine."""
    marker = home / MARKER
    try:
        if home.exists() and not home.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        found = json.loads(marker.read_bytes())["format"] if marker.exists() else FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f'{marker} is damaged; it should read {{"format":{FORMAT}}}') from error
    except OSError as error:
        raise home_error(home, error) from error
    if found != FORMAT:
        older = isinstance(found, int) and found < FORMAT
        mend = "build it again in another --home" if older else "use a newer palimpsest or another --home"
        raise StoreError(f"home {home} has format {found}, this release reads {FORMAT}; {mend}")


def require_home(home: Path) -> None:
    """Raises BadInput where there is no home to read, StoreError for one of another format."""
    if not (home / MARKER).is_file():
        raise BadInput(f"there is no home at {home} ({MARKER} is missing); give the --home of the run, copied whole")
    check_home(home)


def is_fixed(folder: Path) -> bool:
    """Whether nothing can be written into `folder`."""
    return not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def database_address(path: Path, *, writes: bool = True) -> str:
    """What SQLite opens. In a folder that cannot be written it can keep no journal; nobody else writes there, so it
    reads without."""
    mode = "immutable=1" if is_fixed(path.parent) else "mode=rwc" if writes else "mode=ro"
    return f"{path.absolute().as_uri()}?{mode}"


def home_error(home: Path, error: OSError) -> StoreError:
    """The one line for a home that cannot be used."""
    mends = {
        errno.ENOSPC: "the disk is full; free some space",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EROFS: "the file system is read-only; choose another --home",
        errno.EACCES: "permission denied; choose another --home or change its owner",
        errno.EPERM: "permission denied; choose another --home or change its owner",
        errno.EEXIST: "it is a file, not a folder; choose another --home",
        errno.ENOTDIR: "it is a file, not a folder; choose another --home",
    }
    return StoreError(f"cannot use home {home}: {mends.get(error.errno or 0, os.strerror(error.errno or 0))}")
