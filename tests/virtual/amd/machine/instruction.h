/* instruction.h: one instruction, or a few, on registers that a test fills and reads. And which
 * instructions an oracle has been asked about. */
#ifndef INSTRUCTION_H
#define INSTRUCTION_H

#include "machine_test.h"

enum { LANES = 64, GROUPS = 32, USUAL_MODE = 0x3f0 };

struct instruction {
    char name[64];
    bool scalar; /* of the scalar template: 32 workgroups */
    uint32_t words[12];
    unsigned count;
    uint32_t mode; /* as the register MODE */
};

/* The memory that the templates load from and store to.
 *
 * Vector: v8 to v15 come from v[0..8), VCC and EXEC are set; afterwards v14, v15, VCC and EXEC are
 * stored. Scalar, by workgroup: s[8:15] come from s[g]; SCC is whether s14 is not 0; afterwards
 * s[12:13], SCC and EXEC are stored. v16 on and s20 on are free in both. */
struct registers {
    union {
        struct {
            uint32_t v[8][LANES];
            uint64_t vcc, exec;
        } vector;
        uint64_t scalar[GROUPS][8];
    } * in;
    union {
        struct {
            uint32_t v[2][LANES];
            uint64_t vcc, exec;
        } vector;
        uint64_t scalar[GROUPS][8]; /* the result, SCC, EXEC */
    } * out;
};

/* Takes a line `template KIND WORDS...` of the vectors. */
void instruction_template(const char *line);

/* The registers' memory, for as long as the process runs. */
struct registers *instruction_registers(void);

/* Runs it; false: the launch failed, fault says how. */
bool instruction_run(const struct instruction *instruction, struct va_fault *fault);

/* Of the text that runs: where word k of the instruction is. */
uint64_t instruction_address(const struct instruction *instruction, unsigned k);

/* An oracle has said what `name` gives; `_` and numbers apart, it is the mnemonic of the table. */
void instruction_covered(const char *name);
bool instruction_is_covered(const char *name);

/* Of test_lanes.c. */
void test_across_lanes(void **state);
void test_dpp(void **state);
void test_sdwa(void **state);
void test_swizzle(void **state);
void test_permute(void **state);
void test_moves(void **state);
void test_tables(void **state);
void test_flow(void **state);
void test_relative(void **state);
void test_machine_registers(void **state);
void test_no_effect(void **state);

#endif
