"""The protocol's rules over REST: inference."""

from __future__ import annotations

import json

from oip_conformance import answers
from oip_conformance.checks import Level, rule
from oip_conformance.clauses import http, rest
from oip_conformance.clauses import json as rfc8259
from oip_conformance.errors import NotApplicableError
from oip_conformance.example import Example, nest
from oip_conformance.expectations import (
    UNKNOWN,
    expect,
    expect_refusal,
    expect_rows,
    expect_tensors,
    make_batch,
    read_metadata,
)
from oip_conformance.rest import JSON_TYPE, RestRequest
from oip_conformance.session import Session

MUST, SHOULD = Level.MUST, Level.SHOULD


@rule("rest.infer", MUST, rest("Inference Response JSON Object"), "a good request gets 200 and JSON")
def _(session: Session) -> None:
    reply = session.post(session.example.to_json())
    answers.read_rest(reply)
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == JSON_TYPE, f"Content-Type is {kind!r}")


@rule(
    "rest.infer-outputs",
    MUST,
    rest("Response Output"),
    "each output has name, shape, datatype and as many values of that datatype as the shape says",
)
def _(session: Session) -> None:
    answer = session.ask(session.example)
    expect(bool(answer), "there are no outputs")


@rule("rest.infer-model-name", MUST, rest("Inference Response JSON Object: model_name"), "the answer says it")
def _(session: Session) -> None:
    reply = session.post(session.example.to_json())
    answers.read_rest(reply)
    name = reply.read_json().get("model_name")
    expect(name == session.model, f"model_name is {name!r}")


@rule(
    "rest.infer-model-version",
    SHOULD,
    rest("Inference Response JSON Object: model_version"),
    "the answer says an announced version; without versioning it has no such field",
)
def _(session: Session) -> None:
    reply = session.post(session.example.to_json())
    answers.read_rest(reply)
    document, versions = reply.read_json(), session.list_versions()
    if versions:
        version = document.get("model_version")
        expect(version in versions, f"model_version is {version!r}, announced {versions}")
    else:
        expect(not document.get("model_version"), f"model_version is {document.get('model_version')!r}")


@rule(
    "rest.infer-id", MUST, rest("Inference Request JSON Object: id"), "the request's id comes back as it was"
)
def _(session: Session) -> None:
    for wanted in ("42", 'Zürich \N{WHITE SMILING FACE} \\ " / \u2028'):
        reply = session.post(session.example.to_json(id=wanted))
        answers.read_rest(reply)
        got = reply.read_json().get("id")
        expect(got == wanted, f"id is {got!r}, sent {wanted!r}")


@rule(
    "rest.infer-all-outputs",
    MUST,
    rest("Inference Request JSON Object: outputs"),
    "a request that names no outputs gets all that the metadata list",
)
def _(session: Session) -> None:
    listed = read_metadata(session).get("outputs")
    expect_tensors(listed, "outputs")
    got = set(session.ask(session.example))
    missing = [entry["name"] for entry in listed or [] if entry["name"] not in got]
    expect(
        bool(listed) and not missing, f"listed, but not answered: {', '.join(missing) or 'nothing listed'}"
    )


@rule(
    "rest.infer-one-output",
    MUST,
    rest("Inference Request Examples"),
    "a request that names one output gets that one",
)
def _(session: Session) -> None:
    for name, tensor in session.baseline.items():
        answers.compare(session.ask(session.example, outputs=[{"name": name}]), {name: tensor})


@rule(
    "rest.infer-batch",
    MUST,
    rest("Request Input"),
    "a batch's shape and data are the whole batch's, and each row gets the answer that it gets alone",
)
def _(session: Session) -> None:
    single, doubled = make_batch(session)
    alone = session.ask(single)
    expect_rows(alone, 1)
    answers.compare(session.ask(doubled), answers.join([alone, alone, alone]))


