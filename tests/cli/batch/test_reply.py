"""What a reply asks for, and how long to wait."""

import pytest

from bros_sglang.cli.batch.reply import Action, Reply, backoff_s, error_message, judge, parse_retry_after

GOOD = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":1}}'


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (Reply(200, GOOD), Action.KEEP),
        (Reply(200, b'{"choices":[{}]}'), Action.KEEP),
        (Reply(200, b'{"choices":[]}'), Action.TRY_AGAIN),
        (Reply(200, GOOD[:20]), Action.TRY_AGAIN),
        (Reply(200, b""), Action.TRY_AGAIN),
        (Reply(200, b'{"error":{"message":"x"}}'), Action.TRY_AGAIN),
        (Reply(200, b"\xff\xfe"), Action.TRY_AGAIN),
        (Reply(302), Action.TRY_AGAIN),
        *((Reply(status), Action.REFUSED) for status in (400, 401, 404, 408, 413, 422)),
        *((Reply(status), Action.BACK_OFF) for status in (429, 503)),
        *((Reply(status), Action.TRY_AGAIN) for status in (500, 502, 504)),
        (Reply(0, problem="reset"), Action.TRY_AGAIN),
        (Reply(0, problem="refused", unreachable=True), Action.WAIT_FOR_SERVER),
    ],
)
def test_actions(reply, action):
    assert judge(reply).action is action


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"too\\n long"}}', "HTTP 400: too long"),
        (b'{"object":"error","message":"bad"}', "HTTP 400: bad"),
        (b'{"detail":"x"}', "HTTP 400: x"),
        (b'{"error":"plain"}', "HTTP 400: plain"),
        (b"<html>", "HTTP 400: <html>"),
        (b"", "HTTP 400"),
    ],
)
def test_error_messages_are_one_line(body, text):
    assert error_message(Reply(400, body)) == text


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-1", 0.0),
        ("1e9", 3600.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
    ],
)
def test_retry_after(header, seconds):
    assert parse_retry_after(header, 60.0) == seconds


def test_backoff_doubles_with_jitter_and_is_capped():
    shortest = [backoff_s(attempt, lambda low, _: low) for attempt in range(1, 12)]
    longest = [backoff_s(attempt, lambda _, high: high) for attempt in range(1, 12)]
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert shortest == [value / 2 for value in longest]
    assert longest[-1] == 60.0
    assert 0.25 <= backoff_s(1) <= 0.5
