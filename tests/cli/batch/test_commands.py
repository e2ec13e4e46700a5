"""`bros batch validate`, `cost` and `status`."""

import orjson
import pytest

from bros_sglang.cli.batch.options import parse_duration
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.evals.tiny_model import build_tiny_model
from tests.cli.batch.corpus_files import request_line, write_lines


def test_validate_names_every_bad_line(batch, tmp_path):
    lines = [request_line("a"), b"{bad", request_line("a"), request_line("b", url="/v1/x"), request_line("c")]
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    done = batch("validate", corpus)
    assert done.exit_code == 1
    assert [line.split(": ", 1)[0] for line in done.stdout.splitlines()] == [
        "in.jsonl:2",
        "in.jsonl:3",
        "in.jsonl:4",
    ]
    assert "2 requests and 3 bad lines in 1 input" in done.stderr
    found = [orjson.loads(line) for line in batch("validate", corpus, "--json").stdout.splitlines()]
    assert [item["code"] for item in found[:-1]] == ["invalid_json", "duplicate_custom_id", "invalid_url"]
    assert found[-1] == {"requests": 2, "bad_lines": 3}


def test_validate_a_good_input(batch, tmp_path):
    (tmp_path / "a.csv").write_text("text\nx\ny\n")
    done = batch("validate", tmp_path / "a.csv", "--prompt", "{text}")
    assert done.exit_code == 0
    assert done.stdout == ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_cost_counts_with_the_models_tokenizer(batch, tmp_path, tiny, mock_server):
    lines = [request_line(f"r{n}", "a document about caches " * (n % 3 + 1)) for n in range(30)]
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    whole = orjson.loads(batch("cost", corpus, "--tokenizer", tiny, "--json", "--rate", 100).stdout)
    assert whole["exact"]
    assert whole["requests"] == 30
    assert whole["output_limit_tokens"] == 240
    assert whole["seconds"] == pytest.approx((whole["prompt_tokens"] + 240) / 100)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    counted = sum(
        len(tokenizer.apply_chat_template(line["body"]["messages"], add_generation_prompt=True)["input_ids"])
        for line in lines
    )
    assert whole["prompt_tokens"] == counted
    sampled = orjson.loads(batch("cost", corpus, "--tokenizer", tiny, "--json", "--sample", 10).stdout)
    assert not sampled["exact"]
    assert sampled["counted"] == 10
    assert sampled["prompt_tokens"] == pytest.approx(counted, rel=0.5)
    out = tmp_path / "out"
    assert batch("run", corpus, "-o", out, "--endpoint", mock_server().url).exit_code == 0
    like = batch("cost", corpus, "--tokenizer", tiny, "--like", out, "--gpu-hour-price", 2)
    assert "answers of 8 tokens" in like.output
    assert "price:" in like.output
    probed = batch("cost", corpus, "--tokenizer", tiny, "--probe", mock_server().url)
    assert "measured now on 30 requests" in probed.output


def test_cost_refuses_what_is_no_tokenizer(batch, tmp_path):
    corpus = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    done = batch("cost", corpus, "--tokenizer", tmp_path / "none")
    assert done.exit_code == 2
    assert "--tokenizer" in done.output


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172_800)]
)
def test_durations(text, seconds):
    assert parse_duration(text, "--within") == seconds


@pytest.mark.parametrize("text", ["", "0", "-1h", "h", "1y", "nan"])
def test_bad_durations(text):
    with pytest.raises(RefusedError, match="--within"):
        parse_duration(text, "--within")
