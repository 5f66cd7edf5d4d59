"""What a user cannot read changes nothing for that user: in whatever state it is, and whatever is done to it meanwhile.

Two worlds with the same ward-a: one has images that ward-b alone may read, in some state; one never had them. Every
command that takes a user must say the same in both, byte for byte: standard output, standard error, exit code.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cl
from cl.data.recipes import declared_stream, resolve_stream
from cl.deletion.steps import Deletion
from cl.errors import AccessRevoked, BadInput, DeletionError
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.grants import Grants
from tests.palimpsest import palimpsest
from tests.photos import Photo, album, forgotten, take
from tests.tiny import run_tiny
from tests.visitors import visitor

USERS = {"ann": ["ward-a"], "bea": ["ward-a", "ward-b"]}
READERS = ("ann", "nobody")
# What the docs exclude: time, memory, and how much was found in the store.
EXCLUDED = ("seconds", "created", "peak_memory_bytes", "per_second", "components_built", "components_reused", "passes")


def ward(photo: Photo) -> str:
    """Half of the people are in each ward; newts are of ward-b alone."""
    return "ward-b" if photo.label == "newt" or photo.subject in ("person-1", "person-3") else "ward-a"


OPEN = [one for one in album() if ward(one) == "ward-a"]
HIDDEN = [one for one in album() if ward(one) == "ward-b"]


@dataclass
class World:
    """A folder of images, its table and its home."""

    place: Path

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def stream(self) -> Path:
        return self.place / "album.toml"

    @property
    def table(self) -> Path:
        return self.place / "album.csv"

    def image(self, photo: Photo) -> Path:
        return self.place / "images" / photo.sample

    def write(self, photos: list[Photo]) -> None:
        lines = ['kind = "class-incremental"', 'data = "images"', 'samples = "album.csv"', "image_size = 16"]
        lines += ["tasks = [2, 2]", 'classes = ["cat", "owl", "ibex", "newt"]', "[access.users]"]
        lines += [f"{user} = {json.dumps(labels)}" for user, labels in USERS.items()]
        self.stream.write_text("\n".join(lines), encoding="utf-8")
        with self.table.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sample", "class", "split", "subject", "labels"])
            rows.writerows([one.sample, one.label, one.split, one.subject, ward(one)] for one in photos)


def world(place: Path, photos: list[Photo]) -> World:
    """One where whoever keeps the stream ran it already."""
    place.mkdir()
    take(place, photos)
    made = World(place)
    made.write(photos)
    stream = str(made.stream)
    run_tiny(made.home, "simplecil", stream=stream) if photos != OPEN else _ran_without(made)  # type: ignore[arg-type]
    return made


def _ran_without(made: World) -> None:
    """The table names a class that nobody has images of: whoever keeps the stream must take it off to run it."""
    kept = made.stream.read_text(encoding="utf-8")
    fewer = kept.replace('"ibex", "newt"', '"ibex"').replace("[2, 2]", "[2, 1]")
    made.stream.write_text(fewer, encoding="utf-8")
    run_tiny(made.home, "simplecil", stream=str(made.stream))  # type: ignore[arg-type]
    made.stream.write_text(kept, encoding="utf-8")


def missing(made: World) -> None:
    for one in HIDDEN:
        made.image(one).unlink()


def damaged(made: World) -> None:
    for one in HIDDEN:
        made.image(one).write_bytes(made.image(one).read_bytes()[:40])


def a_folder_instead(made: World) -> None:
    made.image(HIDDEN[0]).unlink()
    made.image(HIDDEN[0]).mkdir()


def another_size(made: World) -> None:
    for one in HIDDEN:
        Image.new("RGB", (3, 50)).save(made.image(one))


def gone_from_the_table(made: World) -> None:
    made.write([one for one in album() if one not in HIDDEN[::2]])


def only_tests_of_a_class(made: World) -> None:
    made.write([one for one in album() if not (one.label == "newt" and one.split == "train")])


def rows_that_cannot_be(made: World) -> None:
    text = made.table.read_text(encoding="utf-8")
    head, rest = text.split("\n", 1)
    bad = ["../up.png,cat,train,,ward-b", "a.png,cat,middle,,ward-b", "train/newt/0.png,,train,,ward-b"]
    bad = [*bad, "/etc/passwd,cat,train,,ward-b", "b.png,cat,train", f"{HIDDEN[0].sample},cat,train,,ward-b"]
    made.table.write_text("\n".join([head, *bad, rest]), encoding="utf-8")


def half_deleted(made: World) -> None:
    """A deletion of ward-b's that ends after its first step: everything of it is quarantined."""

    def die(self: Deletion) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deletion, "_build", die)
        with pytest.raises(KeyboardInterrupt):
            forgotten(made.home, _only(made), ("subject", "person-1"))


def half_deleted_and_gone(made: World) -> None:
    half_deleted(made)
    missing(made)


def deleted(made: World) -> None:
    forgotten(made.home, _only(made), ("subject", "person-1"))


