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
    names, state = resumed(runs, mesh, rules["falw"], Path(folder) / "series")
    leaves = runs.plain(ju.sharding.fetch(state))
    found |= {f"resumed/{place}": leaf for place, leaf in enumerate(leaves)}
    found["saved"] = np.array(names)
    try:
        ju.checkpoint.save(Path(folder) / "series" / names[0], {"w": np.ones(2)}, {})
    except ju.InputError as error:
        found["exists"] = np.array(str(error))
    found["waiting"] = np.array(ju.checkpoint.largest(number, 1 - number))
    np.savez(Path(folder) / f"{number}.npz", **found)


def resumed(runs, mesh, rules, folder):
    """Return what a run of two steps saved, and the state of one that goes on."""
    import jax_unlearn as ju

    start = ju.sharding.shard(runs.start("falw"), mesh, rules)

    def go_on(state, series):
        steps = runs.batches()[int(state.step) : 2 if state is start else None]
        steps = ju.sharding.spread(steps, mesh)
        return ju.run(
            runs.METHODS["falw"], state, steps, runs.KEY, callback=series.callback
        )

    go_on(start, ju.Series(folder, {"seed": 0}, seconds=0))
    series = ju.Series(folder, {"seed": 0}, seconds=600)
    names = sorted(path.name for path in folder.iterdir())
    return names, go_on(series.latest(start), series)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
