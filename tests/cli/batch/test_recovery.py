"""Files torn at any byte, doubled, or with holes: what is read back, and what is sent again."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.cli.batch.id_index import IdIndex, id_key
from bros_sglang.cli.batch.lines import failure_line, output_line, rejected_line
from bros_sglang.cli.batch.problem import Rejected
from bros_sglang.cli.batch.recovery import count_lines, recover
from bros_sglang.cli.batch.request import BatchRequest
from bros_sglang.cli.batch.run_folder import RunFolder

BODY = b'{"choices":[{"text":"x"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def request(name: str) -> BatchRequest:
    return BatchRequest(1, "in:1", name, "/v1/completions", b"{}", b"", "m", attempts=1)


def ok(name: str) -> bytes:
    return output_line(request(name), 200, "", BODY)


def failed(name: str) -> bytes:
    return failure_line(request(name), 500, "", b"no", "http_500", "HTTP 500")


def recovered(folder: Path):
    index = IdIndex()
    return recover(RunFolder(folder), index), index


@settings(deadline=None, max_examples=60)
@given(
    good=st.lists(st.integers(0, 99), unique=True, max_size=8),
    bad=st.lists(st.integers(100, 199), unique=True, max_size=4),
    data=st.data(),
)
def test_a_kill_at_any_byte_costs_the_torn_line_only(good, bad, data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = {
            "output.jsonl": [ok(f"r{n}") for n in good],
            "errors.jsonl": [failed(f"r{n}") for n in bad],
        }
        kept = {}
        for file, lines in whole.items():
            raw = b"".join(lines)
            cut = data.draw(st.integers(0, len(raw)))
            (folder / file).write_bytes(raw[:cut])
            kept[file] = raw[:cut].count(b"\n")
        books, index = recovered(folder)
        assert (books.ok, books.failed) == (kept["output.jsonl"], kept["errors.jsonl"])
        assert books.tokens.completion == 2 * books.ok
        for file, lines in whole.items():
            assert (folder / file).read_bytes() == b"".join(lines[: kept[file]])
        done = {f"r{n}" for n in good[: books.ok]} | {f"r{n}" for n in bad[: books.failed]}
        assert set(index.keys()) == {id_key(name) for name in done}
        assert recovered(folder)[0].torn == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["a", "b", "c", "hole", "rubbish"]), max_size=12))
def test_holes_and_doubles_are_taken_out(kinds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        special = {"hole": b"\0" * 40 + b"\n", "rubbish": b'{"custom_id": 1}\n'}
        lines = [special.get(kind) or ok(kind) for kind in kinds]
        (folder / "output.jsonl").write_bytes(b"".join(lines))
        books, _ = recovered(folder)
        expected = list(dict.fromkeys(kind for kind in kinds if kind in "abc"))
        assert (folder / "output.jsonl").read_bytes() == b"".join(map(ok, expected))
        assert books.ok == len(expected)
        assert books.dropped == len(kinds) - len(expected)
        assert count_lines(folder / "output.jsonl") == len(expected)


def test_an_id_in_both_files_keeps_its_answer(tmp_path):
    (tmp_path / "output.jsonl").write_bytes(ok("a"))
    (tmp_path / "errors.jsonl").write_bytes(failed("a") + failed("b"))
    books, _ = recovered(tmp_path)
    assert (books.ok, books.failed, books.dropped) == (1, 1, 1)
    assert (tmp_path / "errors.jsonl").read_bytes() == failed("b")


def test_refused_lines_are_forgotten_when_the_input_changed(tmp_path):
    line = rejected_line(Rejected(1, "in:1", "invalid_json", "not JSON"))
    (tmp_path / "errors.jsonl").write_bytes(line + failed("a"))
    books = recover(RunFolder(tmp_path), IdIndex(), keep_rejected=False)
    assert (books.rejected, books.failed) == (0, 1)
    assert (tmp_path / "errors.jsonl").read_bytes() == failed("a")


def test_a_pretty_printed_answer_stays_on_one_line():
    line = output_line(request("a"), 200, "", b'{\n "choices": [1]\n}')
    assert line.count(b"\n") == 1
