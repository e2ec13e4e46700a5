"""A chat agent: what the user waits for is real-time, what it writes to its memory is best-effort.

bros model tiny ./tiny
bros serve --model-path ./tiny            # or any model, on a GPU
python examples/chat_agent.py --url http://localhost:30000
"""

from __future__ import annotations

import argparse
import time

import httpx
import sglang as sgl

from bros_sglang import lang


@sgl.function
def answer(s, history: str, question: str) -> None:  # type: ignore[no-untyped-def] # SGLang's own style
    """Answer the user: the first token within 300 ms."""
    s += sgl.system(f"You are a helpful assistant. {history}")
    s += sgl.user(question)
    with lang.realtime(ttft_ms=300):
        s += sgl.assistant(sgl.gen("answer", max_tokens=32))


@sgl.function
def remember(s, question: str, answered: str) -> None:  # type: ignore[no-untyped-def]
    """Write down what is worth keeping, and how much it matters; nobody waits for it."""
    s += sgl.user(f"What is worth remembering of this?\nUser: {question}\nAssistant: {answered}")
    s += sgl.assistant(sgl.gen("note", max_tokens=48))
    s += sgl.user("Does it matter?") + sgl.assistant(sgl.gen("weight", choices=["yes", "no"]))


def main() -> None:
    """Run three turns, their memories in the background, and show what the server took each for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:30000")
    url = parser.parse_args().url
    sgl.set_default_backend(lang.RuntimeEndpoint(url, request_class="rt"))

    notes = []
    for question in ("Where is the water?", "Who are the people?", "What was the first word?"):
        started_s = time.monotonic()
        turn = answer.run(history="", question=question, stream=True)
        print(f"user: {question}\nassistant: ", end="")
        for index, piece in enumerate(turn.text_iter(var_name="answer")):
            if index == 0:
                print(f"[{(time.monotonic() - started_s) * 1e3:.0f} ms] ", end="")
            print(piece, end="", flush=True)
        print()
        with lang.best_effort():  # runs on beside the next turns
            notes.append(remember.run(question=question, answered=turn["answer"], stream=True))

    for note in notes:
        print(f"memory: {note['note']!r} matters: {note['weight']}")
    status = httpx.get(f"{url}/bros/status", timeout=10.0).json()["schedulers"]
    for name, text in (("rt", "real-time"), ("be", "best-effort")):
        print(f"{text}: {sum(part[name]['requests_total'] for part in status)} requests so far")


if __name__ == "__main__":
    main()
