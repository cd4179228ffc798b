"""TRL's DPO trainer with a weight for each pair, reference log-probabilities that are given, and an end to bad losses.

Imported by what trains, and by nothing that a command needs: TRL takes seconds.
"""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any

import torch
from torch.nn import functional
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from normloom.core.errors import StageError

PAIR, WEIGHT = "pair", "weight"  # columns of the data set besides those of TRL
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps", PAIR, WEIGHT)


class Collator(DataCollatorForPreference):  # type: ignore[misc]  # TRL has no types
    """TRL's collator, with the weight of each pair and its place among the rows."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return TRL's batch with `weight` (pairs,) float32 and `pair` (pairs,) int64."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch[WEIGHT] = torch.tensor([example[WEIGHT] for example in examples], dtype=torch.float32)
        batch[PAIR] = torch.tensor([example[PAIR] for example in examples])
        return batch


class WeightedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # as above
    """DPO (Rafailov et al. 2023, arXiv 2305.18290) whose loss of a pair counts by its weight.

    loss = mean over pairs of weight * -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)); with weights of 1
    it is TRL's loss bit by bit. The data set brings the log-probabilities of the reference. `names` are the row ids of
    the pairs: a loss or gradient that is not finite raises StageError, which names the step and the rows of its batch.
    """

    def __init__(self, *arguments: Any, names: list[str], **named: Any) -> None:
        self._names = names
        self._step = -1  # begun last
        self._passes: list[list[int]] = []  # its pairs, by forward pass
        super().__init__(*arguments, **named)

    def resume_count(self, history: list[dict[str, float]]) -> None:
        """Count tokens from where a run has left off, which TRL does not."""
        self._total_train_tokens = int(
            max((entry["num_tokens"] for entry in history if "num_tokens" in entry), default=0)
        )

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # it is in tokens

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset  # it brings them

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:  # noqa: FBT001  # TRL's
        asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        mask = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(mask == 0, -100)
        outputs = model(**asked, use_cache=False, labels=labels, fused_lm_head=True)
        chosen, rejected = outputs.log_probs[:, -(mask.size(1) - 1) :].sum(dim=1).chunk(2, dim=0)
        chosen_ratios = chosen - inputs["ref_chosen_logps"]
        rejected_ratios = rejected - inputs["ref_rejected_logps"]
        margins = self.beta * (chosen_ratios - rejected_ratios)
        losses = -functional.logsigmoid(margins)
        if self._step != self.state.global_step:
            self._step, self._passes = self.state.global_step, []
        self._passes.append(inputs[PAIR].tolist())
        own, of = self._counted(len(losses))
        weighted = losses * inputs[WEIGHT]
        if own * self.accelerator.num_processes == of:
            loss = weighted.mean()
        else:  # the gradients of the processes are averaged, whatever the number of pairs in each
            loss = weighted[:own].sum() * self.accelerator.num_processes / of
        if not torch.isfinite(loss):
            raise StageError(self._said(loss.item(), losses[:own], inputs))
        self._measure(losses.detach()[:own], margins.detach()[:own], inputs["attention_mask"], of)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step; raises StageError, before anything is saved, if its gradient was not finite."""
        norm = logs.get("grad_norm", 0.0)
        if not isfinite(norm):
            rows = ", ".join(self._names[position] for positions in self._passes for position in positions)
            raise StageError(
                f"the gradient of step {self.state.global_step} is {norm}: rows {rows} of its batch; "
                "lower the learning rate, or look at these pairs"
            )
        super().log(logs, start_time)

    def _counted(self, size: int) -> tuple[int, int]:
        """Return how many pairs of this process's batch count, and how many of those of all processes.

        Where the last batch of an epoch is too small for all, accelerate fills it up with pairs that were read before.
        """
        processes = self.accelerator.num_processes
        if processes == 1:
            return size, size
        each = self.args.per_device_train_batch_size
        accumulated, pairs = self.args.gradient_accumulation_steps, len(self.train_dataset)
        steps = ceil(ceil(pairs / (processes * each)) / accumulated)  # of an epoch
        before = (self._step % steps * accumulated + len(self._passes) - 1) * processes * each
        of = min(pairs - before, processes * each)
        return min(max(of - self.accelerator.process_index * each, 0), each), of

    def _measure(self, losses: Any, margins: Any, mask: Any, of: int) -> None:
        """Add up what the pairs of all processes come to; `mask` has the chosen half of a batch, then the other."""
        mode = "train" if self.model.training else "eval"
        tokens = mask.unflatten(0, (2, -1))[:, : len(losses)].sum()
        sums = torch.stack([losses.sum(), (margins > 0).float().sum(), margins.sum(), tokens.float()])
        loss, right, margin, read = self.accelerator.reduce(sums, "sum").tolist()
        for name, total in (("unweighted_loss", loss), ("reward_accuracy", right), ("reward_margin", margin)):
            self._metrics[mode][name].append(total / of)
        if mode == "train":
            self._total_train_tokens += int(read)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _said(self, loss: float, losses: Any, inputs: dict[str, Any]) -> str:
        positions = inputs[PAIR].tolist()[: len(losses)]
        bad = [
            position for position, finite in zip(positions, torch.isfinite(losses).tolist(), strict=True) if not finite
        ]
        rows = ", ".join(self._names[position] for position in bad or positions)
        return (
            f"the loss of step {self.state.global_step + 1} is {loss}: rows {rows} of its batch; "
            "lower the learning rate, or look at these pairs"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save without TRL's model card, which asks the network for its citation; each process writes its own part."""
        super(DPOTrainer, self)._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
