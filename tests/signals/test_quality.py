"""The numbers that a fit is judged by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralfield.signals.quality import IOU_OF_DISTANCES, IOU_OF_LOGITS, PSNR, intersection_over_union


def test_intersection_over_union_of_sets_that_can_be_counted() -> None:
    a = np.array([True, True, True, False, False])
    b = np.array([False, True, True, True, False])
    assert intersection_over_union(a, b) == intersection_over_union(b, a) == 0.5
    assert intersection_over_union(a, a) == 1 and intersection_over_union(a, ~a) == 0
    assert intersection_over_union(~a & a, ~a & a) == 1 and intersection_over_union(a, a & ~a) == 0
    assert intersection_over_union(torch.from_numpy(a), torch.from_numpy(b)) == 0.5


def test_intersection_over_union_of_boxes_that_share_a_third() -> None:
    points = np.random.default_rng(0).random((300_000, 3)) * [2, 1, 1]
    a, b = points[:, 0] < 1, (points[:, 0] > 2 / 3) & (points[:, 0] < 5 / 3)
    assert intersection_over_union(a, b) == pytest.approx(0.2, abs=3e-3)


def test_what_is_inside_by_logits_and_by_distances() -> None:
    logits, labels = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]]), torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    assert IOU_OF_LOGITS.measure(logits, labels) == pytest.approx(1 / 3)
    distances, truth = torch.tensor([[-0.1], [0.2], [-0.3], [0.4]]), torch.tensor([[-0.2], [-0.1], [0.1], [0.0]])
    assert IOU_OF_DISTANCES.measure(distances, truth) == pytest.approx(1 / 3)


def test_psnr_sees_what_a_viewer_sees_and_all_have_words() -> None:
    truth = torch.tensor([[0.5], [1.0]])
    assert PSNR.measure(torch.tensor([[0.6], [7.0]]), truth) == pytest.approx(-10 * math.log10(0.005), abs=1e-4)
    assert PSNR.measure(truth, truth) == math.inf
    assert PSNR.words(31.234) == "PSNR 31.23 dB" and PSNR.words(None) == "PSNR not a number"
    assert IOU_OF_LOGITS.words(0.98765) == "IoU 0.9877"
