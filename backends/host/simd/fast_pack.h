/* fast_pack.h: what fast_bf16.c does for fast_amx.c as well. */
#ifndef HOST_FAST_PACK_H
#define HOST_FAST_PACK_H

#include "../product.h"

void fast_convert(uint16_t *to, const float *x, int64_t in);
void fast_pack(const struct matrix *m, int64_t begin, int64_t count, char *panel);

#endif
