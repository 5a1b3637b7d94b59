/*
 * weight.h: immutable matrices [out, in] and expert banks [experts, out, in] in a format of
 * formats.def. Created, written in pieces, sealed, then used by ops; only whole experts of a bank can
 * be replaced, between uses.
 *
 * Memory is taken at the first piece that needs it, so an unwritten weight costs nothing and serves
 * for questions (mh_device_supports). Threads: any, but the pieces of one weight one at a time.
 */
#ifndef MOEHAL_WEIGHT_H
#define MOEHAL_WEIGHT_H

#include <moehal/device.h>

MH_BEGIN_DECLS

typedef uint32_t mh_format;
enum {
#define MH_FORMAT(value, NAME, name, planes) MH_FORMAT_##NAME = value,
#include <moehal/formats.def>
#undef MH_FORMAT
};

#define MH_MAX_PLANES 4

/* One plane of a format: a unit of `bytes` for each rows x cols block of elements. */
typedef struct mh_plane {
    uint32_t rows;
    uint32_t cols;
    uint32_t bytes;
    uint32_t reserved;
} mh_plane;

MH_API const char *mh_format_name(mh_format format); /* "fp8"; "?" if unknown */
/* Number of planes, each described in planes[]; 0 for an unknown format. */
MH_API uint32_t mh_format_planes(mh_format format, mh_plane planes[MH_MAX_PLANES]);
/* Bytes of all planes of an [out, in] matrix, dense; 0 if unknown or beyond 2^63. */
MH_API uint64_t mh_format_bytes(mh_format format, int64_t out, int64_t in);

typedef struct mh_weight_params {
    uint64_t struct_size;
    mh_format format;
    uint32_t reserved;
    int64_t experts; /* 1: a plain matrix */
    int64_t out;
    int64_t in;
    const char *label; /* copied; shown in errors. May be NULL */
} mh_weight_params;

MH_API mh_status mh_weight_create(mh_device *device, const mh_weight_params *params,
                                  mh_weight **out);
MH_API mh_weight *mh_weight_retain(mh_weight *weight);
MH_API void mh_weight_release(mh_weight *weight); /* NULL is allowed */

enum {
    /* The host memory stays valid and unchanged until the weight is gone: a device on host memory
     * uses it in place when a piece covers whole experts with dense rows. */
    MH_PIECE_STAYS = 1u,
};

/* A range of experts and rows, in host memory of any alignment. Plane p of expert e (counted from
 * expert_begin), unit row r (counted from row_begin) begins at plane[p] + e * expert_stride[p]
 * + r * row_stride[p]; a stride of 0 means dense. row_begin is a multiple of the rows of every
 * plane's block, and so is row_count unless the piece ends with the matrix. */
typedef struct mh_weight_piece {
    uint64_t struct_size;
    uint32_t flags;
    uint32_t reserved;
    int64_t expert_begin, expert_count;
    int64_t row_begin, row_count;
    const void *plane[MH_MAX_PLANES];
    int64_t expert_stride[MH_MAX_PLANES]; /* bytes */
    int64_t row_stride[MH_MAX_PLANES];    /* bytes */
} mh_weight_piece;

/* Writes a piece; the host memory is free again on return, unless MH_PIECE_STAYS. A range may be
 * written again before the seal. */
MH_API mh_status mh_weight_write(mh_weight *weight, const mh_weight_piece *piece);

/* Ends writing. MH_WRONG_STATE, naming the first gap, if a row of an expert was never written. */
MH_API mh_status mh_weight_seal(mh_weight *weight);

/* Writes whole experts of a sealed weight anew, where memory is the device's own: MH_UNSUPPORTED on
 * host memory. No op that uses the weight may be on its way. After a failure the experts' content
 * is undefined until they are replaced again. */
MH_API mh_status mh_weight_replace(mh_weight *weight, const mh_weight_piece *piece);

/* Reads a range back, bit for bit as written, into the piece's planes (cast from const: they are
 * outputs here). Only after the seal. */
MH_API mh_status mh_weight_read(mh_weight *weight, const mh_weight_piece *piece);

typedef struct mh_weight_info {
    uint64_t struct_size;
    mh_format format;
    uint32_t sealed;
    int64_t experts, out, in;
    uint64_t device_bytes; /* taken from the device */
    uint64_t in_place;     /* experts used in the caller's memory */
} mh_weight_info;

MH_API mh_status mh_weight_get_info(mh_weight *weight, mh_weight_info *out);
MH_API mh_device *mh_weight_device(mh_weight *weight); /* borrowed */

MH_END_DECLS

#endif
