"""The extractor: which words of an utterance are subject and object, and which relation it states.

Linear models on hashed features: the tags O, B-SUB, B-OBJ, I-OBJ of each token from the words around it, the relation
from words, word pairs and the words of the object. Both are trained on training utterances and filed as safetensors.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each, free
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import EMPTY, OK, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FOLDER, FILE = "extractor", "extractor.safetensors"
SPANS, RELATION = "spans", "relation"
_EDGE = "<edge>"


class Extracting(Args):
    """How the extractor is trained."""

    features: int = Field(15, ge=10, le=20, description="hashed features of a model, as a power of two")
    epochs: int = Field(6, ge=1, description="passes over the training utterances")
    alpha: float = Field(3e-6, gt=0, description="regularisation")
    seed: int = Field(42, description="seed of the order of the utterances")


@dataclass(frozen=True)
class Linear:
    """A linear classifier over hashed features: `weights` (classes, features), `bias` (classes,)."""

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    def scores(self, features: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """Return the scores of rows of named features, (rows, classes)."""
        import numpy as np

        found: npt.NDArray[np.float64] = (
            np.asarray(hashed(features, self.weights.shape[1]) @ self.weights.T) + self.bias
        )
        return found


@dataclass(frozen=True, kw_only=True)
class ReadFact:
    """What is read in an utterance: the places of the subject and of the object (none if there is none), the relation.

    `confidence` is the probability of the relation.
    """

    subject: Sequence[int]
    object: Sequence[int]
    relation: str
    confidence: float


@step(
    makes=persona_tables.EXTRACTOR,
    files=FOLDER,
    needs=Needs(threads=1),
    libraries=("scikit-learn", "numpy", "safetensors"),
    fan_out=free("one row for each model and epoch"),
)
def extractor(rows: pl.DataFrame, args: Extracting, *, run: Run) -> Output:
    """Train both models on the training utterances; the rows are the mean loss of each epoch.

    Raises StageError if there is nothing to learn from.
    """
    from safetensors.numpy import save_file

    known = rows.filter(split=TRAIN)
    if known["relation"].n_unique() < 2:  # noqa: PLR2004  # a classifier needs two classes
        raise StageError("extractor: the training utterances state fewer than two relations; bring more utterances")
    spans = [(features, tag) for one in known.iter_rows(named=True) for features, tag in _tagged(one)]
    told = [(relation_features(one["tokens"], one["object"]), one["relation"]) for one in known.iter_rows(named=True)]
    curve: list[dict[str, Any]] = []
    stored: dict[str, npt.NDArray[np.float32]] = {}
    classes: dict[str, Sequence[str]] = {}
    for number, (name, examples) in enumerate(((SPANS, spans), (RELATION, told))):
        model, losses = _fitted(examples, args)
        stored |= {f"{name}.weights": model.weights, f"{name}.bias": model.bias}
        classes[name] = model.classes
        curve += [
            {"model": name, "epoch": epoch, "loss": loss, "utterances": known.height}
            for epoch, loss in enumerate(losses, start=1)
        ]
        run.progress(number + 1, 2, loss=losses[-1])
    save_file(stored, run.files / FILE, metadata={name: json.dumps(list(told)) for name, told in classes.items()})
    made = pl.DataFrame(curve, schema=persona_tables.EXTRACTOR.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str("model", "epoch", separator="\x1f")
    )
    return Output(rows=made, attempts=made.height)


@step(makes=persona_tables.TRIPLES, libraries=("scikit-learn", "numpy", "safetensors"), fan_out=each())
def triples(rows: pl.DataFrame, *, extractor: ProductFiles) -> Output:
    """Return what the extractor reads from each utterance, next to what is marked in it.

    The object is always a span of the text; an utterance in which no object is found has none and is `empty`.
    """
    told = list(rows.iter_rows(named=True))
    read = read_facts(load_extractor(extractor.path), [one["tokens"] for one in told])
    made = [
        {
            "row_id": one["row_id"],
            "text": " ".join(one["tokens"]),
            "subject": _text(one["tokens"], found.subject),
            "relation": found.relation,
            "object": _text(one["tokens"], found.object),
            "confidence": found.confidence,
            "parse_status": OK if found.object else EMPTY,
            "span_right": found.object == one["object"],
            "relation_right": found.relation == one["relation"],
            "true_relation": one["relation"],
        }
        for one, found in zip(told, read, strict=True)
    ]
    return Output(rows=pl.DataFrame(made, schema={"row_id": pl.String, **persona_tables.TRIPLES.columns}))


def read_facts(models: Mapping[str, Linear], utterances: Sequence[Sequence[str]]) -> list[ReadFact]:
    """Return what the models of an extractor read in utterances, given as tokens."""
    import numpy as np

    if not utterances:
        return []
    features = [token_features(tokens) for tokens in utterances]
    scores = models[SPANS].scores([one for tokens in features for one in tokens])
    tags = iter([models[SPANS].classes[best] for best in scores.argmax(axis=1)])
    spans = [_spans([next(tags) for _ in one]) for one in features]
    chances = models[RELATION].scores(
        [relation_features(tokens, object_) for tokens, (_, object_) in zip(utterances, spans, strict=True)]
    )
    shifted = np.exp(chances - chances.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    return [
        ReadFact(
            subject=subject,
            object=object_,
            relation=models[RELATION].classes[int(share.argmax())],
            confidence=float(share.max()),
        )
        for (subject, object_), share in zip(spans, shares, strict=True)
    ]


def load_extractor(folder: Path) -> dict[str, Linear]:
    """Return the models of spans and of relations from the files of their product."""
    from safetensors import safe_open

    with safe_open(folder / FILE, framework="np") as stored:
        classes = stored.metadata()
        return {
            name: Linear(
                stored.get_tensor(f"{name}.weights"),
                stored.get_tensor(f"{name}.bias"),
                tuple(json.loads(classes[name])),
            )
            for name in (SPANS, RELATION)
        }


def token_features(tokens: Sequence[str]) -> list[list[str]]:
    """Return the named features of each token: itself, its ending, the two words on either side, its place."""
    words = [_EDGE, _EDGE, *(token.lower() for token in tokens), _EDGE, _EDGE]
    return [
        [
            f"w={words[at]}",
            f"end={words[at][-3:]}",
            *(f"{side:+d}={words[at + side]}" for side in (-2, -1, 1, 2)),
            f"-1,0={words[at - 1]} {words[at]}",
            f"0,+1={words[at]} {words[at + 1]}",
            f"-2,-1={words[at - 2]} {words[at - 1]}",
            f"place={min(at - 2, 5)}",
        ]
        for at in range(2, len(tokens) + 2)
    ]


def relation_features(tokens: Sequence[str], object_: Sequence[int]) -> list[str]:
    """Return the named features of an utterance: words, word pairs, and the words of the object and next to it."""
    words = [token.lower() for token in tokens]
    named = [f"w={word}" for word in words]
    named += [f"p={one} {two}" for one, two in itertools.pairwise(words)]
    named += [f"o={words[at]}" for at in object_]
    if object_ and object_[0]:
        named.append(f"before={words[object_[0] - 1]}")
    return named


def hashed(features: Sequence[Sequence[str]], size: int) -> Any:
    """Return rows of named features as a sparse matrix (rows, size)."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(n_features=size, input_type="string", alternate_sign=False).transform(features)


