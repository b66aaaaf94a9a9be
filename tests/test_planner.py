"""The planner drives the search with the network's own numbers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from muzero_agent import MuZero
from muzero_agent.categorical import MEANS
from muzero_agent.networks import MlpNetwork
from muzero_agent.planner import LatentPlanner, Plan, mix_value
from muzero_agent.resnet import ResNet
from muzero_agent.search import gumbel_muzero_policy, muzero_policy
from muzero_agent.types import RecurrentOutput, RootOutput

ACTIONS, GAMMA = 3, 0.9
SETTINGS: dict[str, Any] = {"num_simulations": 12, "search": "gumbel", "discount": GAMMA}


def network(support_mean: str = "scalars") -> MlpNetwork:
    torch.manual_seed(0)
    net = MlpNetwork(
        nn.Identity(),
        4,
        ACTIONS,
        representation=[16],
        dynamics=[16],
        prediction=[16],
        support_mean=support_mean,
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return net


def plan(
    net: MlpNetwork, obs: torch.Tensor, planner: LatentPlanner | None = None, **change: Any
) -> Plan:
    settings = SETTINGS | {"rng": np.random.default_rng(0)} | change
    return (planner or LatentPlanner(net)).plan(obs, **settings)


@pytest.mark.parametrize("support_mean", MEANS)
@pytest.mark.parametrize("terminal_rewards", [False, True])
@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_it_finds_what_a_search_with_latents_kept_by_hand_finds(
    search: str, terminal_rewards: bool, support_mean: str
) -> None:
    """An independent bookkeeping: a dict of latents by (node, row), one network call a row."""
    net = network(support_mean)
    obs = torch.randn(5, 4)
    found = plan(net, obs, search=search, terminal_rewards=terminal_rewards)

    latents: dict[tuple[int, int], torch.Tensor] = {}
    with torch.no_grad():
        latent = net.representation(obs)
        logits, value_logits = net.prediction(latent)
        root = RootOutput(logits.numpy(), net.support.scalar(value_logits).numpy())
    for row in range(5):
        latents[0, row] = latent[row : row + 1]

    def recurrent_fn(simulation: int, parent: Any, action: Any) -> RecurrentOutput:
        rewards, priors, values = [], [], []
        for row in range(5):
            with torch.no_grad():
                following, reward_logits = net.dynamics(
                    latents[int(parent[row]), row], torch.tensor([int(action[row])])
                )
                prior, value = net.prediction(following)
            latents[simulation + 1, row] = following
            rewards.append(net.support.scalar(reward_logits))
            values.append(net.support.scalar(value))
            priors.append(prior)
        reward = torch.cat(rewards).numpy()
        ends = np.abs(reward).clip(0, 1) if terminal_rewards else np.zeros(5, np.float32)
        return RecurrentOutput(
            reward,
            np.float32(GAMMA) * (1 - ends),
            torch.cat(priors).numpy(),
            torch.cat(values).numpy(),
        )

    if search == "gumbel":
        wanted = gumbel_muzero_policy(root, recurrent_fn, num_simulations=12, gumbel_scale=0.0)
    else:
        wanted = muzero_policy(root, recurrent_fn, num_simulations=12, dirichlet_fraction=0.0)
    np.testing.assert_array_equal(found.visit_counts, wanted.visit_counts)
    np.testing.assert_allclose(found.q_values, wanted.q_values, atol=1e-4)
    np.testing.assert_allclose(found.policy, wanted.action_weights, atol=1e-3)
    np.testing.assert_allclose(found.value, wanted.value, atol=1e-4)


def test_a_planner_can_be_used_again_with_other_shapes_and_weights() -> None:
    net = network()
    planner = LatentPlanner(net)
    for rows, simulations in ((2, 4), (7, 4), (1, 30), (2, 4)):
        obs = torch.randn(rows, 4)
        again = plan(net, obs, planner, num_simulations=simulations)
        fresh = plan(net, obs, num_simulations=simulations)
        np.testing.assert_array_equal(again.visit_counts, fresh.visit_counts)
    before = plan(net, obs, planner).value
    nn.init.normal_(net.heads.weight)
    assert (plan(net, obs, planner).value != before).all()


def test_the_traced_step_is_the_step() -> None:
    """To the last bit, in every shape, with new weights, in other modes and in a copy."""
    net = network()
    assert net.traceable
    eager = network()
    eager.traceable = False  # type: ignore[misc]
    traced_planner, eager_planner = LatentPlanner(net), LatentPlanner(eager)

    def compare(ours: LatentPlanner, theirs: LatentPlanner) -> None:
        for rows in (1, 5, 2):
            obs = torch.randn(rows, 4)
            for a, b in zip(plan(net, obs, ours), plan(net, obs, theirs), strict=True):
                np.testing.assert_array_equal(a, b)

    compare(traced_planner, eager_planner)  # three searches
    assert traced_planner._traced.is_traced
    assert not eager_planner._traced.is_traced
    for parameter, other in zip(net.parameters(), eager.parameters(), strict=True):
        nn.init.normal_(parameter, std=0.3)
        other.data.copy_(parameter.data)
    compare(traced_planner, eager_planner)
    eager.load_state_dict(network().state_dict())
    net.load_state_dict(network().state_dict())
    compare(traced_planner, eager_planner)
    net.train(False), eager.train(False)
    compare(traced_planner, eager_planner)
    clone = copy.deepcopy(traced_planner)
    assert clone.network is not net
    compare(clone, eager_planner)
    nn.init.normal_(clone.network.heads.weight)  # type: ignore[union-attr, arg-type]
    compare(traced_planner, eager_planner)


def test_parts_that_take_the_place_of_others_are_noticed() -> None:
    net = network()
    planner, obs = LatentPlanner(net), torch.randn(2, 4)

    def same_as_fresh(planned: MlpNetwork) -> None:
        for ours, theirs in zip(plan(net, obs, planner), plan(planned, obs), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def use() -> None:
        for _ in range(4):
            plan(net, obs, planner)
        assert planner._traced.is_traced

    use()
    other = {name: x + 0.1 for name, x in net.state_dict().items()}
    net.load_state_dict(other, assign=True)
    same_as_fresh(net)
    use()
    net.heads = nn.Linear(16, net.heads.out_features)
    same_as_fresh(net)
    use()
    with torch.autocast("cpu", torch.bfloat16):
        same_as_fresh(net)
    same_as_fresh(net)
    use()
    planner.network = network()
    same_as_fresh(planner.network)


class Forked(nn.Module):
    """An activation that looks at its data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Subclass(MlpNetwork):
    """Does not say that it can be traced."""


