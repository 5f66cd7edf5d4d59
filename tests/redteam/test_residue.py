"""What somebody hides in a home after a certified deletion is found; what only looks like it is not."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from cl.audit.certificate import certify
from cl.audit.layers import Budget, layers
from cl.audit.verification import verify
from cl.cli import app
from tests.photos import Photo, album, describe, forgotten, learnt, photographed

MIA = "train/cat/IMG_20431.png"
PHOTOS = [*album(), Photo(MIA, "cat", "train", "mia"), Photo("train/owl/IMG_20432.png", "owl", "train", "noa")]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stream, and a home from which one picture of it was deleted, proved and certified."""
    folder = tmp_path_factory.mktemp("certified")
    learnt(folder / "home", photographed(folder, PHOTOS))
    run = next((folder / "home" / "runs").iterdir()).name
    outcome = forgotten(folder / "home", run, ("sample", MIA))
    assert verify(folder / "home", outcome.request).grade == "E0"
    certify(folder / "home", outcome.request)
    (folder / "request").write_text(outcome.request)
    (folder / "ids.txt").write_text(MIA)
    return folder


@pytest.fixture
def home(certified: Path) -> Path:
    """Its home, to hide things in."""
    shutil.rmtree(certified / "home" / "hidden", ignore_errors=True)
    (certified / "home" / "hidden").mkdir()
    return certified / "home"


def search(home: Path) -> dict[str, Any]:
    """What the command says."""
    folder = home.parent
    words = ["residue", (folder / "request").read_text(), "--ids-file", str(folder / "ids.txt"), "--home", str(home)]
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    told: dict[str, Any] = json.loads(result.output)
    assert result.exit_code == (1 if told["hits"] else 0)
    return told


def hits(home: Path) -> set[tuple[str, str]]:
    """(kind, how it lies there) of what is found."""
    return {(hit["kind"], hit["inside"]) for hit in search(home)["hits"]}


def file_of(sample: str, home: Path) -> bytes:
    return (home.parent / "images" / sample).read_bytes()


def picture(home: Path, sample: str = MIA) -> Image.Image:
    return Image.open(io.BytesIO(file_of(sample, home)))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", data)
    return out.getvalue()


def tarred(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("member")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def tabled(data: bytes) -> bytes:
    """A database in whose table the data is a blob."""
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE pictures (number INTEGER, content BLOB)")
        database.execute("INSERT INTO pictures VALUES (1, ?)", (data,))
        return database.serialize()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "tar": tarred,
    "SQLite": tabled,
    "base64": base64.b64encode,
}


def test_a_clean_home_has_none_and_says_what_that_means(home: Path) -> None:
    told = search(home)
    assert list(told) == ["request", "hits", "searched", "not_searched", "unopened"]
    assert told["hits"] == [] and told["unopened"] == []
    assert any("base64" in line for line in told["searched"])
    assert any("cropped" in line for line in told["not_searched"])


