# SPDX-License-Identifier: GPL-3.0-or-later
"""Recurrent layers against torch, and the shape of the program that they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protocol.ops import Op
from protocol.program import Fold, Kind, Program
from protocol.tracing import Traced, trace
from tests.tracing_support import Layers, follows_torch, numbers, regression, sgd

SEQUENCES = numbers(6, 3, 5)


def follows(
    run: Callable[..., Tensor], *layers: nn.Module, data: Tensor = SEQUENCES, **options: Any
) -> Traced:
    module = Layers(run, *layers)
    dataset = (data, numbers(len(data), *module(data[:1]).shape[1:], seed=9))
    given = {"steps": 2, "batch": 2, "tolerance": 1e-5, **options}
    return follows_torch(module, regression, dataset, **given)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("both", [False, True], ids=["one", "two-both-ways"])
def test_recurrent_layers_follow_torch(kind: Any, both: bool) -> None:
    layer = kind(5, 3, 1 + both, batch_first=True, bidirectional=both)
    follows(lambda x, r: r(x)[0], layer)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(
            nn.LSTM(5, 4, proj_size=2, batch_first=True),
            marks=pytest.mark.filterwarnings("ignore:LSTM with projections"),
        ),
        nn.GRU(5, 4, bias=False, batch_first=True),
        nn.RNN(5, 4, nonlinearity="relu", batch_first=True),
    ],
    ids=str,
)
def test_options_of_recurrent_layers_follow_torch(layer: nn.Module) -> None:
    follows(lambda x, r: r(x)[0], layer)


def test_initial_states_and_final_states_follow_torch() -> None:
    def run(x: Tensor, lstm: nn.LSTM, gru: nn.GRU) -> Tensor:
        start = x[:, :2, :3].transpose(0, 1).contiguous()
        _, (hidden, cell) = lstm(x.transpose(0, 1), (start, start * 2))
        _, last = gru(x.transpose(0, 1), start[:1])
        return torch.cat([hidden, cell, last]).transpose(0, 1)

    follows(run, nn.LSTM(5, 3, 2), nn.GRU(5, 3))


@pytest.mark.parametrize("cell", [nn.LSTMCell(5, 3), nn.GRUCell(5, 3), nn.RNNCell(5, 3)], ids=str)
def test_cells_in_a_loop_follow_torch(cell: nn.Module) -> None:
    def run(x: Tensor, cell: nn.Module) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = cell(x[:, t], state)
        return state[0] if isinstance(state, tuple) else state  # type: ignore[return-value]

    follows(run, cell)


def traced(layer: nn.Module, time: int) -> Program:
    """The program of a step on sequences of this length, one at a time."""
    module, data = Layers(lambda x, r: r(x)[0], layer), numbers(2, time, 5)
    target = numbers(2, *module(data[:1]).shape[1:])
    optimizer = sgd()(module.parameters())
    return trace(module, regression, optimizer, dataset=(data, target), batch_size=1).program


@pytest.mark.parametrize(
    "layer", [nn.LSTM(5, 6, bidirectional=True), nn.GRU(5, 6), nn.RNN(5, 6)], ids=str
)
def test_gradients_of_a_recurrence_are_one_product(layer: nn.RNNBase) -> None:
    """Each time step has one product forward and, but for the first one, one backward; the inputs
    and the gradients of the two weights take one product each, over all time steps.
    """
    layer.batch_first, time = True, 5
    program = traced(layer, time)
    products = sum(n.kind is Kind.FOLD and n.fold is Fold.DOT for n in program.nodes)
    assert products == (1 + layer.bidirectional) * (2 * time - 1 + 3)


def test_many_pieces_are_concatenated_in_groups() -> None:
    """No element chooses among all the 30 pieces, and each is copied twice."""
    time, width = 30, 3
    program = traced(nn.RNN(5, width, batch_first=True), time)
    joins = [n for n in program.nodes if n.kind is Kind.MAP and n.shape[-1:] == (width,)]
    joins = [n for n in joins if any(i.op is Op.ILT for i in n.body.instructions)]
    assert max(len(n.body.operands) for n in joins) <= 8
    outputs_and_gradients = 2
    assert sum(n.numel for n in joins) <= outputs_and_gradients * 2 * time * width + time * width
