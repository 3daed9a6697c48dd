"""Packaging. `pip install -e .` brings jax for CPU and nothing of CUDA or torch; accelerators are extras."""

from pathlib import Path

from setuptools import find_packages, setup

# flax 0.12.8 does not import on jax 0.11; flax 0.12.9 and later want jax 0.11.1 and Python 3.12.
OLD, NEW = 'python_version < "3.12"', 'python_version >= "3.12"'
JAX_OLD, JAX_NEW = "==0.10.2", ">=0.11.1,<0.12"


def jax_extra(name: str) -> list[str]:
    return [f"jax[{name}]{JAX_OLD}; {OLD}", f"jax[{name}]{JAX_NEW}; {NEW}"]


SERVE = ["starlette>=1,<2", "uvicorn>=0.40,<1"]

setup(
    name="pivotrl-jax",
    version="0.1.0",
    description="PivotRL in JAX: agentic reinforcement learning that pays only for the turns that teach",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["pivotrl_jax", "pivotrl_jax.*"]), "pivotrl_jax.configs"],
    package_dir={"pivotrl_jax.configs": "configs"},
    package_data={"pivotrl_jax": ["py.typed", "assets/**"], "pivotrl_jax.configs": ["samples/**"]},
    entry_points={"console_scripts": ["pivotrl = pivotrl_jax.__main__:main"]},
    install_requires=[
        f"jax{JAX_OLD}; {OLD}",
        f"jax{JAX_NEW}; {NEW}",
        f"flax==0.12.8; {OLD}",
        f"flax>=0.12.12,<0.13; {NEW}",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "transformers>=5,<6",
        "numpy>=2",
        "safetensors>=0.6",
        "ml-collections>=1.1",
        "absl-py>=2",
        "tqdm>=4",
        "rich>=13",
        "jinja2>=3.1",  # transformers renders chat templates with it but does not require it
        "matplotlib>=3.8",
        "tensorboardX>=2.6",
        "jsonschema>=4.20",
        "regex>=2024.4",  # patterns of a tool's schema, with a time limit
        "rapidfuzz>=3",
        "openai>=2",
        "pyyaml>=6",
    ],
    extras_require={
        "cuda12": jax_extra("cuda12"),
        "cuda13": jax_extra("cuda13"),
        "tpu": jax_extra("tpu"),
        "plan": jax_extra("tpu"),  # brings libtpu, whose compiler needs no TPU
        "test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6", "ruff>=0.12", "gguf>=0.17", *SERVE],
        "parity": ["torch==2.13.0", "peft>=0.21", "accelerate>=1"],
        "gguf": ["gguf>=0.17"],  # checkpoints in GGUF files
        "serve": SERVE,
        "wandb": ["wandb>=0.20"],  # experiment trackers, by config.track
        "mlflow": ["mlflow-skinny>=3", "sqlalchemy>=2", "alembic>=1.14"],
        "docs": ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1,<2"],  # the site: mkdocs build
        "datasets": ["datasets>=4", "pyarrow>=17"],  # parquet files and datasets on the hub
        # notebooks/build.py: builds and runs the notebooks
        "notebooks": [
            "jupytext>=1.16",
            "nbformat>=5.10",
            "nbclient>=0.10",
            "nbconvert>=7.16",
            "ipykernel>=6",
        ],
        "bench": ["torch==2.13.0", "trl>=1.16,<2", "accelerate>=1", "datasets>=5"],
        # what BFCL's own backends import; the data comes from `pip install --no-deps bfcl-eval`
        "bfcl": ["mpmath==1.3.0"],
        # what BFCL's own generation and evaluation import, without the vendors' clients
        "bfcl_harness": [
            "mpmath==1.3.0",
            "overrides",
            "pandas>=2",
            "python-dotenv>=1",
            "tenacity>=8.5",
            "tree-sitter==0.21.3",
            "tree-sitter-java==0.21.0",
            "tree-sitter-javascript==0.21.4",
        ],
    },
)
