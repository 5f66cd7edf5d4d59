"""What is decided of deleted samples afterwards: that they may come again, that later ones of a person may come, and
the list of them made again where it was lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from cl.data.names import composed, normalised
from cl.deletion.events import Admitted, Readmitted, Received, Resolved, Restored, append, needed, newest
from cl.deletion.forget_set import ForgottenSample, traces_of
from cl.deletion.vault import Vault
from cl.errors import DeletionError
from cl.home.deletions import remembered, settle
from cl.home.keys import renew_system_key
from cl.home.ledger import Ledger, state, writing
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import setup_of
from cl.running.setup import Setup
from cl.running.suppression import Suppression


def readmit(home: Path, request: str) -> int:
    """Let the samples of `request` come again, at the next run; how many. Raises DeletionError if it is not done."""
    with writing(home):
        ledger, store = Ledger(home), Store(home)
        records = ledger.known(request)
        now = state(records)
        if now not in ("purged", "verified", "certified"):
            raise DeletionError(f"request {request} is {now}, so there is nothing to readmit")
        method = needed(records, Received).method
        if method != "exact":
            raise DeletionError(f"request {request} measured '{method}' on a copy: nothing to readmit")
        with store.locked(exclusive=True):
            count, made = Suppression(home).lift(store, request)
        append(ledger, request, Readmitted(count, made))
        settle(home, made)
        Vault(home).destroy(request)  # nobody will verify it any more
    return count


def admit(home: Path, request: str) -> None:
    """Let in what comes later of the people whose data `request` deleted; the deleted samples stay out."""
    with writing(home):
        ledger, store = Ledger(home), Store(home)
        ledger.known(request)
        with store.locked(exclusive=True):
            made = Suppression(home).admit(store, request)
        append(ledger, request, Admitted(made))
        settle(home, made)


def reapply(
    home: Path, request: str, ids: Collection[str], *, run: str | None = None, subjects: Collection[str] = ()
) -> int:
    """Keep out again what `request` deleted, where the list of it was lost; how many requests are still to be told.

    ids: all that it deleted, as the operator has kept them. run: one that read them, where the ledger does not say.
    subjects: the people it was about. Raises DeletionError for ids that are not as many as were deleted.
    """
    with writing(home):
        ledger, store, suppression = Ledger(home), Store(home), Suppression(home)
        if suppression.knows(request):
            raise DeletionError(f"the list holds what request {request} deleted: nothing to tell again")
        ledger.begin_anew()
        records = ledger.of(request)
        received, resolved = newest(records, Received), newest(records, Resolved)
        deletions = remembered(home).deletions
        count = resolved.samples if resolved else deletions.get(request)
        if count is None:
            raise DeletionError(f"nothing in {home} says that there was a request {request}; look at the certificate")
        names = {composed(one) for one in ids}
        if len(names) != count:
            raise DeletionError(f"request {request} deleted {count} samples, but {len(names)} are named")
        setup = _setup(store, received.run if received else run)
        alone = setup.request.id if received and received.scope == "run" else None
        renew_system_key(home)
        people = [(setup.whole.name, normalised(who)) for who in subjects]
        samples = _known_samples(store, setup, names)
        entry = suppression.entry(alone, traces_of(setup.whole.name, samples), people)
        with store.locked(exclusive=True):
            entries = {**suppression.salvaged(), request: entry}
            made = suppression.restore(store, entries, {**deletions, request: count})
        append(ledger, request, Restored(count, made))
        settle(home, made)
        return len(deletions.keys() - entries.keys())


def _setup(store: Store, run: str | None) -> Setup:
    if run is None:
        raise DeletionError("the ledger does not say of which run they were deleted; name one that read them (--run)")
    runs = Runs(store)
    found = runs.find(run)
    return setup_of(store.home, runs.request(found), runs.source(found))


def _known_samples(store: Store, setup: Setup, names: Collection[str]) -> dict[str, ForgottenSample]:
    """What source and home know of the samples; of one that both have lost, its name alone keeps it out."""
    found = dict.fromkeys(names, ForgottenSample("", ()))
    rows = (
        row for _, shards in store.shards for shard in shards if shard.stream == setup.whole.name for row in shard.rows
    )
    found |= {row.id: ForgottenSample(row.content, row.marks) for row in rows if row.id in found}
    return found | dict(_of_source(setup, names))


def _of_source(setup: Setup, names: Collection[str]) -> Iterable[tuple[str, ForgottenSample]]:
    for shard in setup.whole.shards:
        part = shard.plain.keep(names)
        for name, content, marks in zip(part.ids, part.contents, part.marks, strict=True):
            yield name, ForgottenSample(content, marks)