@rule(
    "rest.infer-nested",
    MUST,
    rest("Tensor Data"),
    "elements may come in their multi-dimensional form, with the answer that the flat form gets",
)
def _(session: Session) -> None:
    if all(len(tensor.shape) < 2 for tensor in session.example.inputs):
        raise NotApplicableError("no input has two dimensions")
    inputs = [tensor.to_json(data=nest(tensor.data, tensor.shape)) for tensor in session.example.inputs]
    answers.compare(answers.read_rest(session.post({"inputs": inputs})), session.baseline)


@rule(
    "rest.infer-input-order",
    SHOULD,
    rest("Request Input: name"),
    "inputs are known by their names, in whatever order they come",
)
def _(session: Session) -> None:
    if len(session.example.inputs) < 2:
        raise NotApplicableError("the model has one input")
    answers.compare(session.ask(Example(session.example.inputs[::-1])), session.baseline)


@rule(
    "rest.infer-parameters",
    MUST,
    rest("Parameters"),
    "parameters may be there and be empty: of the request, of each input and each output",
)
def _(session: Session) -> None:
    inputs = [tensor.to_json(parameters={}) for tensor in session.example.inputs]
    outputs = [{"name": name, "parameters": {}} for name in session.baseline]
    reply = session.post({"parameters": {}, "inputs": inputs, "outputs": outputs})
    answers.compare(answers.read_rest(reply), session.baseline)


@rule(
    "rest.json-key-order",
    MUST,
    rfc8259("1. Introduction (an object is an unordered collection)"),
    "members of an object may come in any order",
)
def _(session: Session) -> None:
    inputs = [dict(reversed(tensor.to_json().items())) for tensor in session.example.inputs]
    answers.compare(answers.read_rest(session.post({"inputs": inputs})), session.baseline)


@rule(
    "rest.json-escapes",
    MUST,
    rfc8259("7. Strings, 8.3. String Comparison"),
    "a name written with \\u escapes is the same name",
)
def _(session: Session) -> None:
    document = session.example.to_json()
    text = json.dumps(document)
    for name in {tensor.name for tensor in session.example.inputs}:
        escaped = "".join(f"\\u{ord(character):04x}" for character in name if ord(character) < 0x10000)
        text = text.replace(f'"name": {json.dumps(name)}', f'"name": "{escaped}"')
    answers.compare(answers.read_rest(session.send(RestRequest(text.encode()))), session.baseline)


@rule(
    "rest.json-whitespace",
    MUST,
    rfc8259("2. JSON Grammar"),
    "blanks and line ends may stand around every token",
)
def _(session: Session) -> None:
    text = (
        "\r\n\t " + json.dumps(session.example.to_json(), indent=3, separators=("\t,\n", " :\r\n ")) + " \n"
    )
    answers.compare(answers.read_rest(session.send(RestRequest(text.encode()))), session.baseline)


@rule(
    "rest.infer-unknown-model",
    MUST,
    rest("Inference Response JSON Error Object"),
    "predictions of a model that is not there: an HTTP error with an error object",
)
def _(session: Session) -> None:
    expect_refusal(session.post(session.example.to_json(), f"v2/models/{UNKNOWN}/infer"))


@rule(
    "rest.error-type",
    SHOULD,
    rest("Inference Response JSON Error Object"),
    "an error's body says that it is JSON",
)
def _(session: Session) -> None:
    reply = session.post({"inputs": []})
    expect(reply.status is not None and reply.status >= 400, f"expected an error, got {reply.describe()}")
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == JSON_TYPE, f"Content-Type is {kind!r}")


@rule(
    "rest.method",
    SHOULD,
    http("15.5.6. 405 Method Not Allowed"),
    "a method that the inference endpoint does not have is refused",
)
def _(session: Session) -> None:
    body = json.dumps(session.example.to_json()).encode()
    reply = session.send(RestRequest(body, "PUT of a good request", "PUT"))
    expect(reply.status is not None and 400 <= reply.status < 500, f"expected 4xx, got {reply.describe()}")
