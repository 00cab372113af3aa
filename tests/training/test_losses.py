"""Losses count what they should and nothing else."""

import torch

from querylife.training.losses import graded_matching, info_nce, similarity_distillation_loss

SCALE = torch.tensor(10.0)


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


LEFT = unit([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
NOBODY = torch.zeros(3, 3, dtype=torch.bool)
ALL = torch.ones(3, dtype=torch.bool)


def test_a_false_negative_leaves_the_denominators() -> None:
    mask = NOBODY.clone()
    mask[0, 2] = mask[2, 0] = mask[1, 2] = mask[2, 1] = True
    alone = info_nce(LEFT[:2], LEFT[:2], SCALE, NOBODY[:2, :2], ALL[:2])
    masked = info_nce(LEFT, LEFT, SCALE, mask, ALL)
    torch.testing.assert_close(masked, alone * 2 / 3)  # the third row has no rival left, so it costs nothing


def test_a_pair_is_never_its_own_false_negative() -> None:
    everything = torch.ones(3, 3, dtype=torch.bool)
    assert info_nce(LEFT, LEFT.roll(1, 0), SCALE, everything, ALL) == 0


def test_a_row_without_one_side_counts_nowhere() -> None:
    used = torch.tensor([True, True, False])
    broken = torch.cat([LEFT[:2], torch.zeros(1, 2)])
    torch.testing.assert_close(
        info_nce(LEFT, broken, SCALE, NOBODY, used), info_nce(LEFT[:2], LEFT[:2], SCALE, NOBODY[:2, :2], ALL[:2])
    )


def test_matching_costs_least_in_the_order_of_the_grades() -> None:
    grades = torch.tensor([[3, 2, 1, 0]])
    used = torch.ones(4, dtype=torch.bool)
    ordered = graded_matching(torch.tensor([[0.9, 0.6, 0.3, 0.0]]), grades, SCALE, used)
    swapped = graded_matching(torch.tensor([[0.6, 0.9, 0.3, 0.0]]), grades, SCALE, used)
    reversed_ = graded_matching(torch.tensor([[0.0, 0.3, 0.6, 0.9]]), grades, SCALE, used)
    assert ordered < swapped < reversed_


def test_unknown_grades_change_nothing() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.5]])
    with_unknown = graded_matching(cosines, torch.tensor([[3, 0, -1]]), SCALE, ALL)
    without = graded_matching(cosines[:, :2], torch.tensor([[3, 0]]), SCALE, ALL[:2])
    torch.testing.assert_close(with_unknown, without)


def test_the_start_itself_costs_nothing_to_keep() -> None:
    assert similarity_distillation_loss(LEFT, LEFT @ LEFT.T, group=2) < 1e-6


def test_straying_within_a_group_costs_more_than_straying_between_groups() -> None:
    start = unit(torch.eye(8).tolist())
    within, between = start.clone(), start.clone()
    within[1] = within[0]  # of the one group of these two
    between[2] = between[0]
    wanted = start @ start.T
    assert (
        similarity_distillation_loss(within, wanted, group=2)
        > similarity_distillation_loss(between, wanted, group=2) + 1
    )
