"""A Llama of the family's shape in plain torch: what training and evaluation run. Names and arithmetic are those of transformers.

Rotary positions act on distances only, so documents packed into one row, and prompts padded on the left, need no positions of their own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends.artifacts import load_weights
from backends.demo.shapes import Shape


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (normed * self.weight.float()).to(x.dtype)


class KVCache:
    """Keys and values of one layer: [batch, kv_heads, capacity, head_dim], filled from the left."""

    def __init__(self, batch: int, shape: Shape, capacity: int, like: Tensor) -> None:
        size = (batch, shape.num_kv_heads, capacity, shape.head_dim)
        self.keys, self.values = like.new_zeros(size), like.new_zeros(size)

    def extend(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write at `start` and return everything up to the end of what was written."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = keys, values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: Tensor, end: int) -> None:
        """Those of the batch only, and of them what was written up to `end`."""
        self.keys, self.values = self._kept(self.keys, rows, end), self._kept(self.values, rows, end)

    @staticmethod
    def _kept(whole: Tensor, rows: Tensor, end: int) -> Tensor:
        kept = whole.new_empty((len(rows), *whole.shape[1:]))
        kept[:, :, :end] = whole[rows, :, :end]
        return kept


class Attention(nn.Module):
    """Grouped-query attention with rotary positions (halves rotated, as in transformers)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache | None, start: int
    ) -> Tensor:
        batch, length, _ = x.shape
        q = rotate(self._heads(self.q_proj(x)), rope)
        k = rotate(self._heads(self.k_proj(x)), rope)
        v = self._heads(self.v_proj(x))
        if cache is not None:
            k, v = cache.extend(start, k, v)
        group = self.shape.num_heads // self.shape.num_kv_heads
        if length == 1:
            # Heads that share keys stand where positions would: keys need not be copied for each.
            mixed = F.scaled_dot_product_attention(
                q.reshape(batch, -1, group, self.shape.head_dim), k, v, attn_mask=mask
            )
            mixed = mixed.reshape(batch, -1, 1, self.shape.head_dim)
        else:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[batch, length, heads * head_dim] -> [batch, heads, length, head_dim]"""
        return x.view(x.shape[0], x.shape[1], -1, self.shape.head_dim).transpose(1, 2)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Apply cos and sin [length, head_dim] to x [batch, heads, length, head_dim]."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.mlp = MLP(shape)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache | None, start: int
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache, start)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """Token ids [batch, length] -> logits [batch, length, vocab]; input and output embedding are one matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList([Block(shape) for _ in range(shape.num_layers)])
        self.norm = RMSNorm(shape.hidden, shape.norm_eps)
        cos, sin = rope_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 if not is_output else 0.02 / (2 * self.shape.num_layers) ** 0.5)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        caches: Sequence[KVCache] | None = None,
        start: int = 0,
        is_last_only: bool = False,
    ) -> Tensor:
        """`mask`: bool, broadcastable to [batch, heads, length, start + length]; True where a position may be seen."""
        x = self.hidden(ids, mask, caches, start)
        return F.linear(x[:, -1:] if is_last_only else x, self.embed_tokens.weight)

    def hidden(self, ids: Tensor, mask: Tensor, caches: Sequence[KVCache] | None = None, start: int = 0) -> Tensor:
        """What the output embedding is applied to: [batch, length, hidden]."""
        x = self.embed_tokens(ids)
        end = start + ids.shape[1]
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        rope = (self.get_buffer("cos")[start:end].to(dtype), self.get_buffer("sin")[start:end].to(dtype))
        x = x.to(dtype)
        for index, layer in enumerate(self.layers):
            x = layer(x, rope, mask, caches[index] if caches else None, start)
        out: Tensor = self.norm(x)
        return out

    def weights(self) -> dict[str, np.ndarray]:
        """Float32 arrays by Hugging Face's names."""
        return {f"model.{name}": value.detach().float().cpu().numpy() for name, value in self.named_parameters()}


def rope_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [context, head_dim], the two halves equal."""
    inverse = 1.0 / shape.rope_theta ** (torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(shape.context).float(), inverse)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def load_model(model_dir: Path, shape: Shape) -> Llama:
    """The model of a folder in float32. Raises ArtifactError, or RuntimeError if the shapes differ."""
    model = Llama(shape)
    state = {
        name.removeprefix("model."): torch.from_numpy(t.to_f32().copy()) for name, t in load_weights(model_dir).items()
    }
    model.load_state_dict(state)
    return model.eval()


def document_mask(documents: Tensor) -> Tensor:
    """Document numbers [batch, length] -> bool [batch, 1, length, length]: causal, and only within one document."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal)[:, None]
