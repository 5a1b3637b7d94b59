#include "turns.h"

#include <pthread.h>

#include "draw.h"

enum {
    DEVICES = 16,
    NOBODY = -1,
    TURN_NS = 2000,
    LONGEST = 14 /* of a stretch, as a power of two */
};

#define FOUR                                                                                       \
    PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER,                  \
        PTHREAD_COND_INITIALIZER

static struct {
    pthread_mutex_t lock;
    pthread_cond_t come[DEVICES];
    uint32_t sitting, working; /* working: those that stand as well */
    int holder;                /* the device whose turn it is, or that everybody waits for */
    enum vc_order order;
    uint64_t seed;
    _Atomic uint64_t drawn; /* since nobody sat */
    _Atomic uint64_t count;
    uint32_t stretch; /* adversarial: turns left of it, whom it is about, whether it runs */
    unsigned subject;
    bool ahead;
} turns = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = {FOUR, FOUR, FOUR, FOUR}, .holder = NOBODY};

static unsigned nth(uint32_t mask, unsigned n)
{
    while (n--)
        mask &= mask - 1;
    return (unsigned)__builtin_ctz(mask);
}

static unsigned any_of(uint32_t mask)
{
    unsigned count = (unsigned)__builtin_popcount(mask);
    return count == 1 ? nth(mask, 0)
                      : nth(mask, (unsigned)(vc_draw(turns.seed, &turns.drawn) % count));
}

static unsigned adversary(uint32_t mask)
{
    if (!turns.stretch--) {
        uint64_t x = vc_draw(turns.seed, &turns.drawn);
        turns.stretch = 1u << x % LONGEST;
        turns.ahead = x >> 8 & 1;
        turns.subject = nth(mask, (unsigned)((x >> 16) % (unsigned)__builtin_popcount(mask)));
    }
    uint32_t subject = 1u << turns.subject;
    if (turns.ahead)
        return mask & subject ? turns.subject : any_of(mask);
    return any_of(mask & ~subject ? mask & ~subject : mask);
}

/* With the lock held; `last` had the turn before. */
static void choose(unsigned last)
{
    uint32_t mask = turns.sitting, after = mask & ~((2u << last) - 1);
    turns.holder = NOBODY;
    turns.count++;
    if (!mask) {
        turns.drawn = 0;
        turns.stretch = 0;
        return;
    }
    unsigned next = turns.order == VC_ORDER_ROUND_ROBIN ? nth(after ? after : mask, 0)
                    : turns.order == VC_ORDER_RANDOM    ? any_of(mask)
                                                        : adversary(mask);
    turns.holder = (int)next;
    pthread_cond_signal(&turns.come[next]);
}

static void wait_for_turn(unsigned device)
{
    while (turns.holder != (int)device)
        pthread_cond_wait(&turns.come[device], &turns.lock);
}

void vc_turns_sit(unsigned device)
{
    pthread_mutex_lock(&turns.lock);
    turns.working |= 1u << device;
    turns.sitting |= 1u << device;
    pthread_mutex_unlock(&turns.lock);
}

void vc_turns_stand(unsigned device)
{
    pthread_mutex_lock(&turns.lock);
    if (turns.sitting >> device & 1) {
        turns.sitting &= ~(1u << device);
        if (turns.holder == (int)device || !turns.sitting)
            choose(device);
    }
    pthread_mutex_unlock(&turns.lock);
}

void vc_turns_leave(unsigned device)
{
    vc_turns_stand(device);
    pthread_mutex_lock(&turns.lock);
    turns.working &= ~(1u << device);
    pthread_mutex_unlock(&turns.lock);
}

bool vc_turns_alone(unsigned device)
{
    pthread_mutex_lock(&turns.lock);
    bool alone = !((turns.sitting | turns.working) & ~(1u << device));
    pthread_mutex_unlock(&turns.lock);
    return alone;
}

void vc_turns_begin(unsigned device, enum vc_order order, uint64_t seed)
{
    pthread_mutex_lock(&turns.lock);
    turns.sitting |= 1u << device;
    turns.order = order;
    turns.seed = seed;
    if (turns.holder == NOBODY)
        choose(DEVICES - 1);
    wait_for_turn(device);
    pthread_mutex_unlock(&turns.lock);
}

void vc_turns_pass(unsigned device)
{
    pthread_mutex_lock(&turns.lock);
    choose(device);
    wait_for_turn(device);
    pthread_mutex_unlock(&turns.lock);
}

void vc_turns_end(unsigned device)
{
    pthread_mutex_lock(&turns.lock);
    choose(device);
    pthread_mutex_unlock(&turns.lock);
}

uint64_t vc_turns_ns(void)
{
    return turns.count * TURN_NS;
}
