"""Chat completions over HTTP, one sample a request: any server that speaks OpenAI's API, a vendor's or vLLM's own.

Every answer is appended to a store the moment it arrives and is found there by its request, so that no call is paid
twice: not after a kill, not by another run, not by two processes at once.

Threads, not coroutines: a notebook's event loop is running already, and when the asking is broken off, answers that are
under way still arrive and are stored. The retries are ours, not the client's: those would not keep to
``requests_per_minute``, and give up on a busy server after half a minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterator

import openai
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from plum_utils.jsonl import JsonlError, to_jsonl
from plum_utils.params import GeneratorParams
from plum_utils.progress import Bar, one_line
from plum_utils.runs import fingerprint

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries, doubled each time
LONGEST_RETRY_AFTER = 600.0  # a server that sends us away for longer (a day's quota) has failed
LOOK_SECONDS = 10.0  # for the list of models
BUSY = (408, 409, 429)  # HTTP statuses that are worth another try, as all from 500 on
NO_USE = (401, 402, 403, 404)  # statuses that every other request would get too
REFUSALS = ("context_length_exceeded", "content_filter", "content_policy_violation")  # OpenAI's and Azure's codes
REFUSED = "refused"  # finish_reason of a request that this server will never answer; its response is empty
# What the server says then may hold a part of the key.
_NO_KEY = "generator.api_key_env: {server} refuses (HTTP {status}) the key in {key}"
_ADDRESS = "give the API's address, which often ends in /v1"
MENDS = {  # by HTTP's status, or what happened
    401: _NO_KEY,
    402: "generator.api_key_env: {server} says that the key's account has no credit ({said})",
    403: _NO_KEY,
    404: "generator.model: {server} has no {model!r} (HTTP 404: {said}); give a model that it serves, or mend "
         "generator.base_url, which often ends in /v1",
    "late": "generator.timeout_seconds: no answer from {server} within {seconds:g} s, tried {tries} times; raise it, "
            "or lower generator.concurrency",
    "unreached": "generator.base_url: {server} cannot be reached ({said}), tried {tries} times; start the server or "
                 "mend the address",
    "busy": "{server} answered HTTP {status} ({said}), tried {tries} times; lower generator.concurrency or "
            "generator.requests_per_minute, or try later",
    "rejected": "{server} refuses the request ({http}{said}); see generator.max_tokens, generator.temperature and "
                "generator.model",
}


class GeneratorError(RuntimeError):
    """The generator cannot be asked or did not answer; the message names the parameter and the mend, never the key."""


@dataclass(frozen=True)
class Request:
    """One sample of the answer to one user message; ``label`` is for messages to people only."""

    label: str
    model: str
    message: str
    temperature: float
    max_tokens: int
    attempt: int  # from 0; what tells the samples of one message apart

    @property
    def key(self) -> str:
        """The request's identity. The server's address is no part of it: ports and proxies change, and a model's name
        is what a paper reports; each stored row says which server answered."""
        return fingerprint([self.model, self.message, float(self.temperature), self.max_tokens, self.attempt])


@dataclass(frozen=True)
class Failure:
    """A request without an answer, and why; ``status`` is HTTP's, 0 where no answer came at all."""

    request: Request
    status: int
    reason: str
    refused: bool  # for good: the prompt is too long for the model, or filtered


