"""The schemas that Kubernetes itself does not have: the Prometheus operator's and the Gateway API's."""

import json
import subprocess
from typing import Any

from tests.js.install import HERE, node_path

NOT_TO_BE_HAD = {"BackendConfig"}  # Google's: in no package


def refusal(document: dict[str, Any]) -> str:
    """Why the schema refuses an object; nothing if it does not."""
    done = subprocess.run(
        [node_path(), str(HERE / "crds.mjs")],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr if done.returncode else ""
