"""Let an approved challenger meet customers: register, store, start, prove, and only then give it traffic."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import names
from clients.errors import ClientError, ConflictError, NotFoundError, RefusedError
from clients.services import Collection, Services
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking, Version
from components.evaluate import read_difference
from components.gate import GATE
from components.proof import Deadline, Proof, prove
from components.room import make_room
from components.shelf import store_bundle, store_project
from components.variant import (
    BUSY,
    UNPROVEN,
    Document,
    build_canary,
    build_logger,
    build_service,
    find_canary,
    get_annotations,
    get_stable_uri,
    is_unproven,
)
from tenure.bundle import Bundle, load_bundle
from tenure.errors import BundleError
from tenure.project import Project, parse_project

logger = logging.getLogger("tenure.rollout")

OUTCOME = "rollout"
"""Tag of a version: `stable`, `canary` or `failed`; the pilot continues it."""


@dataclass(frozen=True)
class Outcome:
    """Where the bundle ended up: `stable` or `canary`, with which share, and the proof."""

    role: str
    percent: int
    proof: Proof
    note: str = ""


def run(project: str, bundle_path: str, run_id: str, report_path: str, reason: str = "manual") -> None:
    """Roll the bundle out; doing it again changes nothing.

    Args:
        project: The project as JSON.
        bundle_path: The challenger.
        run_id: The MLflow run of its study.
        report_path: Where the report goes (Markdown).
        reason: Why the pipeline ran; it is kept with the version.

    Raises:
        tenure.errors.BundleError: The bundle is altered, here or in the store.
        clients.errors.ClientError: Anything that kept it from serving. Then its canary entry is gone again,
            and the stable model is as it was; if it was to be the first, no customer is sent to it.
    """
    rollout = Rollout(parse_project(project), load_bundle(Path(bundle_path)), run_id, load_settings(), reason)
    outcome = rollout.carry_out()
    Path(report_path).write_text(rollout.describe(outcome), encoding="utf-8")


class Rollout:
    """One roll-out of one bundle."""

    def __init__(
        self, project: Project, bundle: Bundle, run_id: str, settings: Settings, reason: str = "manual"
    ) -> None:
        if bundle.metadata.project != project.name:
            raise BundleError(
                f"bundle {bundle.version} was trained for project {bundle.metadata.project}, "
                f"not for {project.name}"
            )
        self._project = project
        namespace = project.rollout.namespace or settings.namespace
        self._rollout = project.rollout.model_copy(update={"namespace": namespace})
        self._bundle = bundle
        self._run_id = run_id
        self._reason = reason
        self._settings = settings.model_copy(update={"namespace": namespace})
        self._services: Collection = Services.connect(self._settings).inference
        self._tracking = Tracking.connect(settings)
        self._store = Store.connect(settings)
        self._uri = names.bundle_uri(self._store.bucket, bundle.digest)
        self._canary = names.canary_name(bundle.digest)
        self._version: Version | None = None
        self._project_uri = ""

    def carry_out(self) -> Outcome:
        """Do all steps; each may have been done before."""
        version = self._version = self._register()
        store_bundle(self._store, self._bundle, self._uri)
        self._project_uri = store_project(self._store, self._project)
        deadline = Deadline(self._rollout.ready_timeout_seconds)
        try:
            outcome = self._place(version, deadline)
        except Exception as error:
            self._clean_up(version, error)
            raise
        self._tracking.tag_version(self._project.name, version.version, {OUTCOME: outcome.role})
        return outcome

    def describe(self, outcome: Outcome) -> str:
        """Return the report as Markdown."""
        assert self._version is not None  # noqa: S101 - carry_out came before
        share = (
            "all customers" if outcome.role == "stable" else f"{outcome.percent} % of the customers' requests"
        )
        lines = [
            f"# {outcome.role.capitalize()}: version {self._version.version} ({self._bundle.version})",
            "",
            f"- InferenceService `{self._rollout.namespace}/{self._rollout.service}`: {share}",
            f"- Bundle `{self._uri}`, verified in the store",
            f"- {outcome.proof.rows} known rows answered through the gateway, largest difference "
            f"{outcome.proof.difference:.1e}, {outcome.proof.seconds:.1f} s after the change",
        ]
        if outcome.note:
            lines.append(f"- {outcome.note}")
        return "\n".join(lines) + "\n"

    def _register(self) -> Version:
        """Register the version; it is the challenger, unless it serves already."""
        tags = {
            "tenure.snapshot": self._bundle.metadata.snapshot,
            "tenure.code_version": self._bundle.metadata.code_version,
            "tenure.reason": self._reason,
            GATE: self._tracking.get_tags(self._run_id).get(GATE, ""),
        }
        name = self._project.name
        version = self._tracking.register_bundle(name, self._run_id, self._bundle.digest, self._uri, tags)
        if not tags.items() <= version.tags.items():  # known from an earlier run
            self._tracking.tag_version(name, version.version, tags)
        champion = self._tracking.find_alias(name, CHAMPION)
        if champion is None or champion.version != version.version:
            self._tracking.set_alias(name, CHALLENGER, version.version)
        logger.info("%s version %s is bundle %s", name, version.version, self._bundle.version)
        return version

    def _place(self, version: Version, deadline: Deadline) -> Outcome:
        """Make the bundle stable or canary, and prove it."""
        settings = self._settings
        service = self._services.find(self._rollout.service)
        if service is None:
            try:
                service = self._services.create(
                    build_service(
                        self._rollout,
                        self._project.name,
                        self._uri,
                        settings.detector_url,
                        settings.model_account,
                    )
                )
                logger.info("created InferenceService %s", self._rollout.service)
            except ConflictError:
                logger.info("somebody else created InferenceService %s first", self._rollout.service)
        service = self._wait_until_free(deadline)
        if is_unproven(service) and get_stable_uri(service) != self._uri:
            service = self._replace_unproven()
        if get_stable_uri(service) == self._uri:
            return self._prove_stable(service, version, deadline)
        return self._prove_canary(deadline)

    def _wait_until_free(self, deadline: Deadline) -> Document:
        """Wait while the pilot carries out what a person asked for; refuse a service that is not ours."""
        found: list[Document] = []

        def look() -> str | None:
            service = self._services.get(self._rollout.service)
            found.append(service)
            busy = [name for name in BUSY if name in get_annotations(service)]
            return f"annotations {', '.join(busy)}; the pilot has not acted on them" if busy else None

        deadline.wait(f"{self._rollout.service}: waiting for the pilot", look)
        owner = (found[-1]["metadata"].get("labels") or {}).get(names.PROJECT_LABEL)
        if owner != self._project.name:
            raise RefusedError(
                f"InferenceService {self._rollout.service} belongs to {owner or 'no project'} (its label "
                f"{names.PROJECT_LABEL}), not to {self._project.name}: choose another rollout.service"
            )
        return found[-1]

    def _replace_unproven(self) -> Document:
        """Take the place of a first model that was never proven: no customer has met it."""

        def change(service: Document) -> Document | None:
            if not is_unproven(service):
                return None
            logger_key = build_logger(self._rollout, self._uri, self._settings.detector_url)
            predictor = {"model": {"storageUri": self._uri}, **(logger_key or {"logger": None})}
            return {
                "metadata": {"annotations": {UNPROVEN: self._bundle.digest}},
                "spec": {"predictor": predictor, "canary": None},
            }

        logger.info("the first model was never proven: replacing it")
        return self._services.update(self._rollout.service, change)

    def _prove_stable(self, service: Document, version: Version, deadline: Deadline) -> Outcome:
        variant = names.stable_name(service)
        proof = prove(self._services, self._settings, self._rollout, self._bundle, variant, deadline)

        def change(current: Document) -> Document | None:
            marks = get_annotations(current)
            if UNPROVEN not in marks and marks.get(names.PROJECT_URI) == self._project_uri:
                return None
            return {"metadata": {"annotations": {UNPROVEN: None, names.PROJECT_URI: self._project_uri}}}

        first = UNPROVEN in get_annotations(service)
        self._services.update(self._rollout.service, change)
        self._tracking.set_alias(self._project.name, CHAMPION, version.version)
        self._drop_alias(CHALLENGER, version)
        note = "It is the first model of this service" if first else "It was the stable model already"
        return Outcome("stable", 100, proof, note)

    def _prove_canary(self, deadline: Deadline) -> Outcome:
        replaced: list[dict[str, Any]] = []
        existed: list[bool] = []

        def add(service: Document) -> Document | None:
            replaced.clear()
            existed.clear()
            entry = find_canary(service, self._uri)
            others = [item for item in service["spec"].get("canary") or () if item != entry]
            existed.append(entry is not None)
            if entry is not None and not others:
                return None
            replaced.extend(item["predictor"] for item in others)
            # One canary at a time: a newer challenger takes the place of an unfinished one.
            canary = entry or build_canary(
                self._rollout, self._uri, 0, self._settings.detector_url, self._settings.model_account
            )
            patch: Document = {"spec": {"canary": [canary]}}
            if entry is None:  # what is known of it is from an earlier time
                patch["metadata"] = {"annotations": {names.PROVEN: None, names.ROLLOUT: None}}
            return patch

        def give_traffic(service: Document) -> Document | None:
            entry = find_canary(service, self._uri)
            if entry is None:
                raise NotFoundError(
                    f"{self._rollout.service}: canary {self._canary} is gone: somebody took it away meanwhile"
                )
            marks = get_annotations(service)
            known = json.loads(marks.get(names.PROVEN, "{}")).get("digest") == self._bundle.digest
            if known and marks.get(names.PROJECT_URI) == self._project_uri:
                return None  # the pilot has taken over: the share is its own, or a person's
            stable = names.digest_of(get_stable_uri(service))
            difference = read_difference(self._tracking, self._run_id, stable)
            proven = json.dumps({"digest": self._bundle.digest, "difference": difference}, sort_keys=True)
            new = {names.PROJECT_URI: self._project_uri, names.PROVEN: proven}
            patch: Document = {"metadata": {"annotations": new}}
            if entry["trafficPercent"] == 0 and not known:
                share = self._rollout.first_percent
                patch["spec"] = {"canary": [{**entry, "trafficPercent": share}]}
            return patch

        retired = make_room(self._services, self._rollout.service, self._uri, deadline)
        self._services.update(self._rollout.service, add)
        replaced[:0] = retired
        logger.info("canary %s is in the InferenceService, without traffic", self._canary)
        self._tag_replaced(replaced)
        proof = prove(self._services, self._settings, self._rollout, self._bundle, self._canary, deadline)
        service = self._services.update(self._rollout.service, give_traffic)
        entry = find_canary(service, self._uri)
        percent = int(entry["trafficPercent"]) if entry else 0
        before = ", ".join(predictor["name"] for predictor in replaced)
        notes = [f"It takes the place of the unfinished canary {before}"] if replaced else []
        notes += ["It was a canary already"] if existed[-1] else []
        return Outcome("canary", percent, proof, ". ".join(notes))

    def _tag_replaced(self, predictors: list[dict[str, Any]]) -> None:
        """Write into the registry what became of canaries that this one takes the place of."""
        for predictor in predictors:
            digest = names.digest_of(predictor["model"]["storageUri"])
            found = self._tracking.find_version(self._project.name, digest)
            if found is not None:
                self._tracking.tag_version(found.name, found.version, {OUTCOME: "replaced"})

    def _clean_up(self, version: Version, cause: Exception) -> None:
        """Take away what this roll-out brought, and nothing else; what fails here is added to the cause."""
        for clean in (self._withdraw, self._record_failure):
            try:
                clean(version, cause)
            except ClientError as error:
                cause.add_note(f"Cleaning up failed too: {error}")

    def _withdraw(self, _: Version, cause: Exception) -> None:
        """Remove the canary's entry. A first model has met nobody: it stays until another takes its place."""
        service = self._services.find(self._rollout.service)
        if service is None or not self._is_ours(service):
            return
        if is_unproven(service) and get_stable_uri(service) == self._uri:
            cause.add_note(
                "The InferenceService, whose first model this would be, stays as it is and has no customers; "
                "the next roll-out takes its place."
            )
        elif find_canary(service, self._uri) is not None:
            self._services.update(self._rollout.service, self._remove_canary)
            cause.add_note("The canary entry was removed; the stable model was not touched.")

    def _record_failure(self, version: Version, cause: Exception) -> None:
        """Write into the registry that this version serves nobody, and why."""
        self._tracking.tag_version(
            self._project.name, version.version, {OUTCOME: "failed", "rollout.error": str(cause)}
        )
        self._drop_alias(CHALLENGER, version)

    def _drop_alias(self, alias: str, version: Version) -> None:
        """Delete the alias if it points to this version."""
        found = self._tracking.find_alias(version.name, alias)
        if found is not None and found.version == version.version:
            self._tracking.delete_alias(version.name, alias)

    def _is_ours(self, service: Document) -> bool:
        labels = service["metadata"].get("labels") or {}
        return labels.get(names.PROJECT_LABEL) == self._project.name

    def _remove_canary(self, service: Document) -> Document | None:
        entry = find_canary(service, self._uri)
        if entry is None:
            return None
        rest: list[Any] = [item for item in service["spec"]["canary"] if item != entry]
        return {"spec": {"canary": rest or None}}
