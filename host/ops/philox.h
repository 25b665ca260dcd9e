/* The generator of cl/philox.clh on the host: for references, initialisation and data. See there for the definition. */
#ifndef CLDSA_PHILOX_H
#define CLDSA_PHILOX_H

#include <math.h>
#include <stdint.h>

static inline void cldsa_philox(uint64_t counter, uint32_t stream, uint64_t seed, uint32_t words[4]) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = stream, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 7; ++round) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

/* The word of element e of a stream. */
static inline uint32_t cldsa_philox_element(uint64_t e, uint32_t stream, uint64_t seed) {
    uint32_t words[4];
    cldsa_philox((e >> 6) * 16 + (e & 15), stream, seed, words);
    return words[(e >> 4) & 3];
}

/* Standard normal e of a stream: two per pair of words, by Box and Muller. */
static inline double cldsa_philox_normal(uint64_t e, uint32_t stream, uint64_t seed) {
    uint32_t words[4];
    cldsa_philox(e >> 2, stream, seed, words);
    const uint32_t *pair = words + (e & 2);
    double radius = sqrt(-2.0 * log(((pair[0] >> 8) + 1.0) / 16777216.0));
    double angle = 6.283185307179586 * ((pair[1] >> 8) / 16777216.0);
    return radius * ((e & 1) ? sin(angle) : cos(angle));
}

/* The threshold below which dropout drops: p * 2^32. */
static inline uint32_t cldsa_dropout_threshold(float p) {
    return (uint32_t)((double)p * 4294967296.0);
}

#endif
