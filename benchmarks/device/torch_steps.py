"""The training steps of ``benchmarks.models`` in PyTorch on CUDA: same shapes, same optimizer, host arrays every step.

Imported only where PyTorch is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["MODELS", "competitors", "torch"]

Step = Callable[[], float]
WHERE = "cuda"


def _mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet() -> nn.Module:
    first = [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), _mlp(3136, 1024, 10))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.permute(0, 2, 1, 3).reshape(b, s, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class _Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, 256), nn.Embedding(128, 256)
        self.layers = nn.Sequential(*(_Attention(256, 4, causal=True) for _ in range(4)))
        self.head = nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 256))

    def forward(self, x: Any) -> Any:
        h = self.tokens(x) + self.positions.weight
        return self.head(self.layers(h)).reshape(-1, 256)


class _Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 4, stride=4)
        self.positions = nn.Parameter(torch.randn(64, 192) * 0.02)
        self.layers = nn.Sequential(*(_Attention(192, 3, causal=False) for _ in range(6)))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 10)

    def forward(self, x: Any) -> Any:
        h = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(h)).mean(1))


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(inputs, outputs, stride=stride), nn.ReLU(), *_conv(outputs, outputs))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    blocks: list[nn.Module] = []
    channels = 64
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1):
            blocks.append(_Residual(channels, width, stride))
            channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*_conv(3, 64), nn.ReLU(), *blocks, *head)


class _Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pairs = ((3, 16), (16, 32), (32, 64), (96, 32), (48, 16))
        self.twice = nn.ModuleList(nn.Sequential(*_conv(a, b), nn.ReLU(), *_conv(b, b), nn.ReLU()) for a, b in pairs)
        self.pool, self.larger, self.head = nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(16, 2, 1)

    def forward(self, x: Any) -> Any:
        first = self.twice[0](x)
        second = self.twice[1](self.pool(first))
        h = self.twice[2](self.pool(second))
        h = self.twice[3](torch.cat([self.larger(h), second], 1))
        return self.head(self.twice[4](torch.cat([self.larger(h), first], 1)))


class _Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.keep, self.head = nn.Linear(128, 384), nn.Linear(128, 384), nn.Linear(128, 10)

    def forward(self, x: Any) -> Any:
        h = x.new_zeros(x.shape[0], 128)
        for t in range(x.shape[1]):
            a, b = self.read(x[:, t]), self.keep(h)
            reset = torch.sigmoid(a[:, :128] + b[:, :128])
            update = torch.sigmoid(a[:, 128:256] + b[:, 128:256])
            new = torch.tanh(a[:, 256:] + reset * b[:, 256:])
            h = new + update * (h - new)
        return self.head(h)


class _Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(100_000, 64), nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.words(x).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp_small": partial(_mlp, 64, 64, 10),
    "mlp": partial(_mlp, 784, 512, 512, 10),
    "lenet": lenet,
    "gpt": _Gpt,
    "vit": _Vit,
    "resnet18": resnet18,
    "unet": _Unet,
    "gru": _Gru,
    "embedding": _Words,
}


def _step(tf32: bool, compiled: bool, name: str, x: Any, y: Any) -> Step:
    torch.manual_seed(1)
    model = MODELS[name]().to(WHERE)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=WHERE == "cuda")
    features, labels = torch.from_numpy(x), torch.from_numpy(y)

    def loss_of(features: Any, labels: Any) -> Any:
        logits = model(features)
        return nn.functional.cross_entropy(logits, labels.reshape(-1) if logits.dim() == 2 else labels)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        optimizer.zero_grad(set_to_none=True)
        loss = forward(features.to(WHERE), labels.to(WHERE))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def competitors(compiled: bool) -> dict[str, Callable[..., Step]]:
    """Makers of steps, of a model's name and its two arrays, by title: eager without and with TF32, and compiled."""
    found: dict[str, Callable[..., Step]] = {
        "torch fp32": partial(_step, False, False),
        "torch tf32": partial(_step, True, False),
    }
    if compiled:
        found["torch.compile tf32"] = partial(_step, True, True)
    return found
