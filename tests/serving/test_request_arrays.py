"""Requests joined to one batch and split again: every request gets its own rows, at its own length."""

import numpy as np

from querylife.serving.backend.request_arrays import MergedRequests, compatible_requests

PADDED = {"ids", "states"}


def request(rows, length, start=0):
    return {"ids": np.arange(start, start + rows * length, dtype=np.int32).reshape(rows, length)}


def test_shorter_requests_end_in_zeros_and_get_their_own_length_back():
    requests = [request(1, 2, 1), request(2, 4, 10), request(1, 3, 30)]
    batch = MergedRequests(requests, PADDED)
    ids = batch.inputs()["ids"]
    assert ids.tolist() == [[1, 2, 0, 0], [10, 11, 12, 13], [14, 15, 16, 17], [30, 31, 32, 0]]
    answers = batch.split({"states": ids[:, :, None].astype(np.float32), "embedding": ids.sum(axis=1, keepdims=True)})
    for asked, answer in zip(requests, answers, strict=True):
        assert answer["states"][:, :, 0].tolist() == asked["ids"].tolist()
        assert answer["states"].flags.c_contiguous
        assert answer["embedding"][:, 0].tolist() == asked["ids"].sum(axis=1).tolist()


def test_requests_of_different_lengths_are_compatible_only_where_the_tensor_is_padded():
    requests = [request(1, 2), request(3, 4), request(2, 2)]
    assert compatible_requests(requests, PADDED) == [[0, 1, 2]]
    assert compatible_requests(requests, set()) == [[0, 2], [1]]


def test_requests_are_not_compatible_where_another_axis_differs_or_an_input_is_missing():
    wide, narrow = {"states": np.zeros((1, 2, 3))}, {"states": np.zeros((1, 2, 4))}
    both = wide | {"embedding": np.zeros((1, 5))}
    assert compatible_requests([wide, narrow, both, wide], PADDED) == [[0, 3], [1], [2]]
