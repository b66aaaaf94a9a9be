"""README.md of a model directory: its card for people, and for hubs, which read the lines on top.

The hub of Hugging Face shows a `model-index` (paperswithcode/model-index) as a table of results.
"""

from __future__ import annotations

from typing import Any

import yaml

from muzero_agent.zoo.cards import NO_LICENCE, Card, Evaluation

TAGS = ["deep-reinforcement-learning", "muzero", "reinforcement-learning", "stable-baselines3"]

USE = """```python
from muzero_agent import zoo

model = zoo.load("path/of/this/directory")  # or "org/repo", revision="..."
```"""


def readme(card: Card, num_bytes: int) -> str:
    """The text.

    :param num_bytes: of the model's files
    """
    licence = {} if card.licence == NO_LICENCE else {"license": card.licence.lower()}
    front = yaml.safe_dump(
        {
            "library_name": "muzero-agent",
            **licence,
            "tags": [card.env, *TAGS],
            "model-index": [
                {"name": card.name, "results": [_result(card, e) for e in card.evaluations]}
            ],
        },
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )
    parts = [
        f"---\n{front}---",
        f"# {_line(card.name)}",
        f"MuZero for `{_code(card.env)}`, {num_bytes / 1e6:.1f} MB. Loading it runs nobody's code.",
        USE,
        "## How good it is",
        results_table(card),
        "## Where it comes from",
        "\n".join(
            f"- {key}: {value if key in ('environment', 'command') else _line(value)}"
            for key, value in origin(card).items()
        ),
    ]
    if card.notes:  # a quotation, so that it is nobody else's voice
        parts.append("\n".join(f"> {_line(line)}".rstrip() for line in card.notes.splitlines()))
    return "\n\n".join(parts) + "\n"


def results_table(card: Card) -> str:
    """The evaluations in Markdown."""
    rows = [
        "| metric | mean | 95% interval | std | episodes | against | simulations | seed |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for e in card.evaluations:
        low, high = e.bounds()
        rows.append(
            f"| {_line(metric(e))} | {e.mean:.4g} | {low:.4g} to {high:.4g} | {e.std:.3g} | "
            f"{e.episodes} | {_line(e.opponent or '')} | {e.num_simulations} | {e.seed} |"
        )
    return "\n".join(rows)


def metric(evaluation: Evaluation) -> str:
    """What was measured, in words."""
    return evaluation.metric + ", by the rules" * evaluation.by_rules


def _result(card: Card, evaluation: Evaluation) -> dict[str, Any]:
    name = metric(evaluation)
    if evaluation.opponent:
        name += f", against {evaluation.opponent}"
    is_return = evaluation.metric == "mean return"
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": card.env, "type": card.env},
        "metrics": [
            {
                "type": "mean_reward" if is_return else "score",
                "value": f"{evaluation.mean:.2f} +/- {evaluation.std:.2f}",
                "name": "mean_reward" if is_return else name,
                "verified": False,
            }
        ],
    }


def origin(card: Card) -> dict[str, str]:
    """Where a model comes from, in words."""
    kwargs = _line(", ".join(f"{name}={value}" for name, value in card.env_kwargs.items()))
    return {
        "environment": f"`{_code(card.env)}`" + f" with {kwargs}" * bool(kwargs),
        "command": f"`{_code(card.command)}`",
        "seed": "none" if card.seed is None else str(card.seed),
        "steps": f"{card.training_steps:,}",
        "seconds": f"{card.training_seconds:,.0f}",
        "hardware": card.hardware or "not told",
        "commit": card.commit or "not told",
        "versions": ", ".join(f"{name} {value}" for name, value in card.versions.items()),
        "licence": card.licence,
    }


def _code(text: str) -> str:
    """Within backticks."""
    return " ".join(text.replace("`", "'").split())


def _line(text: str) -> str:
    """On one line, and in one cell of a table; markup that it holds is shown, not obeyed."""
    for mark, shown in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("[", "\\[")):
        text = text.replace(mark, shown)
    line = " ".join(text.split())
    return f"\\{line}" if line.startswith(("#", "`")) else line
