"""Published weights from a hub on this machine: whole, broken, wrong, silent, elsewhere."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors
import torch

from models.api import ModelError
from models.bundle import default_bundle_folder
from models.encoders.cbramod import Config, Encoder, load_cbramod
from models.hub import ABOUT, PUBLISHED, WEIGHTS, Published, fetch, user_folder

FILE = "pretrained_weights.pth"


@pytest.fixture(scope="module")
def official():
    """A file like the official one, whose weights are drawn: the 211 tensors of the published network."""
    torch.manual_seed(11)
    state = Encoder(Config()).state_dict()
    return state, saved(state)


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def published(content: bytes) -> Published:
    return Published(
        repository="someone/CBraMod", file=FILE, size=len(content), sha256=hashlib.sha256(content).hexdigest(),
        licence="Apache-2.0", citation="Wang et al.",
    )  # fmt: skip


@contextmanager
def hub(monkeypatch, answer):
    """A hub at which ``answer(request)`` serves; yields the list of what was asked: (path, Range)."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Range"]))
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve(request, content, *, sent=None, status=200, length=None):
    """Answers with ``content``, of which only the first ``sent`` bytes really go out."""
    request.send_response(status)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    request.end_headers()
    request.wfile.write(content[:sent])
    request.close_connection = True


def refusal(folder, what, **more) -> str:
    with pytest.raises(ModelError) as caught:
        fetch("cbramod", folder, published=what, **more)
    text = str(caught.value)
    assert "\n" not in text
    assert not (folder / WEIGHTS).exists()
    return text


def test_the_weights_are_fetched_checked_converted_and_load_strictly(official, monkeypatch, tmp_path):
    state, content = official
    heard = []
    with hub(monkeypatch, lambda request: serve(request, content)) as asked:
        path = fetch("cbramod", tmp_path, published=published(content), progress=lambda *at: heard.append(at))
        assert fetch("cbramod", tmp_path, published=published(content)) == path  # there already: nobody is asked
    assert asked == [(f"/someone/CBraMod/resolve/main/{FILE}", None)]
    assert heard[-1] == (len(content), len(content))
    loaded = load_cbramod(path)
    assert len(loaded) == 211
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    Encoder(Config()).load_state_dict(loaded, strict=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([WEIGHTS, ABOUT])
    said = (tmp_path / ABOUT).read_text()
    assert "Apache-2.0" in said
    assert "https://huggingface.co/someone/CBraMod" in said
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["licence"] == "Apache-2.0"


def test_what_is_known_of_the_official_file_is_what_its_hub_says():
    official = PUBLISHED["cbramod"]
    assert (official.repository, official.file) == ("weighting666/CBraMod", "pretrained_weights.pth")
    assert official.size == 19_775_842
    assert official.sha256 == "0792cb808c14e6b7a2bb2ce1dff379bc47bc54c49a779825bdfeb33bf8157178"


def test_a_hub_that_sends_to_another_address_is_followed(official, monkeypatch, tmp_path):
    _, content = official

    def answer(request):
        if request.path == "/elsewhere":
            serve(request, content)
            return
        request.send_response(302)
        request.send_header("Location", "/elsewhere")
        request.end_headers()

    with hub(monkeypatch, answer) as asked:
        fetch("cbramod", tmp_path, published=published(content))
    assert [path for path, _ in asked][1:] == ["/elsewhere"]


def test_a_download_that_ends_early_is_said_and_gone_on_with(official, monkeypatch, tmp_path):
    _, content = official
    what = published(content)
    with hub(monkeypatch, lambda request: serve(request, content, sent=700_000)):
        said = refusal(tmp_path, what)
    assert f"ended after 700000 of {len(content)} bytes; run it again to go on" in said

    def rest(request):
        begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - begin))
        request.end_headers()
        request.wfile.write(content[begin:])

    with hub(monkeypatch, rest) as asked:
        fetch("cbramod", tmp_path, published=what)
    assert asked[0][1] == "bytes=700000-"
    assert len(load_cbramod(tmp_path / WEIGHTS)) == 211


def test_a_hub_that_cannot_go_on_begins_anew(official, monkeypatch, tmp_path):
    _, content = official
    (tmp_path / f"{FILE}.part").write_bytes(b"x" * 1000)
    with hub(monkeypatch, lambda request: serve(request, content)):
        fetch("cbramod", tmp_path, published=published(content))


def test_a_download_that_stalls_is_given_up(official, monkeypatch, tmp_path):
    _, content = official
    ended = threading.Event()

    def answer(request):
        serve(request, content, sent=5000)
        request.wfile.flush()
        ended.wait(20)

    with hub(monkeypatch, answer):
        said = refusal(tmp_path, published(content), stalled=0.3)
        ended.set()
    assert f"broke off at 5000 of {len(content)} bytes (nothing came for 0.3 s); run it again to go on" in said


def test_another_file_is_never_used(official, monkeypatch, tmp_path):
    _, content = official
    other = bytearray(content)
    other[len(other) // 2] ^= 1
    with hub(monkeypatch, lambda request: serve(request, bytes(other))):
        said = refusal(tmp_path, published(content))
    assert "SHA-256 is " in said
    assert "it is not used" in said
    assert list(tmp_path.iterdir()) == []  # the next attempt begins anew


@pytest.mark.parametrize("size", [100, 10_000_000_000])
def test_a_file_of_another_size_is_not_even_downloaded(official, monkeypatch, tmp_path, size):
    _, content = official
    with hub(monkeypatch, lambda request: serve(request, b"", length=size)):
        said = refusal(tmp_path, published(content))
    assert f"{size} bytes are offered, {len(content)} expected" in said


def test_an_endless_answer_is_not_read_beyond_the_size(official, monkeypatch, tmp_path):
    _, content = official

    def answer(request):
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(1 << 20))
        except OSError:
            request.close_connection = True

    with hub(monkeypatch, answer):
        assert "SHA-256 is" in refusal(tmp_path, published(content))


