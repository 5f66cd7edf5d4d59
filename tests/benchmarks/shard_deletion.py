"""What the deletion of one image costs AdapterSwap, by the number of shards, beside full retraining.

    python -m tests.benchmarks.shard_deletion [BUCKETS...]

Four tasks of two digits of the MNIST scans; so many buckets in each. Full retraining is the cold oracle, in this
process too, which also says whether the manifests are equal; figures that only measure are made by both. Asserts
nothing.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from cl.components.builder import TRAINED
from cl.data.stream import Recipe, Stream
from cl.deletion.dossier import read_dossier
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.deletion.oracle import cold_run, run_cold
from cl.deletion.vault import Vault
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import open_run
from cl.running.run import run
from streams.digits import split_mnist_5k

BUCKETS = (2, 8, 32)
TASKS, EPOCHS = 4, 2
HEAD = ("shards", "trained", "delete s", "retrain s", "speed-up", "train s", "of", "speed-up", "equal")


def sharded(buckets: int) -> Stream:
    """The first four tasks of `split-mnist-5k`, two images a person, declared for `buckets` shards of 100 images."""
    whole = split_mnist_5k(people=2000)
    tasks = tuple(replace(one, capacity=100 * buckets) for one in whole.tasks[:TASKS])
    recipe = Recipe("tests.benchmarks.shard_deletion:sharded", {"buckets": buckets})
    return Stream(f"sharded-{TASKS * buckets}", tasks, recipe, whole.subjects)


def training(home: Path, run_id: str, fresh_since: set[str]) -> tuple[int, float]:
    """Trainings that the run used and that were not there before, and their seconds."""
    store = Store(home)
    live = Runs(store).live(run_id)
    assert live is not None
    records = [store.record(key) for key in live.keys - fresh_since]
    trained = [one for one in records if TRAINED & {part["role"] for part in one.parts.values()}]
    return len(trained), sum(one.seconds for one in trained)


def measure(buckets: int) -> list[object]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        home, cold = Path(folder) / "home", Path(folder) / "cold"
        stream = sharded(buckets)
        settings = {"epochs": EPOCHS, "shard_limit": 100}
        run_id = run(stream, "adapterswap", settings=settings, home=home, device="cpu").id
        live = Runs(Store(home)).live(run_id)
        assert live is not None
        shards, whole = training(home, run_id, set())
        done = execute(home, run_id, [Selector("sample", stream.tasks[1].train.ids[0])])
        count, part = training(home, run_id, live.keys)
        cold.mkdir()
        forgotten = read_dossier(Vault(home), done.request).forgotten.samples
        oracle = run_cold(cold_run(open_run(home, run_id), forgotten, []), cold)
    equal = "yes" if oracle.manifest == done.manifest_after else "NO"
    total = [f"{done.seconds:.1f}", f"{oracle.seconds:.1f}", f"{oracle.seconds / done.seconds:.1f}"]
    trained = [f"{part:.2f}", f"{whole:.1f}", f"{whole / part:.1f}"]
    return [shards, count, *total, *trained, equal]


def main(*buckets: str) -> None:
    """Print the table."""
    print(*(f"{title:>9}" for title in HEAD), flush=True)
    for one in buckets or map(str, BUCKETS):
        print(*(f"{value:>9}" for value in measure(int(one))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