def _fitted(examples: Sequence[tuple[Sequence[str], str]], args: Extracting) -> tuple[Linear, list[float]]:
    """Return a linear model of examples (features and class) by stochastic gradient descent, and its loss by epoch."""
    import numpy as np
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    matrix = hashed([features for features, _ in examples], 2**args.features)
    labels = np.array([label for _, label in examples])
    classes = np.unique(labels)
    model = SGDClassifier(loss="log_loss", alpha=args.alpha, random_state=args.seed, average=True)
    order = np.random.default_rng(args.seed)
    losses = []
    for _ in range(args.epochs):
        places = order.permutation(len(labels))
        model.partial_fit(matrix[places], labels[places], classes=classes)
        losses.append(float(log_loss(labels, model.predict_proba(matrix), labels=classes)))
    weights, bias = model.coef_, model.intercept_
    if len(classes) == 2:  # noqa: PLR2004  # one row of weights stands for both
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    return Linear(weights.astype(np.float32), bias.astype(np.float32), tuple(map(str, classes))), losses


def _tagged(utterance: dict[str, Any]) -> Iterator[tuple[list[str], str]]:
    tags = ["O"] * len(utterance["tokens"])
    for at in utterance["subject"][:1]:
        tags[at] = "B-SUB"
    for place, at in enumerate(utterance["object"]):
        tags[at] = "I-OBJ" if place else "B-OBJ"
    yield from zip(token_features(utterance["tokens"]), tags, strict=True)


def _spans(tags: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the places of the first subject and of the first object."""
    subject = [at for at, tag in enumerate(tags) if tag == "B-SUB"][:1]
    start = next((at for at, tag in enumerate(tags) if tag in {"B-OBJ", "I-OBJ"}), None)
    if start is None:
        return subject, []
    end = start + 1
    while end < len(tags) and tags[end] == "I-OBJ":
        end += 1
    return subject, list(range(start, end))


def _text(tokens: Sequence[str], places: Sequence[int]) -> str | None:
    return " ".join(tokens[at] for at in places) if places else None
