"""The page of a study: served to this machine alone, one secret link a reader, nothing on it that tells the answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, TypeGuard

from kb.errors import UserError
from tigergen.study.answers import Answers
from tigergen.study.folder import Reader, Study, Trial, read

HOST = "127.0.0.1"
# Nothing but this server's own script, style and pictures; nobody may frame the page.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MAX_BODY = 4096
MAX_MS = 24 * 3600 * 1000


class Desk:
    """What a reader may see and do: one trial at a time, in the stored order; answers are final."""

    def __init__(self, study: Study, answers: Answers) -> None:
        self.study, self.answers = study, answers
        self.by_token = {reader.token: reader for reader in study.readers}

    def current(self, reader: Reader) -> tuple[int, Trial | None]:
        """How many trials a reader has answered, and the first one that is open."""
        given = self.answers.given(reader.reader)
        return len(given), next((trial for trial in reader.trials if trial.trial not in given), None)

    def state(self, reader: Reader) -> dict[str, Any]:
        """What the page needs for the open trial: task, addresses of the pictures, text or features; no key."""
        done, trial = self.current(reader)
        task = self.study.questions[trial.question].task if trial else None
        tasks = [self.study.questions[one.question].task for one in reader.trials]
        within = done - tasks.index(task) if task else 0
        state: dict[str, Any] = {"reader": reader.reader, "level": reader.level, "done": done, "of": len(tasks)}
        state |= {"task": task, "place": within + 1, "places": tasks.count(task) if task else 0}
        if trial:
            question = self.study.questions[trial.question]
            words = self.study.features if task == "mark" else question.words
            state |= {"trial": trial.trial, "pictures": list(trial.pictures)}
            state["words"] = [{"en": word.en, "zh": word.zh} for word in words]
        return state

    def answer(self, reader: Reader, sent: Any) -> str | None:
        """Store what a page sent; returns what is wrong with it, or None.

        An answer to a trial that has one is accepted and changes nothing: the page sends again when a reply was lost.
        """
        if not isinstance(sent, dict):
            return "not an object"
        by_id = {trial.trial: trial for trial in reader.trials}
        trial, ms, hidden_ms = by_id.get(str(sent.get("trial"))), sent.get("ms"), sent.get("hidden_ms")
        if trial is None or not (_is_time(ms) and _is_time(hidden_ms)):
            return "no such trial, or times that are none"
        if trial.trial in self.answers.given(reader.reader):
            return None
        _, current = self.current(reader)
        if current is None or current.trial != trial.trial:
            return "not the open trial"
        stored = self._read(trial, sent.get("answer"))
        if stored is None:
            return "not an answer to this task"
        self.answers.add(reader.reader, trial.trial, stored, ms, hidden_ms)
        return None

    def _read(self, trial: Trial, answer: Any) -> Any:
        """The answer as it is stored: "real" or "generated"; the item chosen; one 0 or 1 a feature. None: not valid."""
        task = self.study.questions[trial.question].task
        if task == "source":
            return answer if answer in ("real", "generated") else None
        if task == "match":
            return trial.pictures.get(answer) if isinstance(answer, str) else None
        right = isinstance(answer, list) and len(answer) == len(self.study.features)
        return answer if right and all(type(one) is int and one in (0, 1) for one in answer) else None


def app(desk: Desk, hosts: Sequence[str] = ()) -> Any:
    """The ASGI application. `hosts`: further names by which it may be called, beside 127.0.0.1 and localhost.

    A foreign `Host` is refused, so a web page that rebinds its own name to this machine reads nothing; a POST must be
    JSON from this very origin.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def reader_of(request: Request) -> Reader | None:
        return desk.by_token.get(request.path_params["token"])

    def for_readers(handle: Callable[[Request, Reader], Response]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            reader = reader_of(request)
            return handle(request, reader) if reader else nothing()

        return endpoint

    def nothing(text: str = "There is nothing here. Ask for your link again.", status: int = 404) -> Response:
        return PlainTextResponse(text, status, HEADERS)

    def page(request: Request, reader: Reader) -> Response:
        return Response(_asset("page.html"), media_type="text/html", headers=HEADERS)

    def script(request: Request, reader: Reader) -> Response:
        return Response(_asset("page.js"), media_type="text/javascript", headers=HEADERS)

    def style(request: Request, reader: Reader) -> Response:
        shared = files("tigerdata").joinpath("page.css").read_text(encoding="utf-8")
        return Response(shared + _asset("page.css"), media_type="text/css", headers=HEADERS)

    def state(request: Request, reader: Reader) -> Response:
        return JSONResponse(desk.state(reader), headers=HEADERS)

    def picture(request: Request, reader: Reader) -> Response:
        _, trial = desk.current(reader)
        item = trial.pictures.get(request.path_params["picture"]) if trial else None
        if trial is None or item is None:
            return nothing()
        # Bytes, not FileResponse: its ETag and Last-Modified would be the same each time a picture comes again.
        return Response(desk.study.picture(item).read_bytes(), media_type="image/png", headers=HEADERS)

    def shown(request: Request, reader: Reader) -> Response:
        if wrong := _foreign(request.headers, False):
            return nothing(wrong, 403)
        _, trial = desk.current(reader)
        if trial:
            desk.answers.shown(reader.reader, trial.trial)
        return Response(status_code=204, headers=HEADERS)

    async def answer(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        reader = reader_of(request)
        if reader is None:
            return nothing()
        if wrong := _foreign(request.headers):
            return nothing(wrong, 403)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return nothing("too long", 413)
        try:
            sent = json.loads(body)
        except ValueError:
            return nothing("not JSON", 400)
        wrong = await run_in_threadpool(desk.answer, reader, sent)
        return nothing(wrong, 409) if wrong else JSONResponse(desk.state(reader), headers=HEADERS)

    def icon(request: Request) -> Response:
        return Response(status_code=204, headers=HEADERS)

    routes = [
        Route("/favicon.ico", icon),
        Route("/r/{token}/", for_readers(page)),
        Route("/r/{token}/page.js", for_readers(script)),
        Route("/r/{token}/page.css", for_readers(style)),
        Route("/r/{token}/state", for_readers(state)),
        Route("/r/{token}/shown", for_readers(shown), methods=["POST"]),
        Route("/r/{token}/answer", answer, methods=["POST"]),
        Route("/r/{token}/{picture}.png", for_readers(picture)),
    ]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost", *hosts], www_redirect=False)
    return Starlette(routes=routes, middleware=[trusted])


def _foreign(headers: Any, as_json: bool = True) -> str | None:
    """Why a POST does not come from our own page, or None: browsers say from where they send."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "from another site"
    origin = headers.get("origin")
    if origin and origin.partition("://")[2] != headers.get("host"):
        return "from another origin"
    if as_json and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "not JSON"
    return None


def links(study: Study, port: int) -> dict[str, str]:
    """Reader -> the link that opens this reader's page, and no other's."""
    return {reader.reader: f"http://{HOST}:{port}/r/{reader.token}/" for reader in study.readers}


def serve(
    folder: str | os.PathLike[str],
    port: int = 8765,
    hosts: Sequence[str] = (),
    ready: Callable[[dict[str, str]], None] | None = None,
) -> dict[str, Any]:
    """Serve a study on 127.0.0.1 until SIGINT or SIGTERM; `ready` is called with the readers' links once it listens.

    `port` 0 takes a free one. `hosts`: further host names that a tunnel or reverse proxy calls this server by. Returns
    the number of answers stored, a reader. Raises UserError for a folder that is no study, a port in use, or when the
    extra `study` is not installed.
    """
    study = read(folder)
    try:
        import uvicorn
    except ImportError:
        raise UserError("serving a study needs the extra `study`; run `pip install 'tigerdata[study]'`.") from None
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); give another --port.") from None
    answers = None
    try:
        answers = Answers(study.answers)
        desk = Desk(study, answers)
        # No access log: it would hold the links. Timeouts stay short, since a page asks little and often.
        settings = uvicorn.Config(
            app(desk, hosts), log_level="warning", access_log=False, server_header=False, lifespan="off",
            proxy_headers=False, ws="none", timeout_graceful_shutdown=3,
        )  # fmt: skip
        server = uvicorn.Server(settings)
        with _stopped_by_signals(server):
            if ready:
                ready(links(study, listening.getsockname()[1]))
            server.run(sockets=[listening])
        return {r.reader: {"answers": desk.current(r)[0], "of": len(r.trials)} for r in study.readers}
    finally:
        listening.close()
        if answers:
            answers.close()


@contextmanager
def _stopped_by_signals(server: Any) -> Iterator[None]:
    """Let SIGINT and SIGTERM end a server as its natural end, from before it runs until after it has shut down.

    uvicorn catches them only while it runs, and raises them again afterwards; a handler that sets a flag, as opposed to
    one that raises, loses none on the way.
    """

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    # Only the main thread may set handlers, and only there uvicorn catches signals at all.
    main = threading.current_thread() is threading.main_thread()
    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _is_time(ms: Any) -> TypeGuard[int]:
    return type(ms) is int and 0 <= ms <= MAX_MS


def _asset(name: str) -> str:
    return files("tigergen.study").joinpath(name).read_text(encoding="utf-8")
