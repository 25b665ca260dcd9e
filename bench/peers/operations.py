#!/usr/bin/env python3
"""The bench's operations in PyTorch, as a peer to measure against.

Reads one JSON request per line from standard input and answers each with one JSON line:

    {"op": "topk", "dims": {"R": 2048, "T": 256, "K": 128}, "params": {"k": 128}, "dtypes": {}, "give": {"indices": 1},
     "budget": 0.5, "device": "cpu"}
    {"results": [{"peer": "torch", "status": "ok", "samples": [0.0067, ...]}]}

Samples are seconds per call: wall time on CPUs, CUDA events on GPUs. `torch` is eager code, `torch.compile` the same
function compiled, where that is worth asking for. What PyTorch has no form of is "unsupported", with the reason.
Ends with its input.
"""
import argparse
import json
import logging
import os
import sys
import time
import warnings

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore")
logging.getLogger("torch").setLevel(logging.ERROR)
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Unsupported(Exception):
    pass


class Request:
    """Dims, parameters and tensors of one request; tensors are normal(0,1) like the bench's."""

    def __init__(self, request):
        self.dims = {name: int(value) for name, value in request["dims"].items()}
        self.params = request.get("params", {})
        self.give = request.get("give", {})
        dtypes = request.get("dtypes", {})
        self.dtype = DTYPES[dtypes.get("q", dtypes.get("a", "F32"))]
        self.device = "cuda" if request["device"] == "gpu" else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("PyTorch sees no CUDA device")
        self.generator = torch.Generator(self.device).manual_seed(1)

    def __getattr__(self, name):
        return self.dims[name]

    def normal(self, *shape, dtype=None):
        return torch.randn(shape, generator=self.generator, device=self.device).to(dtype or self.dtype)


# ---- the operations: each returns {peer name: function of no arguments} ------------------------------------------------


def gemm(r):
    if "group_offsets" in r.give or "bias" in r.give:
        raise Unsupported("torch.mm has neither groups nor an epilogue")
    layout = r.params.get("layout", "nn")
    a = r.normal(r.K, r.M).t() if layout == "tn" else r.normal(r.M, r.K)
    b = r.normal(r.N, r.K).t() if layout == "nt" else r.normal(r.K, r.N)
    out = torch.empty(r.M, r.N, device=r.device, dtype=r.dtype)
    return {"torch": lambda: torch.mm(a, b, out=out)}


