"""Puts opinions of components and profiles together: one item an identity, or a finding with both origins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from imagegen.diagnostics import Report, Span, register_code
from imagegen.errors import ImagegenError
from imagegen.plan.items import File, Fragment, Item, Ref

CONFLICT = register_code(
    "IMG201",
    "two opinions on one thing",
    "Two profiles or components describe the same path, package, user, unit, sysctl, kernel module or "
    "port and do not say the same. Saying the same twice is fine. Remove one of them; in a profile of "
    "your own, `replace: true` on the entry lets it win over what imagegen ships.",
)
NOTHING_REPLACED = register_code(
    "IMG202",
    "replace: true replaces nothing",
    "An entry of a profile says `replace: true`, but for this set of roles imagegen has no other "
    "opinion that the entry could replace. Often the name or path is misspelt, or this version of "
    "imagegen no longer ships the item.",
)
NOT_REPLACEABLE = register_code(
    "IMG203",
    "this item cannot be replaced",
    "Items that carry keys or certificates, and items that differ from node to node, are made by "
    "imagegen alone; a profile cannot replace them.",
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One item and how much it may insist. ``span`` is the user's own text, None for what imagegen ships."""

    item: Item
    span: Span | None = None
    #: wins over an opinion that imagegen ships
    replace: bool = False


def opinions_of(fragment: Fragment) -> list[Opinion]:
    """The opinions of a component or of a shipped profile."""
    return [Opinion(item) for item in fragment.items]


@dataclass(slots=True)
class Replacements:
    """Which ``replace: true`` entries won over something, on any set of roles; the others are reported."""

    won: set[Opinion] = field(default_factory=set)
    idle: dict[Opinion, None] = field(default_factory=dict)

    def report_idle(self, report: Report) -> None:
        """A warning (IMG202) for every entry that replaced nothing on any set of roles."""
        for opinion in self.idle:
            if opinion not in self.won:
                report.warning(
                    NOTHING_REPLACED,
                    f"{name_item(opinion.item)} replaces nothing",
                    opinion.span,
                    hint="remove `replace: true`, or correct the name",
                )


def merge_opinions(
    opinions: Iterable[Opinion], report: Report, replacements: Replacements
) -> tuple[Item, ...]:
    """One item an identity, sorted by identity; of two equal opinions the first one's origin is kept.

    Disagreements are reported (IMG201, IMG203) and the first opinion stays, so that later checks still run.
    """
    by_identity: dict[tuple[str, str], list[Opinion]] = {}
    for opinion in opinions:
        by_identity.setdefault(opinion.item.identity, []).append(opinion)
    return tuple(_settle(by_identity[identity], report, replacements) for identity in sorted(by_identity))


def _settle(opinions: list[Opinion], report: Report, replacements: Replacements) -> Item:
    winners = [o for o in opinions if o.replace]
    if not winners:
        first = opinions[0]
        for other in opinions[1:]:
            if other.item != first.item:
                report_conflict(first, other, report)
        return first.item
    winner = winners[0]
    for other in opinions:
        if other is winner:
            continue
        if other.span is None:
            replacements.won.add(winner)
            if has_refs(other.item):
                report.error(
                    NOT_REPLACEABLE,
                    f"{name_item(other.item)} carries keys or certificates and cannot be replaced",
                    winner.span,
                    hint="remove the entry; a CA of your own goes into the secret store",
                )
        elif other.item != winner.item:
            report_conflict(winner, other, report)
    replacements.idle[winner] = None
    return winner.item


def report_conflict(first: Opinion, second: Opinion, report: Report) -> None:
    """One IMG201 that names both origins and what differs; the user's own text is its place."""
    here, there = (second, first) if first.span is None and second.span is not None else (first, second)
    hint = "make the two say the same, or remove one"
    if here.span is not None and there.span is None and not has_refs(there.item):
        hint = "remove the entry, or add `replace: true` to it"
    report.error(
        CONFLICT,
        f"{name_item(here.item)}: {here.item.origin} and {there.item.origin} disagree: "
        + describe_difference(here.item, there.item),
        here.span,
        hint=hint,
        also=[there.span] if there.span is not None else [],
    )


def name_item(item: Item) -> str:
    """Kind and key as people say it: ``unit etcd.service``, ``file /etc/hosts``."""
    kind, key = item.identity
    if kind == "path":
        kind = type(item).__name__.lower()
    return f"{kind} {key}"


def describe_difference(one: Item, other: Item) -> str:
    """What two opinions on one identity say differently; file bodies are not shown, only that they differ."""
    if type(one) is not type(other):
        return f"{type(one).__name__.lower()} against {type(other).__name__.lower()}"
    parts: list[str] = []
    for spec in fields(one):
        if not spec.compare:
            continue
        mine, theirs = getattr(one, spec.name), getattr(other, spec.name)
        if mine == theirs:
            continue
        if spec.name == "content" and mine is not None and theirs is not None:
            parts.append("content differs")
        else:
            parts.append(f"{spec.name} {_shown(mine)} against {_shown(theirs)}")
    return ", ".join(parts)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return " ".join(str(v) for v in value) or "none"
    text = str(value)
    return text if len(text) <= 60 else "a text"


def has_refs(item: Item) -> bool:
    """Whether the item needs the secret store."""
    return isinstance(item, File) and any(isinstance(part, Ref) for part in item.content)


def drop_contradicted(
    own: Iterable[Item],
    shared: Mapping[tuple[str, str], Item],
    spans: Mapping[tuple[str, str], Span],
    report: Report,
) -> list[Item]:
    """The items of one node without those that a profile of the user contradicts; each such is an IMG203."""
    kept = []
    for item in own:
        identity = item.identity
        if identity in spans and shared[identity] != item:
            report.error(
                NOT_REPLACEABLE,
                f"{name_item(item)} differs from node to node and is made by {item.origin} alone",
                spans[identity],
                hint="remove the entry",
            )
        else:
            kept.append(item)
    return kept


def merge_node_items(
    shared: Mapping[tuple[str, str], Item], fragments: Iterable[Fragment], where: str
) -> tuple[Item, ...]:
    """The items of one node on top of ``shared``, sorted by identity; cheap.

    Raises ImagegenError on a disagreement: ``build_plan`` has already tried one node of each shape.
    """
    own: dict[tuple[str, str], Item] = {}
    for fragment in fragments:
        for item in fragment.items:
            identity = item.identity
            other = shared.get(identity) or own.get(identity)
            if other is None:
                own[identity] = item
            elif other != item:
                raise ImagegenError(
                    f"{where}: {name_item(item)}: {item.origin} and {other.origin} disagree: "
                    + describe_difference(item, other)
                )
    return tuple(own[identity] for identity in sorted(own))