class ResponseStore:
    """The responses of one model: an append-only JSON Lines file, one row a request.

    Rows: key, label, model, served_model (the server's name of it), server, response, finish_reason, prompt_tokens and
    completion_tokens (the server's count, or null), tries, created (Unix seconds).
    """

    def __init__(self, folder: str | Path, model: str):
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", model)[-60:]
        self.path = Path(folder) / f"{readable}-{fingerprint(model)[:8]}.jsonl"
        self._lock = threading.Lock()
        self._handle: BinaryIO  # only inside ``writing``

    def read(self) -> dict[str, dict[str, Any]]:
        """Rows by request key; a last line that a kill tore is not among them.

        Raises:
            JsonlError: a whole line that is no row.
        """
        rows = {}
        for number, line in enumerate(self._whole_lines(), 1):
            try:
                row = json.loads(line)
                rows[row["key"]] = row
            except (ValueError, TypeError, KeyError) as error:
                raise JsonlError(f"{self.path}:{number}: not a stored response ({error!r}); delete this line, and its "
                                 "request is asked again") from None
        return rows

    def _whole_lines(self) -> list[bytes]:
        return self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []

    @contextlib.contextmanager
    def writing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Hold the store against other processes, so that two never ask the same; yields its rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as self._handle:
            self._wait_for_lock()
            self._handle.truncate(sum(len(line) + 1 for line in self._whole_lines()))
            yield self.read()

    def _wait_for_lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel drops it when its holder dies
        except BlockingIOError:
            print(f"{self.path}: another process is asking this model; waiting for it", flush=True)
            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def append(self, row: dict[str, Any]) -> dict[str, Any]:
        """Put a row on the disk; only inside ``writing``. Returns it."""
        with self._lock:
            self._handle.write(to_jsonl([row]).encode("ascii"))
            self._handle.flush()
            os.fsync(self._handle.fileno())
        return row