@pytest.mark.parametrize("kind", ["activation", "subclass", "hook"])
def test_what_cannot_be_traced_is_not(kind: str) -> None:
    sizes: Any = {"representation": [8], "dynamics": [8], "prediction": [8]}
    if kind == "activation":
        sizes["activation"] = Forked
    net = (Subclass if kind == "subclass" else MlpNetwork)(nn.Identity(), 4, ACTIONS, **sizes)
    if kind == "hook":
        net.heads.register_forward_hook(lambda *_: None)
    planner = LatentPlanner(net)
    for _ in range(4):
        plan(net, torch.randn(2, 4), planner)
    assert not planner._traced.is_traced


class Scaled(FlattenExtractor):
    """An extractor of a user, that looks at more than its inputs."""

    scale = 1.0

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert isinstance(observations.shape[0], int)
        return super().forward(observations) * self.scale


def test_what_others_wrote_to_extract_features_is_not_traced() -> None:
    model = MuZero(
        "MlpPolicy", "CartPole-v1", seed=0, policy_kwargs={"features_extractor_class": Scaled}
    )
    for parameter in model.policy.target_network.parameters():
        nn.init.normal_(parameter, std=0.4)
    obs = np.ones((3, 4), np.float32)
    found = [model.policy.evaluate(obs) for _ in range(4)]
    for extractor in model.policy.target_network.modules():
        if isinstance(extractor, Scaled):
            extractor.scale = 2.0
    other = model.policy.evaluate(obs)
    np.testing.assert_array_equal(found[0].prior_logits, found[3].prior_logits)
    assert (other.prior_logits != found[3].prior_logits).any()
    assert not model.policy._first.is_traced


def test_the_traced_step_of_a_resnet_is_the_step() -> None:
    torch.manual_seed(0)
    net = ResNet((2, 3, 3), 9, channels=8, num_blocks=1, head_width=8)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    eager = copy.deepcopy(net)
    eager.traceable = False  # type: ignore[misc]
    planner, eager_planner = LatentPlanner(net), LatentPlanner(eager)
    for rows in (1, 4, 2):
        obs = torch.randn(rows, 2, 3, 3)
        ours = planner.plan(obs, **SETTINGS, rng=np.random.default_rng(0))
        theirs = eager_planner.plan(obs, **SETTINGS, rng=np.random.default_rng(0))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert planner._traced.is_traced