def stale_and_damaged(made: World) -> None:
    Runs(Store(made.home)).retire(_only(made), "abc")
    damaged(made)


STATES: list[Callable[[World], None]] = [
    missing,
    damaged,
    a_folder_instead,
    another_size,
    gone_from_the_table,
    only_tests_of_a_class,
    rows_that_cannot_be,
    half_deleted,
    half_deleted_and_gone,
    deleted,
    stale_and_damaged,
]


def _only(made: World) -> str:
    (run,) = Runs(Store(made.home)).ids()
    return run


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    place = tmp_path_factory.mktemp("wards")
    return world(place / "with", album()), world(place / "without", OPEN)


@contextmanager
def copied(made: World, to: Path) -> Iterator[World]:
    """At one and the same place, so that no path differs."""
    shutil.copytree(made.place, to)
    for path in (to / "home" / "runs").glob("*/source.json"):
        path.write_text(path.read_text().replace(str(made.place), str(to)))
    yield World(to)
    shutil.rmtree(to)


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    return lambda *words: palimpsest(capsys, monkeypatch, *words)


def told(made: World, say: Say, picture: Path, user: str) -> list[tuple[int, str, str]]:
    """What every command that takes a user says to this one."""
    home = ["--as", user, "--home", str(made.home)]
    backbone = ["--backbone", "cl.testing:tiny_backbone"]
    whole = _only(made)
    said = [say("predict", whole, str(picture), *home, *how) for how in ([], ["--json"])]
    for strategy, sets in (("simplecil", []), ("ease", ["--set", "epochs=1", "--set", "bottleneck=4"])):
        said.append(say("run", str(made.stream), strategy, *backbone, *sets, *home, "--json"))
    own = json.loads(said[-1][1])["run"] if said[-1][1] else "none"
    said.append(say("predict", own, str(picture), "--home", str(made.home), "--json"))
    return [(code, _timeless(out), err) for code, out, err in said]


def _timeless(out: str) -> str:
    """Without what the docs exclude, and that alone."""

    def cut(content: object) -> object:
        if isinstance(content, dict):
            return {key: cut(value) for key, value in content.items() if not any(one in key for one in EXCLUDED)}
        return [cut(one) for one in content] if isinstance(content, list) else content

    return json.dumps(cut(json.loads(out))) if out.startswith(("{", "[")) else out


