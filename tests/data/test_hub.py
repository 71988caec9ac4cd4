"""The Hub, played by a local server that answers the calls huggingface_hub makes."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from bench.data.cards import CARDS, Card
from bench.data.hub import card_of, files_of
from bench.data.load import dataset_names, load
from bench.errors import BadData, UnknownName

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
NAMES = ("cat", "dog")


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def shard(path: Path, values: list[int], labels: list[int], *, image: str, label: str, extra: str = "") -> bytes:
    """A Parquet file in the Hub's layout, written with DuckDB."""
    features = {label: {"names": list(NAMES), "_type": "ClassLabel"}, image: {"_type": "Image"}}
    metadata = json.dumps({"info": {"features": features}}).replace("'", "''")
    with duckdb.connect() as connection:
        connection.execute(f'CREATE TABLE t ("{image}" STRUCT(bytes BLOB, path VARCHAR), "{label}" BIGINT{extra})')
        more = ", ?" if extra else ""
        for value, y in zip(values, labels, strict=True):
            row = [png(value), y] + ([7] if extra else [])
            connection.execute(f"INSERT INTO t VALUES ({{'bytes': ?, 'path': NULL}}, ?{more})", row)
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet, KV_METADATA {{huggingface: '{metadata}'}})")
    return path.read_bytes()


