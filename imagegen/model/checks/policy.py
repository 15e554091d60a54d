"""Lifetimes of certificates and tokens."""

from __future__ import annotations

from datetime import timedelta

from imagegen.diagnostics import register_code
from imagegen.model.review import Review

BAD_LIFETIME = register_code(
    "IMG130",
    "a certificate lifetime does not work",
    "Lifetimes are at least an hour, and no certificate outlives the authority that signed it: "
    "pki.lifetime is at most pki.ca_lifetime.",
)
ENDLESS_TOKEN = register_code(
    "IMG131",
    "the bootstrap token never expires",
    "Whoever has a bootstrap token can join a node. With token_lifetime: 0 a seed that leaks is a risk"
    " for as long as the cluster exists.",
)

SHORTEST = timedelta(hours=1)


def check_policy(review: Review) -> None:
    pki = review.cluster.pki
    for name, lifetime in (("ca_lifetime", pki.ca_lifetime), ("lifetime", pki.lifetime)):
        if lifetime < SHORTEST:
            message = f"wanted a lifetime of at least 1h, got {_spell(lifetime)}"
            review.error(BAD_LIFETIME, message, f"pki.{name}")
    if SHORTEST <= pki.ca_lifetime < pki.lifetime:
        message = f"lifetime {_spell(pki.lifetime)} is longer than ca_lifetime {_spell(pki.ca_lifetime)}"
        at, other = ("pki.lifetime", "pki.ca_lifetime")
        if not review.is_written(at):
            at, other = other, at
        review.error(BAD_LIFETIME, message, at, also=[other], hint="no certificate outlives its authority")
    token = review.cluster.bootstrap.token_lifetime
    if not token:
        message = "bootstrap tokens never expire"
        review.warning(ENDLESS_TOKEN, message, "bootstrap.token_lifetime", hint="24h is usual")
    elif token < timedelta(minutes=5):
        message = f"wanted a token lifetime of at least 5m, got {_spell(token)}"
        review.error(BAD_LIFETIME, message, "bootstrap.token_lifetime", hint="nodes need time to boot")


def _spell(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    for unit, length in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s" if seconds else "0"
