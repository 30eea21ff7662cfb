"""Pictures of training: what is drawn is what was given."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import vgrad

X, Y = vgrad.datasets.make_moons(30, noise=0.1, seed=0)


def curve(axes):
    return axes.lines[0].get_ydata().tolist()


def column(figure, x):
    """The pixels at x on the axis, (height, 3), and the one beside, as a line may lie on either."""
    (axes,) = figure.axes
    axes.get_legend().set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    _, bottom, _, top = axes.get_window_extent().extents.astype(int)
    place = int(axes.transData.transform((x, 0.0))[0])
    image = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)
    return image[bottom + 3 : top - 3, place - 1 : place + 1].reshape(-1, 3)


def test_training_curves():
    figure = vgrad.plot_training(
        {"loss": [1.0, 0.1, 0.01], "accuracy": [0.5, 0.75, 1.0], "rate": [1]}
    )
    loss, accuracy, rate = figure.axes
    assert curve(loss) == [1.0, 0.1, 0.01] and loss.get_yscale() == "log"
    assert curve(accuracy) == [50.0, 75.0, 100.0] and accuracy.get_ylabel() == "accuracy, %"
    assert curve(rate) == [1.0] and rate.get_xlabel() == "step"


def test_a_list_is_the_loss_and_what_is_no_positive_number_has_a_place():
    (axes,) = vgrad.plot_training([3.0, float("nan"), float("inf"), -1.0]).axes
    assert axes.get_ylabel() == "loss" and axes.get_yscale() == "linear"
    np.testing.assert_array_equal(curve(axes), [3.0, np.nan, np.inf, -1.0])


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels() if text.get_text()]


def test_names_that_end_in_one_word_share_a_panel():
    history = {"loss": [4.0, 1.0], "val loss": [5.0, 2.0], "train_accuracy": [0.0, 1.0]}
    figure = vgrad.plot_training({**history, "accuracy": [0.1, 0.2], "validation-loss": [3, 3]})
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["loss", "val loss", "validation-loss"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == [
        *("train_accuracy", "accuracy")
    ]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy, %")
    assert len({line.get_color() for axes in figure.axes for line in axes.lines}) == 5
    (alone,) = vgrad.plot_training({"val loss": [2.0, 1.0]}).axes
    assert alone.get_ylabel() == "val loss" and alone.get_legend() is None


def test_what_stands_in_brackets_and_numbers_are_no_words():
    names = ["loss (train)", "loss (val)", "accuracy (%)", "rate%", "layer 1", "epoch 1", "%", 7]
    figure = vgrad.plot_training({name: [1.0, 2.0] for name in names})
    shown = [axes.get_ylabel() for axes in figure.axes]
    assert shown == ["loss", "accuracy (%), %", "rate%", "layer 1", "epoch 1", "%", "7"]


def test_ten_classes_look_different():
    points = np.column_stack([np.arange(10.0), np.arange(10.0)])
    figure = vgrad.plot_boundary(
        lambda grid: np.eye(10)[grid[:, 0].astype(int) % 10], points, range(10)
    )
    (axes,) = figure.axes
    looks = {(str(x.get_facecolor()), str(x.get_paths())) for x in axes.collections[-10:]}
    assert len(looks) == 10


def test_steps_are_whole_and_a_logarithmic_scale_has_plain_labels():
    (axes,) = vgrad.plot_training([2.9, 2.5, 2.2]).axes
    axes.figure.canvas.draw()
    assert axes.get_yscale() == "linear" and {"0", "1", "2"} <= set(labels(axes.xaxis))
    assert all(label.lstrip("−").isdigit() for label in labels(axes.xaxis))
    (axes,) = vgrad.plot_training([30.0, 1.0, 0.9]).axes
    axes.figure.canvas.draw()
    assert axes.get_yscale() == "log" and {"1", "2", "5", "10", "20"} <= set(labels(axes.yaxis))
    (axes,) = vgrad.plot_training([1e3, 1e-9]).axes
    axes.figure.canvas.draw()
    shown = [float(label) for label in labels(axes.yaxis)]
    assert 3 < len(shown) < 15 and {x for x in shown if f"{x:e}"[0] != "1"} == set()


def test_a_noisy_curve_has_a_mean_over_it():
    falling = np.linspace(3, 1, 200)
    noise = np.random.default_rng(0).normal(size=200)
    (axes,) = vgrad.plot_training(falling + noise).axes
    raw, mean = axes.lines
    assert raw.get_ydata().tolist() == (falling + noise).tolist()
    assert raw.get_alpha() < 0.5 and mean.get_alpha() is None
    assert mean.get_ydata()[50] == pytest.approx((falling + noise)[46:55].mean(), rel=1e-12)
    assert "means of 9 steps" in axes.get_xlabel()
    for history in (falling, 0.01 * noise + falling, noise[:20]):  # smooth, almost, and short
        (axes,) = vgrad.plot_training(history).axes
        assert len(axes.lines) == 1 and axes.get_xlabel() == "step"


def test_smoothing_is_as_wide_as_asked_for_and_leaves_out_what_is_not_finite():
    numbers = [1.0, 2.0, float("nan"), 4.0, float("inf")]
    (axes,) = vgrad.plot_training({"rate": numbers}, smooth=3).axes
    assert axes.lines[1].get_ydata().tolist() == [1.5, 1.5, 3.0, 4.0, 4.0]
    (axes,) = vgrad.plot_training({"rate": [0, 9] * 100}, smooth=1).axes
    assert len(axes.lines) == 1
    with pytest.raises(ValueError, match="smooth must be a whole number"):
        vgrad.plot_training([1.0], smooth=0)


@pytest.mark.parametrize("given", ["scores", "labels"])
def test_there_is_a_line_between_each_two_of_three_classes(given):
    """Classes from left to right, as the largest of three scores, at -1 and at 1."""
    points = np.column_stack([np.linspace(-3, 3, 30), np.linspace(-1, 1, 30)])
    means = np.array([-2.0, 0.0, 2.0])

    def predict(grid):
        scores = -((grid[:, :1] - means) ** 2)
        return scores if given == "scores" else np.eye(3)[scores.argmax(axis=1)]

    classes = np.abs(points[:, :1] - means).argmin(axis=1)
    figure = vgrad.plot_boundary(predict, points, classes, resolution=100)
    (axes,) = figure.axes
    for scatter in axes.collections[-3:]:
        scatter.set_visible(False)
    half = 0.04  # of the grid's width: labels part between two of its points
    lines = [
        x
        for x in (-2, -1, 0, 1, 2)
        if min(column(figure, x + d).sum(axis=1).min() for d in (-half, 0, half)) < 500
    ]
    assert lines == [-1, 1]


def test_the_legend_covers_no_point():
    figure = vgrad.plot_boundary(lambda points: points[:, 0], X, Y)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1


def test_the_boundary_takes_one_batch_and_lies_where_the_score_is_0():
    batches = []

    def predict(points):
        batches.append(points)
        return points[:, 0] - 0.25

    figure = vgrad.plot_boundary(predict, X, 2 * Y - 1, margin=0.5, resolution=50)
    (points,) = batches
    assert points.shape == (2500, 2)
    assert (points.min(axis=0) < X.min(axis=0)).all() and (points.max(axis=0) > X.max(axis=0)).all()
    (axes,) = figure.axes
    for scatter, label in zip(axes.collections[-2:], (0, 1)):
        np.testing.assert_array_equal(scatter.get_offsets(), X[Y == label])
        scatter.set_visible(False)  # out of the way of what comes next
    low, high = (column(figure, x).max(axis=0).tolist() for x in (0.2, 0.3))
    assert low[2] > low[0] and high[2] < high[0]  # bluish and reddish
    darkest = {x: int(column(figure, x).sum(axis=1).min()) for x in (-0.25, 0.0, 0.25, 0.5, 0.75)}
    assert [x for x, light in darkest.items() if light < 400] == [-0.25, 0.25, 0.75]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["class -1", "class 1"]


def test_a_boundary_that_is_not_in_the_picture_is_not_drawn():
    """matplotlib would warn, and a warning is an error here."""
    vgrad.plot_boundary(lambda points: points[:, 0] + 100, X, Y, margin=1.0)


def test_a_program_predicts():
    model = vgrad.nn.MLP(2, [3, 1])
    program = vgrad.compile(model, parameters=model.parameters())
    vgrad.plot_boundary(lambda points: program(program.theta(), points), X, Y)


def test_scores_in_a_column_classes_by_name_and_accuracy_in_percent():
    names = np.where(Y > 0, "new", "old")
    axes = vgrad.plot_boundary(lambda points: points[:, :1], X, names, resolution=1).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["class new", "class old"]
    (axes,) = vgrad.plot_training({"accuracy": [50.0, 100.0]}).axes
    assert curve(axes) == [50.0, 100.0]
    (axes,) = vgrad.plot_training([vgrad.Value(2.0), 1.0]).axes
    assert curve(axes) == [2.0, 1.0]


def test_labels_in_place_of_scores_have_a_boundary_too():
    figure = vgrad.plot_boundary(lambda points: (points[:, 0] > 0.25) * 1.0, X, Y)
    assert column(figure, 0.25).sum(axis=1).min() < 400


def test_a_point_that_stands_alone_is_seen_and_a_nan_keeps_the_scale():
    for numbers in ([1.0], [np.nan, 0.4, np.nan], [1.0, np.nan, 0.1]):
        (axes,) = vgrad.plot_training(numbers).axes
        known = [x for x in numbers if x == x]
        log = max(known) >= 10 * min(known)
        assert axes.lines[0].get_marker() == "."
        assert axes.get_yscale() == ("log" if log else "linear")
    assert vgrad.plot_training([1.0] * 50).axes[0].lines[0].get_marker() == ""


def test_three_classes_and_scores_that_are_not_finite():
    def predict(points):
        return np.stack([points[:, 0], points[:, 1], np.full(len(points), 0.5)], axis=1)

    classes = np.arange(30) % 3
    assert len(vgrad.plot_boundary(predict, X, classes).axes[0].get_legend().get_texts()) == 3
    for odd in (np.nan, np.inf, -np.inf):
        vgrad.plot_boundary(lambda p, odd=odd: np.where(p[:, 0] > 0, odd, p[:, 1]), X, Y)
        vgrad.plot_boundary(lambda p, odd=odd: np.full(len(p), odd), X, Y, margin=1.0)


def test_on_a_figure_that_is_given(tmp_path):
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    assert vgrad.plot_training([1.0], figure=left) is left
    vgrad.plot_boundary(lambda points: points[:, 0], X, Y, tmp_path / "both.png", figure=right)
    assert len(figure.axes) == 2 and (tmp_path / "both.png").exists()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: vgrad.plot_training({}), ValueError, "history must have numbers"),
        (lambda: vgrad.plot_training({"loss": []}), ValueError, "history must have numbers"),
        (lambda: vgrad.plot_training({"loss": ["a"]}), TypeError, "must hold real numbers"),
        (lambda: vgrad.plot_boundary(len, X[:, 0], Y), ValueError, "X must be (B, 2)"),
        (lambda: vgrad.plot_boundary(len, X, Y[1:]), ValueError, "y (B,)"),
        (lambda: vgrad.plot_boundary(len, X, Y), ValueError, "predict must return scores"),
        (lambda: vgrad.plot_boundary(lambda p: p[:, 0], X, np.arange(30)), ValueError, "classes"),
        (lambda: vgrad.plot_boundary(len, X * np.nan, Y), ValueError, "X must be finite"),
        (lambda: vgrad.LivePlot(len), ValueError, "must be given together"),
        (lambda: vgrad.LivePlot(), RuntimeError, "must have a backend that opens windows"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


# --- while it goes on ----------------------------------------------------------------------------


def test_a_live_picture_is_drawn_at_once_then_now_and_then_and_at_the_end(tmp_path):
    path = tmp_path / "training.png"
    live = vgrad.LivePlot(lambda p: p[:, 0], X, Y, path=path, seconds=1000, resolution=20)
    written = []
    for k in range(3):
        live(loss=1 / (k + 1), accuracy=0.5)
        written.append(path.read_bytes())
    assert written[0].startswith(b"\x89PNG") and written[0] == written[1] == written[2]
    live.finish()
    assert path.read_bytes() != written[0]
    assert live.history == {"loss": [1.0, 1 / 2, 1 / 3], "accuracy": [0.5] * 3}


def test_a_number_that_is_not_given_at_every_step_stays_at_its_own(tmp_path):
    live = vgrad.LivePlot(path=tmp_path / "training.png", seconds=1000)
    live(loss=3.0)
    live(loss=2.0, validation=2.5)
    live(loss=1.0)
    np.testing.assert_array_equal(live.history["validation"], [np.nan, 2.5, np.nan])
    assert live.history["loss"] == [3.0, 2.0, 1.0]


def test_a_live_picture_in_a_notebook(in_a_notebook):
    live = vgrad.LivePlot(seconds=0)
    live(loss=1.0)
    live(loss=0.5)
    empty, *shown = in_a_notebook
    assert empty == b"" and len(shown) == 2
    assert all(png.startswith(b"\x89PNG") for png in shown)


def test_a_live_window_that_is_closed_does_not_stop_the_training(monkeypatch):
    """A window is played by a figure without one; what would show it is noted."""
    shown = []
    monkeypatch.setattr(sys.modules["vgrad.pictures.figures"], "WINDOWLESS", set())
    monkeypatch.setattr(Figure, "show", lambda figure: shown.append(figure))
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append("kept open"))
    live = vgrad.LivePlot(seconds=0)
    live(loss=vgrad.Value(1.0))
    live(loss=0.5)
    live.finish()
    assert len(shown) == 4 and shown[-1] == "kept open"
    shown[0].canvas.callbacks.process("close_event", None)
    live(loss=0.25)
    live.finish()
    assert len(shown) == 4 and live.history == {"loss": [1.0, 0.5, 0.25]}
