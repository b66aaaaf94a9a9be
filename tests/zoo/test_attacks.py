"""What somebody might put into a model directory to run code, read files or fill memory.

Each gives an error with a name, runs nothing, and leaves everything as it was.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from muzero_agent import MuZero, zoo
from muzero_agent.zoo import loader

from .files import rewrite, seal

WHOLE = Path(__file__).parent / "formats" / "2"


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where the attacks leave a trace if anything of them is run."""
    path = tmp_path / "was run"
    yield path
    assert not path.exists()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    """A directory to change; nothing but the test may change it, or write beside it."""
    beside = tmp_path / "here"
    shutil.copytree(WHOLE, beside / "model")
    yield beside / "model"
    assert [path.name for path in beside.iterdir()] == ["model"]


def refuse(model: str | Path, error: type[Exception], match: str) -> None:
    """Neither loaded nor verified nor copied."""
    before = {path: path.lstat().st_mtime_ns for path in Path(model).rglob("*")}
    for attempt in (zoo.load, zoo.verify):
        with pytest.raises(error, match=match):
            attempt(model)
    copy = Path(model).parents[1] / "copy"
    with pytest.raises(error, match=match):
        zoo.export(model, copy)
    assert not copy.exists()
    assert {path: path.lstat().st_mtime_ns for path in Path(model).rglob("*")} == before


def test_the_directory_itself_is_sound(model: Path) -> None:
    assert len(zoo.verify(model)) == 4


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_byte_that_was_changed(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    refuse(model, zoo.DamagedModelError, name)


def test_a_card_that_was_changed(model: Path) -> None:
    card = model / "card.json"
    card.write_text(card.read_text().replace("9.5", "500"))
    with pytest.raises(zoo.DamagedModelError, match=r"card\.json"):
        zoo.card(model)
    with pytest.raises(zoo.DamagedModelError, match=r"card\.json"):
        zoo.verify(model)
    (model / "README.md").write_text("# The best model")
    seal(model)
    (model / "README.md").write_text("# The very best model")
    with pytest.raises(zoo.DamagedModelError, match=r"README\.md"):
        zoo.verify(model)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["files"].pop("model.safetensors"), "not in manifest"),
        (lambda m: m["files"].pop("config.json"), "not in manifest"),
        (lambda m: m["files"]["config.json"].update(sha256="0" * 64), "config.json is not"),
        (lambda m: m["files"]["model.safetensors"].update(size=7), "in place of 7"),
        (lambda m: m["files"]["model.safetensors"].update(size=1 << 42), "size"),
        (lambda m: m["files"]["model.safetensors"].update(size=-1), "size"),
        (lambda m: m["files"]["model.safetensors"].update(sha256="x"), "sha256"),
        (lambda m: m["files"].update({"../../x": {"sha256": "0" * 64, "size": 1}}), "files"),
        (lambda m: m["files"].update({"/etc/passwd": {"sha256": "0" * 64, "size": 1}}), "files"),
        (lambda m: m["files"].update({"x.pkl": {"sha256": "0" * 64, "size": 1}}), "files"),
        (lambda m: m.update(files=[]), "files"),
        (lambda m: m.update(signature="trust me"), "signature"),
        (lambda m: m.update(format_version=1), "format_version"),
    ],
)
def test_a_manifest_that_is_wrong(model: Path, change: Any, complaint: str) -> None:
    rewrite(model / "manifest.json", change)
    refuse(model, zoo.DamagedModelError, complaint)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 60_000, b"1" * 60_000])
def test_a_manifest_that_is_none(model: Path, content: bytes) -> None:
    (model / "manifest.json").write_bytes(content)
    refuse(model, zoo.DamagedModelError, r"manifest\.json")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json", "manifest.json"])
def test_a_pickle_under_another_name(model: Path, mark: Path, name: str) -> None:
    content = pickle.dumps(Bomb(mark))
    (model / name).write_bytes(content)
    if name != "manifest.json":
        seal(model)
    with pytest.raises(zoo.DamagedModelError, match=name):
        zoo.verify(model)


def test_a_checkpoint_of_torch_under_another_name(model: Path, mark: Path) -> None:
    torch.save({"weights": Bomb(mark)}, model / "model.safetensors")
    seal(model)
    refuse(model, zoo.DamagedModelError, "no safetensors file")


