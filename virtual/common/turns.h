/* turns.h: devices that take turns, so that one seed repeats what all of them did.
 *
 * A device that has work sits; of those that sit, one at a time has the turn. Who is next is drawn
 * when a turn ends, and everybody waits for it: it comes when it comes, or stands up. So the order
 * of turns depends on the seed and on who had work, not on the machine. */
#ifndef VIRTUAL_TURNS_H
#define VIRTUAL_TURNS_H

#include <stdbool.h>
#include <stdint.h>

/* Adversarial: for stretches of up to some thousand turns one device runs alone, or all but one:
 * a device gets an operation ahead, or is the last by far. */
enum vc_order { VC_ORDER_ROUND_ROBIN, VC_ORDER_RANDOM, VC_ORDER_ADVERSARIAL };

/* May be called again, and by any thread. Who stands has work that cannot go on yet; who leaves has
 * none. */
void vc_turns_sit(unsigned device);
void vc_turns_stand(unsigned device);
void vc_turns_leave(unsigned device);
bool vc_turns_alone(unsigned device); /* whether no other device has work */

/* By the device's thread. begin sits down, and waits for a turn; pass gives it to whoever is next,
 * and waits for another; end gives it away, and stays sitting. */
void vc_turns_begin(unsigned device, enum vc_order order, uint64_t seed);
void vc_turns_pass(unsigned device);
void vc_turns_end(unsigned device);

/* What clocks tell that kernels read: each turn takes a while, however long it takes here. */
uint64_t vc_turns_ns(void);

#endif
