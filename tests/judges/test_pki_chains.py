"""OpenSSL, pkilint and zlint over every certificate in every algorithm; waivers are in waivers-pki.yaml."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pkilint.bin import lint_pkix_cert, lint_pkix_signer_signee_cert_chain

from imagegen.model.cluster import KeyAlgorithm
from imagegen.pki import inventory, spec
from imagegen.pki.spec import Usage
from imagegen.pki.store import SecretStore
from tests.judges.tools import Tool
from tests.pki.clusters import all_in_one, ha
from tests.pki.workshop import NOW, issue_store

pytestmark = pytest.mark.judge

ALGORITHMS = [
    KeyAlgorithm.ECDSA_P256,
    KeyAlgorithm.ECDSA_P384,
    KeyAlgorithm.ECDSA_P521,
    KeyAlgorithm.RSA_2048,
    KeyAlgorithm.ED25519,
]
_PURPOSES = {Usage.SERVER: "sslserver", Usage.CLIENT: "sslclient"}
_WAIVERS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "waivers-pki.yaml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Issued:
    """A store with every kind of certificate in one algorithm."""

    store: SecretStore
    specs: tuple[spec.CertificateSpec, ...]
    authorities: tuple[str, ...]

    def path(self, stem: str) -> Path:
        return self.store.root / f"{stem}.crt"

    def list_paths(self) -> list[Path]:
        return [self.path(stem) for stem in (*self.authorities, *(each.name for each in self.specs))]


@pytest.fixture(scope="module", params=ALGORITHMS, ids=str)
def issued(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Issued:
    key: KeyAlgorithm = request.param
    cluster = ha(key) if key is KeyAlgorithm.ECDSA_P256 else all_in_one(key)
    return Issued(
        store=issue_store(cluster, tmp_path_factory.mktemp("judge") / "secrets"),
        specs=tuple(inventory.list_certificates(cluster)),
        authorities=tuple(each.name for each in inventory.list_authorities(cluster)),
    )


def waived(judge: str, finding: str) -> bool:
    return finding in _WAIVERS[judge]


def test_openssl_accepts_every_chain_for_its_purposes(issued: Issued, openssl: Tool) -> None:
    at = str(int(NOW.timestamp()))
    groups: dict[tuple[str, str], list[Path]] = {}
    for each in issued.specs:
        for usage in each.usages:
            groups.setdefault((each.issuer, _PURPOSES[usage]), []).append(issued.path(each.name))
    for (issuer, purpose), paths in groups.items():
        options = ("-x509_strict", "-check_ss_sig", "-attime", at, "-purpose", purpose, "-auth_level", "2")
        done = openssl.run("verify", *options, "-CAfile", issued.path(issuer), *paths)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(": OK\n") == len(paths)


def test_openssl_refuses_the_purposes_that_were_not_asked_for(issued: Issued, openssl: Tool) -> None:
    at = str(int(NOW.timestamp()))
    single = [each for each in issued.specs if len(each.usages) == 1]
    for each in single[:6]:
        purpose = "sslclient" if each.usages[0] is Usage.SERVER else "sslserver"
        options = ("-x509_strict", "-attime", at, "-purpose", purpose)
        done = openssl.run("verify", *options, "-CAfile", issued.path(each.issuer), issued.path(each.name))
        assert done.returncode != 0
        assert "purpose" in done.stdout + done.stderr


def test_openssl_finds_every_name_that_is_dialled(issued: Issued, openssl: Tool) -> None:
    each = next(each for each in issued.specs if each.name.endswith("/apiserver"))
    for option, name in (
        ("-verify_hostname", "kubernetes.default.svc.cluster.local"),
        ("-verify_hostname", "localhost"),
        ("-verify_ip", "10.32.0.1"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", str(each.addresses[0])),
    ):
        arguments = ("-attime", str(int(NOW.timestamp())), "-CAfile", issued.path(each.issuer))
        done = openssl.run("verify", *arguments, option, name, issued.path(each.name))
        assert done.returncode == 0, (name, done.stderr)
    done = openssl.run("verify", *arguments, "-verify_ip", "192.0.2.1", issued.path(each.name))
    assert done.returncode != 0


def lint(main: Any, capsys: pytest.CaptureFixture[str], *paths: Path) -> set[str]:
    """The codes of pkilint's findings. In this process: starting the program takes a second a certificate."""
    capsys.readouterr()
    count = main(["lint", "-s", "WARNING", "-f", "JSON", *map(str, paths)])
    results = json.loads(capsys.readouterr().out)["results"]
    codes = [finding["code"] for result in results for finding in result["finding_descriptions"]]
    assert len(codes) == count
    return set(codes)


def test_pkilint_has_nothing_to_say(issued: Issued, capsys: pytest.CaptureFixture[str]) -> None:
    found = set().union(*(lint(lint_pkix_cert.main, capsys, path) for path in issued.list_paths()))
    assert {code for code in found if not waived("pkilint", code)} == set()


def test_pkilint_accepts_signer_and_signee(issued: Issued, capsys: pytest.CaptureFixture[str]) -> None:
    main = lint_pkix_signer_signee_cert_chain.main
    pairs = [(issued.path(each.issuer), issued.path(each.name)) for each in issued.specs]
    found = set().union(*(lint(main, capsys, *pair) for pair in pairs))
    assert {code for code in found if not waived("pkilint", code)} == set()


def test_pkilint_would_see_a_wrong_signer(issued: Issued, capsys: pytest.CaptureFixture[str]) -> None:
    main = lint_pkix_signer_signee_cert_chain.main
    admin = issued.path("pki/admin")
    assert lint(main, capsys, issued.path("pki/etcd/ca"), admin) - set(_WAIVERS["pkilint"])


def test_zlint_has_nothing_to_say(issued: Issued, zlint: Tool) -> None:
    findings: Counter[str] = Counter()
    for path in issued.list_paths():
        done = zlint.run("-includeSources=RFC5280,RFC5480,Community", path)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert sum(each["result"] == "pass" for each in results.values()) > 20
        findings.update(
            lint for lint, each in results.items() if each["result"] in {"error", "warn", "fatal"}
        )
    assert {lint for lint in findings if not waived("zlint", lint)} == set()


def test_waivers_are_few_and_used(issued: Issued, capsys: pytest.CaptureFixture[str]) -> None:
    """A waiver that nothing needs any more must go."""
    assert sum(len(each) for each in _WAIVERS.values()) == 1
    found = set().union(*(lint(lint_pkix_cert.main, capsys, path) for path in issued.list_paths()))
    assert set(_WAIVERS["pkilint"]) <= found
