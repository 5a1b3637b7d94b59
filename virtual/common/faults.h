/* faults.h: failures on request.
 *
 * A list of faults, separated by commas, from MOEHAL_VIRTUAL_FAULTS or from a call:
 *
 *   fail:NAME:N[:CODE]  the Nth call of NAME from now on fails, with CODE (or 304, the system's)
 *   oom:BYTES[:DEVICE]  no device (or only DEVICE) has more than BYTES; suffixes K, M, G
 *   ecc:N               an uncorrectable memory error in the Nth launch
 *   lost:N              the device falls off the bus in the Nth launch
 *   hang:N              the Nth launch never ends by itself
 */
#ifndef VIRTUAL_FAULTS_H
#define VIRTUAL_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

struct vc_faults;

enum vc_launch_fault { VC_LAUNCH_FINE, VC_LAUNCH_ECC, VC_LAUNCH_LOST, VC_LAUNCH_HANG };

struct vc_faults *vc_faults_create(void);
void vc_faults_destroy(struct vc_faults *faults);
/* Replaces the list; "" and NULL: none. false and a line in `why` if it does not read, and then
 * nothing is changed. */
bool vc_faults_set(struct vc_faults *faults, const char *list, char why[static 200]);

/* Called once for each call of an entry point. true: this one fails, with *code (-1: not given). */
bool vc_faults_call(struct vc_faults *faults, const char *name, int *code);
/* Called once for each kernel. */
enum vc_launch_fault vc_faults_launch(struct vc_faults *faults);
uint64_t vc_faults_memory(struct vc_faults *faults, unsigned device); /* UINT64_MAX: no limit */

/* "80G" and the like. false: not a number, or out of range. */
bool vc_parse_bytes(const char *text, const char *end, uint64_t *value);

#endif
