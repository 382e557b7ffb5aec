"""Sentence vectors: the real sentence-transformers code on a tiny T5, and chunks that last."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import yaml

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.encoders import sentences as module
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder, open_encoder
from recbole_bbqrec.prepare.mcauley.build import prepare_from_raw
from recbole_bbqrec.prepare.text import encode_texts
from tests.support.raw import asin, write_raw

WIDTH = 24


class CountingModel:
    """Stands in where only chunks matter: a text's vector is of its letters; counts the texts."""

    def __init__(self, fail_at: int | None = None, value: float = 1.0) -> None:
        self.seen: list[str] = []
        self.fail_at, self.value = fail_at, value

    def encode(self, texts, **_):
        if self.fail_at is not None and len(self.seen) >= self.fail_at:
            raise KeyboardInterrupt
        self.seen += texts
        return np.array([[len(text), sum(map(ord, text)), self.value] for text in texts])


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    return [f"text {i}" for i in range(10)]


def test_interrupted_encoding_goes_on(texts, tmp_path):
    kept = tmp_path / "kept"
    whole = SentenceEncoder("m", CountingModel()).encode(texts)
    with pytest.raises(KeyboardInterrupt):
        SentenceEncoder("m", CountingModel(fail_at=8)).encode(texts, kept)
    assert len(list(kept.iterdir())) == 2
    model = CountingModel()
    np.testing.assert_array_equal(SentenceEncoder("m", model).encode(texts, kept), whole)
    assert model.seen == texts[8:]
    assert not kept.exists()


@pytest.mark.parametrize("change", ["model", "text", "damaged", "other shape", "not finite"])
def test_chunks_that_do_not_fit_are_computed_again(texts, tmp_path, change):
    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        SentenceEncoder("m", CountingModel(fail_at=8)).encode(texts, kept)
    first = sorted(kept.iterdir())[0]
    name, again = "m", texts[:4] + texts[8:]
    if change == "model":
        name, again = "n", texts
    elif change == "text":
        texts[9] = again = "other"
        again = texts
    elif change == "damaged":
        first.write_bytes(first.read_bytes()[:-5])
    elif change == "other shape":
        np.save(first, np.ones((3, 3), dtype=np.float16))
    else:
        np.save(first, np.full((4, 3), np.nan, dtype=np.float16))
    model = CountingModel()
    vectors = SentenceEncoder(name, model).encode(texts, kept)
    assert model.seen == again
    np.testing.assert_array_equal(vectors, SentenceEncoder("m", CountingModel()).encode(texts))


def test_a_changed_model_folder_is_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = SentenceEncoder(str(tmp_path), None).identity
    assert SentenceEncoder(str(tmp_path), None).identity == before
    (tmp_path / "config.json").write_text("{ }")
    assert SentenceEncoder(str(tmp_path), None).identity != before


def test_numbers_that_are_not_finite(texts):
    with pytest.raises(UserError, match="not finite for the text 'text 0'"):
        SentenceEncoder("m", CountingModel(value=float("inf"))).encode(texts)


def test_model_that_is_not_there(monkeypatch, tmp_path):
    """One message that says what to do, whichever exception the library raises."""

    class Absent:
        def __init__(self, *_, **__):
            raise RuntimeError("no connection\nto the hub")

    module_like = type(sys)("sentence_transformers")
    module_like.SentenceTransformer = Absent
    monkeypatch.setitem(sys.modules, "sentence_transformers", module_like)
    with pytest.raises(UserError) as caught:
        open_encoder("some/model")
    message = str(caught.value)
    assert "no connection to the hub" in message and "\n" not in message
    assert "--text_encoder tfidf" in message and "hf download" in message


def test_the_encoder_is_opened_before_anything_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install '.*\[text\]'"):
        prepare_from_raw("Beauty", tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def sentence_t5(tmp_path_factory):
    """A sentence-T5 of random weights: T5 encoder, mean pooling, dense, normalised; 24-d."""
    pytest.importorskip("sentence_transformers", reason="the extra `text` is not installed")
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer import modules
    except ImportError:  # before version 6
        from sentence_transformers import models as modules
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    words = ["<pad>", "</s>", "<unk>", "A", "thing", "more", "&", *(f"theme{i}" for i in range(10))]
    words += [str(i) for i in range(200)]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "raw")
    config = T5Config(
        vocab_size=len(words), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(folder / "raw")
    transformer = modules.Transformer(str(folder / "raw"), max_seq_length=32)
    layers = [
        transformer,
        modules.Pooling(16, pooling_mode="mean"),
        modules.Dense(16, WIDTH, bias=False, activation_function=torch.nn.Identity()),
        modules.Normalize(),
    ]
    SentenceTransformer(modules=layers, device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
def test_real_sentence_t5_format(sentence_t5):
    """Loading and encoding through the library, against the same model's forward pass."""
    import torch
    from sentence_transformers import SentenceTransformer

    texts = ["theme1 thing 5", "theme1 thing more", "theme7", "A & more"]
    vectors = encode_texts(texts, str(sentence_t5))
    assert vectors.dtype == np.float16 and vectors.shape == (4, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=2e-3)
    model = SentenceTransformer(str(sentence_t5), device="cpu").eval()
    assert type(model[0].auto_model).__name__ == "T5EncoderModel"
    with torch.no_grad():
        for text, vector in zip(texts, vectors):
            alone = model(model.tokenize([text]))["sentence_embedding"][0]
            np.testing.assert_allclose(vector, alone.numpy(), atol=2e-3)


@pytest.mark.slow
def test_raw_files_with_sentence_t5(sentence_t5, tmp_path, monkeypatch):
    """Interrupted in the middle of the encoding, resumed, and the same bits as in one go."""
    monkeypatch.setattr(module, "_CHUNK", 64)
    write_raw(tmp_path / "raw")
    options = {"raw": tmp_path / "raw", "text_encoder": str(sentence_t5), "images": False}
    report = prepare_from_raw("Beauty", tmp_path / "once", **options)
    assert report.text_encoder == sentence_t5.name  # not where it lies on this machine
    original, calls = SentenceEncoder._vectors, []

    def interrupt_third(self, texts, batch_size):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, texts, batch_size)

    monkeypatch.setattr(SentenceEncoder, "_vectors", interrupt_third)
    with pytest.raises(KeyboardInterrupt):
        prepare_from_raw("Beauty", tmp_path / "twice", **options)
    assert os.listdir(tmp_path / "twice") == [".Beauty.text"]
    prepare_from_raw("Beauty", tmp_path / "twice", **options)
    assert calls == [64, 64, 64, 64, 6]
    assert os.listdir(tmp_path / "twice") == ["Beauty"]
    for path in (tmp_path / "once" / "Beauty").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / "Beauty" / path.name).read_bytes()
    folder = tmp_path / "twice" / "Beauty"
    described = yaml.safe_load((folder / "Beauty.features.yaml").read_text())["text"]
    assert described["encoder"] == sentence_t5.name and described["dimension"] == WIDTH
    tokens = (folder / "Beauty.text.items.txt").read_text().split()
    row = np.load(folder / "Beauty.text.npy")[tokens.index(asin(42))]
    alone = encode_texts(["theme2 thing & more. A theme2 thing 42"], str(sentence_t5))[0]
    np.testing.assert_allclose(row, alone, atol=2e-3)
