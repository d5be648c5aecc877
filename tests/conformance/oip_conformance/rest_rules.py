"""The protocol's rules over REST: health and metadata."""

from __future__ import annotations

from oip_conformance import answers
from oip_conformance.checks import Level, rule
from oip_conformance.clauses import rest
from oip_conformance.errors import NotApplicableError
from oip_conformance.expectations import UNKNOWN, expect, expect_refusal, expect_tensors, read_metadata
from oip_conformance.session import Session

MUST, SHOULD = Level.MUST, Level.SHOULD


@rule("rest.server-live", MUST, rest("Server Live"), "GET v2/health/live answers 200 while the server lives")
def _(session: Session) -> None:
    reply = session.get("v2/health/live")
    expect(reply.status == 200, f"expected 200, got {reply.describe()}")


@rule("rest.server-live-body", SHOULD, rest("Server Live Response JSON Objet"), 'the body is {"live": true}')
def _(session: Session) -> None:
    document = session.get_json("v2/health/live")
    expect(isinstance(document, dict) and document.get("live") is True, f"{document!r}")


@rule(
    "rest.server-ready", MUST, rest("Server Ready"), "GET v2/health/ready answers 200 when models are ready"
)
def _(session: Session) -> None:
    reply = session.get("v2/health/ready")
    expect(reply.status == 200, f"expected 200, got {reply.describe()}")


@rule(
    "rest.server-ready-body",
    SHOULD,
    rest("Server Ready Response JSON Object"),
    'the body is an object with "ready", or as the document prints it "live"',
)
def _(session: Session) -> None:
    document = session.get_json("v2/health/ready")
    known = isinstance(document, dict) and (document.get("ready") is True or document.get("live") is True)
    expect(known, f"{document!r}")


@rule("rest.model-ready", MUST, rest("API: Model Ready"), "GET v2/models/NAME/ready answers 200 for a model")
def _(session: Session) -> None:
    reply = session.get(f"{session.path}/ready")
    expect(reply.status == 200, f"expected 200, got {reply.describe()}")


@rule(
    "rest.model-ready-body",
    SHOULD,
    rest("Model Ready Response JSON Object"),
    "the body names the model and says that it is ready",
)
def _(session: Session) -> None:
    document = session.get_json(f"{session.path}/ready")
    expect(isinstance(document, dict), f"{document!r}")
    expect(document.get("name") == session.model and document.get("ready") is True, f"{document!r}")


@rule(
    "rest.model-ready-unknown",
    MUST,
    rest("API: Model Ready"),
    "a model that is not there is not ready: no 200",
)
def _(session: Session) -> None:
    reply = session.get(f"v2/models/{UNKNOWN}/ready")
    expect(reply.status is not None and 400 <= reply.status < 500, f"expected 4xx, got {reply.describe()}")


@rule(
    "rest.server-metadata",
    MUST,
    rest("Server Metadata Response JSON Object"),
    "GET v2 gives name and version as strings, and a list of extensions",
)
def _(session: Session) -> None:
    document = session.get_json("v2")
    expect(isinstance(document, dict), f"{document!r}")
    for key in ("name", "version"):
        expect(isinstance(document.get(key), str), f"{key} is {document.get(key)!r}")
    extensions = document.get("extensions")
    strings = isinstance(extensions, list) and all(isinstance(one, str) for one in extensions)
    expect(strings, f"extensions is {extensions!r}")


@rule(
    "rest.model-metadata",
    MUST,
    rest("Model Metadata Response JSON Object"),
    "GET v2/models/NAME gives the model's name and platform; versions, if there, is a list of strings",
)
def _(session: Session) -> None:
    document = read_metadata(session)
    expect(document.get("name") == session.model, f"name is {document.get('name')!r}")
    expect(isinstance(document.get("platform"), str), f"platform is {document.get('platform')!r}")
    versions = document.get("versions") or []
    strings = isinstance(versions, list) and all(isinstance(one, str) for one in versions)
    expect(strings, f"versions is {versions!r}")


@rule(
    "rest.model-metadata-tensors",
    MUST,
    rest("Model Metadata Response JSON Object: $metadata_tensor"),
    "inputs and outputs are lists of tensors with name, a datatype of the table, and shape (-1 for variable)",
)
def _(session: Session) -> None:
    document = read_metadata(session)
    for key in ("inputs", "outputs"):
        expect_tensors(document.get(key), key)


@rule(
    "rest.model-metadata-inputs",
    MUST,
    rest("Model Metadata Response JSON Object: inputs"),
    "inputs lists what the model requires: each input of a good request is there, of its rank",
)
def _(session: Session) -> None:
    entries = read_metadata(session).get("inputs")
    expect_tensors(entries, "inputs")
    known = {entry["name"]: entry for entry in entries or []}
    for tensor in session.example.inputs:
        expect(tensor.name in known, f"{tensor.name} is not listed, only {sorted(known)}")
        shape = known[tensor.name]["shape"]
        fits = len(shape) == len(tensor.shape)
        fits = fits and all(size in (-1, mine) for size, mine in zip(shape, tensor.shape, strict=True))
        expect(fits, f"{tensor.name}: announced with shape {shape}, answered with {list(tensor.shape)}")


@rule(
    "rest.model-metadata-outputs",
    MUST,
    rest("Model Metadata Response JSON Object: outputs"),
    "outputs lists what the model produces: each output of an answer is there with its datatype",
)
def _(session: Session) -> None:
    entries = read_metadata(session).get("outputs")
    expect_tensors(entries, "outputs")
    known = {entry["name"]: entry["datatype"] for entry in entries or []}
    for name, tensor in session.baseline.items():
        expect(known.get(name) == tensor.datatype, f"{name}: {tensor.datatype}, announced {known}")


@rule(
    "rest.model-metadata-unknown",
    MUST,
    rest("Model Metadata Response JSON Error Object"),
    "metadata of a model that is not there: an HTTP error with an error object",
)
def _(session: Session) -> None:
    expect_refusal(session.get(f"v2/models/{UNKNOWN}"))


@rule(
    "rest.versions",
    MUST,
    rest("Model Metadata Response JSON Object: versions"),
    "an announced version can be asked for: its metadata, its readiness, its predictions",
)
def _(session: Session) -> None:
    versions = session.list_versions()
    if not versions:
        raise NotApplicableError("the metadata announce no versions")
    path = f"{session.path}/versions/{versions[0]}"
    for ending in ("", "/ready"):
        reply = session.get(path + ending)
        expect(reply.status == 200, f"{path}{ending}: expected 200, got {reply.describe()}")
    answers.compare(session.ask(session.example, f"{path}/infer"), session.baseline)


@rule(
    "rest.version-unknown",
    MUST,
    rest("Inference Response JSON Error Object"),
    "a version that is not there predicts nothing: an HTTP error with an error object",
)
def _(session: Session) -> None:
    path = f"{session.path}/versions/no-such-version/infer"
    expect_refusal(session.post(session.example.to_json(), path))
