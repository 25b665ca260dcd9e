#!/usr/bin/env python3
"""The adaptive-sparsity experiment in PyTorch, as a peer to measure against.

The model follows the published experiment (latent attention, lightning indexer, sparsity controller, mixture of experts) with
the two things done that any careful PyTorch author would do: the selection is one torch.topk and a scatter instead of a
Python loop per row, and AdamW is fused. Prints one JSON line: tokens per second (median over steps) and peak memory.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rope(x, cos, sin):
    """Interleaved pairs regrouped to halves, then rotated half-split. x: [B, H, S, rope]."""
    x = torch.cat((x[..., 0::2], x[..., 1::2]), -1)
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos + rotated * sin


class Indexer(nn.Module):
    def __init__(self, d, heads=4, dim=64):
        super().__init__()
        self.heads, self.dim = heads, dim
        self.q = nn.Linear(d, heads * dim)
        self.k = nn.Linear(d, heads * dim)
        self.weights = nn.Parameter(torch.randn(heads).abs() * 0.1)

    def forward(self, x):
        b, s, _ = x.shape
        q = self.q(x).view(b, s, self.heads, self.dim).transpose(1, 2)
        k = self.k(x).view(b, s, self.heads, self.dim).transpose(1, 2)
        return F.relu(torch.einsum("bhij,h->bij", F.relu(q @ k.transpose(-1, -2)), self.weights))


class Controller(nn.Module):
    def __init__(self, d, heads=4):
        super().__init__()
        self.length = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
        self.predict = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, d), nn.LayerNorm(d))
        self.combine = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
        self.proxy = nn.MultiheadAttention(d, heads, batch_first=True)
        self.adapter = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
        self.mix = nn.Parameter(torch.tensor([0.5, 0.4, 0.3, 0.3]))

    def forward(self, h):
        s = h.shape[1]
        length = self.length(h.mean(1))
        diversity = h.var(1).mean(-1, keepdim=True)
        perplexity = (self.predict(h[:, :-1]) - h[:, 1:]).pow(2).mean((1, 2)).unsqueeze(-1)
        variance = h.flatten(1).var(1, keepdim=True)
        complexity = self.combine(torch.cat((diversity, perplexity, variance), -1))
        _, attention = self.proxy(h, h, h)
        p = attention.mean(1) + 1e-8
        entropy = torch.sigmoid(-(p * p.log()).sum(-1).mean()).expand_as(length)
        adapted = self.adapter(torch.full_like(length, s / 2048))
        w = self.mix[1:] / self.mix[1:].sum()
        ratio = (self.mix[0] * (w[0] * length * adapted + w[1] * complexity + w[2] * entropy)).clamp(0.1, 0.9)
        return (s * ratio).round().clamp(1, s - 1).long().squeeze(-1)


class Attention(nn.Module):
    def __init__(self, d=256, heads=8, variant="dense"):
        super().__init__()
        self.heads, self.variant = heads, variant
        self.q_a = nn.Linear(d, 64, bias=False)
        self.q_norm = RMSNorm(64)
        self.q_b = nn.Linear(64, heads * 32, bias=False)
        self.kv_a = nn.Linear(d, 64 + 16, bias=False)
        self.kv_norm = RMSNorm(64)
        self.kv_b = nn.Linear(64, heads * 48, bias=False)
        self.o = nn.Linear(heads * 32, d, bias=False)
        self.indexer = Indexer(d)
        self.controller = Controller(d) if variant == "adaptive" else None

    def mask(self, x):
        """Additive mask of the selected keys [B, 1, S, S]; the selection gets no gradient."""
        b, s, _ = x.shape
        with torch.no_grad():
            scores = self.indexer(x)
            if self.variant == "adaptive":
                k = self.controller(x)
                order = scores.topk(int(k.max()), -1).indices
                keep = torch.arange(order.shape[-1], device=x.device)[None, None, :] < k[:, None, None]
                values = torch.where(keep, 0.0, float("-inf")).expand(order.shape).contiguous()
                mask = torch.full_like(scores, float("-inf")).scatter_(-1, order, values)
            else:
                k = s if self.variant == "dense" else max(1, int(float(self.variant.removeprefix("fixed")) / 100 * s))
                mask = torch.full_like(scores, float("-inf"))
                mask.scatter_(-1, scores.topk(k, -1).indices, 0.0)
        return mask.unsqueeze(1)

    def forward(self, x, mask_input, cos, sin):
        b, s, _ = x.shape
        q = self.q_b(self.q_norm(self.q_a(x))).view(b, s, self.heads, 32).transpose(1, 2)
        latent, k_rope = self.kv_a(x).split((64, 16), -1)
        kv = self.kv_b(self.kv_norm(latent)).view(b, s, self.heads, 48).transpose(1, 2)
        q = torch.cat((q[..., :16], rope(q[..., 16:], cos, sin)), -1)
        k_rope = rope(k_rope.unsqueeze(1), cos, sin).expand(-1, self.heads, -1, -1)
        k = torch.cat((kv[..., :16], k_rope), -1)
        weights = (q @ k.transpose(-1, -2) * 32**-0.5 + self.mask(mask_input)).softmax(-1)
        out = F.dropout(weights, 0.1, self.training) @ kv[..., 16:]
        return self.o(out.transpose(1, 2).reshape(b, s, self.heads * 32))


class MoE(nn.Module):
    def __init__(self, d=256, experts=4, d_ff=1024):
        super().__init__()
        self.gate = nn.Linear(d, experts, bias=False)
        self.up = nn.ModuleList(nn.Linear(d, d_ff, bias=False) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(d_ff, d, bias=False) for _ in range(experts))

    def forward(self, x):
        flat = x.flatten(0, 1)
        logits = self.gate(flat)
        if self.training:
            logits = logits + torch.randn_like(logits) * 0.1
        top, chosen = logits.topk(2, -1)
        weights = top.softmax(-1)
        out = torch.zeros_like(flat)
        for e, (up, down) in enumerate(zip(self.up, self.down)):
            token, slot = (chosen == e).nonzero(as_tuple=True)
            y = down(F.dropout(F.silu(up(flat[token])), 0.1, self.training))
            out.index_add_(0, token, y * weights[token, slot].unsqueeze(-1))
        return out.view_as(x)


class Model(nn.Module):
    def __init__(self, variant, vocab=1000, d=256, layers=4, positions=2048):
        super().__init__()
        self.variant = variant
        self.tokens = nn.Embedding(vocab, d)
        self.positions = nn.Embedding(positions, d)
        self.norm1 = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.norm2 = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.attention = nn.ModuleList(Attention(d, variant=variant) for _ in range(layers))
        self.moe = nn.ModuleList(MoE(d) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.out = nn.Linear(d, vocab)
        frequencies = 10000.0 ** (-torch.arange(0, 16, 2).float() / 16)
        angles = torch.outer(torch.arange(positions).float(), frequencies)
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos())
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids):
        s = ids.shape[1]
        x = self.tokens(ids) + self.positions.weight[:s]
        cos, sin = self.cos[:s], self.sin[:s]
        for norm1, norm2, attention, moe in zip(self.norm1, self.norm2, self.attention, self.moe):
            h = norm1(x)
            x = x + attention(h, h if self.variant == "adaptive" else x, cos, sin)
            x = x + moe(norm2(x))
        return self.out(self.norm(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=64, help="sequence length")
    parser.add_argument("--variant", default="dense", help="dense, fixed25, fixed50, fixed75 or adaptive")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(42)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(args.variant).to(device).train()
    trained = [p for n, p in model.named_parameters() if "indexer" not in n and "controller" not in n]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    step_model = torch.compile(model) if args.compile else model
    seconds = []
    for step in range(args.steps + 3):
        ids = torch.randint(0, 1000, (args.batch, args.length + 1), device=device)
        start = time.perf_counter()
        logits = step_model(ids[:, :-1])
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 2:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        if step >= 3:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    print(json.dumps({"peer": "pytorch " + torch.__version__, "device": device, "length": args.length,
                      "variant": args.variant, "tokens_per_second": args.batch * args.length / median,
                      "samples": [args.batch * args.length / s for s in seconds],
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      "peak_device_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
                      "loss": loss.item()}))


if __name__ == "__main__":
    main()
