"""What a real server was seen to do, against its documented rules.

The documentation says that an approved version is offered whenever it differs from the installed one. In the field a
phone that reported 1.0.522.73 was answered with nothing (HTTP 200, last update status `0x0;200`), and phones that
reported the zero version asked for 1.0.522.103 next (protocol.md, introduction). Nobody has explained it; so it is a
table beside the rules, off unless asked for, and never mixed into them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dissectors.version import Version


@dataclass(frozen=True, slots=True)
class FieldStory:
    """To a phone that reports `reported`, `answer` is offered whatever the rules say; None is an answer without offer.

    `model` narrows the story to one model, blank means any.
    """

    reported: Version
    answer: Version | None
    model: str = ""

    @classmethod
    def of(cls, reported: str, answer: str | None, model: str = "") -> FieldStory:
        """Raises `DissectError` where a version is not one."""
        return cls(Version.parse(reported), None if answer is None else Version.parse(answer), model)


CX700_STUCK = (
    FieldStory.of(reported="1.0.522.73", answer=None),
    FieldStory.of(reported="0.0.0.0", answer="1.0.522.103"),
)


def story_for(stories: Iterable[FieldStory], reported: Version, model: str) -> FieldStory | None:
    """The first story that fits."""
    return next((story for story in stories if story.reported == reported and story.model in ("", model)), None)
