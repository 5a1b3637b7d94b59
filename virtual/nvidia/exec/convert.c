/* Element-wise handlers of conversions and half precision. */
#define VN_ONE_LOOP
#include "isa.h"

#define E1 DEFINE_E1
#define E2 DEFINE_E2
#define E3 DEFINE_E3
#include "element_half.def"
#include "element_cvt.def"
