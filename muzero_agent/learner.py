"""Updates in a process of their own, which learns while the one that started it plays on.

What is pickled goes through the pipes between these two, and nowhere else.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, NamedTuple, NoReturn

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from muzero_agent.allocator import keep_freed_memory
from muzero_agent.batch import Batch
from muzero_agent.objective import Objective
from muzero_agent.policies import MuZeroPolicy
from muzero_agent.updates import Updates


class Task(NamedTuple):
    """Updates to make, and what they depend on besides the weights."""

    batches: list[Batch]
    objective: Objective
    learning_rate: float
    max_grad_norm: float
    target_decay: float
    num: int  # updates that were made before
    seed: int  # of what the losses draw at random


class Learned(NamedTuple):
    """What came of a task."""

    batches: list[Batch]  # the task's
    root_values: list[Tensor]  # float32 [B] of each batch, of the network before its update
    losses: list[Tensor]  # float32 [L] of each batch, in the order of `Losses`, without root_value


class Learner:
    """A process with a policy's networks and optimizer, which makes the updates that it is told to.

    It is told through pipes, and imports nothing of the main module, so scripts need no guard
    around what they do. It ends when it is closed, or when the process that started it has ended,
    however it did. As a context it is closed at the end.

    A task is handed over when the caller says so (`submit`), and what was learned is taken over
    when the caller says so (`take_over`), which waits for it: results depend on when these are
    called in the course of play, and not on how fast either process is.

    :param policy: whose weights and optimizer's state are taken as they are now; the class and the
        arguments of its constructor are pickled, by value where they are of the main module
    """

    def __init__(self, policy: MuZeroPolicy) -> None:
        self._policy = policy
        self._batches: list[Batch] | None = None
        self._process = subprocess.Popen(
            # not -m, which would make another module, and other classes, of this one
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._write(
            _Beginning(
                type(policy),
                policy._get_constructor_parameters(),
                policy.state_dict(),
                policy.optimizer.state_dict(),
                str(policy.device),
                torch.get_num_threads(),
            )
        )

    def __deepcopy__(self, memo: object) -> None:
        """A copy of a model has none: it would need a process of its own."""

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. What it is learning is lost."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # of what was not written yet
                pipe.close()

    def submit(self, task: Task) -> None:
        """Begin a task; what came of the one before has to be taken over first."""
        if self._batches is not None:
            raise RuntimeError("take over what was learned before you submit more")
        self._write((task, dict(self._policy.network.named_buffers())))
        self._batches = task.batches

    def take_over(self) -> Learned | None:
        """Wait for the task, and give the policy what it has learned; None if there is no task.

        :raises FloatingPointError: see `Updates.apply`; the policy is as it was before the task
        """
        if self._batches is None:
            return None
        batches, self._batches = self._batches, None
        answer = self._read()
        if isinstance(answer, FloatingPointError):
            raise answer
        assert isinstance(answer, _Answer)
        policy = self._policy
        _copy(answer.network, dict(policy.network.named_parameters()))
        _copy(answer.target_network, dict(policy.target_network.named_parameters()))
        # Play counts what it observes in buffers of the network: those alone are taken over that
        # updates changed, such as statistics of a batch normalisation.
        _copy(answer.changed_buffers, dict(policy.network.named_buffers()))
        _copy(dict(policy.network.named_buffers()), dict(policy.target_network.named_buffers()))
        policy.optimizer.load_state_dict(answer.optimizer)
        return Learned(batches, answer.root_values, answer.losses)

    def _write(self, content: object) -> None:
        assert self._process.stdin is not None
        try:
            _dump(content, self._process.stdin)
        except BrokenPipeError:
            self._raise_ended()

    def _read(self) -> object:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self._raise_ended()

    def _raise_ended(self) -> NoReturn:
        raise RuntimeError(
            f"the process that learns ended with the exit code {self._process.wait()}; what it "
            "printed tells why. overlap=False learns without it"
        ) from None


class _Beginning(NamedTuple):
    policy_class: Callable[..., MuZeroPolicy]
    arguments: dict[str, Any]
    state: dict[str, Tensor]
    optimizer: dict[str, Any]
    device: str
    num_threads: int


class _Answer(NamedTuple):
    network: dict[str, Tensor]  # parameters
    target_network: dict[str, Tensor]
    changed_buffers: dict[str, Tensor]
    optimizer: dict[str, Any]
    root_values: list[Tensor]
    losses: list[Tensor]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes tensors for the arrays that they are: torch would write a file for each of them."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.detach().cpu().numpy(),)
        return super().reducer_override(obj)


def _dump(content: object, pipe: IO[bytes]) -> None:
    """Whole, so that an error while pickling leaves no half of it behind."""
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=pickle.HIGHEST_PROTOCOL).dump(content)
    pipe.write(pickled.getbuffer())
    pipe.flush()


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)


def _learn(policy: MuZeroPolicy, task: Task, buffers: dict[str, Tensor]) -> _Answer:
    """Do a task.

    :param buffers: of the network, as play has left them
    """
    _copy(buffers, dict(policy.network.named_buffers()))
    for group in policy.optimizer.param_groups:
        group["lr"] = task.learning_rate
    rng = np.random.default_rng(task.seed)
    torch.manual_seed(task.seed)
    policy.set_training_mode(True)
    updates = Updates(
        policy,
        max_grad_norm=task.max_grad_norm,
        target_decay=task.target_decay,
        num=task.num,
    )
    root_values, history = [], []
    for batch in task.batches:
        losses = task.objective.loss(policy, _on_device(batch, policy.device), rng)
        updates.apply(losses.total)
        root_values.append(losses.root_value.detach())
        history.append(torch.stack(losses[:-1]).detach())
    return _Answer(
        dict(policy.network.named_parameters()),
        dict(policy.target_network.named_parameters()),
        {
            name: buffer
            for name, buffer in policy.network.named_buffers()
            if not torch.equal(buffer.cpu(), buffers[name])
        },
        policy.optimizer.state_dict(),
        root_values,
        history,
    )


def _on_device(batch: Batch, device: torch.device) -> Batch:
    def moved(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: tensor.to(device) for key, tensor in part.items()}
        return part.to(device) if isinstance(part, Tensor) else part

    return Batch(*map(moved, batch))


def main() -> None:
    """Do what comes through the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that plays
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print does not get in between
    requests = sys.stdin.buffer
    try:
        beginning: _Beginning = pickle.load(requests)
        keep_freed_memory()
        torch.set_num_threads(beginning.num_threads)
        policy = beginning.policy_class(**beginning.arguments).to(beginning.device)
        policy.load_state_dict(beginning.state)
        policy.optimizer.load_state_dict(beginning.optimizer)
        while True:
            task, buffers = pickle.load(requests)
            try:
                answer: object = _learn(policy, task, buffers)
            except FloatingPointError as error:  # others end this process, and are printed
                answer = error
            _dump(answer, answers)
    except EOFError:
        pass
    except BrokenPipeError:  # nobody waits for what was learned
        os._exit(0)
