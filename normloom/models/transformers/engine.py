"""The embedded engine: a causal language model run by transformers and torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModelForCausalLM

from normloom.core.errors import ModelError
from normloom.core.models.protocol import (
    Candidate,
    Completion,
    GenerateRequest,
    ModelSpec,
    ReplyRequest,
    ReplyScore,
    Sampling,
    ScoreRequest,
    Scores,
)
from normloom.models.files.locate import locate
from normloom.models.loading import context_limit, end_tokens, load, tokenizer_of
from normloom.models.media.senses import UNREAD, config_senses, counts_in_three
from normloom.models.registry import parse_options, require_free_text
from normloom.models.requests.chat import Chat
from normloom.models.requests.progress import current_teller
from normloom.models.requests.prompts import Prompt, Prompter
from normloom.models.requests.reasoning import candidate
from normloom.models.transformers.decoding import Draft, Stops, read_prompts, write
from normloom.models.transformers.media import Media, multimodal
from normloom.models.transformers.mixing import Adapters, Mixture
from normloom.models.transformers.packing import PackedRow, batches
from normloom.models.transformers.reading import READ, Reader
from normloom.models.transformers.replies import reply_log_probs
from normloom.models.transformers.scoring import BatchLimits, read_packed, read_whole
from normloom.models.transformers.states import mean_states

_Key = TypeVar("_Key", bound=Hashable)


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    score_batch: int = Field(8, ge=1)  # contexts in one forward pass
    score_tokens: int = Field(512, ge=1)  # of a context with its questions; more are cut into several rows
    generate_batch: int = Field(64, ge=1)  # candidates written side by side
    batch_tokens: int = Field(65536, ge=1)  # the most that a batch holds, padding and answers included
    max_length: int | None = Field(None, ge=1)  # lowers the model's own limit of prompt and answer
    kept_images: int = Field(256, ge=1)  # images and sounds whose vectors wait for further questions
    share_prefix: bool = True  # False reads every question with its whole prompt: slow, for comparison
    template: dict[str, Any] = Field(default_factory=dict)  # variables of the chat template


class TransformersModel:
    """A `LanguageModel` over any causal model of transformers that has a chat template, or one that sees or hears.

    A medium is encoded once, whatever is asked about it. Raises `ModelError` if the model is unavailable,
    `ConfigError` for a wrong setting or an answer that is not one token. In float32 what a row gets depends on its
    neighbours by rounding only.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.options = parse_options(Options, spec)
        directory = locate(spec)
        if counts_in_three(directory):
            raise ModelError(f"model {spec.model!r} cannot be asked: {UNREAD}")
        self.tokenizer = tokenizer_of(spec)
        kinds = config_senses(directory)
        model = load(multimodal(directory) if kinds else AutoModelForCausalLM, spec, threads=threads)
        self.media = Media(model, directory, kinds=kinds, name=spec.model) if kinds else None
        if self.media and not self.tokenizer.chat_template:
            self.tokenizer.chat_template = self.media.template
        self.chat = Chat(self.tokenizer, name=spec.model, variables=self.options.template, senses=self.media)
        self._usage: Counter[str] = Counter()
        self._adapters: dict[tuple[Path, ...], Adapters] = {}
        self._adapted: dict[Path, TransformersModel] = {}
        self.reader = Reader(model, self.media, usage=self._usage)
        self.shares = self.options.share_prefix and self.reader.can_share
        self.prompter = Prompter(self.chat, context_limit(model.config, self.tokenizer, self.options.max_length))
        self.end_tokens = end_tokens(model.generation_config.eos_token_id, self.tokenizer)

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        self._trim()
        prompts = [self.prompter.scoring(request) for request in requests]
        answers = [self.prompter.answers(request) for request in requests]
        tables = [np.empty((len(r.questions), len(r.answers))) for r in requests]
        options = self.options
        limits = BatchLimits(rows=options.score_batch, row_tokens=options.score_tokens, tokens=options.batch_tokens)
        read = read_packed if self.shares else read_whole
        tell, read_so_far = current_teller(), 0
        questions = sum(len(r.questions) for r, prompt in zip(requests, prompts, strict=True) if prompt.error is None)
        for members in _groups(tuple(prompt.head) for prompt in prompts).values():
            rows = {
                i: PackedRow(prompts[i].trunk, prompts[i].branches)
                for i in members
                if prompts[i].error is None and requests[i].questions
            }
            if not rows:
                continue
            self._usage["prompt_tokens"] += sum(len(ids) for i in rows for ids in prompts[i].sequences())
            for i, first, logits in read(self.reader, prompts[members[0]].head, rows, limits):
                read_so_far += len(logits)
                tell(read_so_far / max(questions, 1))
                chosen = logits[:, answers[i]] - logits.logsumexp(-1, keepdim=True)
                tables[i][first : first + len(chosen)] = chosen.cpu().numpy()
        return [
            Scores(
                logprobs=() if prompt.error else tuple(map(tuple, table.tolist())),
                tokens_in=prompt.tokens,
                error=prompt.error,
            )
            for prompt, table in zip(prompts, tables, strict=True)
        ]

    @torch.inference_mode()
    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        require_free_text(requests, "transformers")
        self._trim()
        prompts = [self.prompter.writing(request) for request in requests]
        written: dict[tuple[int, int], Candidate] = {}
        total = sum(len(r.seeds) for r, prompt in zip(requests, prompts, strict=True) if prompt.error is None)
        alike = ((*prompt.head, request.sampling) for prompt, request in zip(prompts, requests, strict=True))
        for members in _groups(alike).values():  # after one head, by one sampling
            sampling = requests[members[0]].sampling
            wanted = [(i, n) for i in members if prompts[i].error is None for n in range(len(requests[i].seeds))]
            lengths = [prompts[i].tokens + sampling.max_tokens for i, _ in wanted]
            for batch in batches(lengths, rows=self.options.generate_batch, tokens=self.options.batch_tokens):
                slots = [wanted[at] for at in batch]
                drafts = self._write(
                    slots, requests, prompts, sampling, done=len(written) / total, of=len(slots) / total
                )
                written.update(zip(slots, drafts, strict=True))
        return [
            Completion(
                candidates=tuple(written[i, n] for n in range(len(request.seeds)) if prompts[i].error is None),
                tokens_in=prompts[i].tokens,
                error=prompts[i].error,
            )
            for i, request in enumerate(requests)
        ]

    @torch.inference_mode()
    def score_replies(self, requests: Sequence[ReplyRequest]) -> list[ReplyScore]:
        """Return the log-probability of each reply, in the order of the requests."""
        exchanges = [self.prompter.exchange(request, end=self.tokenizer.eos_token_id) for request in requests]
        fitting = [exchange for exchange in exchanges if exchange.error is None]
        options, tell = self.options, current_teller()
        read = iter(
            reply_log_probs(
                self.reader,
                fitting,
                rows=options.score_batch,
                row_tokens=options.score_tokens,
                tokens=options.batch_tokens,
                share=self.shares,
                tell=tell,
            )
        )
        self._usage["prompt_tokens"] += sum(len(exchange.prompt) + len(exchange.reply) for exchange in fitting)
        return [
            ReplyScore(
                logprob=next(read) if exchange.error is None else float("nan"),
                tokens_in=len(exchange.prompt),
                tokens=len(exchange.reply),
                error=exchange.error,
            )
            for exchange in exchanges
        ]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the mean of the last layer over the tokens of each text as unit vectors, float32 (texts, width)."""
        limit = self.prompter.limit
        options, ids = self.options, [self.tokenizer(text)["input_ids"][-limit:] for text in texts]
        return mean_states(self.reader.model, ids, rows=options.score_batch, tokens=options.batch_tokens)

    def adapted(self, folder: Path) -> TransformersModel:
        """Return the model with an adapter; what is loaded is shared, and the model itself stays as it is."""
        if folder not in self._adapted:
            self._adapted[folder] = self._with(
                Mixture(self._adapters_in((folder,)), torch.ones(1, device=self.reader.model.device))
            )
        return self._adapted[folder]

    def mixed(self, folders: Sequence[Path], weights: np.ndarray) -> TransformersModel:
        """Return the model with adapters by the weights (requests, adapters) of the requests of its next call."""
        by_request = torch.from_numpy(weights).float().to(self.reader.model.device)
        return self._with(Mixture(self._adapters_in(tuple(folders)), by_request))

    def take_usage(self) -> dict[str, float]:
        """Return what was counted since this was last asked; slots are those of candidates being written.

        What counts as cached is what was not read again: the instruction, and a text under each question about it and
        for each of its candidates.
        """
        read, self.reader.tokens = self.reader.tokens, 0
        usage = Counter({name: amount for name, amount in self._usage.items() if name != READ})
        self._usage.clear()  # those with adapters count in it, too
        if self.media:
            usage.update(self.media.take_usage())
        return {**usage, "cached_tokens": usage["prompt_tokens"] - read}

    def _write(
        self,
        slots: Sequence[tuple[int, int]],
        requests: Sequence[GenerateRequest],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        done: float,
        of: float,
    ) -> list[Candidate]:
        """Write one batch of candidates, named as (request, number of the seed).

        The batch is the share `of` of all that was asked for; `done` is the share written before it.
        """
        tell = current_teller()
        drafts = [Draft(i, [*prompts[i].head, *prompts[i].trunk], requests[i].seeds[n]) for i, n in slots]
        head = prompts[slots[0][0]].head if self.shares else []
        stops = Stops(self.end_tokens, sampling.stop, self._decode)
        self._usage["prompt_tokens"] += sum(len(draft.prompt) for draft in drafts)
        prompted = read_prompts(self.reader, drafts, head)
        write(self.reader, prompted, drafts, sampling, stops, tell=lambda share: tell(done + share * of))
        written = [len(draft.tokens) for draft in drafts]
        self._usage["slots_used"] += sum(written)
        self._usage["slots"] += max(written) * self.options.generate_batch
        return [
            candidate(
                text=stops.cut(self._decode(draft.tokens)),
                seed=draft.seed,
                finish=draft.finish,
                tokens_out=len(draft.tokens),
            )
            for draft in drafts
        ]

    def _adapters_in(self, folders: tuple[Path, ...]) -> Adapters:
        if folders not in self._adapters:
            self._adapters[folders] = Adapters(self.reader.model, folders)
        return self._adapters[folders]

    def _with(self, mixture: Mixture) -> TransformersModel:
        """Return the same model that reads with adapters; keys and values of prefixes are its own."""
        one = copy(self)
        one.reader = Reader(self.reader.model, self.media, mixture=mixture, usage=self._usage)
        one.shares = self.shares and mixture.alike
        return one

    def _trim(self) -> None:
        if self.media:
            self.media.trim(self.options.kept_images)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def _groups(keys: Iterable[_Key]) -> dict[_Key, list[int]]:
    groups: dict[_Key, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return groups
