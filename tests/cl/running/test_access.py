"""Access control: policies, views, who gets an answer, and what a change of the policy does at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl.data.policy import Policy, atom_name, atom_of
from cl.data.recipes import resolve_stream
from cl.data.stream import Stream
from cl.deletion.execution import execute
from cl.deletion.oracle import cold_run, run_cold
from cl.errors import BadInput
from cl.home.ledger import ACCESS, Ledger, statuses
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.grants import atoms
from cl.running.reopening import open_run
from cl.testing import tiny_stream
from tests.deleting import Selector
from tests.image_folder import folder, listing, toml
from tests.palimpsest import palimpsest
from tests.tiny import run_tiny
from tests.visitors import visitor

LABELS = st.sets(st.sampled_from(["a", "b", "c/d", "e+f"]), max_size=3)


class Desk:
    """The command line on one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._capsys, self._monkeypatch = home, capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return palimpsest(self._capsys, self._monkeypatch, *words, "--home", str(self.home))

    def json(self, *words: str) -> Any:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path / "home", capsys, monkeypatch)


@given(held=LABELS, more=LABELS, atom=LABELS, mode=st.sampled_from(["any", "all"]))
def test_another_clearance_only_adds(held: set[str], more: set[str], atom: set[str], mode: str) -> None:
    before = Policy(mode, {"u": tuple(held)})
    after = Policy(mode, {"u": tuple(held | more)})
    assert before.reads("u", atom) <= after.reads("u", atom)
    assert not after.reads("stranger", atom) and not after.reads("u", ())


def test_any_needs_one_label_and_all_needs_every_one() -> None:
    users = {"u": ("a",)}
    assert Policy("any", users).reads("u", ("a", "b")) and not Policy("all", users).reads("u", ("a", "b"))
    assert Policy("all", {"u": ("a", "b", "c")}).reads("u", ("a", "b"))


@given(LABELS)
def test_names_of_atoms_can_be_read_back(atom: set[str]) -> None:
    name = atom_name(atom)
    assert atom_of(name) == tuple(sorted(atom)) and "/" not in name


def test_a_view_holds_what_its_user_reads_and_renames_nothing() -> None:
    whole = tiny_stream()
    seen = whole.view("alice")
    assert seen.ids == {sample for sample in whole.ids if whole.access[sample] == ("ward-a",)}
    assert [one.id for one in seen.tasks] == [one.id for one in whole.tasks]
    assert atoms(seen) == {("ward-a",): len(seen.ids)} and set(seen.policy.users) == {"alice"}
    assert not whole.view("dave").tasks and not whole.view("stranger").tasks
    assert whole.view("bob").ids == whole.ids


def test_the_name_of_a_view_does_not_depend_on_what_is_hidden(tmp_path: Path) -> None:
    def view_of(place: Path, hidden: str) -> Stream:
        place.mkdir()
        folder(place)
        rows = listing().splitlines()
        labels = [hidden if "/owl/" in row else "open" for row in rows[1:]]
        text = "\n".join(
            [rows[0] + ",labels", *(f"{row},{label}" for row, label in zip(rows[1:], labels, strict=True))]
        )
        (place / "samples.csv").write_text(text, encoding="utf-8")
        path = toml(place, samples='"samples.csv"', tasks="[1, 1]", classes='["owl", "cat"]')
        path.write_text(path.read_text() + '\n[access]\nusers = { ann = ["open"] }\n', encoding="utf-8")
        return resolve_stream(path)

    first, second = view_of(tmp_path / "one", "secret"), view_of(tmp_path / "two", "")
    (tmp_path / "two" / "images" / "train" / "owl" / "0.png").write_bytes(
        (tmp_path / "two" / "images" / "train" / "cat" / "1.png").read_bytes()
    )
    second = resolve_stream(tmp_path / "two" / "my-stream.toml")
    one, two = first.view("ann"), second.view("ann")
    assert one.resolution() == two.resolution()
    assert one.recipe is not None and two.recipe is not None and one.recipe.as_json() == two.recipe.as_json()


def test_access_without_labels_is_refused_in_one_line(tmp_path: Path) -> None:
    path = toml(folder(tmp_path))
    path.write_text(path.read_text() + '\n[access]\nusers = { ann = ["open"] }\n', encoding="utf-8")
    with pytest.raises(BadInput, match="needs labels"):
        resolve_stream(path)


def test_without_clearance_the_answer_is_an_abstention(desk: Desk, tmp_path: Path) -> None:
    run, picture = run_tiny(desk.home, "simplecil").id, str(visitor(tmp_path))
    answers = [desk.json("predict", run, picture, "--as", user) for user in ("dave", "stranger", "")]
    assert answers[0] == answers[1] == answers[2]
    (row,) = answers[0]
    assert row["class"] is None and row["abstain"] is True and row["top"] == []
    (known,) = desk.json("predict", run, picture, "--as", "alice")
    assert known["class"] is not None and known["abstain"] is False


