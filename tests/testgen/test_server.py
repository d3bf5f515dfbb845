"""Asking over HTTP: against a small server that answers as badly as real ones do, and against vLLM's own server."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from chat_server import USAGE, completion, echo, models, serving, wrong

from plum_utils.jsonl import JsonlError
from plum_utils.params import GeneratorParams
from plum_utils.provenance import ROOT
from plum_utils.testgen import server as server_module
from plum_utils.testgen.server import GeneratorError, HttpBackend, Request, ResponseStore

KEY = "sk-very-secret-0123456789"


def requests(n: int, model: str = "m", max_tokens: int = 5) -> list[Request]:
    return [Request(f"i{number}/0", model, f"Question {number}.", 0.8, max_tokens, 0) for number in range(n)]


def how(port: int, **more) -> GeneratorParams:
    defaults = {"backend": "openai", "model": "m", "base_url": f"http://127.0.0.1:{port}/v1", "retries": 3,
                "api_key_env": "PLUM_TEST_KEY", "timeout_seconds": 20}
    return GeneratorParams(**defaults | more)


def ask(port: int, folder, asked: list[Request], **more) -> dict[str, dict]:
    return HttpBackend(how(port, **more), ResponseStore(folder, "m")).ask(asked)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.1)
    monkeypatch.setenv("PLUM_TEST_KEY", KEY)


# --- before anything is asked ---------------------------------------------------------------------------------------

NO_LIST = ("generator.base_url: http://127.0.0.1:PORT/v1/ has no list of models; give the API's address, which often ends "
           "in /v1")


def look(listed, **more) -> str:
    """What is wrong by the server's list of models; empty where nothing is. Nothing may have been generated."""
    with serving(listed=listed) as served:
        try:
            HttpBackend(how(served.port, **more), ResponseStore("unused", "m")).check_model()
            return ""
        except GeneratorError as error:
            return str(error).replace(str(served.port), "PORT")
        finally:
            assert served.bodies == []


@pytest.mark.parametrize(("listed", "said"), [
    (models("other", "m"), ""),
    (models("b", "a"), "generator.model: http://127.0.0.1:PORT/v1/ has no 'm'; it serves a, b"),
    (models(), "generator.model: http://127.0.0.1:PORT/v1/ has no 'm'; it serves nothing"),
    ((401, {}, {"error": {"message": f"no such key {KEY}"}}),
     "generator.api_key_env: http://127.0.0.1:PORT/v1/ refuses (HTTP 401) the key in PLUM_TEST_KEY"),
    ((404, {}, {}), NO_LIST),
    ((200, {"Content-Type": "text/html"}, b"<html></html>"), NO_LIST),
])
def test_the_server_is_asked_for_its_models(listed, said):
    assert look(listed) == said


