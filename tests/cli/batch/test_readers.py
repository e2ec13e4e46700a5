"""Input files: formats, compression, damage."""

import gzip
import io

import orjson
import pytest
import zstandard

from bros_sglang.cli.batch import streams
from bros_sglang.cli.batch.corpus import Corpus
from bros_sglang.cli.batch.id_index import IdIndex
from bros_sglang.cli.batch.problem import Rejected
from bros_sglang.cli.batch.readers.csv_rows import read_csv
from bros_sglang.cli.batch.readers.jsonl import read_jsonl
from bros_sglang.cli.batch.request_builder import OpenAIBuilder, TemplateBuilder
from bros_sglang.cli.batch.sources import Format, expand
from bros_sglang.cli.batch.template import Template
from tests.cli.batch.corpus_files import request_line, write_lines


def read(inputs, prompt="{text}", **options):
    builder = TemplateBuilder(Template.parse(prompt), model_name="m", **options)
    return list(Corpus(expand([str(path) for path in inputs]), builder).read(IdIndex()))


def test_jsonl_lines():
    raw = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{bad\n3\n{"a":2}'
    rows = list(read_jsonl(io.BytesIO(raw)))
    assert [(row.line, row.value, row.code) for row in rows] == [
        (1, {"a": 1}, ""),
        (4, None, "invalid_json"),
        (5, None, "invalid_json"),
        (6, {"a": 2}, ""),
    ]


def test_an_endless_line_costs_itself_only(monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1000)
    raw = b'{"a":"' + b"x" * 5_000_000 + b'"}\n{"a":2}\n'
    rows = list(read_jsonl(io.BytesIO(raw)))
    assert [(row.line, row.code) for row in rows] == [(1, "line_too_long"), (2, "")]


def test_csv_rows():
    raw = 'text,n\n"a\nb",1\nshort\nx,y,z\n\xff,2\nc,3\n'.encode("latin-1")
    rows = list(read_csv(io.BytesIO(raw)))
    assert [(row.line, row.value, row.code) for row in rows] == [
        (2, {"text": "a\nb", "n": "1"}, ""),
        (4, None, "invalid_csv"),
        (5, None, "invalid_csv"),
        (6, None, "not_utf8"),
        (7, {"text": "c", "n": "3"}, ""),
    ]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_cut_compressed_files_are_noticed(tmp_path, compress):
    lines = b"".join(orjson.dumps({"text": f"{n:09d}" * 50}) + b"\n" for n in range(3000))
    whole, cut = tmp_path / "whole.jsonl.x", tmp_path / "cut.jsonl.x"
    packed = compress(lines)
    cut.write_bytes(packed[: len(packed) // 2])
    whole.write_bytes(compress(lines[:1500]) + compress(lines[1500:]))  # several frames in one file
    whole, cut = whole.rename(tmp_path / "whole.jsonl"), cut.rename(tmp_path / "cut.jsonl")
    assert len(read([whole])) == 3000
    items = read([cut])
    assert isinstance(items[-1], Rejected)
    assert items[-1].code in ("corrupt_file", "invalid_json")
    assert any(isinstance(item, Rejected) and item.code == "corrupt_file" for item in items)


def test_ids_come_from_a_column_or_the_place(tmp_path):
    rows = write_lines(tmp_path / "r.jsonl", [{"text": "a", "k": 5}, {"text": "b"}, {"text": "c", "k": 5}])
    assert [item.custom_id for item in read([rows])] == ["r.jsonl:1", "r.jsonl:2", "r.jsonl:3"]
    first, second, third = read([rows], id_field="k")
    assert first.custom_id == "5"
    assert second.message == "r.jsonl:2: id field 'k' is missing or empty"
    assert third.message == "r.jsonl:3: duplicate custom_id '5', first at r.jsonl:1"


def test_labels_do_not_depend_on_the_folder_it_starts_in(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "x.jsonl", [{"text": "t"}])
    inputs = [tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"]
    absolute = [item.custom_id for item in read(inputs)]
    monkeypatch.chdir(tmp_path / "a")
    relative = [item.custom_id for item in read(["x.jsonl", "../b/x.jsonl"])]
    assert absolute == relative == ["a/x.jsonl:1", "b/x.jsonl:1"]


def test_a_folder_mixes_texts_and_tables(tmp_path):
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / "empty.md").write_text("  \n")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    write_lines(tmp_path / "t.jsonl", [{"text": "row"}])
    items = {getattr(item, "custom_id", None) or item.source: item for item in read([tmp_path])}
    assert set(items) == {"b.txt", "empty.md", "latin.txt", "t.jsonl:1"}
    assert items["empty.md"].message == "empty.md: the file is empty"
    assert items["latin.txt"].code == "not_utf8"
    forced = expand([str(tmp_path)], Format.TEXT)
    assert [source.is_folder for source in forced] == [True]
    assert len(list(forced[0].text_files())) == 4


def test_templates_reach_into_rows():
    template = Template.parse("{{x}} {a.b} {n} {list}")
    assert template.fill({"a": {"b": "deep"}, "n": 1.5, "list": [1]}) == "{x} deep 1.5 [1]"
    assert Template.parse("{a.b}").fill({"a.b": "flat"}) == "flat"


def test_an_empty_file_among_others_is_reported(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    full = write_lines(tmp_path / "full.jsonl", [request_line("a")])
    corpus = Corpus(expand([str(tmp_path / "empty.jsonl"), str(full)]), OpenAIBuilder())
    rejected, request = corpus.read(IdIndex())
    assert rejected.message == "empty.jsonl:0: the file has no records"
    assert request.custom_id == "a"
    assert corpus.share == 1.0


def test_streaming_fields_are_dropped():
    built = OpenAIBuilder().build(
        request_line(
            "a", body={"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        ),
        "x",
    )
    assert "stream" not in built.body
