"""TRL's DPO trainer with a weight for each pair, reference log-probabilities that are given, and an end to bad losses.

Imported by what trains, and by nothing that a command needs: TRL takes seconds.
"""

from __future__ import annotations

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
    the pairs: a loss that is not finite raises StageError, which names the step and the rows of its batch.
    """

    def __init__(self, *arguments: Any, names: list[str], **named: Any) -> None:
        self._names = names
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
        losses = -functional.logsigmoid(self.beta * (chosen_ratios - rejected_ratios))
        loss = (losses * inputs[WEIGHT]).mean()
        if not torch.isfinite(loss):
            raise StageError(self._said(loss.item(), losses, inputs))
        self._measure(losses, chosen_ratios, rejected_ratios, inputs)
        return (loss, outputs) if return_outputs else loss

    def _measure(self, losses: Any, chosen: Any, rejected: Any, inputs: dict[str, Any]) -> None:
        mode = "train" if self.model.training else "eval"
        margins = self.beta * (chosen - rejected).detach()
        for name, values in (
            ("unweighted_loss", losses.detach()),
            ("reward_accuracy", (margins > 0).float()),
            ("reward_margin", margins),
        ):
            self._metrics[mode][name].append(self.accelerator.gather(values).mean().item())
        if mode == "train":
            self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _said(self, loss: float, losses: Any, inputs: dict[str, Any]) -> str:
        places = inputs[PAIR].tolist()
        bad = [place for place, finite in zip(places, torch.isfinite(losses).tolist(), strict=True) if not finite]
        rows = ", ".join(self._names[place] for place in bad or places)
        return (
            f"the loss of step {self.state.global_step + 1} is {loss}: rows {rows} of its batch; "
            "lower the learning rate, or look at these pairs"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save without TRL's model card, which asks the network for its citation."""
        super(DPOTrainer, self)._save_checkpoint(model, trial)