def test_a_server_that_is_not_there_or_silent_is_told_in_seconds(monkeypatch):
    monkeypatch.setattr(server_module, "LOOK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(GeneratorError, match="generator.base_url: .* cannot be reached .*, tried 1 times; start"):
            HttpBackend(how(port), ResponseStore("unused", "m")).check_model()
    with pytest.raises(GeneratorError, match="cannot be reached"):
        HttpBackend(how(port), ResponseStore("unused", "m")).check_model()
    assert time.monotonic() - began < 9


# --- answers and their store --------------------------------------------------------------------------------------

def test_each_request_gets_its_answer_and_none_is_asked_twice(tmp_path):
    asked = requests(6)
    with serving() as served:
        rows = ask(served.port, tmp_path, asked)
    assert [rows[one.key]["response"] for one in asked] == [one.message for one in asked]
    again = ask(served.port, tmp_path, asked)  # nobody listens there any more
    assert again == rows and len(served.bodies) == 6
    first = rows[asked[0].key]
    assert (first["prompt_tokens"], first["completion_tokens"], first["tries"]) == (7, 3, 1)
    assert (first["served_model"], first["server"]) == ("m-2024", f"http://127.0.0.1:{served.port}/v1/")


def test_what_is_sent(tmp_path):
    with serving() as served:
        ask(served.port, tmp_path, requests(1))
    assert served.bodies == [{"model": "m", "messages": [{"role": "user", "content": "Question 0."}],
                              "temperature": 0.8, "max_tokens": 5}]
    assert served.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_only_what_changes_an_answer_is_in_a_requests_identity():
    base = dict(label="i/0", model="m", message="q", temperature=0.8, max_tokens=5, attempt=0)
    keys = {Request(**base | change).key for change in
            ({}, {"model": "n"}, {"message": "r"}, {"temperature": 0.0}, {"max_tokens": 6}, {"attempt": 1})}
    assert len(keys) == 6 and Request(**base | {"label": "j"}).key == Request(**base).key


def test_one_question_in_two_instructions_is_paid_once(tmp_path):
    asked = requests(1) + [Request("other/0", "m", "Question 0.", 0.8, 5, 0)]
    with serving() as served:
        assert len(ask(served.port, tmp_path, asked)) == 1 and len(served.bodies) == 1


def test_a_torn_last_line_is_asked_again_and_mended(tmp_path):
    asked = requests(3)
    with serving() as served:
        rows = ask(served.port, tmp_path, asked, concurrency=1)
        path = ResponseStore(tmp_path, "m").path
        whole = path.read_bytes()
        for end in (len(whole) - 1, len(whole) - 30, whole.rfind(b"\n", 0, -1) + 1):
            path.write_bytes(whole[:end])
            assert len(ResponseStore(tmp_path, "m").read()) == 2
            again = ask(served.port, tmp_path, asked)
            assert {key: row["response"] for key, row in again.items()} == \
                {key: row["response"] for key, row in rows.items()}
            assert ResponseStore(tmp_path, "m").read() == again
    assert served.questions()["Question 2."] == 4 and len(served.bodies) == 6


def test_a_damaged_line_is_named(tmp_path):
    store = ResponseStore(tmp_path, "m")
    store.path.write_text('{"key": "a"}\n{"key": \n[]\n')
    with pytest.raises(JsonlError, match=r":2: not a stored response .* delete this line"):
        store.read()


def test_models_do_not_share_a_file(tmp_path):
    paths = {ResponseStore(tmp_path, name).path for name in ("a/b", "a_b", "a b", "x" * 300, "../../etc/passwd", "ü")}
    assert len(paths) == 6 and {path.parent for path in paths} == {tmp_path}


def test_text_that_cannot_be_sent_as_it_is_does_no_harm(tmp_path):
    asked = [Request("i/0", "m", "half a pair \ud800.", 0.8, 5, 0)]
    with serving(lambda body, nth: (200, {}, completion("answer \ud800", **USAGE))) as served:
        assert ask(served.port, tmp_path, asked)[asked[0].key]["response"] == "answer \ud800"
    assert ask(served.port, tmp_path, asked)[asked[0].key]["response"] == "answer \ud800"


def test_an_answer_without_text_or_usage_is_an_answer(tmp_path):
    with serving(lambda body, nth: (200, {}, completion(None))) as served:
        row, = ask(served.port, tmp_path, requests(1)).values()
    assert (row["response"], row["prompt_tokens"], row["completion_tokens"]) == ("", None, None)


# --- rate and concurrency -----------------------------------------------------------------------------------------

def test_as_many_run_at_a_time_as_asked_for(tmp_path):
    three = threading.Barrier(3, timeout=30)  # none is answered before three have come

    def answer(body, nth):
        three.wait()
        return echo(body, nth)

    with serving(answer, seconds=0.1) as served:
        ask(served.port, tmp_path, requests(9), concurrency=3)
    assert served.most == 3


def test_requests_are_evenly_spaced_and_retries_too(tmp_path):
    def answer(body, nth):
        return echo(body, nth) if nth else (500, {}, {})

    with serving(answer) as served:
        started = time.monotonic()
        ask(served.port, tmp_path, requests(4), concurrency=4, requests_per_minute=300)
    assert len(served.times) == 8
    early = [nth for nth, moment in enumerate(served.times) if moment - started < 0.2 * nth]
    assert not early, "a busy machine may only be late"


# --- what goes wrong and passes -----------------------------------------------------------------------------------

def once(status, headers=None, content=None):
    """An answer that fails the first time each question is asked."""
    return lambda body, nth: echo(body, nth) if nth else (status, headers or {}, content if content is not None else {})


@pytest.mark.parametrize("answer", [once(429), once(500), once(503), once(408), once(200, content={"error": "busy"}),
                                    once(200, {"Content-Length": "100"}), once(200, content=b"{broken")],
                         ids=["429", "500", "503", "408", "no-choices", "cut-off", "broken-json"])
def test_what_may_pass_is_tried_again(tmp_path, answer):
    with serving(answer) as served:
        row, = ask(served.port, tmp_path, requests(1)).values()
    assert (row["response"], row["tries"], len(served.bodies)) == ("Question 0.", 2, 2)


def test_a_late_answer_is_asked_for_again(tmp_path):
    def answer(body, nth):
        time.sleep(0 if nth else 4)
        return echo(body, nth)

    with serving(answer) as served:
        row, = ask(served.port, tmp_path, requests(1), timeout_seconds=2).values()
    assert row["tries"] == 2


def test_waits_grow(tmp_path):
    with serving(lambda body, nth: echo(body, nth) if nth == 3 else (500, {}, {})) as served:
        row, = ask(served.port, tmp_path, requests(1)).values()
    gaps = [after - before for before, after in zip(served.times, served.times[1:])]
    assert row["tries"] == 4 and gaps[0] > 0.07 and gaps[1] > 0.15 and gaps[2] > 0.3


@pytest.mark.parametrize("header", [
    lambda: {"Retry-After": "1"}, lambda: {"retry-after-ms": "1000"},
    lambda: {"Retry-After": format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)},
], ids=["seconds", "milliseconds", "date"])
def test_a_server_says_how_long_to_wait(tmp_path, header):
    with serving(lambda body, nth: echo(body, nth) if nth else (429, header(), {})) as served:
        ask(served.port, tmp_path, requests(1))
    assert served.times[1] - served.times[0] > 0.9


