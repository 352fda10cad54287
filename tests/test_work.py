# SPDX-License-Identifier: GPL-3.0-or-later
"""FLOPs are counted as `protocol.work` defines them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from protocol.ops import Op
from protocol.program import (
    Dim,
    DType,
    Expression,
    Flat,
    Fold,
    Instruction,
    Iota,
    Kind,
    Node,
    Term,
    View,
)  # fmt: skip
from protocol.tracing import trace
from protocol.work import family, flops, program_flops, work
from tests.tracing_support import CLASSES, labels, small_mlp


def matrix(source: int, rows: int, columns: int, first: int, second: int) -> View:
    return View(source, (Dim(rows, (Term(first, 1),)), Dim(columns, (Term(second, 1),))))


def test_a_matrix_product_counts_two_flops_a_term() -> None:
    body = Expression((matrix(0, 5, 7, 0, 2), matrix(1, 7, 3, 2, 1)), (), (), (0, 1))
    node = Node(Kind.FOLD, DType.F32, (5, 3), fold=Fold.DOT, reduce=(7,), expression=body)
    assert (flops(node), family(node)) == (2 * 5 * 3 * 7, "matmul")


def test_an_expression_counts_its_arithmetic_alone() -> None:
    code = (
        Instruction(Op.FMA, (0, 1, 2)),
        Instruction(Op.SQRT, (3,)),
        Instruction(Op.NEG, (4,)),
        Instruction(Op.LT, (4, 5)),
        Instruction(Op.WHERE, (6, 4, 5)),
    )
    body = Expression((Flat(0), Flat(1), Flat(2)), (), code, (7,))
    node = Node(Kind.MAP, DType.F32, (4, 2), expression=body)
    assert (flops(node), family(node)) == (8 * 3, "elementwise")


def test_a_sum_counts_its_terms_and_what_they_take() -> None:
    square = Expression((matrix(0, 4, 9, 0, 1),), (), (Instruction(Op.MUL, (0, 0)),), (1,))
    node = Node(Kind.FOLD, DType.F32, (4,), fold=Fold.SUM, reduce=(9,), expression=square)
    assert (flops(node), family(node)) == (4 * 9 * 2, "reduction")


def test_a_scatter_counts_each_source_once_however_many_rows_there_are() -> None:
    def scatter(rows: int) -> Node:
        index, value = View(0, (Dim(6, (Term(2, 1),)),)), matrix(1, 6, 8, 2, 1)
        code = (Instruction(Op.IEQ, (0, 2)), Instruction(Op.WHERE, (4, 1, 3)))
        body = Expression((index, value, Iota((Term(0, 1),))), (0,), code, (5,))
        return Node(Kind.FOLD, DType.F32, (rows, 8), fold=Fold.SUM, reduce=(6,), expression=body)

    assert flops(scatter(10)) == flops(scatter(1000)) == 6 * 8
    assert family(scatter(10)) == "scatter"


def test_a_traced_step_counts_three_products_a_layer_but_the_first() -> None:
    module = small_mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    program = trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4).program
    found = work(program)
    first, second = 4 * 5 * 6, 4 * 6 * 3
    assert found.flops_by_family["matmul"] == 2 * (2 * first + 3 * second)
    assert sum(found.flops_by_family.values()) == found.flops == program_flops(program)
    assert sum(found.nodes_by_family.values()) == sum(found.nodes_by_kind.values())
    assert found.parameter_bytes == found.state_bytes == 4 * (5 * 6 + 6 + 6 * 3 + 3)
    assert 0 < found.live_bytes < found.trace_bytes


def test_an_embedding_does_not_cost_its_vocabulary() -> None:
    counts = []
    for words in (50, 5000):
        module = nn.Sequential(nn.Embedding(words, 4), nn.Linear(4, 3))
        optimizer = torch.optim.SGD(module[1].parameters(), lr=0.1)
        optimizer.add_param_group({"params": [module[0].weight]})
        data = (labels(20, 50), labels(20, 3))
        program = trace(module, F.cross_entropy, optimizer, dataset=data, batch_size=4).program
        counts.append(work(program).flops_by_family["scatter"])
    assert counts[0] == counts[1] == 4 * 4
