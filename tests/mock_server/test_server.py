"""The mock server: what it answers, and how it hurts."""

import aiohttp
import httpx
import pytest

from bros_sglang.mock_server import FaultPlan, MockServer, MockSettings
from bros_sglang.status import BrosStatus

CHAT = "/v1/chat/completions"


def body(text="hello", **more):
    return {"model": "mock", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


async def post(server, payload, path=CHAT, **options):
    async with httpx.AsyncClient(base_url=server.url) as client:
        return await client.post(path, json=payload, **options)


async def test_both_completions():
    async with MockServer() as server:
        chat = (await post(server, body())).json()
        assert chat["choices"][0]["message"]["content"] == "echo: hello"
        assert chat["usage"]["completion_tokens"] == 4
        text = (await post(server, {"model": "mock", "prompt": "once"}, "/v1/completions")).json()
        assert text["choices"][0]["text"] == "echo: once"
        assert server.counts["ok"] == 2


async def test_streams_end_with_usage_and_done():
    async with MockServer() as server:
        raw = (await post(server, body("a b c", stream=True))).text
        frames = [line.removeprefix("data: ") for line in raw.splitlines() if line]
        assert frames[-1] == "[DONE]"
        assert '"usage":{"prompt_tokens"' in frames[-2]
        assert len(frames) == 6


@pytest.mark.parametrize("payload", [{}, {"messages": []}, {"messages": [{"role": "user"}]}, {"prompt": ""}])
async def test_bad_bodies_get_400(payload):
    async with MockServer() as server:
        answer = await post(server, payload)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("mark", "check"),
    [
        ("500", lambda answer: answer.status_code == 500),
        ("429", lambda answer: answer.status_code == 429 and answer.headers["Retry-After"] == "0.05"),
        ("418", lambda answer: answer.status_code == 418),
        ("broken", lambda answer: answer.status_code == 200 and not answer.text.endswith("}")),
        ("empty", lambda answer: answer.status_code == 200 and answer.text == ""),
    ],
)
async def test_marks_in_the_prompt(mark, check):
    async with MockServer() as server:
        assert check(await post(server, body(f"[[mock:{mark}]]")))
        assert (await post(server, body("fine"))).status_code == 200


@pytest.mark.parametrize("mark", ["cut", "cut-mid"])
async def test_cut_connections(mark):
    async with MockServer() as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(server.url + CHAT, json=body(f"[[mock:{mark}]]")) as answer:
                await answer.read()


async def test_a_mark_with_a_count_heals():
    async with MockServer() as server:
        statuses = [(await post(server, body("x [[mock:500*2]]"))).status_code for _ in range(4)]
        assert statuses == [500, 500, 200, 200]


async def test_a_stall_lasts_until_the_client_gives_up():
    async with MockServer() as server:
        with pytest.raises(httpx.ReadTimeout):
            await post(server, body("[[mock:stall]]"), timeout=0.2)


async def test_key_limits_and_strictness():
    settings = MockSettings(api_key="k", refuse_unknown_fields=True, bros=True)
    async with MockServer(settings) as server:
        assert (await post(server, body())).status_code == 401
        allowed = {"Authorization": "Bearer k"}
        assert (await post(server, body(), headers=allowed)).status_code == 200
        tagged = body(custom_params={"bros": {"class": "be"}})
        assert (await post(server, tagged, headers=allowed)).status_code == 400
        async with httpx.AsyncClient(base_url=server.url) as client:
            status = BrosStatus.model_validate_json((await client.get("/bros/status")).content)
        assert status.policy == "bros"


async def test_cached_tokens_follow_the_shared_prefix():
    async with MockServer() as server:
        await post(server, body("x" * 640 + "a"))
        second = (await post(server, body("x" * 640 + "b"))).json()
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 160


def test_the_same_seed_hurts_the_same_requests():
    draws = [[FaultPlan(rate=0.3, seed=7).draw(b"x") for _ in range(1)] for _ in range(2)]
    first, second = FaultPlan(rate=0.3, seed=7), FaultPlan(rate=0.3, seed=7)
    assert [first.draw(b"x") for _ in range(200)] == [second.draw(b"x") for _ in range(200)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("options", [{"rate": 1.5}, {"kinds": ("nonsense",)}, {"kinds": ("200",)}])
def test_plans_are_checked(options):
    with pytest.raises(ValueError, match="fault"):
        FaultPlan(**options)
