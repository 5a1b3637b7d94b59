/* values.h: what the operands of an op case hold. */
#ifndef CONFORMANCE_VALUES_H
#define CONFORMANCE_VALUES_H

#include "build.h"

void conf_fill_operand(struct conf_build *b, struct conf_operand *o);
void conf_fill_weight(struct conf_build *b, struct conf_weight *w);
/* eps, scale, rules, counts. */
void conf_set_scalars(struct conf_build *b);

/* Rounded to nearest even, as bits. */
uint16_t conf_to_bf16(float value);
uint16_t conf_to_f16(float value);

#endif
