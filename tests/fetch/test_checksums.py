"""The checksum files that release sites publish, as they publish them."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.fetch.checksums import ChecksumError, parse_checksum

A, B = "a1" * 32, "b2" * 32


@pytest.mark.parametrize(
    "text",
    [
        A,  # dl.k8s.io
        f"{A}\n",
        f"{A.upper()}\r\n",
        f"{A}  kubelet\n",  # coreutils
        f"{A} *kubelet\n",
        f"{A}  ./kubelet\n",
        f"{A}  _output/bin/kubelet\n",
        f"\\{A}  kubelet\n",
        f"\ufeff{A}  kubelet\n",
        f"SHA256 (kubelet) = {A}\n",  # BSD
        f"SHA2-256(kubelet)= {A}\n",  # openssl
        f"{B}  kubelet.tar.gz\n{A}  kubelet\n{B}  kube\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{A} *kubelet\n{B} *other\n-----BEGIN PGP",
        f"# sums\n{A}  kubelet\n{A}  kubelet\n",
    ],
)
def test_reads_what_sites_publish(text: str) -> None:
    assert parse_checksum(text, "kubelet") == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not found",
        A[:-1],
        A + "0",
        f"{A * 2}  kubelet",  # SHA-512
        f"{A}\n{B}\n",
        f"{A}  other\n",
        f"{A}  kubelet\n{B}  kubelet\n",
        f"<html>{A}</html>",
        f"SHA512 (kubelet) = {A}",
    ],
)
def test_refuses_what_is_not_one_sum(text: str) -> None:
    with pytest.raises(ChecksumError):
        parse_checksum(text, "kubelet")


@given(st.text(max_size=300))
def test_any_text_gives_a_sum_or_an_error(text: str) -> None:
    with contextlib.suppress(ChecksumError):
        assert len(parse_checksum(text, "kubelet")) == 64


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True), st.binary(), min_size=1))
def test_finds_every_file_of_a_list(files: dict[str, bytes]) -> None:
    sums = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    assert {name: parse_checksum(text, name) for name in files} == sums
