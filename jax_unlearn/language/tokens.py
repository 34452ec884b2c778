"""Tokens: a byte-level BPE trained on texts, or a tokenizer of somebody else's.

Shapes: N texts, T tokens of the longest one allowed.
"""

import base64
import dataclasses
import functools
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.checks import few
from jax_unlearn.data.files import read_json, write_atomic
from jax_unlearn.errors import InputError, one_line
from jax_unlearn.language.chat import SETTINGS, chat_template, render
from jax_unlearn.language.text import Text

__all__ = ["Encoded", "Tokenizer", "digest_of", "encode", "encode_prompts"]
__all__ += ["load_tokenizer", "prompt_and_text", "save_tokenizer", "train_tokenizer"]
__all__ += ["until_end"]

PAD, END = "<|pad|>", "<|end|>"
SMALLEST = 258  # all bytes, padding and end
MOST = 100_000  # texts whose digests a tokenizer keeps
FILE = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: what its file holds, and the ids that have a meaning.

    Attributes:
      packed: `tokenizer.json`, compressed, in base64.
      eos: id by which a text ends.
      pad: id of padding.
      bos: id by which a text begins; −1: none.
      template: of a chat, in Jinja; "" joins question and answer by a line break.
      marks: texts of special tokens by name, which the template may ask for.
      learned: digests of the texts it was trained on, see `digest_of`; () where that
        is not known.

    >>> tokenizer = train_tokenizer(["to be or not to be"], size=260)
    >>> tokenizer.decode(tokenizer.ids("to be"))
    'to be'
    """

    packed: str
    eos: int
    pad: int
    bos: int = -1
    template: str = ""
    marks: tuple[tuple[str, str], ...] = ()
    learned: tuple[str, ...] = ()

    @functools.cached_property
    def engine(self) -> Any:
        """The tokenizer of the package `tokenizers`."""
        made = _library().Tokenizer.from_str(self.json)
        made.no_truncation()
        made.no_padding()
        # what a text says of special tokens is text; those of a template are its own
        made.encode_special_tokens = not self.template
        return made

    @property
    def json(self) -> str:
        """What `tokenizer.json` holds."""
        return zlib.decompress(base64.b64decode(self.packed)).decode()

    @property
    def size(self) -> int:
        """V, one more than the largest id."""
        return max(self.engine.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def sha256(self) -> str:
        """The digest of all that decides the tokens of a text."""
        told = [self.json, self.eos, self.pad, self.bos, self.template]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without beginning and end."""
        return self.engine.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return tokens as text, special ones left out."""
        return self.engine.decode([int(i) for i in ids], skip_special_tokens=True)

    def saw(self, texts: Sequence[str]) -> int:
        """Return how many of some texts it was trained on, as far as is known."""
        known = set(self.learned)
        return sum(digest_of(text) in known for text in texts)


class Encoded(NamedTuple):
    """Texts as tokens, and how many each has.

    Attributes:
      text: `Text` of arrays `[N, T]`, padded on the right.
      lengths: number of tokens, `i32[N]`.
    """

    text: Text
    lengths: NDArray[np.int32]


def digest_of(text: str) -> str:
    """Return the short digest by which a tokenizer knows a text again."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def train_tokenizer(texts: Iterable[str], *, size: int) -> Tokenizer:
    """Return a byte-level BPE of V ≤ `size` tokens, trained on texts.

    Any text is coded without loss; the first two ids are padding and end. Train it
    without what is to be forgotten: its merges are made of what it sees.

    Raises:
      InputError: `size` under 258 (all bytes, padding and end), or no texts.

    Reference: Sennrich et al., arXiv 1508.07909; Radford et al. 2019 (bytes).
    """
    if size < SMALLEST:
        raise InputError(
            f"vocabulary={size} must be at least {SMALLEST}: all bytes, padding and "
            "end; try 2048"
        )
    library, given = _library(), list(texts)
    if not given:
        raise InputError("a tokenizer needs texts to learn from; give some")
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(given, trainer)
    learned = tuple(sorted({*map(digest_of, given)})) if len(given) <= MOST else ()
    marks = ("eos_token", END), ("pad_token", PAD)
    return Tokenizer(_pack(made.to_str()), 1, 0, marks=marks, learned=learned)


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a folder: `tokenizer.json`, `tokenizer_config.json`.

    As Hugging Face writes them; end, beginning and chat template are of the second
    file (or of `chat_template.jinja`). Where no padding is named, one that never
    stands for text is taken: a special token that is neither end nor beginning, or
    else an id beyond the vocabulary's use is asked for.

    Raises:
      InputError: no such files, or neither end nor padding.
    """
    root = Path(folder)
    file = root / FILE if root.is_dir() else root
    if not file.exists():
        raise InputError(
            f"tokenizer={root} has no {FILE}; write it with `tokenizer.save_pretrained`"
            " of a fast tokenizer"
        )
    try:
        text = file.read_text(encoding="utf-8")
        made = _library().Tokenizer.from_str(text)
    except InputError:
        raise
    except Exception as error:  # the library raises plain ones
        raise InputError(
            f"tokenizer={file} cannot be read ({one_line(error)}); write it anew"
        ) from error
    told: dict[str, Any] = {}
    if (settings := file.with_name(SETTINGS)).exists():
        found = read_json(settings)
        told = found if isinstance(found, dict) else {}
    marks = {k: _mark(v) for k, v in told.items() if k.endswith("_token") and _mark(v)}
    ids = {k: made.token_to_id(mark) for k, mark in marks.items()}
    known = [made.token_to_id(END), made.token_to_id(PAD)]
    eos = _first(ids.get("eos_token"), known[0], made.token_to_id("<|endoftext|>"))
    if eos is None:
        raise InputError(
            f"tokenizer={root} has no end of text; name its eos_token in {SETTINGS}"
        )
    pad = _first(ids.get("pad_token"), known[1])
    if pad is None or pad == eos:  # padding is told by masks, and never looked up
        others = {
            i for i, t in made.get_added_tokens_decoder().items() if t.special
        } - {eos, ids.get("bos_token")}
        pad = min(others) if others else eos
    template = chat_template(file, told)
    bos = ids.get("bos_token")
    begins = bos is not None and not template and _begins(made, bos)
    given = tuple(sorted(marks.items()))
    own = bos if begins and bos is not None else -1
    learned = tuple(map(str, told.get("learned", ())))
    return Tokenizer(_pack(text), eos, pad, own, template, given, learned)


def save_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike[str]) -> None:
    """Write a tokenizer as Hugging Face reads it, and `load_tokenizer`."""
    root, marks = Path(folder), dict(tokenizer.marks)
    told: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **marks}
    if tokenizer.template:
        told["chat_template"] = tokenizer.template
    if tokenizer.learned:
        told["learned"] = list(tokenizer.learned)
    write_atomic(root / FILE, tokenizer.json, overwrite=True)
    text = json.dumps(told, indent=1, ensure_ascii=False)
    write_atomic(root / SETTINGS, text + "\n", overwrite=True)


def prompt_and_text(
    question: str, answer: str, tokenizer: Tokenizer
) -> tuple[str, str]:
    r"""Return the prompt of a question, and the whole text that begins with it.

    >>> prompt_and_text("Who?", "Ann.", train_tokenizer(["a"], size=258))
    ('Who?\n', 'Who?\nAnn.')
    """
    if not question:
        return "", answer
    if not tokenizer.template:
        return f"{question}\n", f"{question}\n{answer}"
    asked = {"role": "user", "content": question}
    said = {"role": "assistant", "content": answer}
    written = functools.partial(render, tokenizer.template, tokenizer.marks)
    prompt = written([asked], add_generation_prompt=True)
    whole = written([asked, said], add_generation_prompt=False)
    if not whole.startswith(prompt):  # a template that opens the answer otherwise
        place = whole.rfind(answer)
        if place < 0:
            raise InputError(
                "the chat template does not hold the answer as it is; give another "
                "tokenizer"
            )
        prompt = whole[:place]
    return prompt, whole


def encode(
    questions: Sequence[str],
    answers: Sequence[str],
    tokenizer: Tokenizer,
    *,
    length: int = 0,
) -> Encoded:
    """Return texts as tokens `[N, T]`, the answer and the end of the text as targets.

    Prompt and answer are told apart by the places of the tokens in one encoding of
    both: a token that merges over the border is of the answer. T is `length`, or of
    the longest text where that is 0.

    Raises:
      InputError: texts over `length` (nothing is cut), or without a target.

    >>> tokenizer = train_tokenizer(["b"], size=258)
    >>> encoded = encode(["a"], ["b"], tokenizer)
    >>> encoded.text.targets, encoded.lengths
    (array([[False, False,  True,  True]]), array([4], dtype=int32))
    """
    pairs = [
        prompt_and_text(q, a, tokenizer)
        for q, a in zip(questions, answers, strict=True)
    ]
    found = tokenizer.engine.encode_batch(
        [whole for _, whole in pairs], add_special_tokens=False
    )
    rows, targets = [], []
    for (prompt, _), answer, one in zip(pairs, answers, found, strict=True):
        ids, of = list(one.ids), [end > len(prompt) for _, end in one.offsets]
        if tokenizer.template:
            _until_end(ids, of, one.offsets, len(prompt) + len(answer), tokenizer)
        else:
            ids, of = [*ids, tokenizer.eos], [*of, True]
            if tokenizer.bos >= 0:
                ids, of = [tokenizer.bos, *ids], [False, *of]
        if ids:
            of[0] = False  # nothing precedes the first token that could predict it
        rows.append(ids)
        targets.append(of)
    sizes = np.array([len(row) for row in rows], np.int32)
    longest = int(sizes.max(initial=1))
    if length and longest > length:
        over = np.flatnonzero(sizes > length)
        raise InputError(
            f"length={length}: {len(over)} of {len(sizes)} texts are longer, the "
            f"longest has {longest} tokens (text {int(sizes.argmax())}); give --length "
            f"{longest}, or divide them: nothing is cut"
        )
    if bare := [n for n, of in enumerate(targets) if not any(of)]:
        raise InputError(
            f"{len(bare)} texts have no token of an answer to learn, text {few(bare)}; "
            "lengthen them, or leave them out"
        )
    return Encoded(_padded(rows, targets, length or longest, tokenizer.pad), sizes)


def encode_prompts(questions: Sequence[str], tokenizer: Tokenizer) -> Text:
    """Return questions as prompts to go on from, padded on the left."""
    rows = []
    for question in questions:
        prompt = prompt_and_text(question, ".", tokenizer)[0] if question else ""
        begin = [tokenizer.bos] if tokenizer.bos >= 0 else []
        rows.append([*begin, *tokenizer.ids(prompt)] or [tokenizer.eos])
    length = max(map(len, rows))
    tokens = np.full((len(rows), length), tokenizer.pad, np.int32)
    for place, row in enumerate(rows):
        tokens[place, length - len(row) :] = row
    real = np.arange(length) >= length - np.array([[len(row)] for row in rows])
    return Text(tokens, np.zeros_like(real), None, real)  # type: ignore[arg-type]


def until_end(ids: NDArray[Any], ends: Sequence[int]) -> NDArray[Any]:
    """Return generated tokens up to the first that ends a text.

    >>> until_end(np.array([5, 1, 0]), (1,))
    array([5])
    """
    places = np.flatnonzero(np.isin(ids, ends))
    return ids[: places[0]] if len(places) else ids


def _padded(
    rows: list[list[int]], targets: list[list[bool]], length: int, pad: int
) -> Text:
    tokens = np.full((len(rows), length), pad, np.int32)
    wanted, real = (np.zeros(tokens.shape, np.bool_) for _ in range(2))
    for place, (row, of) in enumerate(zip(rows, targets, strict=True)):
        tokens[place, : len(row)], wanted[place, : len(row)] = row, of
        real[place, : len(row)] = True
    return Text(tokens, wanted, None, real)  # type: ignore[arg-type]


def _until_end(
    ids: list[int], of: list[bool], offsets: Any, end: int, tokenizer: Tokenizer
) -> None:
    """Let the targets of a chat end with the first special token after the answer."""
    special = set(tokenizer.engine.get_added_tokens_decoder())
    for place, token in enumerate(ids):
        if of[place] and offsets[place][0] >= end and token in special:
            of[place + 1 :] = [False] * (len(of) - place - 1)
            return


def _mark(value: Any) -> str:
    """Return the text of a special token, as either form of the file has it."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _begins(made: Any, bos: int) -> bool:
    """Whether the tokenizer itself puts its beginning before a text."""
    return made.encode("a").ids[:1] == [bos]


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _library() -> Any:
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers
    except ModuleNotFoundError as error:
        raise InputError(
            "language models need the package tokenizers; pip install "
            "'jax-unlearn[language]'"
        ) from error
    del decoders, models, pre_tokenizers, trainers
    return tokenizers
