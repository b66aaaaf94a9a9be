"""The engine as a program: its start, its ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from muzero_agent.adapters.engines import uci
from muzero_agent.adapters.envs.chess import NUM_ACTIONS

HEAVY = ("numpy", "numba", "torch", "chess", "stable_baselines3", "gymnasium", "pydantic")
PROGRAM = [sys.executable, "-m", "muzero_agent.adapters.engines.uci", "--model"]


def start(model: Path, **kwargs: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [*PROGRAM, str(model)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


def ask(process: subprocess.Popen[bytes], said: bytes, answer: bytes) -> None:
    """Say this, and read up to the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(said)
    process.stdin.flush()
    while (line := process.stdout.readline()) != answer:
        assert line  # nothing: it ended


def test_the_greeting_comes_before_anything_heavy(model: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        from muzero_agent.adapters.engines.protocol import Writer
        from muzero_agent.adapters.engines.uci import UciEngine

        class Out:
            def write(self, data):
                if b"uciok" in data:
                    print([name for name in {HEAVY} if name in sys.modules])
            def flush(self):
                pass

        UciEngine(Writer(Out()), Path("unused")).command("uci")
        sys.stdout.flush()
        import os
        os._exit(0)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"


def test_a_position_is_told_before_anything_heavy() -> None:
    script = """
        import sys
        from pathlib import Path
        from muzero_agent.adapters.engines.protocol import Writer
        from muzero_agent.adapters.engines.uci import UciEngine

        engine = UciEngine(Writer(), Path("unused"))
        engine.command("position startpos moves e2e4")
        engine.command("d")
        print([name for name in ("torch", "numba", "stable_baselines3") if name in sys.modules])
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_hash_bounds_the_memory(model: Path) -> None:
    """Of the tree with its positions, while the search makes and drops large arrays."""

    def resident(process: subprocess.Popen[bytes]) -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]

    with start(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"setoption name Hash value 32\ngo nodes 100\nisready\n")
        process.stdin.flush()
        while not process.stdout.readline().startswith(b"bestmove"):
            pass
        before = resident(process)
        process.stdin.write(b"go nodes 100000\n")
        process.stdin.flush()
        last, line = b"", process.stdout.readline()
        while not line.startswith(b"bestmove"):
            last, line = line, process.stdout.readline()
        assert b" hashfull 1000 " in last
        assert resident(process) - before < 64
        process.stdin.write(b"quit\n")
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_whole_dialogue(model: Path) -> None:
    dialogue = b"uci\r\nisready\r\nposition startpos\r\ngo nodes 20\r\n"
    with start(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(dialogue)
        process.stdin.flush()
        lines: list[bytes] = []
        while not lines or not lines[-1].startswith(b"bestmove"):
            lines.append(process.stdout.readline())
            assert lines[-1]
        process.stdin.write(b"quit\n")
        process.stdin.flush()
        assert process.wait(10) == 0
        assert not any(b"\r" in line for line in lines)
        assert lines[0].startswith(b"id name")
        assert b"readyok\n" in lines
        assert process.stderr.read() == b""


def test_a_new_game_is_a_matter_of_milliseconds(model: Path) -> None:
    """Though memory is collected then: it would be 0.3 s with all the modules looked through."""
    with start(model) as process:
        ask(process, b"uci\nisready\n", b"readyok\n")
        began = time.monotonic()
        ask(process, b"ucinewgame\n" * 100 + b"isready\n", b"readyok\n")
        assert time.monotonic() - began < 10  # 30 s otherwise
        process.communicate(b"quit\n", timeout=10)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"uci\n",
        b"uci\nisready\n",
        b"uci\ngo infinite\n",
        b"go infinite\nposition startpos moves e2e4\nisready\nsetoption name Hash value 1\n",
    ],
)
@pytest.mark.parametrize("ending", [b"quit\n", b""], ids=["quit", "end of input"])
def test_it_ends_whenever_it_is_told(model: Path, said: bytes, ending: bytes) -> None:
    """Also while the model loads."""
    with start(model) as process:
        began = time.monotonic()
        _, errors = process.communicate(said + ending, timeout=20)
        assert process.returncode == 0
        assert time.monotonic() - began < 15  # hosts wait 5 s; the machine is shared here
        assert errors == b""


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_interrupts_and_broken_pipes_do_not_matter(model: Path) -> None:
    with start(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask(process, b"uci\n", b"uciok\n")
        process.send_signal(signal.SIGINT)
        ask(process, b"isready\n", b"readyok\n")
        process.stdout.close()  # nobody listens any more
        process.stdin.write(b"go nodes 5\nisready\nquit\n")
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_model_that_is_missing_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, str(tmp_path / "nothing")], capture_output=True, text=True, input="uci\n"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "neither a model directory nor one of the package's models" in done.stderr


def test_a_model_of_another_game_is_refused() -> None:
    done = subprocess.run([*PROGRAM, "tictactoe"], capture_output=True, text=True, input="uci\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a model of another game: it knows 9 actions, and chess has 4672" in done.stderr
    assert uci.NUM_ACTIONS == NUM_ACTIONS


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uci, "find_spec", lambda name: None)
    assert uci.main([]) == 1
    assert "pip install 'muzero-agent[chess]'" in capsys.readouterr().err


def test_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(sys.executable).with_name("muzero-uci")
    monkeypatch.setattr(sys, "argv", [str(program), "--where"])
    assert uci.main(["--where"]) == 0
    path, _, _, *entry = capsys.readouterr().out.splitlines()
    assert Path(path).is_absolute()
    (engine,) = json.loads("\n".join(entry))
    assert engine["command"] == path
    assert engine["protocol"] == "uci"


def test_where_it_is_with_another_model(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert uci.main(["--model", f"./{model.name}", "--where"]) == 0
    (engine,) = json.loads("\n".join(capsys.readouterr().out.splitlines()[3:]))
    assert engine["initStrings"] == [f"setoption name WeightsFile value {model}"]
    assert uci.main(["--model", "/nowhere", "--where"]) == 1


def test_where_it_is_as_a_module() -> None:
    """What it prints can be started."""
    done = subprocess.run([*PROGRAM[:-1], "--where"], capture_output=True, text=True, check=True)
    command = shlex.split(done.stdout.splitlines()[0])
    again = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--model" in again.stdout


def test_the_program_is_installed() -> None:
    program = Path(sys.executable).with_name("muzero-uci")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert "--model" in done.stdout
