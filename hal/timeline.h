/* timeline.h: what timeline.c (the file) and timeline_layer.c (the layer) share. Not installed. */
#ifndef HAL_TIMELINE_H
#define HAL_TIMELINE_H

#include "hal.h"

/* Lanes of a device. */
enum { TIMELINE_LAUNCHES = 0, TIMELINE_STREAMS = 1 }; /* stream n: lanes 2n - 1, and 2n for waits */

struct timeline_event {
    const char *type; /* "op", ... */
    const char *name; /* as shown; any text */
    uint32_t device;  /* from timeline_add_device; 0: the caller's own spans */
    uint32_t lane;
    uint64_t begin;
    const char *details; /* ,"key":value ... or "" */
};

mh_runtime *timeline_runtime(const mh_timeline *timeline);
/* The device's number. */
uint32_t timeline_add_device(mh_timeline *timeline, const mh_device *device);
void timeline_add_lane(mh_timeline *timeline, uint32_t device, uint32_t lane, const char *name);
/* An event that ends now. */
void timeline_put(mh_timeline *timeline, const struct timeline_event *event);
void timeline_put_memory(mh_timeline *timeline, uint32_t device, uint64_t bytes);
/* `text` as a JSON string with its quotes, cut where `to` is full. */
void timeline_quote(const char *text, char *to, size_t size);

#endif
