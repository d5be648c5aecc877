"""Fuzz the predictor: python -m tests.fuzz [--seconds 120] [--examples 300] [--seed 1].

schemathesis makes requests from an OpenAPI description of the model, and sends them to a real server; atheris
feeds the decoder with bytes. Both live in an environment of their own (`make environment-fuzz`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FUZZERS = ROOT / ".venv-fuzz" / "bin"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

sys.path.insert(0, str(ROOT / "benchmarks"))

from _servers import NAME, build_predictor_command, find_port, run, train_bundle  # noqa: E402
from conformance import write_example  # noqa: E402

from oip_conformance.binary_rules import make_parts  # noqa: E402
from oip_conformance.example import read_example  # noqa: E402
from tests.fuzz.openapi import describe  # noqa: E402


def run_schemathesis(folder: Path, bundle: Path, example: Path, examples: int, seed: int) -> int:
    """Start a predictor, describe it, send it requests; return schemathesis's exit code."""
    port, grpc_port = find_port(), find_port()
    command = build_predictor_command(bundle, port, grpc_port, None)
    with run("predictor", command, port, folder / "predictor.log", grpc_port):
        url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/v2/models/{NAME}", timeout=10) as answer:
            metadata: dict[str, Any] = json.load(answer)
        schema = folder / "openapi.json"
        schema.write_text(json.dumps(describe(metadata, json.loads(example.read_text()))))
        flags = [f"--url={url}", f"--checks={CHECKS}", f"--max-examples={examples}", f"--seed={seed}"]
        flags += ["--request-timeout=60", "--phases=examples,coverage,fuzzing", "--no-color"]
        fuzzer = [str(FUZZERS / "schemathesis"), "run", str(schema), *flags]
        return subprocess.run(fuzzer, check=False, timeout=1800, cwd=folder).returncode


def run_atheris(folder: Path, bundle: Path, example: Path, seconds: int, seed: int) -> int:
    """Feed the decoder; return atheris's exit code."""
    corpus = folder / "corpus"
    corpus.mkdir()
    good = read_example(example).take([0, 1])
    (corpus / "json").write_bytes(b"j\0\0" + json.dumps(good.to_json()).encode())
    document, tail = make_parts(good)
    head = json.dumps(document).encode()
    (corpus / "binary").write_bytes(b"b" + len(head).to_bytes(2, "little") + head + b"".join(tail))
    fuzzer = [str(FUZZERS / "python"), str(ROOT / "tests" / "fuzz" / "decoder.py"), str(bundle)]
    fuzzer += [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-max_len=16384",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    fuzzer += [f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus)]
    return subprocess.run(fuzzer, check=False, timeout=seconds + 300, cwd=folder).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="for atheris")
    parser.add_argument("--examples", type=int, default=300, help="of schemathesis for each operation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not (FUZZERS / "python").exists():
        raise SystemExit("there is no .venv-fuzz: run `make environment-fuzz`")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle, example = folder / "bundle", folder / "example.json"
        train_bundle(bundle)
        write_example(example, bundle)
        codes = {
            "schemathesis": run_schemathesis(folder, bundle, example, options.examples, options.seed),
            "atheris": run_atheris(folder, bundle, example, options.seconds, options.seed),
        }
    for name, code in codes.items():
        sys.stdout.write(f"{name}: {'nothing found' if code == 0 else f'exit code {code}'}\n")
    sys.exit(any(codes.values()))


if __name__ == "__main__":
    main()
