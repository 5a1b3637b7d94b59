/* settings.h: the environment, and the same settings by call (virtual.c). */
#ifndef VIRTUAL_NVIDIA_SETTINGS_H
#define VIRTUAL_NVIDIA_SETTINGS_H

#include <stdbool.h>

/* Fills driver's settings and devices. false: a value does not read; standard error says which. */
bool settings_read(void);
bool settings_schedule(const char *text);
bool settings_stream_order(const char *text);
bool settings_start(const char *text);

#endif
