"""Sources on web servers, in S3 and behind fsspec: real servers on loopback."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import fsspec
import polars as pl
import pytest
from hub_server import hub
from s3_server import s3_server

from normloom.core.errors import SourceError
from normloom.readers import ReadOptions, locate, read_source
from normloom.readers.remote.fetch import shown


class Server(SimpleHTTPRequestHandler):
    """Serves a folder with ETags, and counts the bodies that it sent."""

    sent: list[str]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        tag = f'"{hash(content)}"'
        if self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        if "plain" not in path.name:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) + ("cut" in path.name)))
        self.end_headers()
        self.wfile.write(content)
        self.sent.append(path.name)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    root = tmp_path / "site"
    root.mkdir()
    sent: list[str] = []
    handler = type("Handler", (Server,), {"sent": sent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root, sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_of_a_web_server_is_fetched_once_and_again_when_it_changes(
    site: tuple[str, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # loopback is never asked for through a proxy
    url, root, sent = site
    (root / "a b.csv").write_text("prompt\none\n")
    name = f"{url}/a%20b.csv?token=secret"
    first = locate(name)
    assert read_source(first, text_column="prompt").rows["text"].to_list() == ["one"]
    assert locate(name) == first
    assert sent == ["a b.csv"]
    assert "secret" not in first.name
    (root / "a b.csv").write_text("prompt\ntwo\n")
    second = locate(name)
    assert second.digest != first.digest
    assert read_source(second, text_column="prompt").rows["text"].to_list() == ["two"]
    assert read_source(first, text_column="prompt").rows["text"].to_list() == ["one"]  # a copy in use stays
    (root / "plain.csv").write_text("prompt\nno tag\n")
    for _ in range(2):
        locate(f"{url}/plain.csv")
    assert sent.count("plain.csv") == 2


def test_another_host_is_asked_through_the_proxy(
    site: tuple[str, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, root, _ = site
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", url)
    behind = root / "http:" / "files.invalid"  # a proxy is asked for the whole address
    behind.mkdir(parents=True)
    (behind / "a.csv").write_text("prompt\none\n")
    assert read_source(locate("http://files.invalid/a.csv"), text_column="prompt").rows["text"].to_list() == ["one"]


@pytest.mark.skipif(find_spec("paramiko") is not None, reason="SFTP can be asked here")
def test_a_protocol_whose_package_is_absent_names_it() -> None:
    with pytest.raises(SourceError, match=r'sftp://host/a\.csv: .*requires "paramiko" to be installed'):
        locate("sftp://host/a.csv")


def test_what_a_web_server_does_not_give_is_said(site: tuple[str, Path, list[str]]) -> None:
    url, root, _ = site
    with pytest.raises(SourceError, match=r"absent\.csv cannot be fetched: the server answered 404"):
        locate(f"{url}/absent.csv")
    with pytest.raises(SourceError, match="does not end in the name of a file that can be read"):
        locate(f"{url}/page")
    (root / "cut.csv").write_text("prompt\none\n")
    with pytest.raises(SourceError, match=r"cut\.csv cannot be fetched"):
        locate(f"{url}/cut.csv")
    with pytest.raises(SourceError, match="cannot be fetched"):
        locate("http://127.0.0.1:9/a.csv")
    with pytest.raises(SourceError, match="cannot be fetched"):
        locate("http://localhost:9/a.csv")
    with pytest.raises(SourceError, match="unknown protocol"):
        locate("nothing://a/b.csv")
    with pytest.raises(SourceError, match="give the path alone"):
        locate("file:///tmp/a.csv")


def test_names_are_shown_without_secrets() -> None:
    assert shown("https://user:secret@host/a.csv?sig=secret") == "https://host/a.csv"
    assert shown("s3://bucket/a b/*.csv") == "s3://bucket/a b/*.csv"
    assert shown("a?b@c.csv") == "a?b@c.csv"


def test_files_folders_and_patterns_of_s3() -> None:
    with s3_server() as server:
        root = f"s3://{server.bucket}"
        for name, text in (("set/b.csv", "two"), ("set/a.csv", "one"), ("set/README.md", "x")):
            server.client.put_object(Bucket=server.bucket, Key=name, Body=f"prompt\n{text}\n".encode())
        for name in (f"{root}/set", f"{root}/set/*.csv"):
            found = locate(name)
            assert read_source(found, text_column="prompt").rows["text"].to_list() == ["one", "two"]
        one = locate(f"{root}/set/b.csv")
        assert read_source(one, text_column="prompt").rows["text"].to_list() == ["two"]
        server.client.put_object(Bucket=server.bucket, Key="set/b.csv", Body=b"prompt\nthree, or more\n")
        assert locate(f"{root}/set/b.csv").digest != one.digest
        with pytest.raises(SourceError, match=rf"{root}/none\.csv does not exist"):
            locate(f"{root}/none.csv")


def test_any_file_system_of_fsspec() -> None:
    with fsspec.open("memory://set/a.jsonl", "w") as file:
        file.write('{"prompt": "one"}\n')
    assert read_source("memory://set/a.jsonl", text_column="prompt").rows["text"].to_list() == ["one"]
    assert read_source("memory://set", text_column="prompt").rows["text"].to_list() == ["one"]


def test_a_subset_of_what_is_on_no_hub_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\none\n")
    with pytest.raises(SourceError, match="is not a data set on a hub"):
        locate(tmp_path / "a.csv", ReadOptions(subset="en"))


READ = """
import json, sys
from normloom.core.errors import SourceError
from normloom.readers import ReadOptions, locate, read_source
for name, subset, split in json.loads(sys.argv[1]):
    try:
        found = locate(name, ReadOptions(subset=subset, split=split))
        print(json.dumps(read_source(found, text_column="prompt").rows["text"].to_list()))
    except SourceError as error:
        print(json.dumps(str(error)))
"""


def test_data_sets_of_the_hub_by_name_and_by_url(tmp_path: Path) -> None:
    def parquet(*texts: str) -> bytes:
        made = io.BytesIO()
        pl.DataFrame({"prompt": texts}).write_parquet(made)
        return made.getvalue()

    converted = "refs/convert/parquet"
    files = {
        (converted, "en/train/0000.parquet"): parquet("one"),
        (converted, "en/train/0001.parquet"): parquet("two"),
        (converted, "en/test/0000.parquet"): parquet("three"),
        (converted, "de/train/0000.parquet"): parquet("eins"),
        ("main", "data/a.csv"): b"prompt\nplain\n",
    }
    asked = [
        ("owner/name", "en", "train"),
        ("owner/name", "de", None),
        ("owner/name", "en", None),
        ("owner/name", None, "train"),
        ("owner/name", "fr", "train"),
        ("owner/other", None, None),
        ("hf://datasets/owner/name/data/*.csv", None, None),
    ]
    with hub("owner/name", files) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", READ, json.dumps(asked)],
            env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=True,
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[:2] == [["one", "two"], ["eins"]]
    assert answers[2] == "owner/name has several splits: set source.split to one of test, train"
    assert answers[3] == "owner/name has several subsets: set source.subset to one of de, en"
    assert answers[4] == "owner/name has no subset 'fr': set source.subset to one of de, en"
    assert answers[5].startswith(
        "owner/other does not exist here, and the Hugging Face hub has no data set of that name"
    )
    assert answers[6] == ["plain"]
