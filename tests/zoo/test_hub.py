"""Models on a hub: found, fetched, cached, checked, shared; and what happens when that fails."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils._http import close_session
from werkzeug import Response

from muzero_agent import MuZero, zoo
from muzero_agent.zoo import hub as zoo_hub
from muzero_agent.zoo.files import MOST_BYTES

from .files import rewrite, seal
from .hub_server import Fault, Hub, serving

REPO = "arcade/muzero-tiny"
CARD = zoo.Card(
    name="muzero-tiny",
    env="CartPole-v1",
    training_steps=30,
    training_seconds=0.5,
    seed=0,
    command="muzero-agent train CartPole-v1",
    versions={"torch": "2"},
    licence="MIT",
    evaluations=[
        zoo.Evaluation(
            metric="mean return", mean=9.5, std=0.5, episodes=20, seed=1, num_simulations=4
        ),
        zoo.Evaluation(
            metric="points of a game",
            mean=0.75,
            std=0.4,
            interval=(0.7, 0.8),
            episodes=200,
            seed=1,
            num_simulations=4,
            opponent="random",
            by_rules=True,
        ),
    ],
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "num_simulations": 3, "seed": 0}
    return zoo.save(
        MuZero("MlpPolicy", "CartPole-v1", **small), tmp_path_factory.mktemp("hub") / "tiny", CARD
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    for memory in (server.repos, server.faults, server.requests, server.stored):
        memory.clear()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    # The server speaks Git LFS for large files, not the protocol of the hub's newer storage.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server


def whole_files(cache: Path) -> list[Path]:
    """What the cache holds besides its bookkeeping."""
    return [
        path
        for path in cache.rglob("*")
        if path.is_file() and ("blobs" in path.parts or "snapshots" in path.parts)
    ]


def answer(content: bytes) -> Callable[[Response], Response]:
    """The file's content in place of what it is, of the length that was told."""
    return lambda _: Response(content, headers={"Content-Type": "application/octet-stream"})


def status(code: int) -> Callable[[Response], Response]:
    return lambda _: Response(status=code)


# -- what works ------------------------------------------------------------------------------------


