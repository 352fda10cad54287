# SPDX-License-Identifier: GPL-3.0-or-later
"""An index of the data that torch does not take is refused while tracing, with its example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.errors import TraceError
from protocol.tracing import trace
from tests.tracing_support import CLASSES, Apply, labels, line_of, small_mlp

TOKENS = labels(20, 7, 6)


class Words(nn.Module):
    """Scores for each of seven words, after a function of the tokens."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda tokens: tokens) -> None:
        super().__init__()
        self.before = before
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(self.before(tokens))).transpose(1, 2)


def traces(module: nn.Module, dataset: tuple[Tensor, ...], **options: Any) -> None:
    loss = options.pop("loss", F.cross_entropy)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    trace(module, loss, optimizer, dataset=dataset, batch_size=3, **options)


def refused(module: nn.Module, dataset: tuple[Tensor, ...], **options: Any) -> str:
    with pytest.raises(TraceError) as caught:
        traces(module, dataset, **options)
    return str(caught.value)


def changed(tensor: Tensor, at: tuple[int, ...], value: int) -> Tensor:
    tensor = tensor.clone()
    tensor[at] = value
    return tensor


@pytest.mark.parametrize("value", [-1, 3, 1 << 30])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_label_outside_of_the_classes_is_refused(value: int, accumulate: int) -> None:
    inputs, targets = CLASSES
    dataset = (inputs, changed(targets, (17,), value))
    message = refused(small_mlp(), dataset, accumulate=accumulate)
    assert f"example 17 of the data set has the index {value}" in message
    assert "not from 0 to 2" in message
    assert "aten.gather.default in the loss:" in message


def test_labels_that_are_ignored_are_no_indices() -> None:
    inputs, targets = CLASSES
    traces(small_mlp(), (inputs, changed(targets, (17,), -100)))
    loss = nn.CrossEntropyLoss(ignore_index=3)
    traces(small_mlp(), (inputs, changed(targets, (17,), 3)), loss=loss)
    assert "example 17" in refused(small_mlp(), (inputs, changed(targets, (17,), 4)), loss=loss)


@pytest.mark.parametrize("value", [-1, 7])
def test_a_token_outside_of_the_embedding_is_refused(value: int) -> None:
    message = refused(Words(), (changed(TOKENS, (5, 2), value), TOKENS))
    assert f"example 5 of the data set has the index {value}" in message
    assert "embedding (Embedding)" in message
    line = "return self.head(self.embedding(self.before(tokens))).transpose(1, 2)"
    assert line_of(line, __file__) in message


def test_an_index_that_is_computed_of_an_example_is_computed() -> None:
    shifted = Words(lambda tokens: tokens[:, 1:] + tokens[:, :-1])
    tokens, targets = TOKENS.clamp(max=3), TOKENS[:, 1:]
    traces(shifted, (tokens, targets))
    message = refused(shifted, (changed(tokens, (9, 0), 7 - int(tokens[9, 1])), targets))
    assert "example 9 of the data set has the index 7" in message


def test_an_index_in_a_part_of_an_example_is_found() -> None:
    module = Words(lambda tokens: tokens[:, 1:])
    traces(module, (changed(TOKENS, (3, 0), 7), TOKENS[:, 1:]))
    for column in range(1, 6):
        message = refused(module, (changed(TOKENS, (3, column), 7), TOKENS[:, 1:]))
        assert "example 3 of the data set has the index 7" in message


def test_overlapping_windows_are_checked_where_they_are_read() -> None:
    stream = labels(40, 7)
    windows = stream.unfold(0, 7, 1)
    traces(Words(), (windows[:, :-1], windows[:, 1:]))
    stream[20] = 7
    assert "has the index 7" in refused(Words(), (windows[:, :-1], windows[:, 1:]))


def test_only_columns_that_are_an_index_are_checked() -> None:
    table = torch.randint(0, 3, (20, 2)) * torch.tensor([1, 100])
    module = Apply(lambda x: x + torch.eye(6)[0])
    embedding = nn.Embedding(3, 5)
    module.embedding = embedding
    first = nn.Sequential(Columns(embedding), module)
    traces(first, (table, labels(20, 2)))
    assert "example 4" in refused(first, (changed(table, (4, 0), 3), labels(20, 2)))


class Columns(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x[:, 0]) + x[:, 1:].float()


def test_negative_indices_count_from_the_end() -> None:
    table = torch.arange(5.0)
    module = nn.Sequential(Looking(table), nn.Linear(6, 3))
    traces(module, (TOKENS.clamp(max=4) - 5, CLASSES[1]))
    message = refused(module, (changed(TOKENS.clamp(max=4), (2, 2), -6), CLASSES[1]))
    assert "example 2 of the data set has the index -6, which is not from -5 to 4" in message


class Looking(nn.Module):
    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x]  # type: ignore[index]
