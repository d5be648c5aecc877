"""atheris on the predictor's decoder: python tests/fuzz/decoder.py BUNDLE [libFuzzer's options] CORPUS.

Bytes become a REST body, with a tail of binary tensors or without. The decoder may refuse them, with its own
error; whatever it takes must be rows that the featuriser understands or refuses with its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["serving.predictor", "tenure.encoding", "tenure.featuriser"]):
    from serving.predictor.decoding import Decoder
    from serving.predictor.errors import RequestError
    from serving.predictor.tensors import parse_request
    from tenure.bundle import load_bundle
    from tenure.errors import RowError


def main() -> None:
    bundle = load_bundle(Path(sys.argv.pop(1)))
    decoder = Decoder(bundle.contract, bundle.featuriser, max_rows=50)

    def test_one_input(data: bytes) -> None:
        # The first three bytes say whether there is a tail, and where it begins.
        length = int.from_bytes(data[1:3], "little") if data[:1] == b"b" else None
        body = data[3:]
        try:
            query = decoder.read(parse_request(body, length))
        except RequestError as error:
            str(error).encode()  # it has to go into an answer
            return
        if query.rows < 1 or any(len(values) != query.rows for values in query.columns.values()):
            raise AssertionError(f"{query.rows} rows, but {query.columns}")
        try:
            matrix = bundle.featuriser.transform(query.columns)
        except RowError:
            return
        if matrix.shape != (query.rows, len(bundle.featuriser.names)):
            raise AssertionError(f"a matrix of {matrix.shape}")

    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
