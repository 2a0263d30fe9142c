# SPDX-License-Identifier: Apache-2.0
"""Which hard example rules are known and what they take; the rules themselves run in the worker.

A name that is not here is accepted, since users may add rules of their own: whether a worker has it is reported as a
condition. What a known rule takes is checked at admission.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from pydantic import Field

from nereid_shared.quantities import FRACTION_PATTERN, POSITIVE_FRACTION_PATTERN, matches
from nereid_shared.resources.parts import Parameter, Part, keys_of
from nereid_shared.resources.rules import Rule, cel_list, cel_text, distinct_keys

FRACTION_WANTED: Final = "each parameter of this rule must be a decimal text from 0 to 1"

# Rule -> parameter -> default, by Sedna's names and defaults. Every value is a decimal text from 0 to 1.
HARD_EXAMPLE_RULES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "Threshold": {"threshold": "0.5"},
        "CrossEntropy": {"threshold_cross_entropy": "0.5"},
        "IBT": {"threshold_img": "0.5", "threshold_box": "0.5"},
        "Margin": {"threshold": "0.5"},
        "Random": {"random_ratio": "0.3"},
        "CloudOnly": {},
        "EdgeOnly": {},
    }
)


def _takes_only_its_own(name: str, known: Mapping[str, str]) -> Rule:
    if known:
        cel = f"self.parameters.all(p, p.key in {cel_list(list(known))})"
        message = f"{name} takes only " + " and ".join(known)
    else:
        cel, message = "size(self.parameters) == 0", f"{name} takes no parameters"
    return Rule(
        "",
        f"self.name != {cel_text(name)} || !has(self.parameters) || {cel}",
        message,
        lambda value, _: value["name"] != name or set(keys_of(value.get("parameters"))) <= set(known),
    )


def _in_range(value: Any, _: Any) -> bool:
    if value["name"] not in HARD_EXAMPLE_RULES:
        return True
    return all(matches(FRACTION_PATTERN, parameter["value"]) for parameter in value.get("parameters") or ())


class HardExampleAlgorithm(Part):
    """The rule that says which samples are worth the cloud."""

    name: str = Field(
        min_length=1,
        max_length=63,
        description=f"The rule: {', '.join(HARD_EXAMPLE_RULES)}, or one that the worker's script adds.",
    )
    parameters: list[Parameter] = Field(
        default_factory=list,
        max_length=16,
        description="The rule's parameters; those of the known rules are decimal texts from 0 to 1.",
    )
    budget: str | None = Field(
        default=None,
        max_length=32,
        pattern=POSITIVE_FRACTION_PATTERN,
        description="The share of inferences that may be hard, such as '0.2': the rule's threshold follows it.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        *(_takes_only_its_own(name, known) for name, known in HARD_EXAMPLE_RULES.items()),
        Rule(
            "",
            f"!(self.name in {cel_list(list(HARD_EXAMPLE_RULES))}) || !has(self.parameters) || "
            f"self.parameters.all(p, p.value.matches({cel_text(FRACTION_PATTERN)}))",
            f"{FRACTION_WANTED}, such as '0.5'",
            _in_range,
        ),
        distinct_keys("parameters"),
    )
