"""Arrays changed behind orbax's back; run by `test_loaders_fuzz` in its own process."""

import json
import shutil

from hypothesis import given
from hypothesis import strategies as st
from test_loaders_fuzz import MUTATIONS, bounded, clear, mutated

from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError
from jax_unlearn.lab.store import load_model


def test_changed_arrays_are_read_or_refused(good, tmp_path):
    """The digests agree: whoever changed the arrays wrote them anew."""
    path = tmp_path / "copy"
    shutil.copytree(good.model, path)
    inside = (file for file in (path / "arrays").rglob("*") if file.is_file())
    whole = {file: file.read_bytes() for file in inside}
    seen = {"read": 0, "refused": 0}

    @bounded(60)
    @given(st.sampled_from(sorted(whole)), MUTATIONS)
    def damage(file, mutations):
        file.write_bytes(mutated(whole[file], mutations))
        (path / "digests.json").write_text(json.dumps(checkpoint._digests(path)))
        try:
            load_model(path)
            seen["read"] += 1
        except InputError as error:
            clear(error, path)
            seen["refused"] += 1
        file.write_bytes(whole[file])

    damage()
    assert seen["refused"] > 10