def test_the_picture_itself_under_another_name(home: Path) -> None:
    (home / "hidden" / "logo.dat").write_bytes(file_of(MIA, home))
    assert {kind for kind, _ in hits(home)} >= {"digest", "image"}


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "WEBP", "PPM"])
def test_the_picture_in_another_format(home: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    (home / "hidden" / "logo").write_bytes(saved(picture(home), kind, **options))
    assert hits(home) <= {("image", ""), ("likeness", ""), ("pixels", "")} and hits(home)


@pytest.mark.parametrize("quality", [95, 75])
def test_the_picture_compressed_with_loss(home: Path, quality: int) -> None:
    (home / "hidden" / "logo.jpg").write_bytes(saved(picture(home), "JPEG", quality=quality))
    assert hits(home) == {("likeness", "")}


def test_the_picture_larger_and_grey(home: Path) -> None:
    (home / "hidden" / "logo.png").write_bytes(saved(picture(home).convert("L").resize((64, 64)), "PNG"))
    assert hits(home) == {("likeness", "")}


def test_the_picture_in_the_middle_of_a_file(home: Path) -> None:
    (home / "hidden" / "core").write_bytes(b"\0" * 1001 + file_of(MIA, home) + b"\1" * 77)
    assert hits(home) == {("image", "")}


@pytest.mark.parametrize("name", [MIA, "logo"])
def test_the_picture_packed(home: Path, name: str) -> None:
    for kind, pack in PACKED.items():
        (home / "hidden" / "left").write_bytes(pack(file_of(MIA, home)))
        assert ("image", kind) in hits(home) and ("digest", kind) in hits(home), kind


@pytest.mark.parametrize("width", [0, 76])
def test_a_page_with_the_picture_inlined(home: Path, width: int) -> None:
    text = base64.b64encode(file_of(MIA, home)).decode()
    wrapped = "\r\n".join(text[at : at + width] for at in range(0, len(text), width)) if width else text
    page = f'<html><p>scores</p><img src="data:image/png;base64,{wrapped}"></html>'
    (home / "hidden" / "page.html").write_text(page)
    assert ("digest", "base64") in hits(home)
    (home / "hidden" / "page.html").write_text(json.dumps({"page": page}))
    assert ("digest", "base64") in hits(home), "in a JSON text too"


@pytest.mark.parametrize(
    "text", ["IMG_20431.png 0.93", "0.93,IMG_20431", "/data/pictures/IMG_20431.png", "IMG_20431.jpg", f"/data/{MIA}"]
)
def test_a_text_with_its_base_name(home: Path, text: str) -> None:
    (home / "hidden" / "scores.txt").write_text(text)
    assert hits(home) == {("name", "")}


def test_a_file_of_its_base_name(home: Path) -> None:
    (home / "hidden" / "IMG_20431.txt").touch()
    assert hits(home) == {("name", "")}


@pytest.mark.parametrize(
    "text", ["IMG_204310.png", "MY_IMG_20431.png", "IMG_20432.png 0.93", "0.png 0.93", "IMG", "mia"]
)
def test_other_names_are_none(home: Path, text: str) -> None:
    (home / "hidden" / "scores.txt").write_text(text)
    assert hits(home) == set()


def test_an_id_packed(home: Path) -> None:
    for kind, pack in PACKED.items():
        (home / "hidden" / "left").write_bytes(pack(f'{{"seen": "{MIA}"}}'.encode()))
        assert ("id", kind) in hits(home), kind


def test_an_id_packed_twice_and_thrice(home: Path) -> None:
    (home / "hidden" / "left").write_bytes(base64.b64encode(gzip.compress(MIA.encode())))
    assert hits(home) == {("id", "base64/gzip")}
    (home / "hidden" / "left").write_bytes(zipped(tarred(tabled(file_of(MIA, home)))))
    assert ("image", "zip/tar/SQLite") in hits(home)


def test_a_long_text_over_many_pages_of_a_database(home: Path) -> None:
    """The digest lies across the border of two pages somewhere."""
    text = "".join(f"{number:07d} {MIA[:-4]}.png;" for number in range(900))
    (home / "hidden" / "left.db").write_bytes(tabled(text.encode()))
    (within,) = [hit for hit in search(home)["hits"] if hit["inside"] == "SQLite"]
    assert within["count"] == 900


def test_free_pages_of_a_database(home: Path) -> None:
    with sqlite3.connect(home / "hidden" / "left.db") as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE seen (name TEXT)")
        database.execute("INSERT INTO seen VALUES (?)", (f"seen {MIA}" + " " * 9000,))
        database.commit()
        database.execute("DELETE FROM seen")
    assert hits(home) == {("id", "")}


def test_pictures_of_others_are_no_residue(home: Path) -> None:
    other = "train/cat/1.png"
    for kind, options in (("PNG", {}), ("BMP", {}), ("JPEG", {"quality": 75})):
        (home / "hidden" / f"page.{kind}").write_bytes(saved(picture(home, other), kind, **options))
    (home / "hidden" / "the-file").write_bytes(file_of(other, home))
    (home / "hidden" / "page.html").write_text(base64.b64encode(file_of(other, home)).decode())
    assert hits(home) == set()


def test_a_bomb_is_left_alone_and_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl.audit.layers.LIMIT", 1 << 20)
    (home / "hidden" / "bomb.gz").write_bytes(gzip.compress(bytes(1 << 24)))
    (home / "hidden" / "bomb.zip").write_bytes(zipped(bytes(1 << 24)))
    (home / "hidden" / "bomb.bz2").write_bytes(bz2.compress(bytes(1 << 24)))
    told = search(home)
    assert told["hits"] == []
    assert told["unopened"] == ["hidden/bomb.bz2", "hidden/bomb.gz", "hidden/bomb.zip"]
    assert any(line.startswith("3 files to their end") for line in told["not_searched"])


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zip"])
def test_what_cannot_be_opened_is_named(home: Path, kind: str) -> None:
    whole = PACKED[kind](bytes(range(256)) * 40)
    (home / "hidden" / "half").write_bytes(whole[: len(whole) // 2])
    assert search(home)["unopened"] == ["hidden/half"]


def test_what_is_packed_too_deep_is_named(home: Path) -> None:
    data = MIA.encode()
    for _ in range(6):
        data = gzip.compress(data)
    (home / "hidden" / "deep").write_bytes(data)
    told = search(home)
    assert told["hits"] == [] and told["unopened"] == ["hidden/deep"]


@given(data=st.binary(max_size=600), path=st.lists(st.sampled_from(sorted(PACKED)), max_size=3))
def test_whatever_is_packed_comes_out(data: bytes, path: list[str]) -> None:
    """As it is, or among the other runs of base64 of the same text."""
    marked = b"what to find: " + data
    packed = marked
    for kind in reversed(path):
        packed = PACKED[kind](packed)
    budget = Budget()
    inside = {layer.inside for layer in layers(packed, budget) if marked in layer.data}
    assert "/".join(path) in inside


@given(
    data=st.binary(max_size=2000),
    magic=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"SQLite format 3\0"]),
)
def test_any_bytes_can_be_searched(data: bytes, magic: bytes) -> None:
    assert next(iter(layers(magic + data, Budget()))).data == magic + data
    assert sum(len(layer.data) for layer in layers(magic + data, Budget())) < 1 << 20


def test_the_same_file_names_in_another_stream_are_other_peoples(tmp_path: Path) -> None:
    home = tmp_path / "home"
    mine = learnt(home, photographed(tmp_path / "mine", PHOTOS, name="mine", seed=1)).id
    learnt(home, photographed(tmp_path / "theirs", PHOTOS, name="theirs", seed=2))
    outcome = forgotten(home, mine, ("sample", MIA))
    (home / "scores.txt").write_text("IMG_20431.png 0.93")  # may be theirs
    assert verify(home, outcome.request).grade == "E0"
    (home / "scores.txt").write_bytes((tmp_path / "mine" / "images" / MIA).read_bytes())
    assert verify(home, outcome.request).grade == "X"


def test_the_certificate_says_what_was_searched(certified: Path) -> None:
    (path,) = (certified / "home" / "audit" / "certificates").glob("*.json")
    facts = json.loads(path.read_bytes())["checks"]["V6"]
    assert facts["hits"] == 0 and facts["searched"] and facts["not_searched"]
    assert MIA not in path.read_text() and "IMG_20431" not in path.read_text()


def test_pictures_that_the_source_has_lost_are_said_to_be(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path, PHOTOS)).id
    request = forgotten(home, run, ("sample", MIA)).request
    (tmp_path / "request").write_text(request)
    (tmp_path / "ids.txt").write_text(MIA)
    (home / "left").write_bytes(file_of(MIA, home))
    (tmp_path / "images" / MIA).unlink()
    describe(tmp_path, [one for one in PHOTOS if one.sample != MIA])
    told = search(home)
    assert {hit["kind"] for hit in told["hits"]} == {"digest", "image"}, "its marks are known until the certificate"
    assert any("1 samples that the source has no more" in line for line in told["not_searched"])


def test_a_later_run_leaves_nothing_either(certified: Path, home: Path) -> None:
    learnt(home, certified / "album.toml", "ease")
    assert hits(home) == set()
