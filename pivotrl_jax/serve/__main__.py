"""`python -m pivotrl_jax.serve --checkpoint=DIR`; start.py says more."""

from pivotrl_jax import terminal


def main() -> None:
    from pivotrl_jax.serve import start  # raises InputError where starlette or uvicorn is not installed

    start.run(start.options().parse_args())


if __name__ == "__main__":
    with terminal.ending("serve"):
        main()