@pytest.mark.parametrize("user", READERS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_that_is_said_to_a_user_depends_on_the_state_of_what_is_hidden(
    worlds: tuple[World, World], tmp_path: Path, say: Say, state: Callable[[World], None], user: str
) -> None:
    full, bare = worlds
    picture = visitor(tmp_path)
    with copied(bare, tmp_path / "place") as made:
        expected = told(made, say, picture, user)
    with copied(full, tmp_path / "place") as made:
        state(made)
        found = told(made, say, picture, user)
    assert found == expected
    assert all(code == 0 for code, _, _ in found)
    text = "".join(out + err for _, out, err in found)
    assert "newt" not in text and not re.search(r"person-[13]|ward-b|quarantine", text)


LINES = st.sampled_from(
    ["", "a.png,cat", "../up.png,cat,train,,ward-b", "a.png,,train,,ward-b", "a.png,owl,odd,,ward-b"]
)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_view_of_a_spoilt_table_is_the_view_of_one_without(worlds: tuple[World, World], data: st.DataObject) -> None:
    """Whatever becomes of lines that the user may not read: left out, put elsewhere, made unusable, listed twice."""
    full = worlds[0]
    kept = full.table.read_text(encoding="utf-8")
    head, *rows = kept.splitlines()
    hidden = [row for row in rows if row.endswith("ward-b")]
    left = data.draw(st.lists(st.sampled_from(hidden), max_size=len(hidden)))
    lines = [row for row in rows if row not in hidden]
    for row in [*left, *data.draw(st.lists(LINES, max_size=4))]:
        lines.insert(data.draw(st.integers(0, len(lines))), row)
    try:
        full.table.write_text("\n".join([head, *lines]), encoding="utf-8")
        for user in READERS:
            views = [declared_stream(str(one.stream), user=user).view(user) for one in worlds]
            assert views[0].resolution() == views[1].resolution() and views[0].recipe is not None
            assert views[0].unusable == views[1].unusable == []
            views[0].prepare()
    finally:
        full.table.write_text(kept, encoding="utf-8")


def test_whoever_keeps_the_stream_is_told_all_the_same(worlds: tuple[World, World], tmp_path: Path, say: Say) -> None:
    with copied(worlds[0], tmp_path / "place") as made:
        missing(made)
        home = ["--home", str(made.home)]
        code, _, err = say("run", str(made.stream), "simplecil", "--backbone", "cl.testing:tiny_backbone", *home)
        assert code == 2 and HIDDEN[0].sample in err and "line" in err
        code, _, err = say("access", _only(made), "--revoke", "bea=ward-b", *home)
        assert code == 0 and HIDDEN[0].sample in err  # a missing file does not put off a revocation
        with pytest.raises(BadInput, match="is not in"):
            resolve_stream(str(made.stream))


def test_a_user_is_told_of_the_own_missing_file_but_not_where_in_the_table(
    worlds: tuple[World, World], tmp_path: Path, say: Say
) -> None:
    """The number of the line would count the hidden ones before it."""
    said = []
    for one in worlds:
        with copied(one, tmp_path / "place") as made:
            made.image(OPEN[-1]).unlink()
            said.append([one[0::2] for one in told(made, say, visitor(tmp_path), "ann")])
    assert said[0] == said[1]
    code, err = said[0][0]
    assert code == 2 and OPEN[-1].sample in err and not re.search(r"line \d", err)


@pytest.mark.parametrize("spoil", ['"', f"{HIDDEN[0].sample},cat,train,,ward-a"])
def test_a_table_that_cannot_be_read_at_all_serves_nobody_and_tells_no_user_why(
    worlds: tuple[World, World], tmp_path: Path, say: Say, spoil: str
) -> None:
    with copied(worlds[0], tmp_path / "place") as made:
        text = made.table.read_text(encoding="utf-8")
        made.table.write_text(text.rstrip() + "\n" + spoil, encoding="utf-8")
        said = [told(made, say, visitor(tmp_path), user) for user in (*READERS, "bea")]
    assert said[0] == said[1] == said[2]
    code, out, err = said[0][0]
    assert (code, out) == (2, "") and err.count("\n") == 1 and "cannot be read now" in err and "album" not in err


def test_a_user_of_what_is_being_deleted_gets_one_neutral_line(
    worlds: tuple[World, World], tmp_path: Path, say: Say
) -> None:
    with copied(worlds[0], tmp_path / "place") as made:
        half_deleted(made)
        run, picture = _only(made), str(visitor(tmp_path))
        code, out, err = say("predict", run, picture, "--as", "bea", "--home", str(made.home))
        assert (code, out) == (2, "") and err.count("\n") == 1 and "out of service" in err
        assert not re.search(r"deletion|[0-9a-f]{8}-|person|photo", err)
        forgotten(made.home, run, ("subject", "person-1"))
        assert say("predict", run, picture, "--as", "bea", "--home", str(made.home))[0] == 0


def test_an_open_view_lives_as_long_as_nothing_of_it_is_deleted_or_revoked(
    worlds: tuple[World, World], tmp_path: Path
) -> None:
    with copied(worlds[0], tmp_path / "place") as made:
        run, picture = _only(made), visitor(tmp_path)
        ann, bea = (cl.open(run, made.home, user=user) for user in ("ann", "bea"))
        before = ann.scores(picture)
        half_deleted(made)
        assert ann.scores(picture).equal(before)
        with pytest.raises(DeletionError, match="open it again"):
            bea.scores(picture)
        Grants(made.home).change(Store(made.home), resolve_stream(str(made.stream)), [("ann", "ward-a", False)])
        with pytest.raises(DeletionError, match="open it again"):
            ann.scores(picture)


@pytest.mark.parametrize("strategy", ["simplecil", "ease"])
@pytest.mark.parametrize("moment", ["cl.running.run.load_backbone", "cl.running.session.Session.figures"])
def test_a_grant_revoked_while_the_run_is_under_way_leaves_nothing_live(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, moment: str
) -> None:
    """Between the view and the first write, and between the last write and the switch."""
    with copied(worlds[0], tmp_path / "place") as made:
        stream = str(made.stream)
        whole, (module, _, name) = resolve_stream(stream), moment.rpartition(".")
        place = cl.running.session.Session if module.endswith("Session") else cl.running.run
        real = getattr(place, name)

        def late(*given: object) -> object:
            if "ward-b" in Grants(made.home).govern(whole).policy.users["bea"]:
                Grants(made.home).change(Store(made.home), whole, [("bea", "ward-b", False)])
            return real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(moment, late)
            with pytest.raises(AccessRevoked, match="revoked from its user while it ran") as caught:
                run_tiny(made.home, strategy, stream=stream, user="bea")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value) and "ward" not in str(caught.value)
        runs = Runs(Store(made.home))
        views = [one for one in runs.ids() if runs.request(one).user == "bea"]
        assert all(runs.live(one) is None for one in views)
        again = run_tiny(made.home, strategy, stream=stream, user="bea")  # type: ignore[arg-type]
        assert all(row.access == ("ward-a",) for row in runs.resolution(again.id).rows)


def test_a_grant_of_another_user_disturbs_no_run(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied(worlds[0], tmp_path / "place") as made:
        whole, real = resolve_stream(str(made.stream)), cl.running.run.load_backbone

        def late(*given: object) -> object:
            Grants(made.home).change(Store(made.home), whole, [("bea", "ward-b", False), ("ann", "ward-b", True)])
            return real(*given)  # type: ignore[arg-type]

        monkeypatch.setattr("cl.running.run.load_backbone", late)
        assert run_tiny(made.home, "simplecil", stream=str(made.stream), user="ann").figures["run"]  # type: ignore[arg-type]