def indexer_scores(r):
    """sum over heads of w * relu(q k^T), in slabs of rows where the products of all heads would not fit."""
    q, k, w = r.normal(r.B, r.S, r.H, r.D), r.normal(r.B, r.T, r.Hk, r.D), r.normal(r.B, r.S, r.H, dtype=torch.float32)
    causal, relu_out = r.params.get("range") == "causal", bool(r.params.get("relu_out"))
    keys = k.transpose(1, 2)  # B Hk T D
    slab = max(1, min(r.S, 2**29 // (r.B * r.H * r.T)))
    columns = torch.arange(r.T, device=r.device)

    def rows(q_rows, w_rows, first):
        products = q_rows.transpose(1, 2) @ keys.transpose(-1, -2)  # B H rows T
        scores = (products.relu().float() * w_rows.transpose(1, 2).unsqueeze(-1)).sum(1)
        if relu_out:
            scores = scores.relu()
        if causal:
            last = r.T - r.S + first + torch.arange(scores.shape[1], device=r.device)
            scores = scores.masked_fill(columns > last[:, None], float("-inf"))
        return scores

    def whole(function):
        out = torch.empty(r.B, r.S, r.T, device=r.device)
        for start, first in zip(range(0, r.S, slab), firsts):
            out[:, start:start + slab] = function(q[:, start:start + slab], w[:, start:start + slab], first)
        return out

    # As tensors: numbers would be compiled in, slab by slab.
    firsts = [torch.tensor(start, device=r.device) for start in range(0, r.S, slab)]
    compiled = torch.compile(rows, dynamic=False)
    return {"torch": lambda: whole(rows), "torch.compile": lambda: whole(compiled)}


def topk(r):
    if "k" not in r.params:
        raise Unsupported("torch.topk has one k for all rows")
    scores = r.normal(r.R, r.T)
    return {"torch": lambda: torch.topk(scores, int(r.params["k"]))}


def attention_inputs(r, grad):
    q, k, v = r.normal(r.B, r.H, r.S, r.D), r.normal(r.B, r.Hk, r.T, r.D), r.normal(r.B, r.Hk, r.T, r.Dv)
    mask = None
    if "mask" in r.give:
        on = torch.rand(r.B, 1, r.S, r.T, generator=r.generator, device=r.device) < 0.5
        mask = torch.zeros(on.shape, device=r.device, dtype=r.dtype).masked_fill(~on, float("-inf"))
    for tensor in (q, k, v):
        tensor.requires_grad_(grad)
    options = {"attn_mask": mask, "is_causal": r.params.get("range") == "causal",
               "dropout_p": float(r.params.get("dropout_p", 0))}
    return q, k, v, lambda: F.scaled_dot_product_attention(q, k, v, **options)


def masked_attention(r):
    return {"torch SDPA": attention_inputs(r, False)[3]}


def masked_attention_backward(r):
    """The backward pass alone, of one kept forward pass."""
    q, k, v, forward = attention_inputs(r, True)
    out = forward()
    upstream = torch.randn_like(out)
    return {"torch SDPA": lambda: torch.autograd.grad(out, (q, k, v), upstream, retain_graph=True)}


def sparse_function(r, grad):
    """Gather the selected keys and attend to them: what PyTorch offers. Rows in slabs, to bound the memory."""
    latent = "v" not in r.give
    q, k = r.normal(r.B, r.S, r.H, r.D), r.normal(r.B, r.T, r.Hk, r.D)
    v = k[..., :r.Dv] if latent else r.normal(r.B, r.T, r.Hk, r.Dv)
    if r.B != 1 or r.Hk not in (1, r.H):
        raise Unsupported("the gather is written for one sequence and one key head, or as many as query heads")
    picks = torch.rand(r.S, r.T, generator=r.generator, device=r.device).topk(r.K, -1).indices.sort(-1).values
    slab = max(1, min(r.S, 2**28 // (r.K * r.Hk * r.D)))
    for tensor in (q, k) if latent else (q, k, v):
        tensor.requires_grad_(grad)

    def forward():
        values, outs = k[..., :r.Dv] if latent else v, []
        for first in range(0, r.S, slab):
            rows = picks[first:first + slab]
            queries = q[0, first:first + slab]  # rows H D
            keys, chosen = k[0][rows].transpose(1, 2), values[0][rows].transpose(1, 2)  # rows Hk K D
            if r.Hk == 1:
                weights = (queries @ keys[:, 0].transpose(-1, -2) * r.D**-0.5).softmax(-1)  # rows H K
                outs.append(weights @ chosen[:, 0])
            else:
                weights = (queries.unsqueeze(2) @ keys.transpose(-1, -2) * r.D**-0.5).softmax(-1)  # rows H 1 K
                outs.append((weights @ chosen).squeeze(2))
        return torch.cat(outs)

    return (q, k) if latent else (q, k, v), forward


def sparse_attention(r):
    with torch.no_grad():
        return {"torch gather": sparse_function(r, False)[1]}


def sparse_attention_backward(r):
    inputs, forward = sparse_function(r, True)
    out = forward()
    upstream = torch.randn_like(out)
    return {"torch gather": lambda: torch.autograd.grad(out, inputs, upstream, retain_graph=True)}


OPERATIONS = {function.__name__: function for function in
              (gemm, indexer_scores, topk, masked_attention, masked_attention_backward, sparse_attention,
               sparse_attention_backward)}

# ---- timing --------------------------------------------------------------------------------------------------------------


def measure(function, device, budget):
    """Seconds per call: warm-up, then at least three calls (one if they are slow), until the budget is spent."""
    samples = []
    begin = time.perf_counter()
    function()
    least = 3 if time.perf_counter() - begin < 1 else 1
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    while len(samples) < least or (time.perf_counter() - begin < budget and len(samples) < 1000):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(end) * 1e-3)
        else:
            start = time.perf_counter()
            function()
            samples.append(time.perf_counter() - start)
    return samples


def answer(request, kept):
    """`kept` holds the last request's functions, so that its second round compiles nothing again."""
    key = json.dumps({name: value for name, value in request.items() if name != "budget"}, sort_keys=True)
    if key not in kept:
        kept.clear()
        if request["op"] not in OPERATIONS:
            raise Unsupported(f"no PyTorch form of {request['op']} here")
        r = Request(request)
        kept[key] = (r.device, OPERATIONS[request["op"]](r))
    device, forms = kept[key]
    results = []
    for name, function in forms.items():
        try:
            results.append({"peer": name, "status": "ok", "samples": measure(function, device, request["budget"])})
        except Exception as error:  # out of memory, no compiler, ...: a row, not the end
            results.append({"peer": name, "status": "error", "reason": str(error).strip().split("\n")[0][:200]})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    torch.set_num_threads(parser.parse_args().threads)
    # The answers go where standard output was; whatever else prints must not come between.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kept = {}
    for line in sys.stdin:
        try:
            results = answer(json.loads(line), kept)
        except Unsupported as reason:
            results = [{"peer": "torch", "status": "unsupported", "reason": str(reason)}]
        except Exception as error:
            results = [{"peer": "torch", "status": "error", "reason": f"{type(error).__name__}: {error}"[:200]}]
        print(json.dumps({"results": results}), file=out, flush=True)


if __name__ == "__main__":
    main()
