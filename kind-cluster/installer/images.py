"""Our images: their names, built when they are missing, handed to the nodes when they are new there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from installer.documents import mirror_image, qualify_image
from installer.errors import InstallError, ProgramError
from installer.options import ROOT, Options
from installer.program import Programs
from installer.state import State

COMPONENTS = "tenure-components"
"""The image of a run's steps."""
NAMES = (
    COMPONENTS,
    "tenure-predictor",
    "tenure-detector",
    "tenure-pilot",
    "tenure-console",
    "tenure-mlflow",
)


_TOLD_BY_A_NODE = 50
_LACKS_A_PLATFORM = "content digest"
"""What containerd complains of when an archive's index names more than the archive holds."""
_PYTHON_IMAGE = "python:3.11-slim-bookworm"


def find_tag(programs: Programs, options: Options) -> str:
    """Return the tag asked for, else twelve digits of the commit (`-dirty`: and changes of what is copied).

    Raises:
        InstallError: Neither is there.
    """
    if options.tag:
        return options.tag
    found = programs.run([str(ROOT / "scripts" / "images"), "--tag"], directory=ROOT)
    if not found.ok:
        raise InstallError(found.err.strip() or "scripts/images --tag says nothing: say TAG=")
    return found.out.strip()


def name_image(name: str, tag: str, registry: str) -> str:
    """Return an image's whole name."""
    return f"{registry}/{name}:{tag}" if registry else f"{name}:{tag}"


def find_lost(nodes: Iterable[Mapping[str, Any]], reference: str) -> bool:
    """Say whether a node tells all of its images and this one is not among them.

    A node tells fifty at most: one that tells as many may have it all the same.
    """
    whole = qualify_image(reference)
    for node in nodes:
        images = (node.get("status") or {}).get("images") or ()
        told = {name for image in images for name in image.get("names") or ()}
        if 0 < len(images) < _TOLD_BY_A_NODE and not told & {reference, whole}:
            return True
    return False


def find_ids(programs: Programs, references: list[str]) -> dict[str, str]:
    """Return the ID of each image that Docker has here."""
    found = {}
    for reference in references:
        result = programs.run(["docker", "image", "inspect", "--format", "{{.Id}}", reference])
        if result.ok:
            found[reference] = result.out.strip()
    return found


class Images:
    """The images of one installation."""

    def __init__(self, programs: Programs, options: Options, logs: Path, tag: str) -> None:
        self._programs = programs
        self._options = options
        self._logs = logs
        self.tag = tag
        self.references = {name: name_image(name, tag, options.registry) for name in NAMES}
        self.ids: Mapping[str, str] = {}
        """ID by name; known after `build`."""

    def build(self) -> str:
        """Build what is missing; an image of uncommitted changes is always built, from Docker's cache."""
        wanted = list(self.references.values())
        known = find_ids(self._programs, wanted)
        missing = [one for one in wanted if one not in known]
        built = False
        if self._options.build and (missing or self.tag.endswith("-dirty")):
            short = [name.removeprefix("tenure-") for name, one in self.references.items() if one in missing]
            arguments = ["make", "--no-print-directory", "images", f"TAG={self.tag}"]
            if missing and not self.tag.endswith("-dirty"):
                arguments.append(f"IMAGES={' '.join(short)}")
            if self._options.registry:
                arguments.append(f"REGISTRY={self._options.registry}")
            if self._options.mirror and not self._programs.environment.get("PYTHON_IMAGE"):
                arguments.append(f"PYTHON_IMAGE={mirror_image(_PYTHON_IMAGE, self._options.mirror)}")
            self._programs.record(arguments, self._logs / "images.log", directory=ROOT)
            known = find_ids(self._programs, wanted)
            missing = [one for one in wanted if one not in known]
            built = True
        if missing:
            fix = "leave BUILD=no out" if not self._options.build else "see the log of `make images`"
            raise InstallError(
                f"there is no image {missing[0]} here: {fix}, or say TAG= of one that is there"
            )
        self.ids = {name: known[reference] for name, reference in self.references.items()}
        return f"tag {self.tag}, {'built' if built else 'there'}"

    def hand_over(self, state: State, nodes: Sequence[Mapping[str, Any]] = ()) -> str:
        """Push the images, or give them to the nodes; those that are there already are left alone."""
        watched = () if self._options.registry else nodes  # from a registry a node fetches them itself
        addresses = {name: self.address(name) for name in NAMES}
        fresh = [
            name
            for name, reference in addresses.items()
            if not state.matches(f"image {name}", f"{reference} {self.ids[name]}")
            or find_lost(watched, reference)
        ]
        for name in fresh:
            reference = addresses[name]
            if reference != self.references[name]:
                self._programs.need(["docker", "tag", self.references[name], reference])
            self._give(name, reference)
            state.note(f"image {name}", f"{reference} {self.ids[name]}")
        return f"{len(fresh)} of {len(NAMES)} handed over" if fresh else "unchanged"

    def address(self, name: str) -> str:
        """Return the name under which the nodes get an image.

        Runs are cached by their image's name. Where no registry gives it a digest, the steps' image has its
        ID in its tag: other content is then another name, and another key.
        """
        reference = self.references[name]
        if name != COMPONENTS or self._options.registry:
            return reference
        return f"{reference}-{self.ids[name].removeprefix('sha256:')[:12]}"

    def pin(self, name: str) -> str:
        """Return an image by its digest when a registry has given it one, else by its tag."""
        if not self._options.registry:
            return self.address(name)
        reference = self.references[name]
        listed = self._programs.run(
            ["docker", "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', reference]
        )
        base = reference.rsplit(":", 1)[0]
        for one in listed.out.split() if listed.ok else ():
            # Docker leaves its own registry out of the names.
            repository, _, digest = one.partition("@")
            if qualify_image(repository) == qualify_image(base):
                return f"{base}@{digest}"
        return reference

    def _give(self, name: str, reference: str) -> None:
        log = self._logs / f"load-{name}.log"
        try:
            self._programs.record(self._command(reference), log, timeout=1800)
        except ProgramError as error:
            if self._way != "kind" or _LACKS_A_PLATFORM not in str(error):
                raise
            self._load_archive(name, reference)

    def _load_archive(self, name: str, reference: str) -> None:
        """Load one platform of an image by an archive.

        From Docker's containerd store `kind load docker-image` gets an index that also names what is not in
        it (other platforms, attestations), and fails: kubernetes-sigs/kind#3795.
        """
        inspect = ["docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", reference]
        platform = self._programs.need(inspect).strip()
        archive = self._logs / f"{name}.tar"
        try:
            save = ["docker", "save", "--platform", platform, "-o", str(archive), reference]
            self._programs.record(save, self._logs / f"save-{name}.log", timeout=1800)
            load = ["kind", "load", "image-archive", str(archive), "--name", self._options.name]
            self._programs.record(load, self._logs / f"load-{name}.log", timeout=1800)
        finally:
            archive.unlink(missing_ok=True)

    @property
    def _way(self) -> str:
        """Return how images get to the nodes."""
        if self._options.registry:
            return "registry"
        return "command" if self._options.image_load else self._options.cluster

    def _command(self, reference: str) -> list[str]:
        if self._way == "registry":
            return ["docker", "push", reference]
        if self._way == "command":
            return [*self._options.image_load, reference]
        if self._way == "kind":
            return ["kind", "load", "docker-image", "--name", self._options.name, reference]
        raise ProgramError(f"no way to give {reference} to the nodes: say REGISTRY or IMAGE_LOAD")
