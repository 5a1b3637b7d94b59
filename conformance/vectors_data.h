/* vectors_data.h: files of vectors inside the library. */
#ifndef CONFORMANCE_VECTORS_DATA_H
#define CONFORMANCE_VECTORS_DATA_H

#include <stddef.h>

struct conf_file {
    const unsigned char *data;
    size_t size;
};

struct conf_vectors {
    struct conf_file tensors; /* safetensors */
    struct conf_file spec;    /* JSON: the scalars of each case */
};

struct conf_vectors conf_vectors_ops(void);    /* bit for bit */
struct conf_vectors conf_vectors_router(void); /* transformers' routers: weights within 1e-6 */

#endif
