"""The bill of materials of a golden image, as CycloneDX 1.6: packages, executables, container images.

Lists what was put in, by dpkg's own status file and the Plan; guesses no licences. The same image gives the
same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import imagegen
from imagegen.backends.image.partitions import derive_uuid
from imagegen.plan.items import Binary, ContainerImage

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

#: raised when the same inputs give another bill
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """One installed package, as dpkg knows it."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a bill is made from. ``distribution`` is such as ``debian-13``; ``sources`` maps what came from
    outside of Debian to its file on this machine; ``epoch`` is in seconds since 1970.
    """

    name: str
    image_id: str
    distribution: str
    packages: tuple[DebianPackage, ...]
    sources: Mapping[Binary | ContainerImage, Path]
    epoch: int


def parse_dpkg_status(text: str) -> tuple[DebianPackage, ...]:
    """The installed packages of ``/var/lib/dpkg/status`` (deb-control(5)), sorted by name."""
    return tuple(sorted(_read_packages(text), key=lambda package: (package.name, package.architecture)))


def _read_packages(text: str) -> Iterator[DebianPackage]:
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[:1] != " ")
        if fields.get("Status", "").endswith(" installed"):
            yield DebianPackage(
                name=fields["Package"], version=fields["Version"], architecture=fields["Architecture"]
            )


def emit_bill(bill: Bill) -> bytes:
    """The bill as CycloneDX 1.6 JSON."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    maker = Component(
        name="imagegen", version=imagegen.__version__, type=ComponentType.APPLICATION, bom_ref="imagegen"
    )
    subject = Component(
        name=bill.name, version=bill.image_id, type=ComponentType.OPERATING_SYSTEM, bom_ref="image"
    )
    parts = [*_describe_packages(bill), *_describe_sources(bill.sources)]
    bom = Bom(
        serial_number=UUID(derive_uuid(bill.image_id, f"sbom/{bill.name}")),
        components=parts,
        metadata=BomMetaData(
            tools=ToolRepository(components=[maker]),
            component=subject,
            timestamp=datetime.fromtimestamp(bill.epoch, UTC),
        ),
    )
    bom.register_dependency(subject, parts)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n".encode()


def _describe_packages(bill: Bill) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for package in bill.packages:
        url = PackageURL(
            type="deb",
            namespace="debian",
            name=package.name,
            version=package.version,
            qualifiers={"arch": package.architecture, "distro": bill.distribution},
        )
        yield Component(
            name=package.name,
            version=package.version,
            type=ComponentType.LIBRARY,
            purl=url,
            bom_ref=f"deb:{package.name}:{package.architecture}",
        )


def _describe_sources(sources: Mapping[Binary | ContainerImage, Path]) -> Iterator[Component]:
    for source, file in sources.items():
        if isinstance(source, Binary):
            yield _describe_binary(source, file)
        else:
            yield _describe_image(source)


def _describe_binary(binary: Binary, file: Path) -> Component:
    """An executable with the sum of its own bytes, as they lie in the image."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=binary.path.rpartition("/")[2],
        group=binary.part,
        version=binary.version,
        type=ComponentType.APPLICATION,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_hash_file(file))],
        purl=PackageURL(
            type="generic", name=binary.part, version=binary.version, subpath=binary.member or None
        ),
        properties=[Property(name="imagegen:path", value=binary.path)],
        bom_ref=f"file:{binary.path}",
    )


def _describe_image(image: ContainerImage) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    repository, _, digest = image.reference.partition("@")
    repository, tag = _split_tag(repository)
    return Component(
        name=repository,
        version=tag or digest,
        type=ComponentType.CONTAINER,
        purl=PackageURL(
            type="oci",
            name=repository.rpartition("/")[2],
            version=digest or None,
            qualifiers={"repository_url": repository, **({"tag": tag} if tag else {})},
        ),
        bom_ref=f"oci:{image.reference}",
    )


def _split_tag(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before the last slash belongs to a port."""
    folder, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}", tag


def _hash_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