@pytest.mark.parametrize("length", [1 << 42, (1 << 64) - 1, 100_000_001])
def test_a_header_that_claims_terabytes(model: Path, length: int) -> None:
    (model / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    seal(model)
    tracemalloc.start()
    refuse(model, zoo.DamagedModelError, "no safetensors file")
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_tensor_that_claims_terabytes(model: Path) -> None:
    header = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    seal(model)
    refuse(model, zoo.DamagedModelError, "no safetensors file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(model: Path, value: float) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][0, 0] = value
    save_file(tensors, model / "model.safetensors")
    seal(model)
    refuse(model, zoo.DamagedModelError, "not finite")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("activation_fn", "os.system"),
        ("activation_fn", "torch.nn.ReLU"),
        ("features_extractor_class", "stable_baselines3.common.torch_layers.NatureCNN"),
        ("net_arch", {"__class__": "os.system"}),
        ("optimizer_class", "torch.optim.SGD"),
    ],
)
def test_a_class_by_its_import_path(model: Path, where: str, value: Any) -> None:
    rewrite(model / "config.json", lambda c: c["policy_kwargs"].update({where: value}))
    refuse(model, zoo.DamagedModelError, "config.json")


@pytest.mark.parametrize("key", ["policy", "algorithm"])
def test_a_policy_by_its_import_path(model: Path, key: str) -> None:
    rewrite(model / "config.json", lambda c: c.update({key: "subprocess.Popen"}))
    refuse(model, zoo.DamagedModelError, key)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_links_out_of_the_directory(model: Path, tmp_path: Path, name: str) -> None:
    """Even to the very file: a link might lead to a device, or to what nobody else may read."""
    (tmp_path / "secret").write_bytes((model / name).read_bytes())
    (model / name).unlink()
    (model / name).symlink_to(tmp_path / "secret")
    refuse(model, zoo.DamagedModelError, "link out of its directory")


def test_links_to_devices_and_to_nowhere(model: Path) -> None:
    for target in ("/dev/zero", "/nowhere", "model.safetensors"):
        (model / "model.safetensors").unlink()
        (model / "model.safetensors").symlink_to(target)
        refuse(model, zoo.ModelNotFoundError, r"has no model\.safetensors")


def test_a_link_within_the_directory_is_followed(model: Path) -> None:
    (model / "config.json").rename(model / "settings")
    (model / "config.json").symlink_to("settings")
    zoo.load(model)


def test_a_cache_s_layout_gives_no_way_out(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    shutil.copytree(model, snapshot)
    (tmp_path / "secret").write_bytes((model / "config.json").read_bytes())
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../secret")
    with pytest.raises(zoo.DamagedModelError, match="link out of its directory"):
        zoo.load(snapshot)


def test_a_zip_needs_trust(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", pickle.dumps(Bomb(mark)))
    for attempt in (zoo.load, zoo.verify, zoo.card):
        with pytest.raises(zoo.UntrustedModelError, match="trust=True"):
            attempt(path)
    sound = tmp_path / "sound.zip"
    MuZero("MlpPolicy", "CartPole-v1", num_simulations=3).save(sound)
    with pytest.raises(zoo.UntrustedModelError, match="trust=True"):
        zoo.load(str(sound))
    model = zoo.load(sound, trust=True, num_simulations=5, env="CartPole-v1")
    assert model.num_simulations == 5
    assert model.get_env() is not None


def test_a_zip_bomb(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """320 MiB of zeros in 1.4 MB, where 256 are the most: neither unpacked, nor taken for more."""
    monkeypatch.setattr(loader, "MOST_UNZIPPED", 256 << 20)
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in range(5):
            with archive.open(f"{name}", "w", force_zip64=True) as file:
                for _ in range(4):
                    file.write(bytes(1 << 24))
    with pytest.raises(zoo.UntrustedModelError):
        zoo.load(path)
    with pytest.raises(zoo.DamagedModelError, match="unpacks to 335,544,320 bytes"):
        zoo.load(path, trust=True)
    shutil.copy(path, model / "model.safetensors")
    seal(model)
    refuse(model, zoo.DamagedModelError, "no safetensors file")
    (tmp_path / "none.zip").write_bytes(b"PK")
    with pytest.raises(zoo.DamagedModelError, match="no zip archive"):
        zoo.load(tmp_path / "none.zip", trust=True)


def test_what_else_lies_there_is_not_opened(model: Path, mark: Path) -> None:
    (model / "model.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    (model / "policy.pth").write_bytes(pickle.dumps(Bomb(mark)))
    zoo.load(model)
    zoo.verify(model)


@pytest.mark.parametrize("where", ["name", "notes", "command", "env"])
def test_what_a_terminal_would_act_on(model: Path, where: str) -> None:
    """Cards are printed; an escape sequence could hide or forge lines."""
    rewrite(model / "card.json", lambda c: c.update({where: "\x1b[2Jall is well"}))
    with pytest.raises(zoo.DamagedModelError, match=f"{where}: .*control characters"):
        zoo.card(model)


def test_complaints_quote_nothing_that_a_terminal_would_act_on(model: Path) -> None:
    rewrite(model / "card.json", lambda c: c.update({"\x1b[2Jx": 1, "\u202ey": 2}))
    with pytest.raises(zoo.DamagedModelError) as caught:
        zoo.card(model)
    assert str(caught.value).isprintable()
    rewrite(model / "config.json", lambda c: c.update(format_version="\x1b[2J"))
    with pytest.raises(zoo.UnsupportedModelError) as refused:
        zoo.load(model)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda c: c["observation_space"].update(type="B\x1b[2Jox")),
        ("config.json", lambda c: c["policy_kwargs"].update({"\x1b[2J": 1})),
        ("config.json", lambda c: c["arguments"].update(train_freq=[1, "\x1b[2J"])),
        ("config.json", lambda c: c["arguments"].update(learning_rate="\x1b[2J")),
        ("card.json", lambda c: c.update({"\x9b2J": 1})),
        ("manifest.json", lambda c: c["files"].update({"\x1b[2J": c["files"]["config.json"]})),
    ],
)
def test_no_complaint_holds_control_characters(model: Path, name: str, change: Any) -> None:
    rewrite(model / name, change)
    with pytest.raises(zoo.ModelError) as caught:
        zoo.verify(model)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "F6_E2M3", "\x1b[2J"])