def test_a_view_that_needs_training_names_the_command_that_trains_it(desk: Desk, tmp_path: Path) -> None:
    run, picture = run_tiny(desk.home, "ease", threads=2).id, str(visitor(tmp_path))
    code, _, err = desk("predict", run, picture, "--as", "alice")
    assert code == 2 and err.count("\n") == 1 and "--as alice" in err
    words = err.strip().partition("palimpsest run ")[2].split()
    made = desk.json("run", *words[: words.index("--home")], *words[words.index("--home") + 2 :])
    (seen,) = desk.json("predict", run, picture, "--as", "alice")
    (own,) = desk.json("predict", made["run"], picture)
    assert seen["top"] == own["top"] and made["user"] == "alice"
    assert desk("predict", made["run"], picture, "--as", "bob")[0] == 2


def test_a_change_of_the_policy_holds_at_once_and_is_in_the_ledger(desk: Desk, tmp_path: Path) -> None:
    run, picture = run_tiny(desk.home, "simplecil").id, str(visitor(tmp_path))
    matrix = desk.json("access", run)
    rows = {one["user"]: one["reads"] for one in matrix["users"]}
    assert rows == {"alice": [True, False], "bob": [True, True], "dave": [False, False]}
    before = desk.json("predict", run, picture, "--as", "alice")
    assert desk("access", run, "--grant", "alice=ward-b", "--revoke", "bob=ward-a")[0] == 0
    assert desk.json("predict", run, picture, "--as", "alice") != before
    assert desk("access", run, "--revoke", "alice=ward-b")[0] == 0
    assert desk.json("predict", run, picture, "--as", "alice") == before
    assert desk("access", run, "--revoke", "alice=ward-a")[0] == 0
    assert desk.json("predict", run, picture, "--as", "alice")[0]["abstain"]
    assert sum(record.type == ACCESS for record in Ledger(desk.home).verify()) == 4
    assert statuses(desk.home) == []


def test_changes_that_make_no_sense_are_refused_and_what_is_given_with_them_too(desk: Desk) -> None:
    run = run_tiny(desk.home, "simplecil").id
    refused = {
        "--grant alice": "write it as USER=LABEL",
        "--grant alice=ward-x": "did you mean ward-b or ward-a",
        "--grant alice=ward-a": "holds 'ward-a' already",
        "--revoke dave=ward-a": "does not hold 'ward-a'",
        "--revoke alcie=ward-a": "did you mean alice",
        "--grant alice=ward-b --grant bob=ward-x": "unknown access label 'ward-x'",
    }
    for words, told in refused.items():
        code, _, err = desk("access", run, *words.split())
        assert code == 2 and err.count("\n") == 1 and told in err, words
    assert not (desk.home / "access").exists()


@pytest.mark.parametrize("content", ["[]", "null", '{"alice": ["ward-a"]}', '{"alice": {"ward-b": "no"}}', "{"])
def test_nobody_is_answered_by_changes_that_cannot_be_read(desk: Desk, tmp_path: Path, content: str) -> None:
    run, picture = run_tiny(desk.home, "simplecil").id, str(visitor(tmp_path))
    assert desk("access", run, "--revoke", "alice=ward-a")[0] == 0
    (path,) = (desk.home / "access").iterdir()
    path.write_text(content)
    code, out, err = desk("predict", run, picture, "--as", "alice")
    assert (code, out) == (2, "") and err.count("\n") == 1 and path.name in err


def test_a_user_is_told_nothing_of_what_is_read_or_built_for_all(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, picture = run_tiny(desk.home, "simplecil").id, str(visitor(tmp_path))
    Runs(Store(desk.home)).retire(run, "request")
    assert desk("predict", run, picture, "--as", "dave")[2] == "" and Runs(Store(desk.home)).stale(run)

    def broken(tasks: int, classes: int, train: int, test: int, twins: bool) -> Stream:
        raise BadInput("sample 'secret.png' is missing")

    monkeypatch.setattr("cl.testing.tiny_stream", broken)
    told = [desk("predict", run, picture, "--as", user) for user in ("alice", "stranger")]
    assert told[0] == told[1] and told[0][0] == 2 and "secret" not in told[0][2]
    assert "secret" in desk("access", run)[2]


def test_a_deletion_from_a_view_equals_the_oracle_and_spares_who_could_not_read_it(desk: Desk) -> None:
    stream = tiny_stream()
    views = {user: run_tiny(desk.home, "simplecil", user=user) for user in ("alice", "bob")}
    hidden = next(sample for sample in stream.tasks[0].train.ids if stream.access[sample] == ("ward-b",))
    outcome = execute(desk.home, views["bob"].id, [Selector("sample", hidden)])
    cold = desk.home.parent / "cold"
    cold.mkdir()
    session = open_run(desk.home, views["bob"].id)
    assert run_cold(cold_run(session, session.suppressed, []), cold).manifest == outcome.manifest_after
    after = run_tiny(desk.home, "simplecil", user="alice")
    assert after.figures["manifest"] == views["alice"].figures["manifest"] and after.figures["components_built"] == 0
    assert outcome.manifest_after != views["bob"].figures["manifest"]
