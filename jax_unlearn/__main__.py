"""`python -m jax_unlearn`: the same as the command `jax-unlearn`."""

from jax_unlearn.cli import main

if __name__ == "__main__":
    main()
