"""One training in several processes, a GPU each, or on a CPU for a test.

torch's elastic launcher, which accelerate's is made of, starts the processes and ends all of them if one dies. In each,
transformers' trainer finds by accelerate which pairs of a batch are its own, and averages the gradients.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import polars as pl

from normloom.core.errors import NormloomError, StageError
from normloom.core.models.protocol import ModelSpec
from normloom.tasks.preferences.dpo.training import Pairs, Training, train
from normloom.tasks.tuning.checkpoints import newest
from normloom.tasks.tuning.policies import Tell, load

HERE = "127.0.0.1"


def train_in_processes(
    number: int, pairs: Pairs, args: Training, policy: ModelSpec, *, scratch: Path, tell: Tell
) -> pl.DataFrame:
    """Train as `train` does, in `number` processes: as many steps, of the same pairs.

    Each process loads the policy and takes its share of each batch, which `number` must divide. Raises what one of
    them raises, and StageError if one dies: the others end, and the same call resumes from the newest checkpoint.
    """
    newest(scratch)  # removes what is not whole: the processes must not do so at once
    with _pipes(number) as (receivers, senders):
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="training") as launcher:
            running = launcher.submit(_launch, senders, pairs, args, _shared(policy, number), scratch)
            try:
                curve = _heard(receivers, tell)
            finally:
                for receiver in receivers:  # a process that still speaks ends: nobody listens
                    receiver.close()
        ended = running.exception()
    if curve is None:
        raise StageError(_said(ended, number)) from ended
    return curve


def _heard(receivers: Sequence[Connection], tell: Tell) -> pl.DataFrame | None:
    """Tell what the processes say until all are gone; return the curve of the first, raise the first error."""
    curve, open_ones = None, list(receivers)
    while open_ones:
        for one in cast("list[Connection]", wait(open_ones)):
            try:
                said = one.recv()
            except EOFError:
                open_ones.remove(one)
                continue
            if isinstance(said, NormloomError):
                raise said
            if isinstance(said, pl.DataFrame):
                curve = said
            else:
                tell(*said)
    return curve


def _launch(senders: Sequence[Connection], pairs: Pairs, args: Training, policy: ModelSpec, scratch: Path) -> None:
    """Run the processes until all have ended; raises if one fails."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(senders),
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{HERE}:0",
        local_addr=HERE,
        max_restarts=0,  # the stage is resumed, by whoever asked for it
        start_method="spawn",  # a fork of a process with threads may hang
    )
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)  # it warns of threads
    try:
        with TemporaryDirectory(prefix="normloom-training-") as logs:
            config.logs_specs = DefaultLogsSpecs(log_dir=logs)  # it leaves a folder otherwise
            elastic_launch(config, _train_share)(senders, pairs, args, policy, scratch)
    finally:
        for sender in senders:
            sender.close()


def _said(ended: BaseException | None, number: int) -> str:
    """Return what ended the processes, in a sentence."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if not isinstance(ended, ChildFailedError):
        return f"the training in {number} processes ended without a result ({ended})"
    rank, failure = ended.get_first_failure()
    how = failure.signal_name() if failure.exitcode < 0 else failure.message.strip().partition("\n")[0]
    return (
        f"process {rank + 1} of {number} of the training ended ({how}); "
        "the same command resumes from the newest checkpoint"
    )


@contextmanager
def _pipes(number: int) -> Iterator[tuple[list[Connection], list[Connection]]]:
    """Give the ends of a pipe from each process."""
    ends = [get_context("spawn").Pipe(duplex=False) for _ in range(number)]
    try:
        yield [receiver for receiver, _ in ends], [sender for _, sender in ends]
    finally:
        for pair in ends:
            for end in pair:
                end.close()


def _shared(policy: ModelSpec, number: int) -> ModelSpec:
    """Return the policy with the threads of one process."""
    return policy if policy.threads is None else policy.model_copy(update={"threads": max(policy.threads // number, 1)})


def _train_share(senders: Sequence[Connection], pairs: Pairs, args: Training, policy: ModelSpec, scratch: Path) -> None:
    """Train in one of the processes, whose rank the launcher has put in the environment."""
    import torch
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]  # torch's own use it

    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # a build that is killed leaves nobody who writes checkpoints
    rank = int(os.environ["RANK"])
    if torch.cuda.is_available() and policy.device != "cpu":  # pragma: no cover  # tests run without a GPU
        policy = policy.model_copy(update={"device": f"cuda:{rank}"})

    def work(tell: Tell) -> pl.DataFrame:
        return train(pairs, args, load(policy), scratch=scratch, tell=tell, processes=len(senders))

    _say(senders[rank], work, first=rank == 0)


def _say(speaker: Connection, work: Callable[[Tell], pl.DataFrame], *, first: bool) -> None:
    """Do the work of a process and send what goes wrong; the first also sends how far it is, and the curve."""

    def tell(step: int, of: int, figures: Mapping[str, float]) -> None:
        if first:
            try:
                speaker.send((step, of, dict(figures)))
            except OSError:
                sys.exit("nobody listens: the build has ended")

    try:
        curve = work(tell)
    except NormloomError as error:
        with suppress(OSError):  # the one who listens has gone
            speaker.send(error)
        raise
    if first:
        speaker.send(curve)
