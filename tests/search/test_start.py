"""Starting: imports that cost nothing, and compiling where no cache can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import muzero_agent.search

PACKAGE = Path(muzero_agent.search.__file__).parents[1]


def run(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_is_lazy() -> None:
    out = run("""
        import sys
        import muzero_agent.search as search
        print(sorted({"numba", "numpy"} & set(sys.modules)), hasattr(search, "muzero"))
        print(search.RootOutput.__name__, "numba" in sys.modules)
        print(sorted(set(search.__all__) - set(dir(search))))
        print({name: getattr(search, name).__name__ for name in search.__all__} and "all there")
    """)
    assert out.splitlines() == ["[] False", "RootOutput False", "[]", "all there"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource")
def test_cold_start_without_a_place_for_the_cache(tmp_path: Path) -> None:
    """As in a read-only install without a home directory: compiles all the same, warns once.

    That takes 5 s of processor time; a chess GUI waits for 10 s. The bound allows for a core that
    is shared with other threads.
    """
    package = tmp_path / "muzero_agent"
    files = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE / "search", package / "search", ignore=files)
    for name in ("__init__.py", "types.py"):
        shutil.copy(PACKAGE / name, package)
    (package / "search" / "__pycache__").touch()  # no directory, for root neither
    out = run(
        f"""
        import resource, sys, warnings
        sys.path.insert(0, {str(tmp_path)!r})
        sys.dont_write_bytecode = True
        import numpy as np
        from muzero_agent.search import RecurrentOutput, RootOutput
        import muzero_agent.search
        from muzero_agent.search import gumbel_muzero_policy, muzero_policy
        assert muzero_agent.search.__file__.startswith({str(tmp_path)!r})
        zeros = np.zeros(1, np.float32)
        output = RecurrentOutput(zeros, zeros, np.zeros((1, 3), np.float32), zeros)
        root = RootOutput(output.prior_logits, zeros)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for policy in (muzero_policy, gumbel_muzero_policy):
                print(policy(root, lambda *_: output, 5).visit_counts.sum())
        print([type(w.message).__name__ for w in caught if "anew" in str(w.message)])
        print("NUMBA_CACHE_DIR" in str(caught[0].message))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_utime < 16)
        """,
        HOME=os.devnull,
    )
    assert out.splitlines() == ["5", "5", "['RuntimeWarning']", "True", "True"]


@pytest.mark.parametrize("first", [pytest.param("None", marks=pytest.mark.slow), "4"])
def test_caches_of_different_processes_do_not_mix(first: str, tmp_path: Path) -> None:
    """Two searches that share code with variants, each compiled by a process of its own, and then
    both loaded by a third, in either order: nodes keep all of their actions, or 4."""
    code = """
        import numpy as np
        from muzero_agent.search import RecurrentOutput, RootOutput
        from muzero_agent.search.anytime import AnytimeSearch

        def slots(children):
            search = AnytimeSearch(50, 40, children=children, slots_per_node=50)
            logits = np.arange(50, dtype=np.float32)[None] / 50
            search.plant(RootOutput(logits, np.zeros(1, np.float32)))
            edges = search.gather(1)
            zeros = np.zeros(1, np.float32)
            search.absorb(RecurrentOutput(zeros, zeros, logits, zeros))
            return len(search.children(edges.first_node))

        print(*(slots(children) for children in ORDER))
    """
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    second = "4" if first == "None" else "None"
    sizes = {"None": "50", "4": "4"}
    for order in ((first,), (second,), (first, second), (second, first)):
        out = run(code.replace("ORDER", f"({', '.join(order)},)"), **cache)
        assert out.split() == [sizes[children] for children in order]
