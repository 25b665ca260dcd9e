#include "host/ops/host_tensor.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Binary formats below f32: explicit significand bits, least normal exponent, largest value. */
typedef struct narrow_format {
    int bits, min_exponent;
    double largest;
} narrow_format;

static const narrow_format half_format = {10, -14, 65504.0};
static const narrow_format bfloat_format = {7, -126, 3.3895313892515355e38};

/* Distance between neighbours at x. */
static double spacing(const narrow_format *format, double x) {
    int exponent = x == 0 ? format->min_exponent : ilogb(x);
    return ldexp(1, (exponent > format->min_exponent ? exponent : format->min_exponent) - format->bits);
}

static double round_narrow(const narrow_format *format, double x) {
    if (!isfinite(x) || x == 0)
        return x;
    double unit = spacing(format, x), rounded = rint(x / unit) * unit;
    return fabs(rounded) > format->largest ? copysign(INFINITY, x) : rounded;
}

double cldsa_round_to(cldsa_dtype dtype, double x) {
    switch (dtype) {
    case CLDSA_F32:
        return (float)x;
    case CLDSA_F16:
        return round_narrow(&half_format, x);
    case CLDSA_BF16:
        return round_narrow(&bfloat_format, x);
    default:
        return rint(x);
    }
}

/* x is a half's value already. */
static uint16_t half_bits(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double magnitude = fabs(x);
    if (isnan(x))
        return sign | 0x7e00;
    if (isinf(x))
        return sign | 0x7c00;
    if (magnitude < ldexp(1, half_format.min_exponent))
        return sign | (uint16_t)ldexp(magnitude, 24);
    int exponent = ilogb(magnitude);
    return sign | (uint16_t)((exponent + 15) << 10) | (uint16_t)(ldexp(magnitude, 10 - exponent) - 1024);
}

static double half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                       : exponent == 0 ? ldexp(fraction, -24)
                                       : ldexp(fraction + 1024, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* x is a bfloat's value already, so the lower half of the float is zero. */
static uint16_t bfloat_bits(double x) {
    float value = (float)x;
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return isnan(x) ? 0x7fc0 : (uint16_t)(word >> 16);
}

static double bfloat_value(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

void cldsa_pack(cldsa_dtype dtype, const double *values, int64_t n, void *raw) {
    for (int64_t i = 0; i < n; ++i) {
        double x = cldsa_round_to(dtype, values[i]);
        switch (dtype) {
        case CLDSA_F32:
            ((float *)raw)[i] = (float)x;
            break;
        case CLDSA_F16:
            ((uint16_t *)raw)[i] = half_bits(x);
            break;
        case CLDSA_BF16:
            ((uint16_t *)raw)[i] = bfloat_bits(x);
            break;
        case CLDSA_I32:
            ((int32_t *)raw)[i] = (int32_t)x;
            break;
        case CLDSA_U32:
            ((uint32_t *)raw)[i] = (uint32_t)x;
            break;
        default:
            ((uint8_t *)raw)[i] = (uint8_t)x;
        }
    }
}

void cldsa_unpack(cldsa_dtype dtype, const void *raw, int64_t n, double *values) {
    for (int64_t i = 0; i < n; ++i)
        switch (dtype) {
        case CLDSA_F32:
            values[i] = ((const float *)raw)[i];
            break;
        case CLDSA_F16:
            values[i] = half_value(((const uint16_t *)raw)[i]);
            break;
        case CLDSA_BF16:
            values[i] = bfloat_value(((const uint16_t *)raw)[i]);
            break;
        case CLDSA_I32:
            values[i] = ((const int32_t *)raw)[i];
            break;
        case CLDSA_U32:
            values[i] = ((const uint32_t *)raw)[i];
            break;
        default:
            values[i] = ((const uint8_t *)raw)[i];
        }
}

double cldsa_error(const cldsa_op *op, cldsa_dtype dtype, double got, double want, double scale) {
    bool is_float = (CLDSA_ACCEPT(dtype) & CLDSA_ACCEPT_FLOAT) != 0;
    if (is_float)
        want = dtype == CLDSA_F32 && fabs(want) <= FLT_MAX ? want : cldsa_round_to(dtype, want);
    if (isnan(want))
        return isnan(got) ? 0 : INFINITY;
    if (!is_float || isinf(want) || !isfinite(got))
        return got == want ? 0 : INFINITY;
    double allowed = scale * (op->tolerance_abs + op->tolerance_rel * fabs(want));
    /* A narrow result may fall to the other neighbour when the f32 value differs a little: one unit, not half. */
    if (dtype != CLDSA_F32)
        allowed += spacing(dtype == CLDSA_F16 ? &half_format : &bfloat_format, want);
    double error = fabs(got - want);
    return error == 0 ? 0 : error / allowed;
}

int64_t cldsa_host_numel(const cldsa_host_tensor *tensor) {
    int64_t numel = 1;
    for (int i = 0; i < tensor->rank; ++i)
        numel *= tensor->shape[i];
    return numel;
}