def test_a_model_is_fetched_once(
    hub: Hub, directory: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = hub.publish(REPO, directory)
    with caplog.at_level(logging.INFO, "muzero_agent.zoo"):
        model = zoo.load(REPO, revision=commit, num_simulations=7)
    assert model.num_simulations == 7
    assert f"{REPO} on the hub at commit {commit}" in caplog.text
    fetched = [request for request in hub.requests if request.startswith("GET")]
    assert len(fetched) == len(set(fetched)) == 4  # manifest, config, card and weights
    hub.requests.clear()
    assert zoo.card(f"{REPO}@{commit}") == CARD
    zoo.verify(REPO, revision=commit)
    assert hub.requests == []
    assert not list(cache.rglob("*.incomplete"))


def test_without_the_hub_the_cache_serves(
    hub: Hub, directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = hub.publish(REPO, directory)
    with pytest.raises(zoo.ModelNotFoundError, match="not in the cache"):
        zoo.load(REPO, revision=commit, local_files_only=True)
    assert hub.requests == []
    elsewhere = tmp_path / "elsewhere"
    zoo.load(REPO, revision=commit, cache_dir=elsewhere)
    hub.requests.clear()
    zoo.load(REPO, revision=commit, cache_dir=elsewhere, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    zoo.load(REPO, revision=commit, cache_dir=elsewhere)
    with pytest.raises(zoo.ModelNotFoundError, match="not in the cache"):
        zoo.load(REPO, revision=commit)
    assert hub.requests == []


def test_the_cache_is_a_directory_like_others(hub: Hub, directory: Path, cache: Path) -> None:
    commit = hub.publish(REPO, directory)
    zoo.load(REPO, revision=commit)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    zoo.load(snapshot)


def test_a_revision_is_a_commit(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)
    with pytest.raises(ValueError, match=f"hash of a commit.*main is {commit} now"):
        zoo.load(REPO)
    for revision in ("main", commit[:7]):
        with pytest.raises(ValueError, match=f"hash of a commit.*such as {revision}"):
            zoo.load(REPO, revision=revision)
    with pytest.raises(ValueError, match="give one of the two"):
        zoo.load(f"{REPO}@{commit}", revision="0" * 40)


def test_commits_stand_apart(hub: Hub, directory: Path, tmp_path: Path) -> None:
    first = hub.publish(REPO, directory)
    other = MuZero("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=1)
    second = hub.publish(REPO, zoo.save(other, tmp_path / "other"))
    assert zoo.load(REPO, revision=first).num_simulations == 3
    assert zoo.load(REPO, revision=second).num_simulations == other.num_simulations
    with pytest.raises(zoo.ModelNotFoundError, match=r"has no card\.json"):
        zoo.card(REPO, revision=second)


def test_what_was_pushed_can_be_loaded(hub: Hub, directory: Path, tmp_path: Path) -> None:
    (directory / "thesis.tex").write_text("years of work")
    try:
        commit = zoo.push(directory, REPO, token="hf_none")
    finally:
        (directory / "thesis.tex").unlink()
    names = {"README.md", "card.json", "config.json", "manifest.json", "model.safetensors"}
    assert hub.repos[REPO][commit].keys() == names
    assert zoo.card(REPO, revision=commit) == CARD
    zoo.load(REPO, revision=commit)
    copy = zoo.export(f"{REPO}@{commit}", tmp_path / "copy")
    for name in names:
        assert (copy / name).read_bytes() == (directory / name).read_bytes()
    again = zoo.push(copy, REPO, token="hf_none")
    assert again != commit


def test_nothing_damaged_is_pushed(hub: Hub, directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(zoo.DamagedModelError):
        zoo.push(tmp_path / "damaged", REPO, token="hf_none")
    with pytest.raises(ValueError, match="give org/name"):
        zoo.push(directory, "no-organisation", token="hf_none")
    assert hub.requests == []


def test_hubs_read_the_card(directory: Path) -> None:
    """`huggingface_hub`'s own reader finds the results."""
    data = ModelCard.load(directory / "README.md").data
    assert (data.library_name, data.license) == ("muzero-agent", "mit")
    assert "CartPole-v1" in (data.tags or [])
    assert data.eval_results is not None
    first, second = data.eval_results
    assert (first.metric_type, first.metric_value) == ("mean_reward", "9.50 +/- 0.50")
    assert second.metric_name == "points of a game, by the rules, against random"
    assert data.model_name == "muzero-tiny"


# -- what fails ------------------------------------------------------------------------------------


def test_what_the_hub_does_not_have(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)
    nowhere = "0" * 40
    with pytest.raises(zoo.ModelNotFoundError, match="arcade/none"):
        zoo.load("arcade/none", revision=nowhere)
    with pytest.raises(zoo.ModelNotFoundError, match=nowhere):
        zoo.load(REPO, revision=nowhere)
    files = hub.repos[REPO][commit]
    for name in ("model.safetensors", "config.json", "manifest.json"):
        lacking = hub.commit(REPO, {key: files[key] for key in files.keys() - {name}})
        with pytest.raises(zoo.ModelNotFoundError, match=re.escape(name)):
            zoo.load(REPO, revision=lacking)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
@pytest.mark.parametrize("code", [403, 404, 500])
def test_errors_of_the_hub(
    hub: Hub, directory: Path, cache: Path, method: str, name: str, code: int
) -> None:
    commit = hub.publish(REPO, directory)
    hub.faults.append(Fault(name, method, status(code)))
    with pytest.raises((zoo.HubError, zoo.ModelNotFoundError), match=f"{commit}: {name}"):
        zoo.load(REPO, revision=commit)
    assert {path.name for path in whole_files(cache)} & {name} == set()
    hub.faults.clear()
    zoo.load(REPO, revision=commit)


def test_no_hub_at_all(
    hub: Hub, directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish(REPO, directory)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(zoo.HubError, match=r"manifest\.json"):
        zoo.load(REPO, revision=commit)
    with pytest.raises(ValueError, match="hash of a commit"):
        zoo.load(REPO)
    assert not whole_files(cache)


@pytest.mark.parametrize("name", ["config.json", "card.json", "model.safetensors"])
def test_a_file_of_another_content(hub: Hub, directory: Path, cache: Path, name: str) -> None:
    """Of the same length, so that only its hash tells."""
    commit = hub.publish(REPO, directory)
    content = hub.repos[REPO][commit][name]
    false = bytes([content[0] ^ 1]) + content[1:]
    method = "LARGE" if name == "model.safetensors" else "GET"
    hub.faults.append(Fault(name, method, answer(false)))
    with pytest.raises(zoo.DamagedModelError, match=re.escape(name)):
        zoo.load(REPO, revision=commit)
    assert false not in [path.read_bytes() for path in whole_files(cache)]
    hub.faults.clear()
    zoo.load(REPO, revision=commit)  # the false one was not kept


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "model.safetensors"])
def test_a_body_that_is_cut_short(hub: Hub, directory: Path, cache: Path, name: str) -> None:
    commit = hub.publish(REPO, directory)
    content = hub.repos[REPO][commit][name]
    method = "LARGE" if name == "model.safetensors" else "GET"
    hub.faults.append(Fault(name, method, answer(content[: len(content) // 2])))
    with pytest.raises(zoo.HubError, match=rf"{re.escape(name)}.*should be of size"):
        zoo.load(REPO, revision=commit)
    assert not list(cache.rglob("*.incomplete"))
    assert content[: len(content) // 2] not in [path.read_bytes() for path in whole_files(cache)]
    hub.faults.clear()
    zoo.load(REPO, revision=commit)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "model.safetensors"])
def test_a_body_without_end(
    hub: Hub, directory: Path, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More comes than was told: it is not written."""
    monkeypatch.setitem(MOST_BYTES, "manifest.json", 2000)
    commit = hub.publish(REPO, directory)
    content = hub.repos[REPO][commit][name]
    method = "LARGE" if name == "model.safetensors" else "GET"
    hub.faults.append(Fault(name, method, answer(content + bytes(1 << 20))))
    with pytest.raises(zoo.HubError, match="sends more than"):
        zoo.load(REPO, revision=commit)
    assert max([path.stat().st_size for path in whole_files(cache)], default=0) <= 2000
    hub.faults.clear()
    zoo.load(REPO, revision=commit)


def test_complaints_of_a_hub_are_made_harmless(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)

    def colourful(response: Response) -> Response:
        headers = {"X-Error-Message": "no\u009b2J", "X-Error-Code": "EntryNotFound"}
        return Response(status=404, headers=headers)

    hub.faults.append(Fault("manifest.json", "HEAD", colourful))
    with pytest.raises(zoo.ModelNotFoundError) as caught:
        zoo.load(REPO, revision=commit)
    assert str(caught.value).isprintable()


def test_what_is_too_large_is_not_fetched(hub: Hub, directory: Path, cache: Path) -> None:
    commit = hub.publish(REPO, directory)

    def terabytes(response: Response) -> Response:
        response.headers["X-Linked-Size"] = str(1 << 42)
        return response

    hub.faults.append(Fault("model.safetensors", "HEAD", terabytes))
    with pytest.raises(zoo.DamagedModelError, match="was not fetched"):
        zoo.load(REPO, revision=commit)
    hub.faults.append(Fault("manifest.json", "HEAD", terabytes))
    shutil.rmtree(cache)
    with pytest.raises(zoo.DamagedModelError, match="was not fetched"):
        zoo.load(REPO, revision=commit)
    assert not [request for request in hub.requests if "GET /large" in request]


def test_a_manifest_is_not_followed_elsewhere(hub: Hub, directory: Path, cache: Path) -> None:
    commit = hub.publish(REPO, directory)
    with serving() as other:
        for name in ("manifest.json", "config.json"):

            def elsewhere(response: Response, name: str = name) -> Response:
                response.status_code = 302
                response.headers["Location"] = f"{other.url}/{name}"
                response.headers["X-Linked-Size"] = str(len(hub.repos[REPO][commit][name]))
                return response

            hub.faults.append(Fault(name, "HEAD", elsewhere))
            with pytest.raises(zoo.HubError, match="is redirected to"):
                zoo.load(REPO, revision=commit)
            hub.faults.clear()
        assert other.requests == []
    zoo.load(REPO, revision=commit)


@pytest.mark.parametrize("method", ["GET", "second HEAD"])
def test_no_later_answer_leads_elsewhere(hub: Hub, directory: Path, method: str) -> None:
    """`huggingface_hub` asks again, and would follow."""
    commit = hub.publish(REPO, directory)
    with serving() as other:
        there = other.publish(REPO, directory)
        for name in ("manifest.json", "config.json"):
            heads: list[str] = []

            def elsewhere(
                response: Response, name: str = name, heads: list[str] = heads
            ) -> Response:
                heads.append(name)
                if method == "second HEAD" and len(heads) == 1:
                    return response
                told = {
                    **response.headers,
                    "Location": f"{other.url}/{REPO}/resolve/{there}/{name}",
                }
                return Response(status=302, headers=told)

            hub.faults.append(Fault(name, method.split()[-1], elsewhere))
            with pytest.raises(zoo.HubError, match="is redirected to"):
                zoo.load(REPO, revision=commit)
            hub.faults.clear()
        assert other.requests == []
    zoo.load(REPO, revision=commit)


@pytest.mark.parametrize("times", [1, 2])
def test_an_etag_is_no_path(
    hub: Hub, directory: Path, cache: Path, tmp_path: Path, times: int
) -> None:
    """`huggingface_hub` names files in its cache by it: nothing is written or removed elsewhere."""
    commit = hub.publish(REPO, directory)
    (tmp_path / "home").mkdir()
    thesis = tmp_path / "home" / "thesis.tex"
    thesis.write_text("years of work")
    blobs = cache / "models--arcade--muzero-tiny" / "blobs"
    for target in (thesis, tmp_path / "home" / "new"):
        heads: list[int] = []

        def path(response: Response, target: Path = target, heads: list[int] = heads) -> Response:
            heads.append(1)
            if len(heads) >= times:
                response.headers["ETag"] = f'"{os.path.relpath(target, blobs)}"'
            return response

        hub.faults.append(Fault("manifest.json", "HEAD", path))
        with pytest.raises(zoo.HubError, match="an ETag that is none"):
            zoo.load(REPO, revision=commit)
        hub.faults.clear()
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["thesis.tex"]
    assert thesis.read_text() == "years of work"
    zoo.load(REPO, revision=commit)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_link_in_the_cache_is_no_way_to_remove_files(
    hub: Hub, directory: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    commit = hub.publish(REPO, directory)
    zoo.load(REPO, revision=commit)
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    (snapshot,) = cache.glob("models--*/snapshots/*")
    (snapshot / name).unlink()
    (snapshot / name).symlink_to(thesis)
    with pytest.raises(zoo.DamagedModelError, match="link out of its directory"):
        zoo.load(REPO, revision=commit)
    assert thesis.read_text() == "years of work"
    zoo.load(REPO, revision=commit)  # the link was removed


def test_weights_in_the_store_that_repositories_share(
    hub: Hub, directory: Path, cache: Path
) -> None:
    """There `huggingface_hub` puts what came by the hub's newer storage; a link leads to a link."""
    commit = hub.publish(REPO, directory)
    zoo.load(REPO, revision=commit)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    blob = (snapshot / "model.safetensors").resolve()
    shared = cache / "blobs" / "ab" / "abab"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    zoo.load(REPO, revision=commit, local_files_only=True)
    content = shared.read_bytes()
    shared.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(zoo.DamagedModelError, match="its hash differs"):
        zoo.load(REPO, revision=commit)
    assert not shared.exists()
    assert not blob.is_symlink()
    zoo.load(REPO, revision=commit)


def test_clients_that_are_made_later_are_looked_at(
    hub: Hub, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`huggingface_hub` makes a new one after a failure to connect."""
    commit = hub.publish(REPO, directory)
    check = zoo_hub._check_before

    def lose_the_client(*arguments: Any) -> None:
        check(*arguments)
        close_session()

    monkeypatch.setattr(zoo_hub, "_check_before", lose_the_client)
    heads: list[int] = []

    def path(response: Response) -> Response:
        heads.append(1)
        if len(heads) > 1:
            response.headers["ETag"] = '"../../../home/planted"'
        return response

    hub.faults.append(Fault("manifest.json", "HEAD", path))
    with pytest.raises(zoo.HubError, match="an ETag that is none"):
        zoo.load(REPO, revision=commit)
    hub.faults.clear()
    zoo.load(REPO, revision=commit)


def test_an_etag_of_a_failure_is_none_of_a_file(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)

    def missing(response: Response) -> Response:
        headers = {"X-Error-Code": "EntryNotFound", "ETag": 'W/"f-mY2V+lMTcc/AuQ"'}
        return Response(status=404, headers=headers)

    hub.faults.append(Fault("manifest.json", "HEAD", missing))
    with pytest.raises(zoo.ModelNotFoundError):
        zoo.load(REPO, revision=commit)


@pytest.mark.parametrize("name", ["size", "format_version"])
def test_a_manifest_that_rots_elsewhere(hub: Hub, directory: Path, cache: Path, name: str) -> None:
    commit = hub.publish(REPO, directory)
    zoo.card(REPO, revision=commit)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    manifest = (snapshot / "manifest.json").resolve()
    told = json.loads(manifest.read_text())
    if name == "size":
        told["files"]["model.safetensors"]["size"] += 1
    else:
        told["format_version"] = 9
    manifest.write_text(json.dumps(told))
    with pytest.raises(zoo.ModelError):
        zoo.load(REPO, revision=commit)
    zoo.load(REPO, revision=commit)


def test_a_manifest_that_rots_in_the_cache_is_fetched_again(
    hub: Hub, directory: Path, cache: Path
) -> None:
    commit = hub.publish(REPO, directory)
    zoo.load(REPO, revision=commit)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    manifest = (snapshot / "manifest.json").resolve()
    text = manifest.read_text()
    at = text.index('"sha256": "') + 12
    manifest.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    with pytest.raises(zoo.DamagedModelError, match="its hash differs"):
        zoo.load(REPO, revision=commit, local_files_only=True)
    assert manifest.exists()  # without the hub nothing is thrown away
    with pytest.raises(zoo.DamagedModelError, match="its hash differs"):
        zoo.load(REPO, revision=commit)
    zoo.load(REPO, revision=commit)


def test_a_card_is_fetched_without_the_weights(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)
    assert zoo.card(REPO, revision=commit) == CARD
    fetched = {request.rpartition("/")[2] for request in hub.requests if "GET" in request}
    assert fetched == {"manifest.json", "card.json"}


def test_weights_come_from_where_the_hub_keeps_them(hub: Hub, directory: Path) -> None:
    """Elsewhere; but what comes from there has to be what the manifest says."""
    commit = hub.publish(REPO, directory)
    with serving() as store:
        content = hub.repos[REPO][commit]["model.safetensors"]
        store.stored["kept"] = content

        def elsewhere(response: Response) -> Response:
            response.headers["Location"] = f"{store.url}/large/kept/x"
            return response

        hub.faults.append(Fault("model.safetensors", "HEAD", elsewhere))
        store.stored["kept"] = bytes([content[0] ^ 1]) + content[1:]
        with pytest.raises(zoo.DamagedModelError, match=r"model\.safetensors"):
            zoo.load(REPO, revision=commit)
        store.stored["kept"] = content
        zoo.load(REPO, revision=commit)
        assert store.requests


def test_another_commit_is_not_taken(hub: Hub, directory: Path) -> None:
    commit = hub.publish(REPO, directory)

    def other(response: Response) -> Response:
        response.headers["X-Repo-Commit"] = "1" * 40
        return response

    hub.faults.append(Fault("manifest.json", "HEAD", other))
    with pytest.raises(zoo.HubError, match=f"commit {'1' * 40}, not {commit}"):
        zoo.load(REPO, revision=commit)


def test_a_hub_that_is_slow(
    hub: Hub, directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish(REPO, directory)

    def late(response: Response) -> Response:
        time.sleep(0.5)
        return response

    hub.faults.append(Fault("manifest.json", "HEAD", late))
    hub.faults.append(Fault("model.safetensors", "LARGE", late))
    zoo.load(REPO, revision=commit)
    shutil.rmtree(cache)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    with pytest.raises(zoo.HubError, match=r"manifest\.json"):
        zoo.load(REPO, revision=commit)
    assert not whole_files(cache)


# -- the cache -------------------------------------------------------------------------------------


IN_A_PROCESS = """
import sys
import time
from muzero_agent import zoo
try:
    zoo.load(sys.argv[1], revision=sys.argv[2])
except OSError as error:
    print(type(error).__name__, error)
"""


def start(commit: str, cache: Path, limit: str = "") -> subprocess.Popen[str]:
    """A process that loads the model."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", limit + IN_A_PROCESS, REPO, commit],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """What it says in the end: which error there was."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def test_two_processes_at_once(hub: Hub, directory: Path, cache: Path) -> None:
    def slowly(response: Response) -> Response:
        time.sleep(0.3)  # so that both fetch
        return response

    commit = hub.publish(REPO, directory)
    hub.faults += [Fault(name, "GET", slowly) for name in ("manifest.json", "config.json")]
    assert [said(process) for process in [start(commit, cache), start(commit, cache)]] == ["", ""]
    assert not list(cache.rglob("*.incomplete"))
    hub.requests.clear()
    zoo.load(REPO, revision=commit, cache_dir=cache)
    assert hub.requests == []


def test_a_cache_without_room(hub: Hub, directory: Path, cache: Path) -> None:
    commit = hub.publish(REPO, directory)
    # As on a full disk: no file may grow beyond this.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    complaint = said(start(commit, cache, limit))
    assert complaint.startswith("HubError")
    assert "too large" in complaint
    assert not list(cache.rglob("*.incomplete"))
    assert said(start(commit, cache)) == ""


def test_a_cache_that_may_be_read_alone(hub: Hub, directory: Path, tmp_path: Path) -> None:
    commit = hub.publish(REPO, directory)
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, where directories cannot be made")
    assert said(start(commit, occupied / "cache")).startswith("HubError")
    full = tmp_path / "full"
    zoo.load(REPO, revision=commit, cache_dir=full)
    for path in full.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert said(start(commit, full)) == ""
    finally:
        for path in full.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


# -- what somebody might put there -----------------------------------------------------------------


def test_names_that_lead_elsewhere(hub: Hub, directory: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "evil")
    entry = {"sha256": "0" * 64, "size": 1}
    for name in ("../../../escaped", "/tmp/escaped", "config.json/../x", "model.pkl"):
        rewrite(
            tmp_path / "evil" / "manifest.json",
            lambda m, name=name: m.update(files=m["files"] | {name: entry}),  # type: ignore[misc]
        )
        commit = hub.publish(REPO, tmp_path / "evil")
        with pytest.raises(zoo.DamagedModelError, match=r"manifest\.json: files"):
            zoo.load(REPO, revision=commit)
        seal(tmp_path / "evil")
    assert {path.name for path in whole_files(cache) if "snapshots" in path.parts} == set()
    assert not [request for request in hub.requests if "escaped" in request or "pkl" in request]


@pytest.mark.parametrize("name", ["../x", "x/../y", "x/y/z", "-x/y", "x//y", "x/y@", ".x/y"])
def test_names_that_name_no_repository(hub: Hub, name: str) -> None:
    with pytest.raises((zoo.ModelNotFoundError, ValueError)) as caught:
        zoo.load(name, revision="0" * 40)
    assert type(caught.value) in (zoo.ModelNotFoundError, ValueError)
    assert hub.requests == []