class Pace:
    """Lets callers through one by one, ``per_minute`` evenly spaced; ``hold`` keeps all back when a server is busy."""

    def __init__(self, per_minute: int | None):
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def turn(self) -> None:
        """Wait for the next free place."""
        with self._lock:
            now = time.monotonic()
            place = max(now, self._next)
            self._next = place + self._gap
        self.rest(place - now)

    def hold(self, seconds: float) -> None:
        """Nobody's next turn comes before that many seconds."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def rest(self, seconds: float) -> None:
        """Sleep, unless the asking is broken off.

        Raises:
            InterruptedError: it is.
        """
        if self._stop.wait(max(0.0, seconds)):
            raise InterruptedError("the asking was broken off")

    def stop(self) -> None:
        """Wake everybody up, for good."""
        self._stop.set()


class HttpBackend:
    """Asks one server for one model, ``concurrency`` requests at a time."""

    def __init__(self, how: GeneratorParams, store: ResponseStore):
        self._how, self._store = how, store
        self._key = api_key(how)
        if how.base_url is not None and not how.base_url.startswith(("http://", "https://")):
            raise GeneratorError(f"generator.base_url: expected http://... or https://..., got {how.base_url!r}")
        self._client = openai.OpenAI(api_key=self._key or "none", base_url=how.base_url, max_retries=0,
                                     timeout=how.timeout_seconds)
        self.server = re.sub(r"//[^/@]*@", "//", str(self._client.base_url))  # without a user's name and password
        self._limit = "max_tokens"

    def check_model(self) -> None:
        """Ask the server which models it serves; once, and it has ``LOOK_SECONDS``. Nothing is generated or paid.

        Raises:
            GeneratorError: it is not there, refuses the key, or does not serve ``generator.model``.
        """
        how = self._how
        try:
            served = [model.id for model in self._client.models.list(timeout=min(how.timeout_seconds, LOOK_SECONDS))]
        except (openai.NotFoundError, AttributeError):  # the latter: the client cannot read what is no JSON object
            raise GeneratorError(f"generator.base_url: {self.server} has no list of models; {_ADDRESS}") from None
        except openai.APIConnectionError as error:  # a timeout is one, too
            said = MENDS["unreached"].format(server=self.server, said=self._said(error), tries=1)
            raise GeneratorError(said) from None
        except openai.APIError as error:
            raise GeneratorError(self._reason(error, _status(error), 1)) from None
        if how.model not in served:
            raise GeneratorError(f"generator.model: {self.server} has no {how.model!r}; it serves "
                                 f"{one_line(', '.join(sorted(served)) or 'nothing', 200)}")

    def ask(self, requests: list[Request]) -> dict[str, dict[str, Any]]:
        """Rows of the store by request key; what is missing is asked for. A request that the server refuses for good
        gets an empty response: it would never be answered, and the study must go on.

        Raises:
            GeneratorError: a mistake that every request would meet, at once; or requests that failed after all tries,
                when the rest is answered and stored.
        """
        with self._store.writing() as rows:
            pending = list({request.key: request for request in requests if request.key not in rows}.values())
            failures = self._ask_all(pending, rows) if pending else []
            if any(request.key in rows for request in requests):  # else it is the parameters that are refused
                for failure in [failure for failure in failures if failure.refused]:
                    rows[failure.request.key] = self._store.append(stored_row(
                        failure.request, self.server, "", REFUSED, 1, prompt_tokens=0, completion_tokens=0,
                        reason=failure.reason))
                    failures.remove(failure)
        if failures:
            raise GeneratorError(f"{len(failures)} of {len(pending)} requests failed; the others are answered and "
                                 "stored, and the same command asks only the failed ones again. The first, "
                                 f"{failures[0].request.label}: {failures[0].reason}")
        return {request.key: rows[request.key] for request in requests}

    def _ask_all(self, pending: list[Request], rows: dict[str, dict[str, Any]]) -> list[Failure]:
        """Answers go into ``rows``."""
        pace, failures, streak = Pace(self._how.requests_per_minute), [], 0
        with ThreadPoolExecutor(self._how.concurrency) as pool, Bar("generator", len(pending), "request") as bar:
            futures = [pool.submit(self._answer, request, pace) for request in pending]
            try:
                for future in as_completed(futures):
                    outcome = future.result()
                    if isinstance(outcome, Failure):
                        failures.append(outcome)
                        streak += 1
                        self._give_up(outcome, streak, bool(rows))
                    else:
                        rows[outcome["key"]], streak = outcome, 0
                    bar.add()
            except BaseException:  # Ctrl-C too: what is under way may still arrive and be stored, no more is asked
                pace.stop()
                raise
        return failures

    def _give_up(self, failure: Failure, streak: int, answered: bool) -> None:
        """Stop where going on is of no use: nothing was ever answered, or as many failed in a row as run at a time."""
        rejected = 400 <= failure.status < 500 and failure.status not in BUSY and not failure.refused
        if failure.status in NO_USE or rejected and not answered:
            raise GeneratorError(failure.reason)
        if streak >= max(self._how.concurrency, 3):
            raise GeneratorError(f"stopped after {streak} failed requests in a row; answers that came are stored, and "
                                 f"the same command asks only for the rest. The last, {failure.request.label}: "
                                 f"{failure.reason}")

    def _answer(self, request: Request, pace: Pace) -> dict[str, Any] | Failure:
        """The request's row, on the disk already, or why there is none."""
        def hold_all(state: RetryCallState) -> None:
            if getattr(state.outcome and state.outcome.exception(), "status_code", 0) == 429:
                pace.hold(state.upcoming_sleep)

        def ask() -> dict[str, Any]:
            pace.turn()
            reply = self._create(request)
            return self._store.append(_row(request, reply, tries.statistics["attempt_number"], self.server))

        tries = Retrying(stop=stop_after_attempt(self._how.retries + 1), retry=retry_if_exception(self._may_pass),
                         wait=self._wait, before_sleep=hold_all, sleep=pace.rest, reraise=True)
        try:
            return tries(ask)
        except (openai.APIError, ValueError) as error:
            return self._failure(request, error, tries.statistics["attempt_number"])

    def _may_pass(self, error: BaseException) -> bool:
        if not isinstance(error, (openai.APIError, ValueError)) or getattr(error, "code", None) == "insufficient_quota":
            return False
        status = getattr(error, "status_code", 500)
        return (status >= 500 or status in BUSY) and (self._told(error) or 0) <= LONGEST_RETRY_AFTER

    def _wait(self, state: RetryCallState) -> float:
        told = self._told(state.outcome and state.outcome.exception())
        return wait_exponential_jitter(FIRST_WAIT, LONGEST_WAIT, jitter=FIRST_WAIT / 4)(state) if told is None else told

    def _told(self, error: Any) -> float | None:
        """Seconds that the server asks us to wait, in either of the headers that the client knows."""
        return self._client._parse_retry_after_header(getattr(getattr(error, "response", None), "headers", None))

    def _create(self, request: Request) -> Any:
        limit = self._limit
        message = request.message.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be sent
        try:
            return self._client.chat.completions.create(
                model=request.model, messages=[{"role": "user", "content": message}],
                temperature=request.temperature, **{limit: request.max_tokens})
        except openai.BadRequestError as error:
            if limit == "max_tokens" and "max_completion_tokens" in str(error):  # OpenAI's newer models want this name
                self._limit = "max_completion_tokens"
                return self._create(request)
            raise

    def _failure(self, request: Request, error: Exception, tries: int) -> Failure:
        status = _status(error)
        reason = self._reason(error, status, tries)
        refused = status == 400 and (getattr(error, "code", None) in REFUSALS or "maximum context length" in reason)
        return Failure(request, status, reason, refused)

    def _reason(self, error: Exception, status: int, tries: int) -> str:
        how = self._how
        return MENDS[_what_happened(error, status)].format(
            server=self.server, status=status, http=f"HTTP {status}: " if status else "", said=self._said(error),
            key=how.api_key_env + ("" if self._key else ", which is not set"), model=how.model,
            seconds=how.timeout_seconds, tries=tries)

    def _said(self, error: Exception) -> str:
        body = getattr(error, "body", None)
        text = body.get("message") if isinstance(body, dict) else None
        text = str(text or error.__cause__ or error)
        return one_line(text.replace(self._key, "***") if self._key else text, 300)


