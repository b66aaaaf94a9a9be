"""`torch_compile=True` changes the time that an update takes and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from muzero_agent import MuZero

SMALL: dict[str, Any] = {
    "learning_starts": 32, "batch_size": 8, "num_simulations": 2, "unroll_steps": 1, "seed": 0,
    "policy_kwargs": {"net_arch": [8]},
}  # fmt: skip


@pytest.mark.slow  # compiling takes a minute, and needs a C++ compiler
def test_compiled_updates_are_those_of_eager_mode() -> None:
    eager, compiled = (MuZero("MlpPolicy", "CartPole-v1", **SMALL) for _ in range(2))
    for model in (eager, compiled):
        model.learn(48)  # the same, so far
    compiled.torch_compile = True
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for model in (eager, compiled):
        model.learn(16, reset_num_timesteps=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > counted
    for name, parameter in eager.policy.network.named_parameters():
        other = compiled.policy.network.get_parameter(name)
        torch.testing.assert_close(other, parameter, rtol=1e-3, atol=1e-5, msg=name)
    assert compiled._n_updates == eager._n_updates > 0
