"""Decodes an update check and its answer, decides, and edits: pure, shared by live traffic and replay.

Nothing is changed unless every step succeeds; what stood in the way is in `problems` for the recording to keep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from captures.exchange import Fact, Headers, charset
from dissectors import DissectError
from dissectors.coding import decode_body, encode_body, parse_codings
from dissectors.frozen import constructor
from dissectors.update_check import Offer, UpdateAnswer, UpdateCheck
from dissectors.vocabulary import Vocabulary
from dissectors.xml_body import Field
from proxy_addons.phone import IDENTITY, Phone, made_phone, same
from proxy_addons.policy import Decision, Situation, decide, package_url
from proxy_addons.rules import HeaderEdits, Rules

SMALL = 8 << 10  # bytes of a body that is remembered
REMEMBERED = 128  # of each kind

CODING = "content-encoding"
LEAVE = Decision("leave", "not an update check")
FILE_PARTS = ("file", "signature_file", "timestamp")  # of an offer: nothing but the rule or the answer can tell them


class Told(Protocol):
    """What is decoded, and says what it means."""

    def to_json(self, secrets: bool) -> Fact:
        """The fact; who signs in only with `secrets`."""


D = TypeVar("D", bound=Told)
Decode = Callable[[bytes, Vocabulary, "str | None"], D]


def remembering(decode: Decode[D]) -> Callable[[bytes, Vocabulary, str | None, bool], tuple[D, Fact]]:
    """A decoder with the fact that is told, users or not. It remembers small bodies, for most answers say the same."""

    def decoded(body: bytes, vocabulary: _Same, charset: str | None, users: bool) -> tuple[D, Fact]:
        found = decode(body, vocabulary.it, charset)
        return found, found.to_json(users)

    remembered = functools.lru_cache(REMEMBERED)(decoded)

    def read(body: bytes, vocabulary: Vocabulary, charset: str | None, users: bool) -> tuple[D, Fact]:
        return (decoded if len(body) > SMALL else remembered)(body, _Same(vocabulary), charset, users)

    return read


class _Same:
    """A vocabulary that equals itself only, so that a look-up need not compare all of its names."""

    __slots__ = ("it",)

    def __init__(self, it: Vocabulary) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)


_decode_check, _decode_answer = remembering(UpdateCheck.decode), remembering(UpdateAnswer.decode)


@dataclass(frozen=True, slots=True)
class Edited:
    """A message body after the rewriter: `original` came, `sent` goes on, both in the content-coding it came in.

    `decoded` and `sent_decoded` are the same two without coding; None where the coding could not be undone.
    """

    original: bytes
    sent: bytes
    decoded: bytes | None
    sent_decoded: bytes | None
    problems: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()

    @classmethod
    def untouched(cls, raw: bytes, *problems: str) -> Edited:
        """A body that goes on as it came, its coding not undone."""
        return cls(raw, raw, None, None, problems)

    @property
    def changed(self) -> bool:
        """Whether the body that goes on differs from the one that came."""
        return self.sent_decoded != self.decoded


_edited = constructor(Edited)


@dataclass(frozen=True, slots=True)
class Checked:
    """An update check after the rewriter, with what it means for the answer."""

    body: Edited
    decision: Decision = LEAVE
    phone: Phone | None = None


class Read(NamedTuple):
    """A request to the update handler as it was read; `check` and `phone` are None where it is no update check."""

    body: Edited
    codings: Sequence[str] = ()
    check: UpdateCheck | None = None
    phone: Phone | None = None


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Rules and vocabulary in force. With `dry_run` everything is decided and nothing is changed.

    With `users`, facts tell who signs in at a phone.
    """

    rules: Rules
    vocabulary: Vocabulary
    limit: int
    dry_run: bool = False
    users: bool = False

    def check(
        self,
        raw: bytes,
        headers: Headers,
        address: str | None = None,
        situate: Callable[[Phone], Situation] = lambda _phone: Situation(),
    ) -> Checked:
        """Decode a request to the update handler, decide, and report another version where the rules say so.

        `address` is the phone's; `situate` is asked what else the decision depends on, once the phone is known.
        """
        return self.decide(self.read(raw, headers, address), situate)

    def read(self, raw: bytes, headers: Headers, address: str | None = None) -> Read:
        """Decode a request to the update handler."""
        codings = codings_of(headers)
        decoded, problem = self._decoded(raw, codings)
        if decoded is None:
            return Read(Edited.untouched(raw, problem))
        try:
            check, fact = _decode_check(decoded, self.vocabulary, charset(headers), self.users)
        except DissectError as error:
            problem = f"request not decoded as an update check: {error}"
            return Read(Edited(raw, raw, decoded, decoded, (problem,)))
        body = _edited(raw, raw, decoded, decoded, (), (fact,))
        return Read(body, codings, check, phone_of(check, address, users=self.users))

    def decide(self, read: Read, situate: Callable[[Phone], Situation]) -> Checked:
        """Decide about a request that was read, as in `check`."""
        body, check, phone = read.body, read.check, read.phone
        if check is None or phone is None:
            return Checked(body)
        decision = decide(self.rules, phone, situate(phone))
        facts = (*body.facts, self._fact(decision))
        untouched = _edited(body.original, body.sent, body.decoded, body.sent_decoded, body.problems, facts)
        if decision.report is None or self.dry_run:
            return Checked(untouched, decision, phone)
        report = decision.report
        # A phone that sends no timestamp with its version reports none.
        timestamp = report.timestamp if any(module.timestamp for module in check.modules) else None
        edited = _edit(untouched, read.codings, "report", lambda: check.with_reported(report.version, timestamp))
        return Checked(edited, decision, phone)

    def _fact(self, decision: Decision) -> Fact:
        return {**decision.to_json(), "dry_run": self.dry_run, "rules_sha256": self.rules.sha256 or None}

    def answer(self, raw: bytes, headers: Headers, checked: Checked, authority: str) -> Edited:
        """Decode the answer to an update check and put an offer into it where the decision says so.

        `authority` is the host (and port) the phone asked: offers point there. An answer that holds an offer of the
        server's own stays as it is.
        """
        codings = codings_of(headers)
        decoded, problem = self._decoded(raw, codings)
        if decoded is None:
            return Edited.untouched(raw, problem)
        try:
            answer, fact = _decode_answer(decoded, self.vocabulary, charset(headers), self.users)
        except DissectError as error:
            return Edited(raw, raw, decoded, decoded, (f"answer not decoded: {error}",))
        untouched = _edited(raw, raw, decoded, decoded, (), (fact,))
        offer, rule = checked.decision.offer, checked.decision.rule
        if offer is None or offer.version is None or rule is None or rule.path is None or self.dry_run:
            return untouched
        if any(not existing.empty for existing in answer.offers):
            return replace(untouched, problems=("no offer made: the server offers something itself",))
        if checked.phone is not None and (other := _other_device(answer, checked.phone)):
            return replace(untouched, problems=(f"no offer made: the answer is about another device: {other}",))
        path, version = rule.path, offer.version
        places = {name for existing in answer.offers for name in Offer.__slots__ if getattr(existing, name) is not None}
        derived = {
            "base_url": package_url(path, version, authority, external=False),
            "external_base_url": package_url(path, version, authority, external=True),
            "version": str(version),
        }
        named = {name: getattr(offer, name) for name in ("base_url", "external_base_url", *FILE_PARTS)}
        wanted = {name: text for name, text in derived.items() if name in places}
        wanted |= {name: text for name, text in named.items() if text is not None}
        unnamed = [
            name for name in ("file", "signature_file") if name in places - wanted.keys() and not _told(answer, name)
        ]
        if unnamed:
            return replace(untouched, problems=(f"no offer made: the rule names no {unnamed[0]}",))
        return _edit(untouched, codings, "offer", lambda: answer.with_offer(**wanted))

    def _decoded(self, raw: bytes, codings: Sequence[str]) -> tuple[bytes | None, str]:
        try:
            return decode_body(raw, codings, self.limit) if codings else raw, ""
        except DissectError as error:
            return None, f"content-coding not undone: {error}"


