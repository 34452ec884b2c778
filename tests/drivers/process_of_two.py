"""One of two processes of a run; started by test_sharding.py, not collected.

`python process_of_two.py PORT NUMBER FOLDER`: joins the other process on loopback and
writes what the runs gave to `FOLDER/NUMBER.npz`.
"""

import sys
from pathlib import Path

import jax
import numpy as np


def main(port, number, folder):
    """Run each method of `sharded_runs` on the devices of both processes."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, number, initialization_timeout=60
    )
    import sharded_runs as runs  # makes arrays: after the processes have met

    import jax_unlearn as ju

    mesh = jax.make_mesh((4,), ("data",))
    found = {}
    rules = {"loreun": (), "falw": ju.sharding.fully_sharded(min_size=32)}
    for name in runs.METHODS:
        state = runs.finished(name, mesh, rules[name])
        assert not any(leaf.is_fully_addressable for leaf in jax.tree.leaves(state))
        leaves = runs.plain(ju.sharding.fetch(state))
        found |= {f"{name}/{place}": leaf for place, leaf in enumerate(leaves)}
        found[f"{name}/logits"] = ju.predict(
            runs.MODEL, *state[:2], runs.INPUTS, batch_size=5
        )
    try:
        ju.sharding.shard({"a": np.zeros(2), "w": np.full(2, number)}, mesh)
    except ju.InputError as error:
        found["refusal"] = np.array(str(error))
    np.savez(Path(folder) / f"{number}.npz", **found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
