"""Coverage-guided fuzzing of one target: `python -m tests.fuzz TARGET CORPUS [options of libFuzzer]`.

CORPUS is a folder that is made and grows; the seeds are put into it. The status is 0 if all held, and the
input that broke something is left in the folder as `crash-...`.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy.wire", "proxy.affinity"]):
    from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Fuzz until the options say that it is enough."""
    name, folder, *options = sys.argv[1:]
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    artefacts = f"-artifact_prefix={corpus}/"
    atheris.Setup([sys.argv[0], str(corpus), artefacts, "-print_final_stats=1", *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
