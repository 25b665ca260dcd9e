/* Files as one long run of bytes, split into a training and a validation part. */
#ifndef CLDSA_TEXT_H
#define CLDSA_TEXT_H

#include "host/train/data.h"

typedef struct cldsa_text cldsa_text;

cldsa_status cldsa_text_open(const char *const *paths, int num_paths, cldsa_text_split split, cldsa_text **out);
void cldsa_text_close(cldsa_text *text);

/* Bytes of a part. */
uint64_t cldsa_text_size(const cldsa_text *text, bool validation);

/* Copies `count` bytes of a part from `offset`; the range must lie inside. Pieces may cross file borders. */
void cldsa_text_copy(const cldsa_text *text, bool validation, uint64_t offset, size_t count, unsigned char *out);

#endif