def test_a_busy_server_is_left_alone_by_all(tmp_path):
    """After a 429 the others wait as well, instead of running into it one by one."""
    def answer(body, nth):
        if body["messages"][0]["content"] == "Question 0." and not nth:
            return 429, {"Retry-After": "2"}, {}
        time.sleep(0 if len(served.bodies) > 2 else 1)  # the other one is answered when the first knows
        return echo(body, nth)

    with serving(answer) as served:
        ask(served.port, tmp_path, requests(8), concurrency=2)
    assert len(served.times) == 9 and served.times[2] - served.times[0] > 1.9


def test_newer_models_want_another_name_for_the_limit(tmp_path):
    def answer(body, nth):
        if "max_tokens" in body:
            return 400, {}, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead.",
                                       "code": "unsupported_parameter", "param": "max_tokens"}}
        return echo(body, nth)

    with serving(answer) as served:
        assert len(ask(served.port, tmp_path, requests(5), concurrency=2)) == 5
    assert served.bodies[-1]["max_completion_tokens"] == 5 and len(served.bodies) <= 7


# --- what goes wrong for good -------------------------------------------------------------------------------------

@pytest.mark.parametrize(("answer", "said"), [
    (wrong(401, f"Incorrect API key provided: {KEY}"), "generator.api_key_env: .* refuses .HTTP 401. the key in PLUM_"),
    (wrong(403), "generator.api_key_env: "),
    (wrong(404, "The model `m` does not exist"), "generator.model: .* has no 'm' .*does not exist.*base_url"),
    (wrong(400, f"temperature out of bounds {KEY}"), r"refuses the request .*bounds \*\*\*.* generator.temperature"),
    (wrong(402), "generator.api_key_env: .* no credit"),
    (wrong(429, "You exceeded your quota", "insufficient_quota"), "no credit .You exceeded your quota"),
    (wrong(400, "x" * 290 + KEY), r"x{290}\*\*\*"),
    (lambda body, nth: (200, {"Content-Type": "text/html"}, b"<html>"), "generator.base_url: .* a page, not with JSON"),
], ids=["401", "403", "404", "400", "402", "quota", "key-cut-off", "page"])
def test_what_no_retry_can_mend_is_said_at_once(tmp_path, answer, said):
    with serving(answer) as served, pytest.raises(GeneratorError, match=said) as caught:
        ask(served.port, tmp_path, requests(30), concurrency=2)
    assert len(served.bodies) < 10 and KEY not in str(caught.value)
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)