@pytest.mark.parametrize(("status", "said"), [(404, "the answer was 404 Not Found"), (503, "the answer was 503")])
def test_a_hub_that_refuses_is_quoted_and_the_way_by_hand_is_said(official, monkeypatch, tmp_path, status, said):
    _, content = official
    with hub(monkeypatch, lambda request: serve(request, b"", status=status)):
        text = refusal(tmp_path, published(content))
    assert said in text
    assert f"put it at {tmp_path / FILE} and run this again" in text


def test_without_a_network_one_line_says_how_to_place_the_file_and_placed_it_is_taken(official, monkeypatch, tmp_path):
    state, content = official
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    text = refusal(tmp_path, published(content))
    assert "cannot be reached" in text
    assert f"download it elsewhere, put it at {tmp_path / FILE} and run this again" in text
    (tmp_path / FILE).write_bytes(content)
    loaded = load_cbramod(fetch("cbramod", tmp_path, published=published(content)))
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_wrong_file_placed_by_hand_is_named_and_left_alone(official, tmp_path):
    _, content = official
    (tmp_path / FILE).write_bytes(b"<html>")
    assert f"{tmp_path / FILE}: has 6 bytes, the published file {len(content)}" in refusal(tmp_path, published(content))
    assert (tmp_path / FILE).read_bytes() == b"<html>"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("proj_out.0.bias"), "'proj_out.0.bias' is missing, expected (200,) of the 211"),
        (lambda state: state.update(extra=torch.zeros(1)), "'extra' is (1,), expected no such tensor"),
        (lambda state: state.update({"proj_out.0.bias": torch.zeros(7)}), "'proj_out.0.bias' is (7,), expected (200,)"),
    ],
)
def test_a_file_of_other_tensors_is_refused(official, tmp_path, change, said):
    state = dict(official[0])
    change(state)
    content = saved(state)
    (tmp_path / FILE).write_bytes(content)
    assert said in refusal(tmp_path, published(content))


def test_weights_that_are_none_are_refused_when_they_are_loaded(official, tmp_path):
    state, _ = official
    for content, said in ((b"", "not safetensors"), (b"\xff" * 100, "not safetensors")):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(ModelError, match=said):
            load_cbramod(tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match="run `insula models fetch cbramod`"):
        load_cbramod(tmp_path / "nowhere")
    spoilt = {name: value.clone() for name, value in state.items()}
    spoilt["proj_out.0.bias"][3] = np.nan
    (tmp_path / WEIGHTS).write_bytes(safetensors.torch.save(spoilt))
    with pytest.raises(ModelError, match=r"proj_out.0.bias holds .* not all finite"):
        load_cbramod(tmp_path / WEIGHTS)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written .*; name another with --to"):
        fetch("cbramod", tmp_path / "file" / "below")


def test_an_address_that_is_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "expected an address that begins with https://" in refusal(tmp_path, PUBLISHED["cbramod"])
    for broken in ("http://[x", f"http://{'a' * 70}.org"):
        monkeypatch.setenv("HF_ENDPOINT", broken)
        assert "leads to no address" in refusal(tmp_path, PUBLISHED["cbramod"])


def command(tmp_path, *arguments, status=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "insula", "models", *arguments],
        capture_output=True, text=True, check=False, timeout=170,
        env=os.environ | {"INSULA_HOME": str(tmp_path), "no_proxy": "127.0.0.1"} | environment,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_lists_bundles_and_encoders_and_what_is_fetched(bundle, official, tmp_path):
    said = command(tmp_path)
    assert "insula-arousal" in said
    assert "cbramod: CBraMod" in said
    assert "`insula models fetch cbramod`" in said
    assert "eegnet: EEGNet" in said
    own, weights = tmp_path / "models" / "mine", tmp_path / "models" / "cbramod"
    own.mkdir(parents=True)
    weights.mkdir()
    for path in bundle.folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    (weights / WEIGHTS).write_bytes(safetensors.torch.save(official[0]))
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "manifest.json").write_text("{")
    said = command(tmp_path)
    assert f"{bundle.label}: arousal, effort from 6 x EEG, 1 x ECG, 4 s at 200 Hz\n    {own}; " in said
    assert f"published weights: {weights / WEIGHTS}" in said
    assert "broken/manifest.json: not JSON" in said


def test_the_command_offline_and_with_an_unknown_name_answers_in_one_line(tmp_path):
    said = command(
        tmp_path, "fetch", "cbramod", "--to", str(tmp_path / "here"), status=2, HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert said.count("\n") == 1
    assert f"put it at {tmp_path / 'here' / FILE}" in said
    assert "known are cbramod" in command(tmp_path, "fetch", "bert", status=2)


def test_what_is_fetched_lies_where_the_system_keeps_a_users_data(monkeypatch, tmp_path):
    monkeypatch.delenv("INSULA_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert user_folder() == tmp_path / "insula"
    monkeypatch.setenv("INSULA_HOME", str(tmp_path / "own"))
    assert user_folder() == tmp_path / "own"
    assert default_bundle_folder().is_dir()
