"""Models of text: what they are trained on, how they start, what they write."""

from dataclasses import replace

import numpy as np
import pytest
from gradtwin.comparisons import english, ops
from gradtwin.comparisons.environment import fingerprint
from gradtwin.comparisons.training.cells import MODELS, Cell, start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_hand, by_torch, train
from gradtwin.comparisons.training.text import sample
from gradtwin.comparisons.verdict.floor import Floor

TEXT = [name for name, model in MODELS.items() if model.data == "text"]
SWEEP = pytest.mark.sweep
SMALL = {"width": 8, "context": 12}


def cell(model, **changed):
    size = SMALL | ({"embedding": 4} if "char" in model else {"layers": 1})
    given = {"regime": "mini-batch", "batch_size": 4, "steps": 12, "size": size, **changed}
    return Cell(model, "text", "adamw", 0.03, **given)


def test_the_text_is_python_s_help_in_an_alphabet_of_96():
    text, data = english.text(), load("text")
    assert len(text) == english.LENGTH
    assert len(set(english.ALPHABET)) == len(english.ALPHABET) == 96
    assert text.isascii()
    assert set(text) <= set(english.ALPHABET)
    assert "".join(english.ALPHABET[i] for i in data.x[:50]) == text[:50]
    assert np.array_equal(data.x[1:], data.target[:-1])
    assert fingerprint()["text"] == english.digest()


def test_another_text_has_another_digest(monkeypatch):
    before = english.digest()
    monkeypatch.setattr(english, "text", lambda: "The quick brown fox")
    assert english.digest() != before


def test_windows_are_followed_by_their_targets():
    x, target = cell("gpt").seen(load("text"))
    assert x.shape == target.shape == (99_999 // 12, 12)
    assert np.array_equal(x[:, 1:], target[:, :-1])
    assert np.array_equal(x[1:, 0], target[:-1, -1])


@pytest.mark.parametrize("model", TEXT)
def test_a_start_has_the_spread_that_torch_gives_it(model):
    """Standard deviations by the formulas, within five of their standard errors."""
    found = start(cell(model, size={"width": 64, "context": 16}))
    H = 64
    for name, a in found.items():
        if a.ndim < 2:
            continue
        if "char" in model:
            uniform = 1 / np.sqrt(3 * H)
            std = 1.0 if name == "embedding.weight" else uniform
        else:
            std = 0.02 / np.sqrt(4) if name.endswith("c_proj.weight") else 0.02
        assert abs(a.std() / std - 1) < 5 / np.sqrt(a.size), (name, a.std(), std)
        assert abs(a.mean()) < 5 * std / np.sqrt(a.size)
    norms = [a for n, a in found.items() if a.ndim == 1 and ("ln" in n or "norm" in n)]
    assert all(np.all(a == 1) or not a.any() for a in norms)


def trained(given):
    *_, last = train(by_hand(given, load("text")), start(given), given.steps, given.all_settings)
    return last.after


@pytest.mark.parametrize("model", [*TEXT[:2], *(pytest.param(m, marks=SWEEP) for m in TEXT[2:])])
def test_both_sides_write_the_same(model):
    """At temperature 0, save behind a character whose two best logits lie within the floor."""
    given = cell(model, dtype="float32")
    parameters, pair = trained(given), ops.named(model).pair
    ours, theirs = (given.written(side, parameters) for side in pair)
    print(repr(ours), repr(theirs))
    apart = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
    if apart is not None:
        tokens = np.array([[english.ALPHABET.index(c) for c in ours[:apart]]])[:, -12:]

        def logits(inputs):
            return {"ahead": pair[1](inputs, tokens, **given.model_settings)[0][0, -1]}

        floor = Floor(logits, parameters, np.dtype("float32"))
        floor.draw()
        best = np.sort(floor.truth["ahead"])[-2:]
        assert best[1] - best[0] <= 2 * 8 * floor.values["ahead"].max()
    assert ours.startswith("The ")


def test_a_wrong_model_writes_something_else():
    given = cell("gpt", dtype="float32")
    parameters = trained(given)
    rule = ops.named("gpt").rule
    right = given.written(rule, parameters)
    moved = {n: np.roll(a, 1, 0) if "wte" in n else a for n, a in parameters.items()}
    assert given.written(rule, moved) != right
    assert given.written(rule, {n: a * np.nan for n, a in parameters.items()}) == ""


def always(*ahead):
    """Logits of all characters, of which the first ones are given."""

    def logits(tokens):
        found = np.full((*tokens.shape, 96), -9.0)
        found[..., : len(ahead)] = ahead
        return found

    return logits


def test_a_sample_is_drawn_at_a_temperature():
    assert sample(always(0.0, 1.0), "A", 5, 4) == "A" + english.ALPHABET[1] * 5
    rng = np.random.default_rng(0)
    hot = sample(always(0.0, 1.0), "A", 4000, 4, 1.0, rng)
    share = hot.count(english.ALPHABET[1]) / hot.count(english.ALPHABET[0])
    assert abs(np.log(share) - 1) < 5 / np.sqrt(1000)
    cold = sample(always(0.0, 1.0), "A", 500, 4, 0.01, rng)
    assert cold == "A" + english.ALPHABET[1] * 500


def test_a_model_sees_no_more_than_its_context():
    seen = []

    def logits(tokens):
        seen.append(tokens.shape[1])
        return np.zeros((*tokens.shape, 96))

    sample(logits, "AB", 5, 4)
    assert seen == [2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "prompt: expected some characters"),
        ({"prompt": "ü"}, "prompt: expected some characters"),
        ({"temperature": -1.0}, "temperature: expected 0"),
        ({"temperature": 1.0}, "temperature: expected 0, or above and a generator"),
    ],
)
def test_what_a_sample_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        sample(**{"logits": always(1.0), "prompt": "A", "steps": 1, "context": 4, **change})


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        ("gpt", {"depth": 2}, "size: gpt has layers, width, heads, context, dropout, and no depth"),
        ("mlp", {"width": 2}, "size: mlp has none, and no width"),
        ("gpt", {"width": 0}, "width: expected a size"),
        ("gpt", {"width": 7}, "heads: expected a divisor of 7, got 4"),
        ("llama", {"width": 4}, "heads: expected heads of even width"),
        ("gpt", {"dropout": 1.5}, "p: expected"),
    ],
)
def test_sizes_that_cannot_be(model, size, words):
    with pytest.raises(ValueError, match=words):
        Cell(model, MODELS[model].data, "sgd", 0.1, size=size)


def test_dropout_is_drawn_anew_at_each_step_and_the_same_on_both_sides():
    given = cell("gpt", size={**SMALL, "layers": 1, "dropout": 0.25})
    data = load("text")
    ours, theirs = by_hand(given, data), by_torch(given, data)
    masks = [ours.batch(t)[2]["masks"]["transformer.drop"] for t in range(2)]
    assert not np.array_equal(*masks)
    assert np.array_equal(theirs.batch(0)[2]["masks"]["transformer.drop"], masks[0])
    assert abs(masks[0].mean() - 0.75) < 5 * 0.5 / np.sqrt(masks[0].size)
    assert len(by_hand(replace(given, size=SMALL), data).batch(0)) == 2