def test_a_key_that_is_withdrawn_stops_what_went_well(tmp_path):
    def answer(body, nth):
        return echo(body, nth) if body["messages"][0]["content"] == "Question 0." else wrong(401)(body, nth)

    with serving(answer) as served, pytest.raises(GeneratorError, match="^generator.api_key_env"):
        ask(served.port, tmp_path, requests(30), concurrency=1)
    assert len(served.bodies) <= 3 and len(ResponseStore(tmp_path, "m").read()) == 1


def test_a_server_that_is_not_there_is_told_after_the_retries(tmp_path):
    with serving() as served:
        pass
    with pytest.raises(GeneratorError, match=r"stopped after 3 failed.*generator.base_url: .* cannot be reached "
                                             r"\(.*refused\), tried 3 times"):
        ask(served.port, tmp_path, requests(50), concurrency=2, retries=2)


def test_a_server_that_fails_always_is_not_asked_for_ever(tmp_path):
    with serving(wrong(500)) as served, pytest.raises(GeneratorError, match="stopped after 4 failed requests in a row"):
        ask(served.port, tmp_path, requests(200), concurrency=4, retries=0)
    assert len(served.bodies) <= 20


def test_a_wait_of_hours_is_a_failure(tmp_path):
    answer = once(429, {"Retry-After": "36000"})
    with serving(answer) as served, pytest.raises(GeneratorError, match="1 of 1 requests failed.*HTTP 429"):
        ask(served.port, tmp_path, requests(1))
    assert len(served.bodies) == 1


def test_failures_stop_nobody_and_only_they_are_asked_again(tmp_path):
    bad = {f"Question {number}." for number in range(0, 12, 2)}  # never three in a row

    def answer(body, nth):
        return (500, {}, {}) if body["messages"][0]["content"] in bad else echo(body, nth)

    with serving(answer) as served:
        with pytest.raises(GeneratorError, match="6 of 12 requests failed.*asks only the failed ones again. The first, "
                                                 r"i0/0: .*HTTP 500"):
            ask(served.port, tmp_path, requests(12), retries=1, concurrency=1)
        failed = sorted(bad)
        bad.clear()
        before = len(served.bodies)
        rows = ask(served.port, tmp_path, requests(12))
        assert sorted(row["response"] for row in rows.values()) == sorted(one.message for one in requests(12))
    assert sorted(body["messages"][0]["content"] for body in served.bodies[before:]) == failed


@pytest.mark.parametrize("code", server_module.REFUSALS)
def test_a_refused_prompt_is_an_empty_response(tmp_path, code):
    """A study must not stand still for ever before one prompt that is too long or that a filter dislikes."""
    def answer(body, nth):
        too_long = body["messages"][0]["content"] == "Question 0."
        return wrong(400, "too long", code)(body, nth) if too_long else echo(body, nth)

    with serving(answer) as served:
        rows = ask(served.port, tmp_path, requests(8))
        assert ask(served.port, tmp_path, requests(8)) == rows
    refused = rows[requests(1)[0].key]
    assert (refused["response"], refused["finish_reason"]) == ("", "refused") and "too long" in refused["reason"]
    assert len(served.bodies) == 8


def test_when_every_prompt_is_refused_it_is_not_the_prompts(tmp_path):
    with serving(wrong(400, "too long", "context_length_exceeded")) as served:
        with pytest.raises(GeneratorError, match="too long"):
            ask(served.port, tmp_path, requests(2))
    assert ResponseStore(tmp_path, "m").read() == {}