def test_types_that_torch_does_not_know(model: Path, dtype: str) -> None:
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[next(key for key in header if key != "__metadata__")]["dtype"] = dtype
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    seal(model)
    with pytest.raises(zoo.DamagedModelError, match="no safetensors file") as caught:
        zoo.load(model)
    assert str(caught.value).isprintable()


def test_a_header_of_many_tensors(model: Path) -> None:
    """A million names take gigabytes once they are objects."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"x{i}": empty for i in range(30_000)}).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    seal(model)
    refuse(model, zoo.DamagedModelError, "its header is told to have")


def test_an_entry_that_is_there_twice(model: Path) -> None:
    path = model / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"num_timesteps"', '"num_timesteps": 1, "num_timesteps"'))
    seal(model)
    refuse(model, zoo.DamagedModelError, "'num_timesteps' is there twice")


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_simulations", 10**9), ("search", "nonsense"), ("normalize_images", "x")],
)
def test_settings_in_the_wrong_place(model: Path, name: str, value: Any) -> None:
    rewrite(model / "config.json", lambda c: c["policy_kwargs"].update({name: value}))
    refuse(model, zoo.DamagedModelError, name)


def test_a_variance_below_zero(model: Path) -> None:
    weights = model / "model.safetensors"
    tensors = load_file(weights)
    tensors["running_norm.var"] -= 10.0
    save_file(tensors, weights)
    seal(model)
    refuse(model, zoo.DamagedModelError, "a variance below 0")


def _put(card: dict[str, Any], told: dict[str, Any]) -> None:
    card["evaluations"] = [told]


def test_an_interval_that_does_not_hold_its_mean(model: Path) -> None:
    for interval in ([600.0, -5.0], [1e6, 2e6]):
        told = {
            "metric": "mean return", "mean": 9.0, "std": 1.0, "interval": interval, "episodes": 100,
            "seed": 0, "num_simulations": 4, "opponent": None, "by_rules": False,
        }  # fmt: skip
        rewrite(model / "card.json", partial(_put, told=told))
        with pytest.raises(zoo.DamagedModelError, match="not within its interval"):
            zoo.card(model)


def test_a_card_imports_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muzero_agent.evaluation import measure_again

    (tmp_path / "evilpkg.py").write_text("import os\nos.mkdir(os.environ['MARK'])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MARK", str(tmp_path / "was run"))
    card = zoo.card("acrobot")
    for env in ("evilpkg.mod", "evilpkg:env", "evilpkg:Env-v0"):
        with pytest.raises(ValueError, match="runs code of the module"):
            measure_again(
                zoo.load("acrobot"), card.model_copy(update={"env": env}), card.evaluations[0], 1
            )
    assert not (tmp_path / "was run").exists()


def test_a_readme_shows_markup_and_does_not_obey_it(tmp_path: Path) -> None:
    notes = "# Verified by the maintainers\n<script>alert(1)</script> ![x](http://evil/x.png)\n"
    notes += "[y]: http://evil/y.png\n![y]"
    card = zoo.card("acrobot").model_copy(update={"notes": notes, "name": "<b>x</b>"})
    text = (zoo.export("acrobot", tmp_path / "copy", card=card) / "README.md").read_text()
    body = text.split("---", 2)[2]
    assert "\n# Verified" not in body
    assert "<script>" not in body
    assert "<b>" not in body
    assert "![" not in body
    assert "> [" not in body
    assert "> #" not in body
