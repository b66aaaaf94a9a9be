"""Time the search: its trees alone, and as a multiple of the network calls that it makes.

    python benchmarks/search.py
    python benchmarks/search.py --repeats 20 --only puct

The first table gives microseconds per simulation step over all roots, with a network that costs
nothing (it returns arrays made beforehand). Beside it the same for mctx, measured in the same run
if it can be imported (`pip install mctx`, or `make bench`), and the figures measured for LightZero
0.2.0's C++ tree, which is not run here. Every figure is the best of several medians, since other
processes can only make it slower. One thread.

The second table gives the ratio (search with a network) / (the same calls of the network alone).
The planner traces a network's operations; so its search is compared with both kinds of calls.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from muzero_agent.networks import MlpNetwork, MuZeroNetwork
from muzero_agent.planner import LatentPlanner
from muzero_agent.resnet import ResNet
from muzero_agent.search import (
    RecurrentOutput,
    RootOutput,
    Tree,
    gumbel_muzero_policy,
    muzero_policy,
)

NUM_SIMULATIONS = 50


class Case(NamedTuple):
    """A size, what it should cost at most, and what it costs in LightZero: microseconds."""

    batch_size: int
    num_actions: int
    goal: float
    lightzero: float


CASES = (
    Case(8, 2, 7.0, 11),
    Case(256, 2, 136, 560),
    Case(8, 18, 13, 44),
    Case(256, 18, 333, 2_266),
    Case(8, 362, 56, 2_079),
    Case(8, 4672, 280, 62_789),
)
POLICIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "puct": (muzero_policy, {"dirichlet_fraction": 0.0}),
    "gumbel": (gumbel_muzero_policy, {"gumbel_scale": 0.0}),
}


def best_median(run: Callable[[], object], repeats: int, runs: int = 9) -> float:
    """Seconds per run: the best of `repeats` medians of `runs` each."""
    run()
    medians = []
    for _ in range(repeats):
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        medians.append(statistics.median(times))
    return min(medians)


def free_outputs(case: Case) -> list[RecurrentOutput]:
    """What the free network says, for each simulation: standard normal numbers, discount 0.99."""
    rng = np.random.default_rng(0)
    size, num_actions = case.batch_size, case.num_actions

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    return [
        RecurrentOutput(
            normal(size), np.full(size, 0.99, np.float32), normal(size, num_actions), normal(size)
        )
        for _ in range(NUM_SIMULATIONS)
    ]


def time_tree(policy: str, case: Case, repeats: int) -> float:
    """Microseconds per simulation."""
    outputs = free_outputs(case)
    search, noise_off = POLICIES[policy]
    root = RootOutput(outputs[0].prior_logits, outputs[0].value)
    tree = Tree(case.batch_size, case.num_actions, NUM_SIMULATIONS)
    rng = np.random.default_rng(0)

    def run() -> None:
        search(root, lambda i, *_: outputs[i], NUM_SIMULATIONS, tree=tree, rng=rng, **noise_off)

    return best_median(run, repeats) / NUM_SIMULATIONS * 1e6


def time_mctx(policy: str, case: Case, repeats: int) -> float | None:
    """The same for mctx, compiled; None where it is not installed."""
    if find_spec("mctx") is None:
        return None
    import jax
    import mctx

    output = free_outputs(case)[0]
    free = mctx.RecurrentFnOutput(
        reward=output.reward,
        discount=output.discount,
        prior_logits=output.prior_logits,
        value=output.value,
    )
    root = mctx.RootFnOutput(
        prior_logits=output.prior_logits,
        value=output.value,
        embedding=np.zeros(case.batch_size, np.int32),
    )
    search = getattr(mctx, POLICIES[policy][0].__name__)

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def visits(free: Any, root: Any, key: Any) -> Any:
        out = search(
            free,
            key,
            root,
            lambda free, key, action, embedding: (free, embedding),
            num_simulations=NUM_SIMULATIONS,
            **POLICIES[policy][1],
        )
        return out.search_tree.summary().visit_counts

    key = jax.random.PRNGKey(0)
    run = lambda: visits(free, root, key).block_until_ready()  # noqa: E731
    return best_median(run, max(1, repeats // 3), runs=3) / NUM_SIMULATIONS * 1e6


def print_trees(policies: list[str], repeats: int) -> None:
    """The first table."""
    columns = [f"{p}{suffix}" for p in policies for suffix in ("", " mctx")]
    print(f"microseconds per simulation step over all roots, {NUM_SIMULATIONS} simulations")
    print(f"{'roots x actions':>16}", *(f"{c:>14}" for c in [*columns, "goal", "LightZero"]))
    for case in CASES:
        figures: list[float | None] = []
        for policy in policies:
            figures += [time_tree(policy, case, repeats), time_mctx(policy, case, repeats)]
        figures += [case.goal, case.lightzero]
        texts = ("not installed" if f is None else f"{f:,.1f}" for f in figures)
        size = f"{case.batch_size} x {case.num_actions}"
        print(f"{size:>16}", *(f"{text:>14}" for text in texts), flush=True)


class Net(NamedTuple):
    """A network and the observations from which it is searched."""

    name: str
    network: MuZeroNetwork
    obs: torch.Tensor  # [B, ...]


def networks() -> list[Net]:
    """CartPole's MLP, as the policy builds it, board ResNets with 64 channels, and Atari's."""
    mlp = MlpNetwork(
        torch.nn.Identity(),
        4,
        2,
        representation=[128],
        dynamics=[128],
        prediction=[128],
        support_mean="scalars",
    )
    board = ResNet((2, 6, 7), 7, channels=64, num_blocks=6, support_mean="scalars")
    pixels = ResNet(
        (4, 84, 84), 6, channels=32, num_blocks=1, downsample=True, encoder="strided",
        normalize_pixels=True, support_mean="scalars",
    )  # fmt: skip
    return [
        Net("CartPole MLP, 1 root", mlp.eval(), torch.rand(1, 4)),
        Net("CartPole MLP, 8 roots", mlp.eval(), torch.rand(8, 4)),
        Net("CartPole MLP, 32 roots", mlp.eval(), torch.rand(32, 4)),
        Net("ResNet 6 x 64 on 6x7, 1 root", board.eval(), torch.rand(1, 2, 6, 7)),
        Net("ResNet 6 x 64 on 6x7, 8 roots", board.eval(), torch.rand(8, 2, 6, 7)),
        Net("Atari, ResNet 1 x 32, 8 roots", pixels.eval(), torch.rand(8, 4, 84, 84)),
    ]


class Recurrent(torch.nn.Module):
    """A recurrent inference, as it can be traced."""

    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, latent: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return tuple(self.network.recurrent_inference(latent, action))  # type: ignore[return-value]


def ratios_to_network(net: Net, policy: str, repeats: int) -> tuple[float, float, float, float]:
    """(search / its recurrent_fn), (plan / calls), (plan / traced calls), ms of a plan.

    The first is what the search itself adds. The others are what an agent's move costs in all:
    `LatentPlanner.plan` keeps the latents and converts between torch and numpy as well, while the
    network calls alone get tensors that lie ready and leave their results as tensors. They are made
    one by one from Python, as one would write them, and then by the network's trace, as the planner
    makes them.
    """
    planner, rng, size = LatentPlanner(net.network), np.random.default_rng(0), len(net.obs)
    settings: dict[str, Any] = {"search": policy, "discount": 0.997, "rng": rng}
    latent = net.network.representation(net.obs).detach()
    action = torch.zeros(size, dtype=torch.long)

    def plan() -> None:
        planner.plan(net.obs, num_simulations=NUM_SIMULATIONS, **settings)

    @torch.inference_mode()
    def network_calls() -> None:
        net.network.initial_inference(net.obs)
        for _ in range(NUM_SIMULATIONS):
            net.network.recurrent_inference(latent, action)

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; see `muzero_agent.planner`
        traced = torch.jit.trace(Recurrent(net.network), (latent, action), check_trace=False)

    @torch.inference_mode()
    def traced_calls() -> None:
        net.network.initial_inference(net.obs)
        for _ in range(NUM_SIMULATIONS):
            traced(latent, action)

    discount = np.full(size, 0.997, np.float32)

    def recurrent_fn(_simulation: int, _parent: Any, _action: Any) -> RecurrentOutput:
        step = net.network.recurrent_inference(latent, action)
        value, reward = step.scalars.numpy()
        return RecurrentOutput(reward, discount, step.policy_logits.numpy(), value)

    search, noise_off = POLICIES[policy]
    root = RootOutput(
        np.zeros((size, net.network.num_actions), np.float32), np.zeros(size, np.float32)
    )
    tree = Tree(size, net.network.num_actions, NUM_SIMULATIONS)
    edge = np.zeros(size, np.int32)

    @torch.inference_mode()
    def search_it() -> None:
        search(root, recurrent_fn, NUM_SIMULATIONS, tree=tree, **noise_off)

    @torch.inference_mode()
    def recurrent_fn_alone() -> None:
        for i in range(NUM_SIMULATIONS):
            recurrent_fn(i, edge, edge)

    # By turns, so that all see the same machine.
    runs = (search_it, recurrent_fn_alone, plan, network_calls, traced_calls)
    times = [[best_median(run, 1) for run in runs] for _ in range(repeats)]
    return (
        statistics.median(a / b for a, b, _, _, _ in times),
        statistics.median(c / d for _, _, c, d, _ in times),
        statistics.median(c / e for _, _, c, _, e in times),
        min(c for _, _, c, _, _ in times) * 1e3,
    )


def print_ratios(policies: list[str], repeats: int) -> None:
    """The second table."""
    print(f"\nwith a network, {NUM_SIMULATIONS} simulations")
    print(f"{'':>40}{'search / its':>14}{'plan / its':>15}{'plan / its':>15}{'a plan':>10}")
    print(f"{'':>40}{'recurrent_fn':>14}{'network calls':>15}{'traced calls':>15}{'ms':>10}")
    for net in networks():
        for policy in policies:
            *ratios, ms = ratios_to_network(net, policy, repeats)
            columns = "".join(f"{x:{w}.2f}" for x, w in zip(ratios, (14, 15, 15), strict=True))
            print(f"{net.name:>32}{policy:>8}{columns}{ms:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=9, help="medians to take the best of")
    parser.add_argument("--only", choices=sorted(POLICIES), help="a single policy")
    arguments = parser.parse_args()
    policies = [arguments.only] if arguments.only else list(POLICIES)
    torch.set_num_threads(1)
    print_trees(policies, arguments.repeats)
    print_ratios(policies, arguments.repeats)


if __name__ == "__main__":
    main()
