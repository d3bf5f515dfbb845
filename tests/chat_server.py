"""A real HTTP server on this machine that speaks OpenAI's API as badly as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager

from local_server import Handler, running

USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}


def completion(text: str | None, **more) -> dict:
    """The body of an answer with one choice."""
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m-2024", **more,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}


def echo(body: dict, nth: int) -> tuple[int, dict, object]:
    """Status, headers and body of an answer that repeats the question."""
    return 200, {}, completion(body["messages"][0]["content"], **USAGE)


def models(*names: str) -> tuple[int, dict, object]:
    """The list of models that a server has."""
    listed = [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in names]
    return 200, {}, {"object": "list", "data": listed}


class Served:
    """What reached the server: bodies, headers and times in order, and the most requests at one moment; ``listed`` is
    its answer to ``/models``."""

    def __init__(self, answer, seconds: float, listed: tuple[int, dict, object]):
        self.answer, self.seconds, self.listed = answer, seconds, listed
        self.bodies, self.headers, self.times, self.running, self.most = [], [], [], 0, 0
        self.lock, self.port = threading.Lock(), 0

    def questions(self) -> Counter:
        return Counter(body["messages"][0]["content"] for body in self.bodies)


@contextmanager
def serving(answer=echo, seconds: float = 0.0, listed=models("m")):
    """A real HTTP server on this machine; ``answer(body, how often this question was asked before)``."""
    served = Served(answer, seconds, listed)

    class AsTold(Handler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                nth = served.questions()[body["messages"][0]["content"]]
                served.bodies.append(body)
                served.headers.append(self.headers)
                served.times.append(time.monotonic())
                served.running += 1
                served.most = max(served.most, served.running)
            time.sleep(served.seconds)
            try:
                self.reply(*served.answer(body, nth))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had gone
            finally:
                with served.lock:
                    served.running -= 1

        def do_GET(self):
            self.reply(*(served.listed if self.path.endswith("/models") else (404, {}, {})))

    with running(AsTold) as served.port:
        yield served


def wrong(status, message="no", code=None):
    """An answer that is always this error."""
    return lambda body, nth: (status, {}, {"error": {"message": message, "code": code}})
