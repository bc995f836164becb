"""SVG plots of figures."""

from __future__ import annotations

from xml.etree import ElementTree

from engines.plot import Panel, svg


def test_every_line_stands_in_its_panel_from_zero_to_the_largest_value() -> None:
    panels = [Panel("a", ["1", "2"], {"x": [0.0, 4.0], "y": [2.0, 1.0]}), Panel("b", ["1"], {"x": [5.0]})]
    root = ElementTree.fromstring(svg([panels[0]]))
    lines = [element.attrib["points"].split() for element in root if element.tag.endswith("polyline")]
    assert [[float(point.split(",")[1]) for point in line] for line in lines] == [
        [280.0, 40.0],
        [160.0, 220.0],
    ]
    words = [element.text for element in ElementTree.fromstring(svg(panels)) if element.tag.endswith("text")]
    assert {"a", "b", "x", "y", "4.0", "5.0"} <= set(words)


def test_a_mark_is_dashed_and_makes_room_for_itself() -> None:
    picture = svg([Panel("a", ["1"], {"x": [1.0]}, mark=2.0)])
    assert picture.count("stroke-dasharray") == 1
    assert 'points="230.0,160.0"' in picture


def test_names_are_no_markup() -> None:
    ElementTree.fromstring(svg([Panel("a <b>", ["<"], {"&": [1.0]})]))