def test_the_principal_variation_is_the_most_visited_line_of_the_tree() -> None:
    planner, net = LatentPlanner(network()), network()
    found = plan(net, torch.randn(4, 4), planner, num_simulations=40, variations=True)
    tree = planner._tree
    assert tree is not None
    for row, line in enumerate(found.principal_variation):
        assert line == tree.principal_variation(row, int(found.action[row]))
        assert line[0] == found.action[row]


def test_noise_belongs_to_its_row() -> None:
    """Rows that only reanalyse are searched without noise beside rows that act."""
    net = network()
    obs = torch.randn(1, 4).expand(64, 4)
    noise = np.repeat(np.array([1, 0], np.float32), 32)
    found = plan(net, obs, noise=noise)
    assert len(set(found.action[:32].tolist())) > 1
    assert len({tuple(row) for row in found.visit_counts[32:].tolist()}) == 1


def test_illegal_actions_have_neither_prior_nor_visits() -> None:
    legal = np.array([[True, False, True]] * 6)
    for search in ("gumbel", "puct"):
        found = plan(network(), torch.randn(6, 4), legal_actions=legal, search=search, noise=1.0)
        assert (found.prior[:, 1] == 0).all()
        assert (found.visit_counts[:, 1] == 0).all()
        assert (found.policy[:, 1] == 0).all()
        np.testing.assert_allclose(found.prior.sum(-1), 1, atol=1e-6)


def test_the_principal_variation_starts_with_the_action_and_stays_in_the_tree() -> None:
    found = plan(network(), torch.randn(8, 4), num_simulations=40, variations=True)
    for row, line in enumerate(found.principal_variation):
        assert line[0] == found.action[row]
        assert 1 <= len(line) <= 40
        assert all(0 <= action < ACTIONS for action in line)
    assert max(len(line) for line in found.principal_variation) > 1


def test_the_mixed_value_weighs_searched_q_values_by_the_prior() -> None:
    """By hand: priors .2 and .3 of the visited, Q 10 and 20, four visits, the network says 6."""
    mixed = mix_value(
        np.array([6.0], np.float32),
        np.array([[0.2, 0.3, 0.5]], np.float32),
        np.array([[10.0, 20.0, 0.0]], np.float32),
        np.array([[1, 3, 0]], np.int32),
    )
    assert mixed[0] == pytest.approx((6 + 4 * 16) / 5)


def test_regret_is_the_distance_to_the_best_action_that_was_visited() -> None:
    """Unvisited actions count as the mixed value, not as infinitely bad."""
    found = plan(network(), torch.randn(1, 4))._replace(
        q_values=np.array([[5.0, 2.0, 0.0]], np.float32),
        visit_counts=np.array([[3, 1, 0]], np.int32),
        mixed_value=np.array([4.0], np.float32),
    )
    assert found.regret().tolist() == [[0.0, 3.0, 1.0]]


def test_the_mixed_value_survives_a_prior_of_zero() -> None:
    mixed = mix_value(
        np.zeros(1, np.float32),
        np.array([[0.0, 1.0]], np.float32),
        np.array([[4.0, 0.0]], np.float32),
        np.array([[1, 0]], np.int32),
    )
    assert mixed[0] == pytest.approx(2.0)


def test_a_result_that_is_half_foreseen_counts_once() -> None:
    """Of two players, a reward of 0.6 and behind it a position lost by 0.9: not worth 1.5."""
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()

    class Sure(MlpNetwork):
        def recurrent_inference(self, latent: Any, action: Any) -> Any:
            found = super().recurrent_inference(latent, action)
            scalars = torch.tensor([[-0.9], [0.6]]).expand(2, len(latent))
            return found._replace(scalars=scalars)

    net.__class__ = Sure
    seen = {
        terminal: plan(
            net, torch.zeros(1, 4), num_simulations=1, discount=-1.0, terminal_rewards=terminal
        ).q_values.max()
        for terminal in (False, True)
    }
    assert seen == pytest.approx({False: 0.6 + 0.9, True: 0.6 + 0.4 * 0.9}, abs=1e-5)
