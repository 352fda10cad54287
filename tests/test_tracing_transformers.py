# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of the transformers library, built from a config, as they are: no wrapper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.execution import Inputs
from protocol.program import Kind
from protocol.reference import ReferenceExecutor
from protocol.tracing import trace
from tests.tracing_support import SEED, follows_torch, labels, numbers, sgd

transformers = pytest.importorskip("transformers")

WORDS = 13
TOKENS = (labels(8, WORDS, 6), labels(8, WORDS, 6, seed=4))
SMALL: dict[str, Any] = {"vocab_size": WORDS}
GPT2 = {"n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip
BERT = {
    "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 8, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def loss(output: Any, target: Tensor) -> Tensor:
    """The loss sees the model's output object."""
    return F.cross_entropy(output.logits.flatten(0, 1), target.flatten())


def model(name: str, **options: Any) -> nn.Module:
    """A model with weights that do not depend on the order of tests."""
    kind, config = getattr(transformers, name), name.split("For")[0].removesuffix("LMHeadModel")
    made: nn.Module = kind(getattr(transformers, f"{config}Config")(**SMALL, **options))
    for number, parameter in enumerate(made.parameters()):
        parameter.data = numbers(*parameter.shape, seed=number) * 0.3
    return made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GPT2LMHeadModel", {**GPT2, **STILL}),
        ("LlamaForCausalLM", LLAMA),
        ("BertForMaskedLM", BERT),
    ],
    ids=["GPT-2", "Llama", "BERT"],
)
def test_a_model_of_transformers_follows_torch(
    name: str, options: dict[str, Any], attention: str
) -> None:
    module = model(name, **options, attn_implementation=attention)
    follows_torch(module, loss, TOKENS, sgd(lr=0.05), batch=2, steps=2, tolerance=2e-5)


def test_checkpointed_layers_follow_torch() -> None:
    module = model("GPT2LMHeadModel", **{**GPT2, **STILL, "n_layer": 2})
    module.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    module.train()
    follows_torch(module, loss, TOKENS, sgd(lr=0.05), batch=2, steps=2, tolerance=2e-5)


def test_dropout_of_gpt2_draws_from_the_seed() -> None:
    """One mask for the embeddings, and three for a layer: attention and the two residuals."""
    module = model("GPT2LMHeadModel", **GPT2)
    program = trace(
        module, loss, sgd()(module.parameters()), dataset=TOKENS, batch_size=2
    )  # fmt: skip
    assert sum(node.kind is Kind.RAND for node in program.program.nodes) == 4
    executor = ReferenceExecutor(program.program, Inputs(program.constants, program.data, SEED))
    place = program.program.names["loss"]
    losses = {float(executor.trace(program.state, s)[place].view(np.float32)) for s in range(3)}
    assert len(losses) == 3
    assert all(np.isfinite(value) for value in losses)


def test_several_inputs_are_passed_in_order() -> None:
    """The data set is `(*inputs, target)`; a mask that is data takes part in the program."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model("BertForMaskedLM", **BERT)

        def forward(self, tokens: Tensor, mask: Tensor) -> Any:
            return self.model(input_ids=tokens, attention_mask=mask)

    mask = torch.ones(8, 6, dtype=torch.int64)
    mask[::2, 4:] = 0
    data = (TOKENS[0], mask, TOKENS[1])
    follows_torch(Masked(), loss, data, sgd(lr=0.05), batch=2, steps=1, tolerance=2e-5)
