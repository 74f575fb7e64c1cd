"""Read the shape of any architecture of `transformers` from its configuration, without loading weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from model.backbones.shape import Count, Shape, read_shape

_NO_MODEL = (ValueError, LookupError, TypeError, AttributeError, ImportError, AssertionError, RuntimeError)


def shape_from(config: Any) -> Shape | None:
    """Return the shape of a configuration; None if no model of it can be made.

    The weights of an architecture unknown to `read_shape` are counted on a model without storage.
    """
    shape = read_shape(config.to_dict())
    if shape:
        return shape
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = kind.from_config(config)
        model.tie_weights()
        return _dimensions(model, config.get_text_config(decoder=True))
    except _NO_MODEL:  # an architecture that needs a device, or a package that is not installed
        return None


def _dimensions(model: Any, config: Any) -> Shape:
    """Return the dimensions that a configuration states under the usual names, with the weights counted."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    linears = [(module.weight.shape, module.weight.numel()) for module in _linears(model)]
    encoder_layers = (getattr(model.config, "encoder_layers", None) or config.num_hidden_layers) * (
        model.config.is_encoder_decoder
    )
    return Shape(
        hidden,
        config.num_hidden_layers,
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or hidden // heads,
        getattr(config, "intermediate_size", None) or max(max(shape) for shape, _ in linears),
        model.get_input_embeddings().num_embeddings,
        encoder_layers=encoder_layers,
        recomputes=model.supports_gradient_checkpointing,
        counted=Count(
            sum(weight.numel() for weight in model.parameters()),
            sum(weights for _, weights in linears),
            sum(sum(shape) for shape, _ in linears),
        ),
    )


def _linears(model: Any) -> list[Any]:
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    output = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, kinds) and module is not output]