class StandIn:
    """Files by (repository, revision, path), and the paths that were asked for."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """What the Hub would say."""
        path = handler.path.split("?")[0]
        self.asked.append(f"{handler.command} {path}")
        if self.refusal:
            return self.send(handler, self.refusal[0], b"{}", {"X-Error-Code": self.refusal[1]})
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            repo, revision = "/".join(parts[2:4]), parts[5]
            if not any(key[0] == repo for key in self.files):
                return self.send(handler, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if revision not in COMMITS:
                return self.send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            names = [{"rfilename": key[2]} for key in self.files if key[:2] == (repo, revision)]
            about = {"_id": "1", "id": repo, "sha": COMMITS[revision], "siblings": names, "private": False, "tags": []}
            return self.send(handler, 200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        repo, revision, file = "/".join(parts[1:3]), parts[4], "/".join(parts[5:])
        if (content := self.files.get((repo, revision, file))) is None:
            return self.send(handler, 404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self.send(handler, 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMITS[revision]})

    def send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stand_in.answer(self)

        def do_HEAD(self) -> None:
            stand_in.answer(self)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stand_in.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield stand_in
    server.shutdown()
    thread.join()
    server.server_close()


def fill_cifar(hub: StandIn, folder: Path) -> None:
    """Two training shards and a test shard, and at revision v2 another test shard."""
    kw = {"image": "img", "label": "label"}
    put = hub.files.__setitem__
    for revision in COMMITS:
        put(("uoft-cs/cifar10", revision, "README.md"), b"# about")
        put(
            ("uoft-cs/cifar10", revision, "plain_text/train-00000-of-00002.parquet"),
            shard(folder / "a", [1, 2], [0, 1], **kw),
        )
        put(
            ("uoft-cs/cifar10", revision, "plain_text/train-00001-of-00002.parquet"),
            shard(folder / "b", [3], [1], **kw),
        )
    put(
        ("uoft-cs/cifar10", "main", "plain_text/test-00000-of-00001.parquet"),
        shard(folder / "c", [9, 8], [1, 0], **kw),
    )
    put(
        ("uoft-cs/cifar10", "v2", "plain_text/test-00000-of-00001.parquet"),
        shard(folder / "d", [7, 6], [1, 0], **kw),
    )


def test_card(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    train = load("cifar10", "train", cache=tmp_path / "cache", endpoint=hub.address)
    assert (train.name, train.split, train.class_names) == ("cifar10", "train", NAMES)
    assert train.labels.tolist() == [0, 1, 1]
    assert train.pixels[:, 0, 0, 0].tolist() == [1, 2, 3]
    test = load("cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)
    assert test.pixels[:, 2, 3, 3].tolist() == [9, 8]


def test_only_the_files_of_the_split_are_fetched_and_only_once(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    for _ in range(2):
        load("cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)
    fetched = [line for line in hub.asked if line.startswith("GET /datasets/")]
    assert fetched == ["GET /datasets/uoft-cs/cifar10/resolve/main/plain_text/test-00000-of-00001.parquet"]


def test_an_id_with_a_card_is_that_card(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    by_id = load("hub:uoft-cs/cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)
    by_name = load("cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)
    assert (by_id.name, by_id.dataset_id) == (by_name.name, by_name.dataset_id)


def test_revision(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    images = load("cifar10", "test", revision="v2", cache=tmp_path / "cache", endpoint=hub.address)
    assert images.pixels[:, 0, 0, 0].tolist() == [7, 6]
    with pytest.raises(BadData, match=r"^uoft-cs/cifar10 has no revision 'v3'; give a branch"):
        load("cifar10", "test", revision="v3", cache=tmp_path / "cache", endpoint=hub.address)


def test_the_cards_columns_are_read(hub: StandIn, tmp_path: Path) -> None:
    content = shard(tmp_path / "a", [5, 6], [0, 1], image="img", label="fine_label", extra=", coarse_label INTEGER")
    hub.files["uoft-cs/cifar100", "main", "cifar100/test-00000-of-00001.parquet"] = content
    images = load("cifar100", "test", cache=tmp_path / "cache", endpoint=hub.address)
    assert images.labels.tolist() == [0, 1]


def test_validation_of_tiny_imagenet_stands_as_test(hub: StandIn, tmp_path: Path) -> None:
    content = shard(tmp_path / "a", [5, 6], [0, 1], image="image", label="label")
    hub.files["zh-plus/tiny-imagenet", "main", "data/valid-00000-of-00001-0123456789abcdef.parquet"] = content
    images = load("tiny-imagenet", "test", cache=tmp_path / "cache", endpoint=hub.address)
    assert (images.name, images.split, len(images)) == ("tiny-imagenet", "test", 2)
    with pytest.raises(UnknownName, match=r"^no split of tiny-imagenet is called 'unseen'; known: test, train$"):
        load("tiny-imagenet", "unseen", cache=tmp_path / "cache", endpoint=hub.address)


def test_id_without_a_card(hub: StandIn, tmp_path: Path) -> None:
    content = shard(tmp_path / "a", [5, 6], [0, 1], image="picture", label="kind")
    for folder in ("small", "large"):
        hub.files["someone/pets", "main", f"{folder}/val-00000-of-00001.parquet"] = content
    images = load("hub:someone/pets/small", "validation", cache=tmp_path / "cache", endpoint=hub.address)
    assert (images.name, images.split, images.class_names) == ("pets", "validation", NAMES)
    with pytest.raises(BadData, match=r"holds several data sets \(large, small\); give one of them as hub:"):
        load("hub:someone/pets", "validation", cache=tmp_path / "cache", endpoint=hub.address)
    with pytest.raises(UnknownName, match=r"^no split of someone/pets is called 'test'; known: validation$"):
        load("hub:someone/pets/small", "test", cache=tmp_path / "cache", endpoint=hub.address)
    with pytest.raises(BadData, match="has no Parquet files"):
        load("hub:someone/pets/none", "test", cache=tmp_path / "cache", endpoint=hub.address)


def test_missing_repository(hub: StandIn, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"^the Hub has no data set 'no/body' that is open to you; [^\n]*$"):
        load("hub:no/body", "test", cache=tmp_path / "cache", endpoint=hub.address)


def test_missing_files_and_shards(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    del hub.files["uoft-cs/cifar10", "main", "plain_text/train-00001-of-00002.parquet"]
    with pytest.raises(BadData, match=r"^uoft-cs/cifar10 lacks shard 00001 of the 2 of 'train'; fetch it$"):
        load("cifar10", "train", cache=tmp_path / "cache", endpoint=hub.address)
    del hub.files["uoft-cs/cifar10", "main", "plain_text/test-00000-of-00001.parquet"]
    with pytest.raises(BadData, match=r"has no files plain_text/test-\*\.parquet at this revision"):
        load("cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)


def test_gated(hub: StandIn, tmp_path: Path) -> None:
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(BadData, match=r"^no/body is open only to those who accepted its conditions; [^\n]*$"):
        load("hub:no/body", "test", cache=tmp_path / "cache", endpoint=hub.address)


@pytest.mark.parametrize("source", ["hub:", "hub:owner", "hub:/name", "hub:owner//folder", "hub:-bad-/na me"])
def test_no_id(source: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"is no id of a data set; wanted hub:owner/name$"):
        load(source, "test", cache=tmp_path / "cache", endpoint="http://127.0.0.1:1")


def test_without_the_hub_the_cache_serves(hub: StandIn, tmp_path: Path) -> None:
    fill_cifar(hub, tmp_path)
    once = load("cifar10", "test", cache=tmp_path / "cache", endpoint=hub.address)
    again = load("cifar10", "test", cache=tmp_path / "cache", endpoint=silent_address())
    assert again.dataset_id == once.dataset_id


def test_without_the_hub_or_the_cache(hub: StandIn, tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match=r"^uoft-cs/cifar10 at 'main' could not be had from the Hub \([^\n]*; check the netw"
    ):
        load("cifar10", "test", cache=tmp_path / "cache", endpoint=silent_address())


def silent_address() -> str:
    """An address where nobody answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_page_of_errors_is_one_line(hub: StandIn, tmp_path: Path) -> None:
    hub.refusal = (404, "EntryNotFound")
    with pytest.raises(BadData) as caught:
        load("hub:no/body", "test", cache=tmp_path / "cache", endpoint=hub.address)
    assert "\n" not in str(caught.value)


def test_cards() -> None:
    assert set(CARDS) == {"cifar10", "cifar100", "tiny-imagenet", "svhn", "fashion-mnist", "mnist"}
    assert set(dataset_names()) == {"digits", *CARDS}
    for name, card in CARDS.items():
        assert card_of(name) == (name, card, "")
        assert set(card.splits) == {"train", "test"}
        assert "\n" not in card.about
    assert card_of("hub:a/b/c/d") == ("b", Card("a/b", ""), "c/d")


def test_wanted_by_folders_of_splits() -> None:
    files = ["default/train/0000.parquet", "default/test/0000.parquet", "default/test/0001.parquet"]
    assert files_of(files, Card("a/b", ""), "", "test") == files[1:]