def test_a_missing_key_is_told_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("PLUM_TEST_KEY")
    with pytest.raises(GeneratorError, match="PLUM_TEST_KEY is not set"):
        HttpBackend(how(1).model_copy(update={"base_url": None}), ResponseStore(tmp_path, "m"))
    with serving() as served:  # one of our own servers wants none
        ask(served.port, tmp_path, requests(1))
    assert served.headers[0]["Authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-ab\ncd", "sk-\u00e9", "sk ab"])
def test_a_key_that_cannot_be_one_is_not_printed(tmp_path, monkeypatch, key):
    monkeypatch.setenv("PLUM_TEST_KEY", key)
    with pytest.raises(GeneratorError, match="a character that no key has") as caught:
        HttpBackend(how(1), ResponseStore(tmp_path, "m"))
    assert key not in str(caught.value)


def test_an_address_without_a_scheme(tmp_path):
    with pytest.raises(GeneratorError, match="generator.base_url: expected http"):
        HttpBackend(how(1, base_url="localhost:8000/v1"), ResponseStore(tmp_path, "m"))


def test_nothing_on_disk_holds_the_key_or_a_password(tmp_path):
    with serving() as served:
        ask(served.port, tmp_path, requests(2), base_url=f"http://me:{KEY}@127.0.0.1:{served.port}/v1")
    assert KEY not in ResponseStore(tmp_path, "m").path.read_text()


# --- processes that end, or run beside each other -----------------------------------------------------------------

