"""Texts from files of every kind; what cannot be read is told in one line."""

import gzip
import json

import numpy as np
import pytest

from jax_unlearn import data
from jax_unlearn.errors import InputError
from jax_unlearn.language.texts import hiding, read_texts, text_dataset

ROWS = [
    {"question": "Who?", "answer": "Ann.", "topic": "a", "id": 7},
    {"question": "Whére?", "answer": "Oslo \u2028 now.", "topic": "b", "id": 9},
]


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def test_all_forms_of_rows_are_read_alike(tmp_path):
    texts = [
        written(tmp_path, "a.jsonl", lines(ROWS) + "\n\n"),
        written(tmp_path, "b.json", json.dumps(ROWS)),
        written(tmp_path, "c.json", json.dumps({"train": ROWS, "test": []})),
        written(tmp_path, "d.jsonl.gz", gzip.compress(lines(ROWS).encode())),
    ]
    for path in texts:
        found = read_texts(path)
        assert found.questions == ("Who?", "Whére?"), path
        assert found.answers == ("Ann.", "Oslo \u2028 now.")
        assert found.topics == ("a", "b")
        assert found.columns == {"id": (7, 9)}
    import pyarrow as pa
    from pyarrow import parquet

    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "train-00.parquet")
    parquet.write_table(pa.Table.from_pylist(ROWS[:1]), folder / "test-00.parquet")
    assert read_texts(tmp_path / "set").answers == found.answers
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(saved / "data-0.arrow", table.schema) as sink:
        sink.write_table(table)
    written(tmp_path / "saved", "dataset_dict.json", '{"splits": ["train"]}')
    assert read_texts(tmp_path / "saved").answers == found.answers


def test_plain_texts_and_other_names_of_columns(tmp_path):
    lined = written(tmp_path, "a.txt", "one\ntwo\n")
    assert read_texts(lined).answers == ("one", "two")
    parts = written(tmp_path, "b.txt", "one\nmore\n\n\ntwo\n")
    assert read_texts(parts).answers == ("one\nmore", "two")
    folder = tmp_path / "books"
    folder.mkdir()
    written(folder, "x.txt", "it was")
    written(folder, "y.txt", "a\n\nb")
    assert read_texts(folder).topics == ("x", "y", "y")
    named = written(tmp_path, "c.csv", 'q,a,who\n"Who, then?",Ann,z\n')
    found = read_texts(named, question="q", answer="a", topic="who")
    assert (found.questions, found.topics) == (("Who, then?",), ("z",))


def test_a_data_set_of_texts_knows_its_topics_and_its_bytes(tmp_path):
    path = written(tmp_path, "a.jsonl", lines(ROWS))
    found = data.load(path)
    assert found.is_text
    assert found.class_names == ("a", "b")
    assert found.train.inputs.shape == (2, 2)
    assert found.columns["id"].tolist() == [7, 9]
    other = text_dataset(read_texts(path)._replace(answers=("Ann.", "Oslo")))
    assert data.fingerprint(found) != data.fingerprint(other)
    # an end of one text must not be the beginning of the next
    moved = text_dataset(read_texts(path)._replace(questions=("Who?A", "Whére?")))
    moved.train.inputs[0, 1] = "nn."
    assert data.fingerprint(found) != data.fingerprint(moved)
    hidden = hiding(found, np.array([1])).columns
    assert hidden["hidden from the tokenizer"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "is empty; give a file with texts"),
        ("a.jsonl", '{"text": "b"}\n{"text":', "line 2 is not JSON"),
        ("a.jsonl", '{"q": "b"}', "row 0 has neither question and answer nor text"),
        ("a.jsonl", '{"text": "b"}\n{"text": " "}', "row 1 has an empty answer"),
        ("a.jsonl", b'{"text": "\xff"}', "is not UTF-8 (byte 10); save it as UTF-8"),
        ("a.jsonl", '{"text": 3}', "row 0: question and answer must be text, not 3"),
        ("a.json", '{"a": [1], "b": {}, "c": [2]}', "an object with 2 lists"),
        ("a.json", "[3]", "row 0 is 3, no object"),
        ("a.json", "[", "is not JSON"),
        ("a.doc", "b", "is of no format of texts"),
        ("a.txt.gz", "b", "is not a .gz file"),
        (
            "a.jsonl",
            '{"text": "b", "topic": "x"}\n{"text": "c"}',
            "row 1 has no topic, others have one",
        ),
        (
            "a.jsonl",
            '{"text": "b", "perturbed_answer": ["c"]}\n'
            '{"text": "b", "perturbed_answer": ["c", "d"]}',
            "row 1 has 2 of perturbed_answer, row 0 has 1; give each as many",
        ),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, name, content, said):
    with pytest.raises(InputError) as error:
        read_texts(written(tmp_path, name, content))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_topics_that_are_asked_for_but_not_there_are_named(tmp_path):
    path = written(tmp_path, "a.jsonl", lines(ROWS))
    with pytest.raises(InputError, match="no column 'author' of topics, but question"):
        read_texts(path, topic="author")
    with pytest.raises(InputError, match="no such file or folder"):
        read_texts(tmp_path / "none.jsonl")
