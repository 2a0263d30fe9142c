# SPDX-License-Identifier: Apache-2.0
"""What a user names: ``jis``, ``jis/digits``, ``pods,nodes``, ``nereid``, ``jis digits other``."""

from collections.abc import Sequence
from dataclasses import dataclass

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Kind, Object, Ref
from nereid_shared.errors import NotFound, UserError
from nereid_shared.kinds import CATEGORY

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind, and the names that are meant; none for all of them.

    Attributes:
        asked_by_category: a kind that came in by a category, whose absence is no error.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    by_category: bool = False


def targets(words: Sequence[str]) -> list[Target]:
    """Return what the words of a command line name.

    Raises:
        UserError: a kind is unknown, or the two ways to name are mixed.
    """
    if not words:
        raise UserError(
            "no resource is named", mend=f"Name a kind, or KIND/NAME such as jis/digits. {kinds_there_are()}"
        )
    if any("/" in word for word in words):
        return [_by_slash(word) for word in words]
    first, *names = words
    found: list[Target] = []
    for word in first.split(","):
        category = kinds.CATEGORIES.get(word.lower())
        members = category or (kind_by_word(word),)
        found += [Target(kind=kind, names=tuple(names), by_category=category is not None) for kind in members]
    if names and any(target.by_category for target in found):
        raise UserError(f"{first} is a category: names do not go with it", mend="Name the kind, such as jis/digits")
    return found


def named_targets(words: Sequence[str]) -> list[Target]:
    """Return what the words name, each with a name.

    Raises:
        UserError: as in `targets`, or a name is missing.
    """
    found = targets(words)
    if not all(target.names for target in found):
        raise UserError("no name is given", where=" ".join(words), mend="Use KIND/NAME, or KIND NAME")
    return found


def _by_slash(word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not (kind and slash and name) or "/" in name:
        raise UserError("this is not KIND/NAME", where=word, mend="Write each resource as KIND/NAME, or as KIND NAME")
    return Target(kind=kind_by_word(kind), names=(name,))


def kind_by_word(word: str) -> Kind:
    """Return the kind of a plural, singular or short name.

    Raises:
        UserError: there is none.
    """
    try:
        return kinds.by_word(word)
    except NotFound as error:
        raise UserError(str(error), mend=kinds_there_are()) from error


def kinds_there_are() -> str:
    """Return a sentence with the words for all kinds, ours first, and the words for several kinds."""
    ours = kinds.CATEGORIES[CATEGORY]
    others = [kind for kind in kinds.ALL if kind not in ours]
    words = [
        f"{kind.plural} ({kind.short_names[-1]})" if kind.short_names else kind.plural for kind in (*ours, *others)
    ]
    return f"There are {', '.join(words)}; {CATEGORY} for all of Nereid's own, all for what runs"


def ref(kind: Kind, name: str, namespace: str) -> Ref:
    """Return an address; kinds without namespaces take none."""
    return Ref(kind=kind, name=name, namespace=namespace if kind.namespaced else "")


def called(kind: Kind, name: str) -> str:
    """Return how kubectl calls one object: ``jointinferenceservice.neptune.io/digits``."""
    return f"{singular(kind)}/{name}"


def singular(kind: Kind) -> str:
    """Return the singular with its group."""
    return f"{kind.kind.lower()}.{kind.group}" if kind.group else kind.kind.lower()


def name_of(obj: Object) -> str:
    """Return an object's name."""
    return str(obj["metadata"]["name"])
