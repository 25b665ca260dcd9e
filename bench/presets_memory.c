/*
 * Operations that move more than they compute, over 200 to 700 MB each: beyond every cache, so that the share of the
 * device's bandwidth is what a row says.
 */
#include "bench/cases.h"
#include "bench/presets.h"

#define STREAM(op_, dims_, small, ...)                                                                                 \
    { .op = op_, .spec = {.dims = dims_, PERIOD, __VA_ARGS__}, .check_dims = small }

static const bench_case cases[] = {
    STREAM("reduce", "N=67108864", "N=270000", .params = "kind=sum_squares"),
    STREAM("column_sum", "R=16384 D=4096", "R=301 D=203", .fill = "x=normal"),
    STREAM("adamw", "P=16777216", "P=5003", .fill = "v=uniform 0 1"),
    STREAM("activation", "N=16384 F=4096", "N=37 F=203", .params = "activation=silu", .shapes = "x=N F; y=N F"),
    STREAM("activation", "N=16384 F=4096", "N=37 F=203", .params = "activation=silu dropout_p=0.1 dropout_seed=5",
           .shapes = "x=N F; y=N F"),
    STREAM("activation_backward", "N=16384 F=4096", "N=37 F=203", .params = "activation=silu",
           .shapes = "x=N F; dy=N F; dx=N F"),
    STREAM("layer_norm", "R=8192 D=4096", "R=37 D=403", .give = "residual sum mean rstd"),
    STREAM("layer_norm", "R=131072 D=256", "R=137 D=256", .give = "residual sum mean rstd"),
    STREAM("layer_norm_backward", "R=8192 D=4096", "R=37 D=403", .give = "dresidual", .fill = "rstd=positive"),
    STREAM("layer_norm_backward", "R=131072 D=256", "R=137 D=256", .give = "dresidual", .fill = "rstd=positive"),
    STREAM("rms_norm", "R=16384 X=4096 D=4096", "R=37 X=403 D=403", .give = "rstd"),
    STREAM("rms_norm", "R=262144 X=256 D=256", "R=137 X=256 D=256", .give = "rstd"),
    STREAM("rms_norm_backward", "R=16384 X=4096 D=4096", "R=37 X=403 D=403", .fill = "rstd=positive"),
    STREAM("rms_norm_backward", "R=262144 X=256 D=256", "R=137 X=256 D=256", .fill = "rstd=positive"),
    STREAM("rope", "B=2 S=4096 H=64 D=128", "B=2 S=19 H=3 D=128", .params = "rope_dim=128 style=half"),
    STREAM("mla_pack", "B=1 S=4096 H=32 P=192 W=256 V=128 A=576", "B=2 S=19 H=3 P=192 W=256 V=128 A=576",
           .params = "rope_dim=64 style=interleaved"),
    STREAM("embedding", "B=8 S=2048 V=32000 D=4096 P=2048", "B=2 S=19 V=101 D=403 P=20", .give = "positions",
           .fill = "ids=whole 0 V-1"),
    STREAM("cross_entropy", "N=2048 V=32000", "N=37 V=1003", .give = "row_correct dlogits",
           .params = "grad_scale=0.001", .fill = "labels=labels V"),
    STREAM("moe_dispatch", "N=16384 X=2 D=2048 R=32768", "N=64 X=2 D=203 R=128", .fill = "position=permutation"),
    STREAM("moe_dispatch_backward", "N=16384 X=2 D=2048 R=32768", "N=64 X=2 D=203 R=128",
           .fill = "position=permutation"),
    STREAM("moe_combine", "N=16384 X=2 D=2048 R=32768", "N=64 X=2 D=203 R=128",
           .fill = "position=permutation; weights=uniform 0.1 0.9"),
    STREAM("moe_combine_backward", "N=16384 X=2 D=2048 R=32768", "N=64 X=2 D=203 R=128",
           .fill = "position=permutation; weights=uniform 0.1 0.9"),
    TOPK("4096", "32768", "2048", "8"),
};

const bench_preset bench_preset_memory = {
    .name = "memory", .summary = "operations bound by bandwidth, beyond every cache", CASES(cases)};
