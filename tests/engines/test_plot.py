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


def test_every_line_has_a_colour_and_a_name_within_the_picture() -> None:
    names = [f"line {number}" for number in range(10)]
    root = ElementTree.fromstring(svg([Panel("a", ["1"], {name: [1.0] for name in names})]))
    assert sum(element.tag.endswith("polyline") for element in root) == 10
    legend = [element.attrib for element in root if element.text in names]
    assert len(legend) == 10 and len({(one["x"], one["y"]) for one in legend}) == 10
    assert all(float(one["x"]) < float(root.attrib["width"]) - 60 for one in legend)
    assert all(float(one["y"]) < float(root.attrib["height"]) for one in legend)