CHILD = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would its children
from plum_utils.testgen.server import HttpBackend, Request, ResponseStore
from plum_utils.params import GeneratorParams
how, folder, asked = json.loads(sys.argv[1])
how = GeneratorParams(**how)
print("ready", flush=True)
sys.stdin.readline()
HttpBackend(how, ResponseStore(folder, how.model)).ask([Request(**one) for one in asked])
"""


def children(n: int, settings: GeneratorParams, folder, asked: list[Request]) -> list[subprocess.Popen]:
    """Processes that ask the same at the same moment."""
    text = json.dumps([settings.model_dump(), str(folder), [vars(one) for one in asked]])
    started = [subprocess.Popen([sys.executable, "-c", CHILD, text], cwd=ROOT, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(n)]
    for process in started:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_two_processes_share_a_store_and_pay_once(tmp_path):
    asked = requests(10)
    with serving(seconds=0.1) as served:
        both = children(2, how(served.port, concurrency=2), tmp_path, asked)
        outputs = [process.communicate(timeout=200) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
    assert set(served.questions().values()) == {1} and len(served.bodies) == 10
    assert len(ResponseStore(tmp_path, "m").read()) == 10


def test_after_a_kill_only_what_is_missing_is_asked(tmp_path):
    asked = requests(12)
    with serving(seconds=0.15) as served:
        process, = children(1, how(served.port, concurrency=1), tmp_path, asked)
        wait_for(lambda: len(ResponseStore(tmp_path, "m").read()) >= 4)
        process.kill()
        process.communicate()
        stored = len(ResponseStore(tmp_path, "m").read())
        wait_for(lambda: not served.running)
        before = len(served.bodies)
        rows = ask(served.port, tmp_path, asked)
    assert 4 <= stored < 12 and len(rows) == 12 and len(served.bodies) - before == 12 - stored


def test_after_an_interrupt_what_is_under_way_still_arrives(tmp_path):
    interrupted = threading.Event()

    def answer(body, nth):
        interrupted.wait(60)
        return echo(body, nth)

    with serving(answer) as served:
        process, = children(1, how(served.port, concurrency=3, timeout_seconds=60), tmp_path, requests(30))
        wait_for(lambda: served.running == 3)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)  # until it has noticed
        interrupted.set()
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert len(served.bodies) == len(ResponseStore(tmp_path, "m").read()) == 3


# --- vLLM's own server --------------------------------------------------------------------------------------------

class VllmServer:
    """vLLM's OpenAI-compatible server on the CPU with the embedded model, as ``smollm2``."""

    def __init__(self, log):
        from plum_utils.models.weights import embedded_model

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded_model()),
                   "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(self.port),
                   "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8", "--dtype", "bfloat16"]
        environment = os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1",
                                    "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
        with open(log, "w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment,
                                            start_new_session=True)

    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).status == 200
        except OSError:
            return False

    def answered(self) -> int:
        """Requests that the server itself counts as answered."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20).read().decode()
        return sum(round(float(n)) for n in re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.MULTILINE))

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    server = VllmServer(tmp_path_factory.mktemp("vllm") / "log.txt")
    try:
        wait_for(server.up, 300)
        yield server
    finally:
        server.stop()


def ask_vllm(server: VllmServer, folder, asked: list[Request], **more) -> dict[str, dict]:
    settings = how(server.port, model=asked[0].model, timeout_seconds=200, **more)
    return HttpBackend(settings, ResponseStore(folder, asked[0].model)).ask(asked)


@pytest.mark.long("upgrade")
def test_vllm_answers_and_is_asked_once(vllm, tmp_path):
    asked = [Request(f"i/{attempt}", "smollm2", "Say hello to a friend.", 1.0, 12, attempt) for attempt in range(4)]
    before = vllm.answered()
    rows = ask_vllm(vllm, tmp_path, asked, concurrency=4)
    assert vllm.answered() - before == 4
    assert len({rows[one.key]["response"] for one in asked}) > 1, "samples of one prompt at T = 1 must differ"
    for row in rows.values():
        assert row["prompt_tokens"] > 5 and 0 < row["completion_tokens"] <= 12
        assert row["finish_reason"] == ("length" if row["completion_tokens"] == 12 else "stop")
        assert row["response"] and row["served_model"] == "smollm2"
    assert ask_vllm(vllm, tmp_path, asked) == rows
    assert vllm.answered() - before == 4


@pytest.mark.long("upgrade")
def test_vllm_after_a_kill(vllm, tmp_path):
    asked = requests(8, "smollm2", 12)
    process, = children(1, how(vllm.port, model="smollm2", concurrency=1, timeout_seconds=200), tmp_path, asked)
    store = ResponseStore(tmp_path, "smollm2")
    wait_for(lambda: len(store.read()) >= 2, 200)
    process.kill()
    process.communicate()
    stored = store.read()
    assert 2 <= len(stored) < 8
    rows = ask_vllm(vllm, tmp_path, asked)
    assert len(rows) == 8 and all(rows[key] == row for key, row in stored.items())
    assert len(store.path.read_text().splitlines()) == 8, "a stored response was asked for again"


@pytest.mark.long("upgrade")
def test_vllm_says_what_is_wrong(vllm, tmp_path):
    with pytest.raises(GeneratorError, match="generator.model: .* has no 'gpt-4'.*smollm2"):
        ask_vllm(vllm, tmp_path, requests(3, "gpt-4"))
    with pytest.raises(GeneratorError, match="refuses the request .HTTP 400: max_tokens.*generator.max_tokens"):
        ask_vllm(vllm, tmp_path, requests(3, "smollm2", 5000))
    long = Request("long/0", "smollm2", "word " * 3000, 0.8, 4, 0)
    rows = ask_vllm(vllm, tmp_path, [long, *requests(2, "smollm2", 4)])
    assert rows[long.key]["finish_reason"] == "refused" and "maximum context length" in rows[long.key]["reason"]
    assert sum(row["finish_reason"] != "refused" for row in rows.values()) == 2


@pytest.mark.long("upgrade")
def test_vllm_gone_is_told_and_what_it_answered_is_kept(vllm, tmp_path):
    asked = requests(2, "smollm2", 4)
    rows = ask_vllm(vllm, tmp_path, asked)
    vllm.stop()
    assert ask_vllm(vllm, tmp_path, asked) == rows
    with pytest.raises(GeneratorError, match="generator.base_url: .* cannot be reached .*, tried 2 times"):
        ask_vllm(vllm, tmp_path, requests(5, "smollm2", 4), retries=1)
