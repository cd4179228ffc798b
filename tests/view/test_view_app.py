from __future__ import annotations

import io
import json
import shutil
import threading
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image
from view_store import HOSTILE, stages, view_store

from normloom.core.errors import QuarantineBudgetError, StoreError, UsageError
from normloom.core.machine.declared import declared
from normloom.history.builds import find_build
from normloom.readers.media import locate_media
from normloom.store.store import Store
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage
from normloom.view import ViewServer
from normloom.view.analyst import _table
from normloom.view.catalog import Catalog, warnings
from normloom.view.comparison import rows as differing
from normloom.view.rows import RowsWanted, _explained, cell, count, page, select

NEWEST, OLDEST = build_id(2), build_id(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return view_store(tmp_path_factory.mktemp("view") / "store")


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[ViewServer]:
    with ViewServer(store) as server:
        yield server


@pytest.fixture
def catalog(store: Store) -> Iterator[Catalog]:
    catalog = Catalog(store)
    yield catalog
    catalog.close()


def ask(
    server: ViewServer, path: str, body: object = None, *, headers: dict[str, str] | None = None, **query: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; sent with the token unless `headers` are given."""
    address = urlsplit(server.url)
    sent = {"Authorization": f"Bearer {address.fragment.removeprefix('token=')}"} if headers is None else headers
    url = f"http://{address.netloc}{path}{'?' if query else ''}{urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **sent})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def read(server: ViewServer, path: str, body: object = None, **query: Any) -> Any:
    status, text, _ = ask(server, path, body, **query)
    assert status == 200, text
    return json.loads(text)


class TestWhoMayAsk:
    def test_the_token_is_needed_for_all_that_comes_from_the_store(self, server: ViewServer) -> None:
        for path in (
            "/api/tables",
            "/api/builds?system=toy",
            "/api/trace?row_id=abcdef",
            "/api/media?media_id=x",
            "/api/x",
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Cookie": "token=x"}):
                status, text, _ = ask(server, path, headers=headers)
                assert (status, b"open the address that normloom view printed" in text) == (403, True)

    def test_the_page_itself_holds_nothing_of_the_store(self, server: ViewServer, store: Store) -> None:
        status, text, headers = ask(server, "/", headers={})
        assert status == 200
        assert str(store.root).encode() not in text
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1"])
    def test_a_name_that_leads_to_loopback_is_refused(self, server: ViewServer, host: str) -> None:
        token = urlsplit(server.url).fragment.removeprefix("token=")
        status, text, _ = ask(server, "/api/tables", headers={"Host": host, "Authorization": f"Bearer {token}"})
        assert status in (400, 403), text

    def test_a_page_of_another_site_is_refused(self, server: ViewServer) -> None:
        address = urlsplit(server.url)
        allowed = {"Authorization": f"Bearer {address.fragment.removeprefix('token=')}"}
        assert ask(server, "/api/tables", headers={**allowed, "Origin": f"http://{address.netloc}"})[0] == 200
        for origin in ("http://evil.example", "null", f"https://{address.netloc}", "http://127.0.0.1:1"):
            assert ask(server, "/api/tables", headers={**allowed, "Origin": origin})[0] == 403

    def test_no_path_leads_to_another_file(self, server: ViewServer) -> None:
        for path in ("/../app.py", "/%2e%2e/app.py", "/static/app.js", "/..%2fapp.py", "//etc/passwd", "/app.py"):
            assert ask(server, path)[0] == 404

    def test_two_servers_have_two_tokens(self, store: Store) -> None:
        with ViewServer(store) as one, ViewServer(store) as other:
            assert urlsplit(one.url).fragment != urlsplit(other.url).fragment

    def test_a_port_that_is_taken_is_named(self, store: Store, server: ViewServer) -> None:
        port = urlsplit(server.url).port
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another --port"):
            ViewServer(store, port=port or 0)


class TestTables:
    def test_rows_and_ledgers_are_listed_in_the_order_of_the_flow(self, server: ViewServer) -> None:
        found = read(server, "/api/tables")
        assert [(table["name"], table["rows"]) for table in found["tables"]] == [
            ("toy_words", 63),
            ("toy_draw", 186),
            ("toy_draw_quarantined", 1),
            ("toy_publish", 62),
            ("toy_publish_dropped", 124),
        ]

    def test_pages_follow_each_other_without_a_gap(self, server: ViewServer) -> None:
        seen: list[str] = []
        for offset in range(0, 186, 50):
            found = read(server, "/api/rows", {"table": "toy_draw", "sort": "score", "offset": offset})
            seen += [row[0] for row in found["rows"]]
            assert found["more"] == (offset < 150)
        assert len(set(seen)) == 186

    def test_filters_search_and_order(self, server: ViewServer) -> None:
        wanted = {
            "table": "toy_draw",
            "search": "WORD reply",
            "where": [
                {"column": "score", "operator": ">=", "value": "1"},
                {"column": "draw", "operator": "is not", "value": "2"},
            ],
            "sort": "word",
            "descending": True,
        }
        found = read(server, "/api/rows", wanted)
        at = [column["name"] for column in found["columns"]].index("word")
        assert [row[at] for row in found["rows"]] == sorted((f"word {n}" for n in range(60)), reverse=True)[:50]
        assert read(server, "/api/count", wanted) == {"rows": 60}

    @pytest.mark.parametrize(
        ("condition", "rows"),
        [
            ({"column": "word", "operator": "is", "value": "word 7"}, 3),
            ({"column": "word", "operator": "contains", "value": "WORD 5"}, 33),
            ({"column": "score", "operator": "<", "value": "1"}, 62),
            ({"column": "parents", "operator": "is empty"}, 0),
            ({"column": "parents", "operator": "is not empty"}, 186),
            ({"column": "word", "operator": "is", "value": "' OR 1=1 --"}, 0),
        ],
    )
    def test_conditions(self, catalog: Catalog, condition: dict[str, str], rows: int) -> None:
        assert count(catalog, RowsWanted.model_validate({"table": "toy_draw", "where": [condition]})) == rows

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ({"table": "nothing"}, "unknown table 'nothing'; available: toy_words"),
            ({"table": "toy_draw", "sort": "x"}, "unknown column 'x' of toy_draw; available: row_id, parents, word"),
            (
                {"table": "toy_draw", "where": [{"column": "score", "operator": "<", "value": "many"}]},
                "Could not convert",
            ),
        ],
    )
    def test_what_cannot_be_shown_says_why(self, server: ViewServer, wanted: dict[str, object], message: str) -> None:
        status, text, _ = ask(server, "/api/rows", wanted)
        assert status == 422
        assert message in json.loads(text)["error"]

    def test_a_search_for_an_id_needs_six_digits(self, catalog: Catalog) -> None:
        [row] = page(catalog, RowsWanted(table="toy_publish", limit=1))["rows"]
        assert count(catalog, RowsWanted(table="toy_publish", search=row[0][:10])) == 1
        assert count(catalog, RowsWanted(table="toy_draw", search="reply 59")) == 3  # digits of no id

    def test_texts_come_as_they_are(self, server: ViewServer) -> None:
        wanted = {"table": "toy_words", "where": [{"column": "word", "operator": "contains", "value": "<script>"}]}
        [row] = read(server, "/api/rows", wanted)["rows"]
        assert HOSTILE in row

    def test_a_newer_build_is_seen(self, tmp_path: Path) -> None:
        store = view_store(tmp_path / "store")
        catalog = Catalog(store, fresh_seconds=0)
        assert catalog.table("toy_publish").rows == 62
        built(store, stages("one", "two"), build=build_id(3))
        assert catalog.table("toy_publish").rows == 2
        assert len(page(catalog, RowsWanted(table="toy_publish"))["rows"]) == 2
        catalog.close()


class TestSql:
    def test_one_select_is_run(self, catalog: Catalog) -> None:
        found = select(catalog, "SELECT draw, count(*) AS n FROM toy_draw GROUP BY draw ORDER BY draw; ")
        assert [column["name"] for column in found["columns"]] == ["draw", "n"]
        assert found["rows"] == [[0, 62], [1, 62], [2, 62]]
        assert select(catalog, "FROM toy_draw -- a note", limit=5)["more"]

    @pytest.mark.parametrize(
        ("sql", "message"),
        [
            ("DROP VIEW toy_draw", "expected one SELECT"),
            ("SELECT 1; SELECT 2", "expected one SELECT"),
            ("COPY toy_draw TO 'stolen.csv'", "expected one SELECT"),
            ("SET enable_external_access = true", "expected one SELECT"),
            ("SELECT * FROM read_text('/etc/passwd')", "Cannot access file"),
            ("SELECT * FROM glob('/etc/*')", "Cannot access"),
            ("SELECT 1) TO 'x'; COPY (SELECT 1", "expected one SELECT|cannot be run"),
            ("SELEC 1", "syntax error"),
            ("", "expected one SELECT"),
        ],
    )
    def test_it_reads_the_store_and_nothing_else(self, catalog: Catalog, sql: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            select(catalog, sql)

    def test_a_query_without_end_is_stopped(self, catalog: Catalog) -> None:
        with (
            pytest.raises(UsageError, match=r"took over 0\.2 s and was stopped"),
            catalog.reading(seconds=0.2) as reading,
            _explained(),
        ):
            reading.execute("SELECT count(*) FROM range(1000000000) a, range(1000000000) b").fetchall()
        assert select(catalog, "SELECT 1")["rows"] == [[1]]

    def test_many_ask_at_once(self, catalog: Catalog) -> None:
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(select(catalog, "SELECT count(*) FROM toy_draw")["rows"]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[[186]]] * 8


class TestHistory:
    def test_a_row_leads_to_its_source_and_its_rejected_siblings(self, server: ViewServer) -> None:
        [row] = read(server, "/api/rows", {"table": "toy_publish", "limit": 1})["rows"]
        found = read(server, "/api/trace", row_id=row[0], system="toy")
        assert [one["stage"] for one in found["rows"]] == ["publish", "draw", "words"]
        assert [one["ledger"][0]["reason"] for one in found["siblings"]] == ["lower score"] * 2
        forward = read(server, "/api/trace", row_id=found["rows"][-1]["row_id"], forward="true")
        assert {one["stage"] for one in forward["rows"]} == {"words", "draw", "publish"}

    def test_an_unknown_row_is_a_sentence(self, server: ViewServer) -> None:
        status, text, _ = ask(server, "/api/trace", row_id="abcdef12")
        assert status == 422
        assert "abcdef12" in json.loads(text)["error"]


class TestBuilds:
    def test_stages_and_rows_of_two_builds(self, server: ViewServer) -> None:
        assert [one["build"] for one in read(server, "/api/builds", system="toy")] == [NEWEST, OLDEST]
        both = {"system": "toy", "before": OLDEST, "after": NEWEST}
        states = {one["stage"]: one["state"] for one in read(server, "/api/compare", **both)}
        assert states == {"words": "changed", "draw": "changed", "publish": "changed"}
        words = read(server, "/api/compare/rows", **both, stage="words")
        assert [(one["state"], one["values"]["word"]) for one in words["rows"]] == [("added", [None, "added later"])]
        drawn = [read(server, "/api/compare/rows", **both, stage="publish", offset=offset) for offset in (0, 50)]
        rows = [row for found in drawn for row in found["rows"]]
        assert [found["more"] for found in drawn] == [True, False]
        assert len(rows) == 62
        assert [row["values"]["score"] for row in rows if row["state"] == "changed"] == [[0.5, 1.0]] * 61
        removed = read(server, "/api/compare/rows", system="toy", before=NEWEST, after=OLDEST, stage="words")
        assert [(one["state"], one["values"]["word"]) for one in removed["rows"]] == [
            ("removed", ["added later", None])
        ]

    @pytest.mark.parametrize(
        ("path", "query", "message"),
        [
            ("/api/builds", {"system": "../.."}, "unknown system '../..' in "),
            ("/api/compare", {"system": "toy", "before": "x", "after": NEWEST}, "unknown build 'x'"),
            ("/api/compare/rows", {"system": "toy", "before": OLDEST, "after": NEWEST, "stage": "x"}, "not in both"),
        ],
    )
    def test_what_there_is_not(self, server: ViewServer, path: str, query: dict[str, Any], message: str) -> None:
        status, text, _ = ask(server, path, **query)
        assert (status, message in json.loads(text)["error"]) == (422, True)


def test_pictures_come_as_jpeg_whatever_they_are_called(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (60, 2_000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(source / "big.png")
    store = Store(tmp_path / "store")
    built(store, read_media(Media(), source=locate_media(source)), build=build_id(1))
    with ViewServer(store) as server:
        tables = read(server, "/api/tables")
        assert tables["media"] == [tables["tables"][0]["name"]]
        found = read(server, "/api/rows", {"table": tables["media"][0]})
        names = [column["name"] for column in found["columns"]]
        media_id = found["rows"][0][names.index("media_id")]
        status, data, headers = ask(server, "/api/media", media_id=media_id)
        assert (status, headers["content-type"], data[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
        assert Image.open(io.BytesIO(data)).size == (1024, 31)  # of 2,000 by 60
        assert ask(server, "/api/media", media_id="' OR 1=1 --")[0] == 422


def test_sound_comes_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with wave.open(str(source / "noise.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(np.random.default_rng(0).bytes(32_000))
    store = Store(tmp_path / "store")
    built(store, read_media(Media(), source=locate_media(source)), build=build_id(1))
    [manifest] = store.newest("toy")
    [row] = store.scan(manifest.ref).collect().to_dicts()
    with ViewServer(store) as server:
        status, data, headers = ask(server, "/api/media", media_id=row["media_id"])
    assert (status, headers["content-type"], len(data)) == (200, f"audio/{row['format']}", row["size"])


def test_rows_that_an_unfinished_table_quarantined_are_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(QuarantineBudgetError):
        built(store, echo_stage(words_stage("a", "b", "b"), aside="b"), build=build_id(1))
    catalog = Catalog(store)
    assert [(table.name, table.rows, table.created != "") for table in catalog.tables()] == [
        ("toy_words", 3, True),
        ("toy_echo_quarantined", 2, False),
    ]
    catalog.close()


def test_a_system_that_cannot_be_loaded_warns_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "entry_points.txt").write_text("[normloom.systems]\nbroken = no_module:IT\n")
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    declared.cache_clear()
    try:
        assert list(warnings(["broken", "missing_modality"])) == ["missing_modality"]
    finally:
        declared.cache_clear()


def test_cells_are_what_json_has() -> None:
    assert cell(2**60) == str(2**60)
    assert cell(float("nan")) == "nan"
    assert cell(b"abc") == "(3 bytes)"
    assert cell([{"a": "é"}]) == '[{"a": "é"}]'
    assert cell("x" * 700) == "x" * 600 + "… (700 characters)"
    assert cell("x" * 700, longest=None) == "x" * 700


def test_a_store_without_tables_has_none(tmp_path: Path) -> None:
    catalog = Catalog(Store(tmp_path))
    assert catalog.tables() == ()
    with pytest.raises(UsageError, match="unknown table"):
        page(catalog, RowsWanted(table="x"))
    catalog.close()


def test_rows_of_a_table_that_is_gone_cannot_be_compared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, words in enumerate(("ab", "abc"), start=1):
        built(store, words_stage(*words), build=build_id(number))
    key = find_build(store, OLDEST, system="toy").stages["words"].key
    table = store.published("toy", "words", key)
    assert table
    for path, _ in table.files(store.table_directory(table.ref)):
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match="the tables of stage 'words' cannot be compared: "):
        differing(store, "toy", OLDEST, NEWEST, "words")
    shutil.rmtree(store.table_directory(table.ref))
    with pytest.raises(UsageError, match="a table of stage 'words' is no longer in the store"):
        differing(store, "toy", OLDEST, NEWEST, "words")


def test_a_system_or_table_that_the_store_has_not_is_named(server: ViewServer, store: Store) -> None:
    status, text, _ = ask(server, "/api/queue/next", {"system": "other", "name": "x"})
    assert (status, json.loads(text)) == (422, {"error": f"unknown system 'other' in {store.root}; available: toy"})
    with pytest.raises(UsageError, match="toy has no table 'rounds': run normloom build toy"):
        _table(store, "toy", "rounds")
