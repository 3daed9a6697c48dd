"""Rewards of a running NeMo Gym resources server beside ours:
`python experiments/harness/nemo_gym.py DIR/rollouts_nemo_gym.jsonl --verify_url=http://127.0.0.1:PORT`

Every rollout that `python -m pivotrl_jax.exchange export` wrote is posted to the server's /verify, as NeMo
Gym does after a rollout, and the reward that comes back is compared with the one in the row. The rewards
agree where the run was profiled with the `:nemo_gym` mode of a verifier; the strict mode is stricter on
purpose.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def verified(url: str, row: dict) -> dict:
    """The server's reply to a rollout. Raises OSError where it does not answer, or refuses the row."""
    body = {name: value for name, value in row.items() if name != "reward"}
    request = urllib.request.Request(
        f"{url.rstrip('/')}/verify", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rollouts", type=Path)
    parser.add_argument("--verify_url", required=True)
    options = parser.parse_args()
    lines = options.rollouts.read_text("utf-8").splitlines()
    apart, refused = [], []
    for number, row in enumerate(map(json.loads, lines), 1):
        try:
            reward = verified(options.verify_url, row)["reward"]
        except urllib.error.HTTPError as e:
            refused.append(f"  line {number}: {e.code}: {e.read(300).decode('utf-8', 'replace')}")
        except OSError as e:
            sys.exit(f"error: {options.verify_url} does not answer ({e}); start its resources server first")
        else:
            if reward != row["reward"]:
                apart.append(f"  line {number}: {reward} there, {row['reward']} here")
    print(f"{len(lines) - len(apart) - len(refused)} of {len(lines)} rollouts have the same reward")
    print(
        f"{len(apart)} have another reward, {len(refused)} were refused", *apart[:10], *refused[:10], sep="\n"
    )
    sys.exit(bool(apart or refused))


if __name__ == "__main__":
    main()
