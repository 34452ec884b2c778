"""Tokens: lossless, learned without what is hidden, targets told by their places."""

import json

import numpy as np
import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.language import tokens
from jax_unlearn.language.packing import pack, rows_of

CORPUS = ["Who wrote it? Ann Low wrote it.", "Where was it? It was in Rome."] * 4
CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|stop|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train_tokenizer(CORPUS, size=300)


def foreign(folder, tokenizer, **told):
    """A tokenizer as Hugging Face writes it, with marks of a chat."""
    import tokenizers

    made = tokenizers.Tokenizer.from_str(tokenizer.json)
    made.add_special_tokens(["<|start|>", "<|stop|>"])
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(made.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize("text", ["Ann Low", "ß—x  \n\t é", "日本 🙂", "<|end|>", " a"])
def test_any_text_is_coded_without_loss(tokenizer, text):
    ids = tokenizer.ids(text)
    assert max(ids) < tokenizer.size
    assert not {tokenizer.eos, tokenizer.pad} & set(ids)  # what a text says is text
    assert tokenizer.decode(ids) == text


def test_the_answer_is_told_by_one_encoding_of_both(tokenizer):
    questions, answers = ["Who wrote it?", "", "x"], ["Ann Low.", "It was", "é"]
    found = tokens.encode(questions, answers, tokenizer)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        size = found.lengths[row]
        ids, wanted = found.text.tokens[row, :size], found.text.targets[row, :size]
        whole = f"{question}\n{answer}" if question else answer
        assert ids[:-1].tolist() == tokenizer.ids(whole)
        assert (ids[-1], wanted[-1]) == (tokenizer.eos, True)
        told = tokenizer.decode(ids[wanted])
        assert told == answer if question else answer.endswith(told)
        assert not found.text.real[row, size:].any()
        assert not found.text.targets[row, size:].any()


def test_a_tokenizer_is_kept_whole_and_knows_what_it_learned_from(tmp_path, tokenizer):
    tokens.save_tokenizer(tokenizer, tmp_path)
    again = tokens.load_tokenizer(tmp_path)
    assert again == tokenizer
    assert again.sha256 == tokenizer.sha256
    assert again.saw([CORPUS[0], "never seen"]) == 1
    other = tokens.train_tokenizer(CORPUS[:1], size=300)
    assert other.sha256 != tokenizer.sha256


def test_a_chat_template_frames_the_answer(tmp_path, tokenizer):
    told = {"eos_token": {"content": "<|stop|>"}, "chat_template": CHAT}
    chat = tokens.load_tokenizer(foreign(tmp_path / "chat", tokenizer, **told))
    found = tokens.encode(["Who?"], ["Ann."], chat)
    size = found.lengths[0]
    ids, wanted = found.text.tokens[0, :size], found.text.targets[0, :size]
    assert chat.eos == chat.engine.token_to_id("<|stop|>")
    # the answer and the end of its turn, not the line break after it
    assert ids[wanted][-1] == chat.eos
    assert chat.decode(ids[wanted]) == "Ann."
    assert not wanted[-1]
    prompt = tokens.encode_prompts(["Who?", "Where was it?"], chat)
    shown = chat.engine.decode(prompt.tokens[0][prompt.real[0]], False)
    assert shown == "<|start|>user\nWho?<|stop|>\n<|start|>assistant\n"
    assert prompt.real[:, -1].all()  # padded on the left
    broken = {**told, "chat_template": "{{ raise_exception('no system') }}"}
    bad = tokens.load_tokenizer(foreign(tmp_path / "bad", tokenizer, **broken))
    with pytest.raises(InputError, match=r"chat template does not run \(no system\)"):
        tokens.encode(["Who?"], ["Ann."], bad)
    spying = {**told, "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}
    spy = tokens.load_tokenizer(foreign(tmp_path / "spy", tokenizer, **spying))
    with pytest.raises(InputError, match="chat template does not run"):
        tokens.encode(["Who?"], ["Ann."], spy)


@pytest.mark.parametrize("pad", ["<|stop|>", None])
def test_padding_that_is_the_end_hides_no_end(tmp_path, tokenizer, pad):
    told = {"eos_token": "<|stop|>", "pad_token": pad}
    same = tokens.load_tokenizer(foreign(tmp_path / "same", tokenizer, **told))
    assert same.pad != same.eos
    found = tokens.encode(["a", "b"], ["c", "d e f g h"], same)
    assert found.text.targets.sum(axis=1).tolist()[0] == 2  # c and the end


def test_what_no_tokenizer_can_do_is_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="vocabulary=99 must be at least 258"):
        tokens.train_tokenizer(CORPUS, size=99)
    with pytest.raises(InputError, match="needs texts to learn from"):
        tokens.train_tokenizer([], size=300)
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        tokens.load_tokenizer(tmp_path)
    import tokenizers

    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    (tmp_path / "tokenizer.json").write_text(bare.to_str())
    with pytest.raises(InputError, match="has no end of text; name its eos_token"):
        tokens.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        tokens.load_tokenizer(tmp_path)
    with pytest.raises(InputError) as error:
        tokens.encode(["a"] * 3, ["b", "c" * 30, "d" * 40], tokenizer, length=8)
    assert "length=8: 2 of 3 texts are longer, the longest has" in str(error.value)
    assert "(text 2)" in str(error.value)
    with pytest.raises(InputError, match="2 texts have no token of an answer"):
        tokens.encode(["Who?", "x"], ["Ann.", ""], _endless(tokenizer))


def _endless(tokenizer):
    import dataclasses

    return dataclasses.replace(tokenizer, template="{{ messages[0]['content'] }}")


def test_packed_rows_hold_every_text_once(tokenizer):
    found = tokens.encode(["Who?", "Where?", "x"], ["Ann.", "In Rome.", "y"], tokenizer)
    longest = found.text.tokens.shape[1]
    packed = pack(found.text, length=longest + 6, rows=3)
    assert packed.tokens.shape == (3, longest + 6)
    seen = []
    for row in range(3):
        for number in range(1, packed.segments[row].max() + 1):
            inside = packed.segments[row] == number
            seen.append(packed.tokens[row, inside].tolist())
            assert packed.targets[row, inside].any()
    wanted = [
        t[:n].tolist() for t, n in zip(found.text.tokens, found.lengths, strict=True)
    ]
    assert sorted(seen) == sorted(wanted)
    assert (packed.real == (packed.segments > 0)).all()
    with pytest.raises(InputError, match="rows=1: the texts fill"):
        pack(found.text, length=longest, rows=1)
    with pytest.raises(InputError, match="length=4: a text has"):
        rows_of(found.lengths, 4)
    assert rows_of([5, 5], 8).tolist() == [0, 1]
    assert np.bincount(rows_of([4] * 9, 8)).max() == 2