def _status(error: Exception) -> int:
    """HTTP's; 0 where no answer came at all. OpenAI says 429 where there is no credit."""
    return 402 if getattr(error, "code", None) == "insufficient_quota" else getattr(error, "status_code", 0)


def _what_happened(error: Exception, status: int) -> int | str:
    """A key of ``MENDS``."""
    if status in MENDS:
        return status
    if isinstance(error, openai.APIConnectionError):  # a timeout is one, too
        return "late" if isinstance(error, openai.APITimeoutError) else "unreached"
    return "busy" if status == 429 or status >= 500 else "rejected"


def api_key(how: GeneratorParams) -> str | None:
    """The key in the environment variable ``api_key_env``; none is needed where ``base_url`` names a server.

    Raises:
        GeneratorError: there is none for the vendor's own server, or it cannot be a key.
    """
    key = os.environ.get(how.api_key_env, "").strip()
    if not key and how.base_url is None:
        raise GeneratorError(f"generator.api_key_env: the environment variable {how.api_key_env} is not set; set it to "
                             "your key, or generator.base_url to a server that wants none")
    if not all("!" <= char <= "~" for char in key):
        raise GeneratorError(f"generator.api_key_env: the key in {how.api_key_env} has a character that no key has; "
                             "copy it again")
    return key or None


def stored_row(request: Request, server: str, response: str, finish_reason: str | None, tries: int, **more: Any
               ) -> dict[str, Any]:
    """A row of the store; ``more`` are its other columns, which are null where they are not given."""
    return {"key": request.key, "label": request.label, "model": request.model, "served_model": None, "server": server,
            "response": response, "finish_reason": finish_reason, "prompt_tokens": None, "completion_tokens": None,
            "tries": tries, "created": int(time.time())} | more


def _row(request: Request, reply: Any, tries: int, server: str) -> dict[str, Any]:
    if isinstance(reply, str):
        raise GeneratorError(f"generator.base_url: {server} answers with a page, not with JSON; {_ADDRESS}")
    if not getattr(reply, "choices", None):
        raise ValueError("an answer without choices")
    choice, usage = reply.choices[0], reply.usage
    return stored_row(request, server, choice.message.content or "", choice.finish_reason, tries,
                      served_model=reply.model, prompt_tokens=usage and usage.prompt_tokens,
                      completion_tokens=usage and usage.completion_tokens)