def _other_device(answer: UpdateAnswer, phone: Phone) -> str:
    """What an answer says of a device that the phone is not; blank where nothing contradicts it."""
    for part in (*IDENTITY, "serial"):
        field, own = getattr(answer, part), getattr(phone, part)
        if field is not None and field.value.strip() and own is not None and not same(field.value, own):
            return f"its {part} is {field.value[:40]!r}"
    mac = answer.mac_address
    return "its MAC address is another" if mac and phone.mac and mac != phone.mac else ""


def _told(answer: UpdateAnswer, name: str) -> bool:
    return any((field := getattr(offer, name)) is not None and field.value.strip() for offer in answer.offers)


def _edit(untouched: Edited, codings: Sequence[str], what: str, edit: Callable[[], bytes]) -> Edited:
    try:
        changed = edit()
        sent = encode_body(changed, codings, untouched.original) if codings else changed
    except DissectError as error:
        return replace(untouched, problems=(f"no {what} made: {error}",))
    return _edited(untouched.original, sent, untouched.decoded, changed, untouched.problems, untouched.facts)


def phone_of(check: UpdateCheck, address: str | None = None, *, users: bool = False) -> Phone:
    """What the policy needs to know of an update check. Modules of different versions give no version."""

    def text(field: Field | None) -> str | None:
        return None if field is None else field.value.strip() or None

    versions = {module.installed.version for module in check.modules} - {None}
    return made_phone(  # takes them in the order of the fields of `Phone`
        text(check.device_type),
        text(check.vendor),
        text(check.model),
        text(check.revision),
        text(check.locale),
        versions.pop() if len(versions) == 1 else None,
        check.mac_address,
        text(check.serial),
        address,
        check.update_status,
        text(check.user) if users else None,
    )


def codings_of(headers: Headers) -> tuple[str, ...]:
    """The content-codings of a message, in the order they were applied."""
    found = [value for name, value in headers if len(name) == len(CODING) and name.lower() == CODING]
    return parse_codings(",".join(found)) if found else ()


def edit_headers(headers: Headers, edits: HeaderEdits) -> Headers:
    """Headers after the edits: a header that is set keeps its place and case, untouched ones stay as they were."""
    removed = {name.lower() for name in edits.remove}
    wanted = {name.lower(): (name, value) for name, value in edits.set}
    edited: list[tuple[str, str]] = []
    placed: set[str] = set()
    for name, value in headers:
        key = name.lower()
        if key in wanted:
            if key not in placed:
                placed.add(key)
                edited.append((name, wanted[key][1]))
        elif key not in removed:
            edited.append((name, value))
    edited += [pair for key, pair in wanted.items() if key not in placed]
    return tuple(edited)
