"""Named cases of deletion: what goes wrong before, beside and after it, and what must not be seen afterwards."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import cl
import cl.audit.verification
import cl.deletion.purge
from cl.audit.certificate import certify
from cl.audit.verification import verify
from cl.cli import app, main
from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.deletion.dossier import Dossier, Forecast, ForgottenSamples, Order, RunBefore, Taint
from cl.deletion.execution import execute
from cl.deletion.forget_set import ForgottenSample, Selector
from cl.deletion.graph import ComponentGraph
from cl.deletion.plan import plan
from cl.deletion.steps import Deletion
from cl.deletion.vault import Vault
from cl.errors import BadInput, DeletionError, LedgerError
from cl.home.ledger import Ledger, statuses
from cl.home.runs import Runs
from cl.home.store import Store, Tensors
from cl.running.reopening import open_run
from cl.running.suppression import Suppression
from cl.testing import tiny_backbone, tiny_stream
from strategies.simplecil import SimpleCIL
from tests.backbone_file import described, save_weights
from tests.deleting import forget, oracle, start, started
from tests.homes import key_of, unlocked
from tests.tiny import builder, run_tiny


@builds("decision")
def enough(samples: Samples) -> Tensors:
    return {"value": torch.tensor(len(samples) >= 16)}


@builds("prototype")
def brightness(samples: Samples) -> Tensors:
    return {"mean": samples.images().double().mean()}


@builds("statistics")
def count(samples: Samples) -> Tensors:
    return {"count": torch.tensor(len(samples))}


class Deciding(SimpleCIL):
    """SimpleCIL that keeps one more part of a task, which one is decided by how many images the task has."""

    def learn(self, task: Task, model: Any) -> dict[str, Handle]:
        entries = dict(super().learn(task, model))
        decision = self.component(f"{task.id}/decision", enough, task.train.plain)
        if bool(self.decide(decision)["value"]):
            return {**entries, f"{task.id}/brightness": self.component("brightness", brightness, task.train.plain)}
        return {**entries, f"{task.id}/count": self.component("count", count, task.train.plain)}


def test_a_decision_that_the_deletion_turns_is_taken_again(tmp_path: Path) -> None:
    """What hangs on the decision goes, what the other decision asks for comes, and only in the task concerned."""
    made = run_tiny(tmp_path / "home", Deciding).id
    outcome = forget(tmp_path / "home", made, ("sample", "t1/c0/1"))
    _, components = oracle(tmp_path / "home", made, {"t1/c0/1"}, tmp_path / "cold")
    assert dict(outcome.components_after) == components
    kept = {name for name in components if name.endswith(("brightness", "count"))}
    assert kept == {"t0/brightness", "t1/count", "t2/brightness"}


def test_the_only_sample_of_a_class_takes_the_class_with_it(tmp_path: Path) -> None:
    made = start(tmp_path / "home", "ease", tiny_stream(train=1)).id
    outcome = forget(tmp_path / "home", made, ("sample", "t1/c0/0"))
    session, components = oracle(tmp_path / "home", made, {"t1/c0/0"}, tmp_path / "cold")
    assert dict(outcome.components_after) == components
    assert session.stream.tasks[1].classes == ("t1/c1",)


def test_two_requests_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    made = started(tmp_path / "home", "simplecil")
    children = []
    for sample in ("t0/c0/1", "t1/c0/1"):
        child = os.fork()
        if child == 0:
            try:
                forget(tmp_path / "home", made, ("sample", sample))
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    _, components = oracle(tmp_path / "home", made, {"t0/c0/1", "t1/c0/1"}, tmp_path / "cold")
    live = Runs(Store(tmp_path / "home")).live(made)
    assert live is not None and live.components == components
    steps = [r.request for r in Ledger(tmp_path / "home").verify() if r.type in ("received", "purged")]
    assert steps[0] == steps[1] != steps[2] == steps[3]


@pytest.mark.parametrize("step", ["quarantine", "build", "switch", "purge"])
def test_an_interrupted_deletion_is_finished_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Else what the next one builds would look to it like a hidden read, and it could never end."""
    made = started(tmp_path / "home", "simplecil")
    with monkeypatch.context() as patch:
        patch.setattr(Deletion, f"_{step}", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forget(tmp_path / "home", made, ("sample", "t0/c0/1"))
    if step in ("build", "switch"):
        with pytest.raises(DeletionError, match="is quarantined by deletion"):
            plan(open_run(tmp_path / "home", made), [Selector("sample", "t1/c0/1")])
    outcome = forget(tmp_path / "home", made, ("sample", "t1/c0/1"))
    _, components = oracle(tmp_path / "home", made, {"t0/c0/1", "t1/c0/1"}, tmp_path / "cold")
    assert dict(outcome.components_after) == components
    assert [one.state for one in statuses(tmp_path / "home")] == ["purged", "purged"]


def test_a_record_that_a_crash_left_out_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the certificate could not say how many samples were deleted."""
    made, append = started(tmp_path, "simplecil"), Ledger.append
    with monkeypatch.context() as patch:
        patch.setattr(
            Ledger, "append", lambda self, type_, *rest: append(self, type_, *rest) if type_ == "received" else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            forget(tmp_path, made, ("sample", "t0/c0/1"))
    request = forget(tmp_path, made, ("sample", "t0/c0/1")).request
    types = [record.type for record in Ledger(tmp_path).of(request)]
    assert types[:4] == ["received", "resolved", "planned", "approved"] and types[-1] == "purged"


def test_what_is_served_has_the_digests_of_the_live_manifest(tmp_path: Path) -> None:
    made = started(tmp_path, "ease")
    outcome = forget(tmp_path, made, ("subject", "person-1"))
    served = cl.open(made, tmp_path).components
    live = dict(outcome.components_after)
    assert served == {name: digest for name, digest in live.items() if "/predictions/" not in name}


def test_a_backup_from_before_the_deletion_is_not_served_with_the_data(tmp_path: Path) -> None:
    """Runs and store are put back; the suppression list is not, so what is served has never seen the samples."""
    made = started(tmp_path / "home", "simplecil")
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    outcome = forget(tmp_path / "home", made, ("sample", "t1/c0/1"))
    for name in ("runs", "store", "shards"):
        shutil.copytree(tmp_path / "backup" / name, tmp_path / "home" / name, dirs_exist_ok=True)
    served = cl.open(made, tmp_path / "home").components
    assert served.items() <= outcome.components_after.items()
    assert start(tmp_path / "home", "simplecil").figures["manifest"] == outcome.manifest_after


def test_an_edited_ledger_stops_the_request_before_anything_is_touched(tmp_path: Path) -> None:
    made = started(tmp_path, "simplecil")
    forget(tmp_path, made, ("sample", "t0/c0/1"))
    path = tmp_path / "audit" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"samples":1', b'"samples":2', 1))
    before = unlocked(tmp_path)
    with pytest.raises(LedgerError, match="was edited"):
        forget(tmp_path, made, ("sample", "t1/c0/1"))
    assert unlocked(tmp_path) == before


def test_a_damaged_component_is_noticed_and_made_again(tmp_path: Path) -> None:
    made = started(tmp_path / "home", "ease")
    key = key_of(tmp_path / "home", "t0/adapter")
    blob = tmp_path / "home" / "store" / key[:2] / f"{key}.safetensors"
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x7f")
    outcome = forget(tmp_path / "home", made, ("sample", "t1/c0/1"))
    _, components = oracle(tmp_path / "home", made, {"t1/c0/1"}, tmp_path / "cold")
    assert dict(outcome.components_after) == components


def test_missing_raw_data_of_others_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(tmp_path, "simplecil")
    before, rest = unlocked(tmp_path), tiny_stream().without({"t1/c1/3"})
    monkeypatch.setattr("cl.running.reopening.resolve_stream", lambda recipe, home: rest)
    with pytest.raises(DeletionError, match="raw data of 1 more samples is gone, the first 't1/c1/3'"):
        forget(tmp_path, made, ("sample", "t1/c0/1"))
    assert unlocked(tmp_path) == before


def test_another_backbone_under_the_same_name_is_refused(tmp_path: Path) -> None:
    made = run_tiny(tmp_path / "home", "simplecil", backbone=described(tmp_path)).id
    save_weights(tmp_path, tiny_backbone(seed=1))
    with pytest.raises(BadInput, match="not the one of run"):
        forget(tmp_path / "home", made, ("sample", "t1/c0/1"))


def test_many_requests_for_one_sample_each_make_one_batch(tmp_path: Path) -> None:
    made = started(tmp_path, "simplecil")
    session = open_run(tmp_path, made)
    every = [Selector("sample", sample) for task in session.whole.tasks for sample in task.train.ids]
    worst = plan(session, every[1:])
    assert worst.build <= len(worst.live.keys)  # no worse than one full retraining
    execute(tmp_path, made, every[1:])
    assert [record.type for record in Ledger(tmp_path).records()].count("received") == 1


def test_where_nothing_can_be_dropped_no_request_is_left(tmp_path: Path) -> None:
    made = started(tmp_path, "finetune")
    with pytest.raises(DeletionError, match="nothing can be dropped"):
        execute(tmp_path, made, [Selector("task", "t1")], method="drop")
    assert (Ledger(tmp_path).records(), Vault(tmp_path).requests()) == ([], [])


@pytest.mark.usefixtures("cold_in_this_process")
def test_what_was_forgotten_is_destroyed_with_the_baselines_that_measured_it(tmp_path: Path) -> None:
    made = started(tmp_path, "simplecil")
    dropped = execute(tmp_path, made, [Selector("task", "t1")], method="drop").request
    assert verify(tmp_path, dropped).grade == "E0"
    with pytest.raises(DeletionError, match="deleted nothing to certify"):
        certify(tmp_path, dropped)
    request = forget(tmp_path, made, ("task", "t1")).request
    assert verify(tmp_path, request).grade == "E0"
    certify(tmp_path, request)
    assert not list((tmp_path / "audit" / "vault").iterdir())
    types = [record.type for record in Ledger(tmp_path).of(request)]
    assert types.index("verified") < types.index("certified") and types.count("certified") == 1


def test_a_stale_run_is_shown_as_stale_and_built_again_on_use(tmp_path: Path) -> None:
    made, other = started(tmp_path, "simplecil"), start(tmp_path, "simplecil", seed=3).id
    request = forget(tmp_path, made, ("sample", "t1/c0/1")).request
    shown = CliRunner().invoke(app, ["results", "--json", "--home", str(tmp_path)])
    states = {row["run"]: (row["state"], row.get("deletion")) for row in json.loads(shown.stdout)}
    assert states == {made: ("live", None), other: ("stale", request)}
    assert "stale" in CliRunner().invoke(app, ["results", "--home", str(tmp_path)]).stdout
    assert "is stale" in str(CliRunner().invoke(app, ["show", other, "--home", str(tmp_path)]).exception)
    assert cl.open(other, tmp_path).tasks and not Suppression(tmp_path).reaches(Store(tmp_path), other)
    assert Runs(Store(tmp_path)).stale(other) is None


def test_a_quarantined_run_is_shown_as_such_and_without_figures(tmp_path: Path) -> None:
    made = started(tmp_path, "simplecil")
    Runs(Store(tmp_path)).quarantine(made, "abc")
    (shown,) = json.loads(CliRunner().invoke(app, ["results", "--json", "--home", str(tmp_path)]).stdout)
    assert (shown["run"], shown["state"], shown["deletion"]) == (made, "quarantined", "abc")
    assert "average_accuracy" not in shown


def test_a_list_of_ids_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As editors on Windows write it."""
    made, ids = started(tmp_path / "home", "simplecil"), tmp_path / "ids.txt"
    ids.write_bytes(b"\xef\xbb\xbft0/c0/1\r\nt1/c0/1\r\n")
    words = ["forget", "plan", made, "--ids-file", str(ids), "--json", "--home", str(tmp_path / "home")]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert json.loads(shown.stdout)["forget"]["samples"] == ["t0/c0/1", "t1/c0/1"]


def test_a_run_without_a_name_is_no_run(tmp_path: Path) -> None:
    """A variable of a script that was never set must not delete from the only run there is."""
    started(tmp_path, "simplecil")
    with pytest.raises(BadInput, match="which run"):
        forget(tmp_path, "", ("task", "t1"))


def test_the_list_of_requests_shows_whole_ids(tmp_path: Path) -> None:
    made = started(tmp_path, "simplecil")
    Ledger(tmp_path).append("received", "0123456789ab", {"run": made, "method": "exact", "scope": "home"})
    Ledger(tmp_path).append("step_started", "0123456789ab", {"step": "quarantine"})
    shown = CliRunner().invoke(app, ["forget", "status", "--home", str(tmp_path)], env={"COLUMNS": "80"}).stdout
    assert "0123456789ab" in shown and made in shown


def test_off_a_terminal_the_exit_code_without_yes_is_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(tmp_path, "simplecil")
    words = ["palimpsest", "forget", "execute", made, "--task", "t1", "--home", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and Ledger(tmp_path).records() == []


def test_a_purge_that_was_interrupted_leaves_no_way_to_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A survivor, made from equal bytes of two shards, forgets the deleted one, also at the second attempt."""
    made, shard = builder(tmp_path), tiny_stream().tasks[0].train
    gone = shard.keep(shard.ids[:1])
    stays = Samples.of({"another": gone.labels[0]}, SimpleNamespace(
        digest=lambda sample: "0" * 64, read=lambda samples, crops=None: gone.images()
    ))  # fmt: skip
    below = [made.component("b", brightness, one) for one in (stays, gone)]
    child, _ = (made.component("c", twice, one) for one in below)
    live = [("run", SimpleNamespace(keys={below[0].key, child.key}))]
    monkeypatch.setattr(cl.deletion.purge.Runs, "all_live", lambda self: iter(live))
    dossier = Dossier(
        Order("run", (), "home", "exact", ""),
        ForgottenSamples("tiny", {gone.ids[0]: ForgottenSample(gone.contents[0], ())}, (), 1, 0, 0, 0, 0, ()),
        RunBefore("", (), ()),
        Taint((), (), (below[1].key,), ComponentGraph((), (), ())),
        Forecast(0, 0.0, 0.0, {}, 0.0, ()),
    )
    with monkeypatch.context() as patch:
        patch.setattr(cl.deletion.purge, "remove_database", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cl.deletion.purge.purge(made.store, dossier)
    cl.deletion.purge.purge(made.store, dossier)
    assert [read["key"] for read in Store(tmp_path).record(child.key).reads] == [below[0].key]


@builds("statistics")
def twice(read: Tensors) -> Tensors:
    return {name: 2 * tensor for name, tensor in read.items()}
