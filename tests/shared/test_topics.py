# SPDX-License-Identifier: Apache-2.0
"""The table of topics: names and back, filters, and what cannot be a level."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from nereid_shared import topics
from nereid_shared.topics import Topic

TABLE = [line for line in vars(topics).values() if isinstance(line, Topic)]

LEVEL = st.text(st.characters(codec="utf-8", exclude_characters="/+#" + "".join(map(chr, range(32)))), min_size=1)


@st.composite
def filled(draw: st.DrawFn) -> tuple[Topic, dict[str, str]]:
    line = draw(st.sampled_from(TABLE))
    names = [part[1:-1] for part in line.pattern.split("/") if part.startswith("{")]
    return line, {name: draw(LEVEL) for name in names}


@given(filled())
def test_a_topic_is_read_back_as_the_line_and_levels_that_made_it(case: tuple[Topic, dict[str, str]]) -> None:
    line, levels = case
    topic = line.of(**levels)
    assert line.match(topic) == levels
    assert [other for other in TABLE if other.match(topic) is not None] == [line]


@given(filled(), st.data())
def test_a_filter_matches_what_it_leaves_open(case: tuple[Topic, dict[str, str]], data: st.DataObject) -> None:
    line, levels = case
    fixed = data.draw(st.sets(st.sampled_from(sorted(levels)))) if levels else set()
    filter_ = line.filter(**{name: levels[name] for name in fixed})
    assert topic_matches_sub(filter_, line.of(**levels))
    for name in fixed:
        assert not topic_matches_sub(filter_, line.of(**{**levels, name: levels[name] + "x"}))


@given(st.text())
def test_any_other_text_is_no_topic_of_ours(text: str) -> None:
    for line in TABLE:
        levels = line.match(text)
        assert levels is None or text == line.pattern.format(**levels)


@pytest.mark.parametrize("topic", ["neptune/gm", "neptune/gm/alive/more", "neptune/gm/alive/"])
def test_a_shorter_or_longer_topic_is_another(topic: str) -> None:
    assert topics.GM_ALIVE.match(topic) is None


@pytest.mark.parametrize("level", ["", "a/b", "+", "#", "a+", "a\x00b", "a\nb"])
def test_what_mqtt_gives_a_meaning_is_no_level(level: str) -> None:
    with pytest.raises(ValueError, match="cannot be a topic level"):
        topics.DESIRED.of(node=level)


@pytest.mark.parametrize("levels", [{}, {"node": "n", "pod": "p"}, {"nodes": "n"}])
def test_levels_are_all_given_and_none_is_unknown(levels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"takes \['node'\]"):
        topics.DESIRED.of(**levels)


def test_no_topic_comes_near_the_event_bus() -> None:
    for line in TABLE:
        first, second, *_ = line.pattern.split("/")
        assert first == "neptune"
        assert second in {"nodes", "gm", "services", "workers"}


def test_a_shared_subscription_names_its_group() -> None:
    filter_ = topics.shared(topics.SAMPLES.filter(service="s-0123abcd"), group="secret")
    assert filter_ == "$share/secret/neptune/services/s-0123abcd/+/samples"


@pytest.mark.parametrize("name", ["a", "edge-0", "10.0.0.1", "a" * 64])
def test_a_node_name_that_fits_a_topic_and_a_certificate_passes(name: str) -> None:
    assert topics.node_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "a/b", "-a", "a-", "a" * 65, "a\n", "nereid:gm"])
def test_a_node_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at most 64"):
        topics.node_name(name)


def test_a_recreated_service_is_another_service() -> None:
    one = topics.service_id("helmets", "01234567-89ab-cdef-0123-456789abcdef")
    two = topics.service_id("helmets", "76543210-89ab-cdef-0123-456789abcdef")
    assert (one, two) == ("helmets-01234567", "helmets-76543210")
    assert len(topics.service_id("x" * 253, "01234567-89ab-cdef-0123-456789abcdef")) == 57
