import numpy as np
import pytest

from mbpo_jax import theory
from mbpo_jax.studies import best_length


@pytest.fixture(scope="module")
def figure():
    return best_length.best_length_figure(0.99)


def drawn_map(axes):
    """(column borders, row borders, lengths [E, S], masked where there is no colour) of the heat map."""
    (mesh,) = axes.collections
    corners = mesh.get_coordinates()
    return corners[0, :, 0], corners[:, 0, 1], mesh.get_array()


def cell(axes, model_error, policy_shift):
    """What is drawn at a place of the map."""
    columns, rows, lengths = drawn_map(axes)
    row, column = np.searchsorted(rows, model_error) - 1, np.searchsorted(columns, policy_shift) - 1
    return lengths[row, column]


@pytest.mark.parametrize(
    ("model_error", "policy_shift", "length"),
    [
        # ln(error / shift) / ln 0.99, rounded up: 229.1, 458.2, 687.3, 916.4, 114.55
        (1e-2, 1e-1, 230),
        (1e-1, 1.0, 230),
        (1e-3, 1e-1, 459),
        (1e-3, 1.0, 688),
        (1e-4, 1.0, 917),
        (10**-1.5, 1e-1, 115),
    ],
)
def test_the_map_shows_the_best_length_at_its_place(figure, model_error, policy_shift, length):
    assert cell(figure.axes[0], model_error, policy_shift) == length


@pytest.mark.parametrize(("model_error", "policy_shift"), [(1e-3, 1e-3), (1.0, 1.0), (0.5, 1e-2), (1e-1, 1e-1)])
def test_where_the_best_length_is_zero_there_is_no_colour_but_a_word(figure, model_error, policy_shift):
    assert cell(figure.axes[0], model_error, policy_shift) is np.ma.masked
    (text,) = figure.axes[0].texts
    assert "length 0" in text.get_text()


def test_colour_begins_right_below_the_drawn_border(figure):
    axes = figure.axes[0]
    (border,) = axes.get_lines()
    for shift, error in border.get_xydata():
        assert cell(axes, error, shift) is np.ma.masked
        if error > 1.1e-4:
            assert cell(axes, error * 10**-0.05, shift) == 12  # 0.05 ln 10 / -ln 0.99 = 11.5


def test_the_map_covers_its_decades_on_logarithmic_axes(figure):
    axes = figure.axes[0]
    columns, rows, lengths = drawn_map(axes)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [columns[0], columns[-1]] == pytest.approx([10**-3.025, 10**0.025])
    assert [rows[0], rows[-1]] == pytest.approx([10**-4.025, 10**0.025])
    assert lengths.shape == (81, 61)
    assert "policy shift" in axes.get_xlabel()
    assert "model error" in axes.get_ylabel()


def test_the_curves_are_penalties_and_the_dots_their_least(figure):
    axes = figure.axes[1]
    lines = axes.get_lines()
    curves = [line for line in lines if len(line.get_xdata()) > 2]
    dots = [line.get_xydata()[0] for line in lines if len(line.get_xdata()) == 1]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [line.get_label() for line in curves] == labels == ["0.001", "0.005", "0.01", "0.02", "0.04", "0.06"]
    assert [k for k, _ in dots] == [390, 230, 161, 92, 23, 0]  # ln(error / 0.05) / ln 0.99, rounded up
    for line, (_, least) in zip(curves, dots):
        steps, values = line.get_data()
        assert (steps[0], steps[-1], values[0]) == (0, 400, 1.0)
        assert least <= min(values) <= least + 1e-4
    by_length = dict(zip(*curves[labels.index("0.01")].get_data()))
    assert by_length[1] == pytest.approx(0.992)  # 992 of 1000
    assert by_length[15] == pytest.approx(0.890058354)


def test_another_discount_is_drawn_and_named():
    axes = best_length.best_length_figure(0.9).axes
    assert "0.9" in axes[0].get_title()
    assert cell(axes[0], 1e-2, 1e-1) == 22  # ln 10 / -ln 0.9 = 21.9
    assert axes[1].get_xlim() == (0, 40)
    for extreme in (1e-4, 0.9999):  # in the first, all lengths are 0 or 1
        best_length.best_length_figure(extreme).draw_without_rendering()


@pytest.mark.parametrize("discount", [0.0, 1.0, -1.0, float("nan")])
def test_a_discount_outside_its_range_is_named(discount):
    with pytest.raises(ValueError, match=f"discount must lie in .* got {discount!r}"):
        best_length.study(discount)


def test_the_sentence_and_the_numbers_are_those_of_the_dots():
    finding = best_length.study()
    assert list(finding.numbers["best_length_by_model_error"].values()) == [390, 230, 161, 92, 23, 0]
    assert "390 at 0.001, 230 at 0.005" in finding.sentence


def test_the_lengths_are_those_of_the_theory():
    errors, shifts, lengths = best_length.best_lengths(0.97)
    for row in range(0, len(errors), 16):
        for column in range(0, len(shifts), 12):
            assert lengths[row, column] == theory.best_length(
                model_error=errors[row], policy_shift=shifts[column], discount=0.97, longest=10**6
            )
