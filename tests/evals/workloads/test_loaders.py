import json

import pytest

from bros_sglang.evals.workloads import azure, lengths, mooncake
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.recognise import load_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n"
)
LENGTHS = (
    "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n74,918,992,0.08\n290,905,1195,0.3\n"
)


def mooncake_line(timestamp=0, prompt=700, output=3, ids=(0, 1)):
    return json.dumps(
        {"timestamp": timestamp, "input_length": prompt, "output_length": output, "hash_ids": list(ids)}
    )


def write(tmp_path, text, name="trace"):
    path = tmp_path / name
    path.write_text(text, newline="")
    return path


def test_azure_times_count_from_the_first_request_with_all_seven_digits(tmp_path):
    trace = azure.load(write(tmp_path, AZURE))
    assert [(r.prompt_tokens, r.output_tokens) for r in trace] == [(374, 44), (396, 109)]
    assert trace[0].arrival_s == 0.0
    assert trace[1].arrival_s == pytest.approx(4.3145790, abs=1e-7)


def test_azure_lines_out_of_order_are_sorted(tmp_path):
    lines = AZURE.splitlines()
    trace = azure.load(write(tmp_path, "\n".join([lines[0], lines[2], lines[1]])))
    assert [r.prompt_tokens for r in trace] == [374, 396]


def test_mooncake_hash_ids_become_blocks_of_the_prompt(tmp_path):
    trace = mooncake.load(write(tmp_path, mooncake_line(1000) + "\n\n" + mooncake_line(3500, 512, 9, [0])))
    assert trace[0].prefix == ((0, 512), (1, 188))
    assert trace[1].prefix == ((0, 512),)
    assert [r.arrival_s for r in trace] == [0.0, 2.5]


@pytest.mark.parametrize(
    ("text", "loader"), [(AZURE, azure.load), (LENGTHS, lengths.load), (mooncake_line(), mooncake.load)]
)
def test_the_format_is_recognised(tmp_path, text, loader):
    path = write(tmp_path, text)
    assert load_trace(path) == loader(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AZURE + "yesterday,1,2\n", "line 4: TIMESTAMP is 'yesterday'"),
        (AZURE + "2023-11-16 18:15:50,x,2\n", "line 4: ContextTokens is 'x', not a whole number"),
        (AZURE + "2023-11-16 18:15:50,5\n", "line 4: 2 fields where the header has 3"),
        (AZURE + "2023-11-16 18:15:50,0,3\n", "line 4: ContextTokens is 0, below 1"),
        (AZURE.splitlines()[0], "holds no requests"),
        ("", "is empty"),
        ("a,b\n1,2\n", "unknown trace format"),
        (LENGTHS + "1,-5,0,0\n", "line 4: num_decode_tokens is -5, below 1"),
        (mooncake_line() + "\n{broken", "line 2: not JSON"),
        (mooncake_line() + "\n[]", "line 2: a JSON object was expected"),
        (mooncake_line() + '\n{"timestamp": 1}', "line 2: the key 'input_length' is missing"),
        (mooncake_line() + "\n" + mooncake_line(ids=[1]), "line 2: 1 hash_ids for 700 tokens"),
        (mooncake_line(timestamp=-1), "line 1: timestamp is -1"),
        (mooncake_line(ids=["a", "b"]), "line 1: hash_ids is not a list of whole numbers"),
        (mooncake_line(prompt=True), "line 1: input_length is True"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(WorkloadError, match="trace") as caught:
        load_trace(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WorkloadError, match=r"cannot read .*nowhere"):
        load_trace(tmp_path / "nowhere")
