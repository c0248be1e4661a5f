"""The server: what a reader gets and what nobody gets; answers survive a kill."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tigergen.study.conftest import right_answer
from tigergen.study.answers import Answers
from tigergen.study.folder import Study

ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("uvicorn", reason="serving a study needs the extra `study`")


class Server:
    """The command `tigergen study serve` in a process of its own."""

    def __init__(self, study: Study, port: int = 0) -> None:
        words = ["tigergen", "study", "serve", str(study.path), "--port", str(port), "--json"]
        code = f"import sys, cli; sys.argv = {words!r}; cli.tigergen()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.links: dict[str, str] = {}
        assert self.process.stderr
        for line in self.process.stderr:
            if match := re.match(r"(\w\d+): (http\S+)", line):
                self.links[match[1]] = match[2]
            if line.startswith("Press"):
                break
        assert self.links, "the server did not start"
        self.port = int(re.findall(r":(\d+)/", next(iter(self.links.values())))[0])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """Signal the process and return what it printed."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[0]

    def call(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of a request; a body is posted as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json"} if body is not None else {}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST" if body is not None else "GET", path, content, named | given)
        reply = connection.getresponse()
        out = reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
        connection.close()
        return out


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    running = Server(study)
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGKILL)


def stored(study: Study) -> list[dict[str, Any]]:
    answers = Answers(study.answers)
    rows = answers.rows()
    answers.close()
    return rows


def test_what_a_reader_gets_and_nobody_else(study: Study, server: Server) -> None:
    reader = study.readers[0]
    base, trial = f"/r/{reader.token}/", reader.trials[0]
    status, headers, page = server.call(base)
    assert status == 200 and b"page.js" in page
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers and "server" not in headers

    status, _, state = server.call(base + "state")
    told = json.loads(state)
    assert set(told) == {"reader", "level", "done", "of", "task", "place", "places", "trial", "pictures", "words"}
    assert told["trial"] == trial.trial and told["pictures"] == list(trial.pictures) and told["words"] == []
    for secret in (*study.items, *study.questions, "augmented", "FTC", "repeat"):
        assert secret.encode() not in state + page

    status, headers, picture = server.call(base + f"{told['pictures'][0]}.png")
    assert status == 200 and picture == study.picture(next(iter(trial.pictures.values()))).read_bytes()
    own = {"content-security-policy", "cache-control", "cross-origin-opener-policy", "cross-origin-resource-policy",
           "referrer-policy", "x-content-type-options"}  # fmt: skip
    assert set(headers) == {"date", "content-length", "content-type", *own}, "no ETag, no Last-Modified, no file name"

    later, foreign = next(iter(reader.trials[1].pictures)), next(iter(study.readers[1].trials[0].pictures))
    item = next(iter(trial.pictures.values()))
    for path in (f"{base}{later}.png", f"{base}{foreign}.png", f"{base}{item}.png", f"{base}..%2f..%2fkey.json",
                 "/", "/r/", "/r/x/state", "/r//state", f"/r/{reader.token[:-1]}/"):  # fmt: skip
        assert server.call(path)[0] == 404, path
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert server.call(base + "state", Host=host)[0] == 400, "a name rebound to this machine reads nothing"
    assert server.call(base + "state", Host=f"localhost:{server.port}")[0] == 200


def test_answers_are_checked_final_and_taken_from_our_page_alone(study: Study, server: Server) -> None:
    reader = study.readers[1]
    path, trial = f"/r/{reader.token}/answer", reader.trials[0]
    good = {"trial": trial.trial, "answer": "real", "ms": 1200, "hidden_ms": 0}
    for origin in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Content_Type": "text/plain"}):
        assert server.call(path, good, **origin)[0] == 403
    wrong = [good | {"answer": "maybe"}, good | {"answer": [1]}, good | {"ms": -1}, good | {"ms": "1"},
             good | {"hidden_ms": None}, good | {"ms": True}, good | {"trial": reader.trials[1].trial},
             good | {"trial": study.readers[0].trials[0].trial}, [], "x"]  # fmt: skip
    for sent in wrong:
        assert server.call(path, sent)[0] == 409, sent
    assert server.call(path, b"{")[0] == 400 and server.call(path, b"1" * 9000)[0] == 413
    assert server.call(f"/r/{'x' * 32}/answer", good)[0] == 404
    assert stored(study) == []

    assert server.call(f"/r/{reader.token}/shown", {})[0] == 204
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec_Fetch_Site": "same-origin"}
    status, _, state = server.call(path, good, **own)
    assert status == 200 and json.loads(state)["trial"] == reader.trials[1].trial
    status, _, state = server.call(path, good | {"answer": "generated", "ms": 5})
    assert status == 200 and json.loads(state)["done"] == 1, "a reply that was lost is asked for again"
    (row,) = stored(study)
    assert (row["reader"], row["answer"], row["ms"], row["views"]) == (reader.reader, "real", 1200, 1)


def test_no_acknowledged_answer_is_lost_by_kills(study: Study) -> None:
    """SIGKILL right after each of three acknowledgements; the next server goes on where the last one was."""
    reader = study.readers[0]
    port = 0
    for k, trial in enumerate(reader.trials[:3]):
        server = Server(study, port)
        port = server.port
        sent = {"trial": trial.trial, "answer": right_answer(study, trial), "ms": 10 + k, "hidden_ms": k}
        assert server.call(f"/r/{reader.token}/answer", sent)[0] == 200
        server.stop(signal.SIGKILL)
    assert [(row["trial"], row["ms"], row["hidden_ms"]) for row in stored(study)] == [
        (trial.trial, 10 + k, k) for k, trial in enumerate(reader.trials[:3])
    ]
    for how in (signal.SIGINT, signal.SIGTERM):
        server = Server(study, port)
        assert json.loads(server.stop(how))["J1"] == {"answers": 3, "of": len(reader.trials)}
        assert server.process.returncode == 0


def test_a_port_in_use_is_one_sentence(study: Study, server: Server) -> None:
    code = f"import sys, cli; sys.argv = ['tigergen', 'study', 'serve', {str(study.path)!r}, '--port', "
    code += f"'{server.port}']; cli.tigergen()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1 and done.stderr.startswith(f"error: port {server.port} cannot be used")
